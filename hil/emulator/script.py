"""Commands, answers and URCs of one's own, in a Python file: `Options.script`.

The file has a function `setup(modem)` that uses `modem.script`:

    def setup(modem):
        script = modem.script

        @script.command("AT+FOO=")
        def foo(call):
            return f"+FOO: {call.number(0, 0, 9)}"

        script.answer("AT+CSQ", "+CSQ:7,99")
        script.after(5, urc="+FOO: 1")
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from .clock import Handle
from .recent import Recent

if TYPE_CHECKING:
    from .engine import Call, Modem, Result

log = logging.getLogger(__name__)

Said = "str | Iterable[str] | Result | None"
ScriptHandler = Callable[["Call"], Any]
"""Returns None (OK), a line, several lines, or a `Result`; raises AtError or BadParameter."""


class ScriptError(ValueError):
    """A script that cannot be used."""


class Script:
    """What a user's script changed in one modem."""

    def __init__(self, modem: Modem) -> None:
        self.modem = modem
        self.errors: Recent[str] = Recent(100)
        """What went wrong in the script while it ran, the latest entries."""
        self._handlers: dict[tuple[str, str], ScriptHandler] = {}
        self._timers: set[_Timer] = set()

    # -------------------------------------------------------- for the script

    def command(self, *forms: str) -> Callable[[ScriptHandler], ScriptHandler]:
        """Answer these commands: `AT+FOO` (exec), `AT+FOO?`, `AT+FOO=` (set), `AT+FOO=?`."""

        def enter(handler: ScriptHandler) -> ScriptHandler:
            for form in forms:
                self._handlers[_key(form)] = handler
            return handler

        return enter

    def answer(self, form: str, *lines: str) -> None:
        """Answer a command with these lines, each between CR LF, and OK."""
        self._handlers[_key(form)] = lambda call: lines

    def own(self, call: Call) -> Result | None:
        """Run the model's own handler, as if there were no script."""
        return self.modem.run_own(call)

    def after(
        self, seconds: float, action: Callable[[], object] | None = None, *, urc: str = ""
    ) -> Handle:
        """After so many seconds, raise a URC or call something; a reboot does not stop it."""
        return _Timer(self, seconds, 0.0, self._what(action, urc))

    def every(
        self, seconds: float, action: Callable[[], object] | None = None, *, urc: str = ""
    ) -> Handle:
        """The same again and again; give it up with `cancel()`."""
        if seconds <= 0:
            raise ValueError(f"every({seconds}): allowed: above 0 s")
        return _Timer(self, seconds, seconds, self._what(action, urc))

    def _what(self, action: Callable[[], object] | None, urc: str) -> Callable[[], object]:
        return action or (lambda: self.modem.urc(urc))

    # --------------------------------------------------------- for the modem

    def load(self) -> None:
        """Run the file of `Options.script`, if there is one. Raises ScriptError."""
        path = self.modem.options.script
        if path is None:
            return
        names: dict[str, Any] = {"__name__": "nbiot_script", "__file__": str(path)}
        try:
            exec(_compiled(path), names)
            setup = names.get("setup")
            if not callable(setup):
                raise ScriptError(f"{path}: no function setup(modem)")
            setup(self.modem)
        except ScriptError:
            raise
        except Exception as error:
            raise ScriptError(f"{path}:{_line_in(path, error)}: {_told(error)}") from error

    def close(self) -> None:
        for timer in list(self._timers):
            timer.cancel()

    def __contains__(self, call: Call) -> bool:
        return (call.name, call.form) in self._handlers

    def run(self, call: Call) -> Result | None:
        """Run the script's handler of a command; what it breaks is an ERROR."""
        from .engine import AtError, BadParameter, Result  # the engine needs this module first

        try:
            said = self._handlers[call.name, call.form](call)
            if said is None or isinstance(said, Result):
                return said
            for line in [said] if isinstance(said, str) else list(said):
                self.modem.line(line)
        except (AtError, BadParameter):
            raise
        except Exception as error:
            self.report(f"AT{call.name}", error)
            raise AtError from None
        return None

    def report(self, where: str, error: Exception) -> None:
        """Note an error of the script; the modem lives on."""
        line = _line_in(self.modem.options.script, error)
        text = f"script, line {line}, in {where}: {_told(error)}"
        self.errors.append(text)
        log.error("%s", text)

    def timers(self) -> set[_Timer]:
        return self._timers


class _Timer:
    """One entry of the schedule."""

    def __init__(
        self, script: Script, first: float, again: float, action: Callable[[], object]
    ) -> None:
        self._script, self._again, self._action = script, again, action
        script.timers().add(self)
        self._start(first)

    def _start(self, seconds: float) -> None:
        modem = self._script.modem
        self._handle = modem.clock.call_later(seconds / modem.options.speed, self._fire)

    def _fire(self) -> None:
        if self._again:
            self._start(self._again)
        else:
            self._script.timers().discard(self)
        try:
            self._action()
        except Exception as error:
            self._script.report("its schedule", error)

    def cancel(self) -> None:
        self._script.timers().discard(self)
        self._handle.cancel()


def _key(form: str) -> tuple[str, str]:
    """`AT+FOO=` -> (`+FOO`, `set`)."""
    text = form.upper().removeprefix("AT")
    for suffix, kind in (("=?", "test"), ("?", "read"), ("=", "set")):
        if text.endswith(suffix):
            return text.removesuffix(suffix), kind
    return text, "exec"


def _compiled(path: Path) -> CodeType:
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ScriptError(f"{path}:{line}: {error}") from None


def _line_in(path: Path | None, error: BaseException) -> int:
    """The innermost line of the script that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return (lines[-1] if lines else 0) or 0


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"

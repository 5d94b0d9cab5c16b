"""A headless Chromium, driven over the DevTools protocol through a pair of pipes.

No further package is needed: messages are JSON with a NUL at the end, in on descriptor 3 and out
on 4 of the browser. One browser serves a whole test session; each test gets a context of its own:
cookies and cache are not shared.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

PATIENCE = 30.0
"""s; a machine with other work may take its time."""
POLL = 0.05
"""s between two looks at a page: each makes the browser lay it out."""


_WHERE = """
(selector) => {
  const element = document.querySelector(selector);
  if (!element) return null;
  element.scrollIntoView({block: "nearest"});
  const r = element.getBoundingClientRect();
  return r.width && {x: r.x + r.width / 2, y: r.y + r.height / 2};
}
"""
_MARK = """
(selector, text) => {
  const found = [...document.querySelectorAll(selector)].find(
    (e) => e.checkVisibility() && e.innerText.trim() === text);
  if (!found) return false;
  for (const old of document.querySelectorAll("[data-clicked-by-test]"))
    old.removeAttribute("data-clicked-by-test");
  found.setAttribute("data-clicked-by-test", "");
  return true;
}
"""


class Failed(AssertionError):
    """The page did not do what was waited for, or threw an error."""


class Browser:
    """The process. Its methods block: tests of pages need no event loop of their own."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="nbiot-chromium-")
        ours_in, its_out = os.pipe()
        its_in, ours_out = os.pipe()
        self._pid = _spawn(program, self._folder, its_in, its_out)
        os.close(its_in)
        os.close(its_out)
        self._in = os.fdopen(ours_in, "rb")
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._ids = itertools.count(1)
        self._news = threading.Condition()
        self._answers: dict[int, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Ask for something, and wait for the answer."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        with self._news:
            if not self._news.wait_for(lambda: number in self._answers, PATIENCE):
                raise Failed(f"Chromium did not answer {method}")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']}")
        return answer["result"]

    def page(self) -> Page:
        """A tab."""
        return Page(self)

    def close(self) -> None:
        """End the process."""
        self._out.close()  # Chromium leaves when the pipe does
        end = time.monotonic() + PATIENCE
        while not os.waitpid(self._pid, os.WNOHANG)[0]:
            if time.monotonic() > end:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.02)
        self._reader.join()
        self._in.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                more = os.read(self._in.fileno(), 1 << 16)
            except (OSError, ValueError):
                return
            if not more:
                return
            *messages, buffer = (buffer + more).split(b"\0")
            with self._news:
                for text in messages:
                    message = json.loads(text)
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self.events.append(message)
                self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Page:
    """A tab. ``reset`` makes it as good as new for the next test: faster than a new one."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._size: tuple[int, int, bool] | None = None
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def reset(self, language: str = "en") -> None:
        """Forget cookies and complaints, speak this language. The page should be empty."""
        self.call("Network.clearBrowserCookies")
        self.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
        self.call("Emulation.setEmulatedVisionDeficiency", type="none")
        self._browser.events.clear()

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """The window, in CSS pixels."""
        if self._size == (width, height, phone):  # the same once more costs as much as another
            return
        self._size = (width, height, phone)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded and its scripts ran."""
        self.call("Runtime.evaluate", expression="window.left = true")
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise Failed(f"{url}: {answer['errorText']}")
        self.until("document.readyState === 'complete' && !window.left")

    def js(self, expression: str) -> Any:
        """The value of an expression."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise Failed(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Wait until the expression is true; returns its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                found = self.js(expression)
            except Failed:  # the page was left meanwhile
                found = None
            if found not in (None, False, 0, ""):  # an element comes as {}
                return found
            if time.monotonic() > end:
                text = self.js("document.body.innerText")
                raise Failed(f"waited in vain for {expression}; the page says:\n{text}")
            time.sleep(POLL)

    def text(self, selector: str = "body") -> str:
        """What is to be read there."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """A real click, with the mouse, on what is on top there."""
        where = self.until(f"({_WHERE})({json.dumps(selector)})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def click_text(self, text: str, within: str = "body") -> None:
        """A click on the button or link with this text."""
        among = ", ".join(f"{within} {kind}" for kind in ("button", "a", "label"))
        self.until(f"({_MARK})({json.dumps(among)}, {json.dumps(text)})")
        self.click("[data-clicked-by-test]")

    def type(self, text: str, *, enter: bool = False) -> None:
        """Keys, as a person or a scanner presses them; nothing is focused first."""
        for character in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=character)
        if enter:
            self.press("Enter")

    def press(self, key: str) -> None:
        """A key that writes nothing: Enter, Tab, Escape."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27}
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=codes[key], **more,
            )  # fmt: skip

    def screenshot(self, file: Path | None = None) -> bytes:
        """A PNG of what can be seen."""
        picture = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if file is not None:
            file.write_bytes(picture)
        return picture

    def problems(self) -> list[str]:
        """What the browser complained of: errors of scripts, what the CSP stopped."""
        found = []
        for event in list(self._browser.events):
            if event.get("sessionId") != self._session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                thrown = event["params"]["exceptionDetails"]
                found.append(thrown.get("exception", {}).get("description", thrown["text"])[:300])
            elif event["method"] == "Log.entryAdded":
                entry = event["params"]["entry"]
                if entry["level"] == "error":
                    found.append(f"{entry['text']} {entry.get('url', '')}")
        return found


def program() -> str | None:
    """Where Chromium is."""
    return shutil.which("chromium")


def _spawn(program: str, folder: str, read: int, write: int) -> int:
    """Start it with ``read`` as descriptor 3 and ``write`` as 4; returns its process id."""
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
        # One process for all that is shown: a new one for each page costs more than the page.
        "--renderer-process-limit=1", "--disable-site-isolation-trials",
        "--disable-features=site-per-process,OptimizationHints,Translate,MediaRouter,Prerender2",
        "--disable-client-side-phishing-detection", "--disable-default-apps",
        "--metrics-recording-only", "--password-store=basic",
        "--force-color-profile=srgb", f"--user-data-dir={folder}", "about:blank",
    )  # fmt: skip
    # From beyond 4, so that neither is in the other's way.
    read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read, write))
    try:
        return os.posix_spawn(
            program, [program, *options], os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read, 3),
                (os.POSIX_SPAWN_DUP2, write, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )  # fmt: skip
    finally:
        os.close(read)
        os.close(write)

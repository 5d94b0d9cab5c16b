"""Commands, answers and URCs of a user's own."""

from __future__ import annotations

import logging
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from hil.emulator import ScriptError
from tests.emulator.conftest import Bench


@pytest.fixture
def scripted(make_bench: Any, tmp_path: Path) -> Any:
    def make(text: str, model: str = "bc95", **options: Any) -> Bench:
        path = tmp_path / "mine.py"
        path.write_text(dedent(text))
        bench: Bench = make_bench(model, script=path, **options)
        return bench

    return make


def test_a_script_adds_a_command(scripted: Any) -> None:
    bench = scripted("""
        from hil.emulator import AtError

        def setup(modem):
            script = modem.script
            level = [0]

            @script.command("AT+FOO=")
            def set_foo(call):
                level[0] = call.number(0, 0, 9)

            @script.command("AT+FOO?", "AT+FOO")
            def read_foo(call):
                return f"+FOO:{level[0]}"

            @script.command("AT+FOO=?")
            def test_foo(call):
                return ["+FOO:(0-9)", "+FOO:more"]

            @script.command("AT+BAR")
            def bar(call):
                raise AtError(30)
    """)
    bench.ask("AT+CMEE=1")
    assert bench.lines("AT+FOO=7") == ["OK"]
    assert bench.lines("AT+FOO?") == bench.lines("at+foo") == ["+FOO:7", "OK"]
    assert bench.lines("AT+FOO=?") == ["+FOO:(0-9)", "+FOO:more", "OK"]
    assert bench.lines("AT+FOO=10") == ["+CME ERROR: 50"]
    assert bench.lines("AT+BAR") == ["+CME ERROR: 30"]
    assert bench.lines("AT+BAZ") == ["ERROR"]


def test_a_script_changes_an_answer_and_may_ask_the_model(scripted: Any) -> None:
    bench = scripted("""
        def setup(modem):
            modem.script.answer("AT+CSQ", "+CSQ:7,99")

            @modem.script.command("AT+CGMI")
            def cgmi(call):
                modem.script.own(call)
                return "and friends"
    """)
    assert bench.lines("AT+CSQ") == ["+CSQ:7,99", "OK"]
    assert bench.lines("AT+CGMI") == ["Quectel", "and friends", "OK"]


def test_urcs_come_on_schedule_through_a_reboot(scripted: Any) -> None:
    bench = scripted("""
        def setup(modem):
            modem.script.after(5, urc="+ONCE")
            modem.script.every(20, urc="+TICK")
    """)
    assert (bench.wait(4.9), bench.wait(0.2)) == (b"", b"\r\n+ONCE\r\n")
    bench.modem.reboot()
    assert bench.wait(60).count(b"+TICK") == 3


def test_a_script_can_use_the_modem(scripted: Any) -> None:
    bench = scripted("""
        def setup(modem):
            modem.script.after(3, lambda: modem.power_cycle(1))
    """)
    assert b"Neul" in bench.wait(10)


def test_an_error_in_a_handler_is_reported_and_the_modem_lives(scripted: Any, caplog: Any) -> None:
    bench = scripted("""
        def setup(modem):
            @modem.script.command("AT+FOO")
            def foo(call):
                return 1 / 0

            modem.script.after(1, lambda: {}["x"])
    """)
    with caplog.at_level(logging.ERROR):
        assert bench.lines("AT+FOO") == ["ERROR"]
        bench.wait(2)
    first, second = bench.modem.script.errors
    assert first == "script, line 5, in AT+FOO: ZeroDivisionError: division by zero"
    assert second == "script, line 7, in its schedule: KeyError: 'x'"
    assert caplog.messages == [first, second]
    assert bench.lines("AT") == ["OK"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def setup(modem)\n    pass\n", "mine.py:1: "),
        ("x = 1\n", "mine.py: no function setup(modem)"),
        ("def setup(modem):\n    modem.nonsense()\n", "mine.py:2: AttributeError: "),
        ("import nothing_like_this\n", "mine.py:1: ModuleNotFoundError: "),
    ],
)
def test_a_script_that_cannot_start_is_refused(scripted: Any, text: str, told: str) -> None:
    with pytest.raises(ScriptError) as caught:
        scripted(text)
    assert told in str(caught.value)


def test_a_script_that_is_not_there_is_refused(make_bench: Any, tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"gone\.py: cannot be read: No such file"):
        make_bench("bc95", script=tmp_path / "gone.py")

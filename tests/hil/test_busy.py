"""A modem that refuses lines while a command runs: its refusal is no result of that command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hil.emulator import ManualClock, Modem, Options, create
from hil.faults import with_faults

REFUSED = b"\r\n+CME ERROR: 51\r\n"
Make = Callable[[str], tuple[Modem, ManualClock, bytearray]]


@pytest.fixture
def make() -> Iterator[Make]:
    """A modem with a fault, its clock, and what it writes."""
    made: list[Modem] = []

    def make(fault: str) -> tuple[Modem, ManualClock, bytearray]:
        options = Options(attached=True, turnaround=0.02, busy="error", cmee=1)
        clock, out = ManualClock(), bytearray()
        options = with_faults([fault], options, model="bc95")
        made.append(create("bc95", options, send=out.extend, clock=clock))
        return made[-1], clock, out

    yield make
    for modem in made:
        modem.close()


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("missing-final:at=1", b"\r\nQuectel\r\n"),
        ("double-final:at=1", b"\r\nQuectel\r\n\r\nOK\r\n\r\nOK\r\n"),
        ("no-answer:at=1", b""),
        ("late-answer:at=1", b"\r\nQuectel\r\n\r\nOK\r\n"),
    ],
)
def test_a_fault_of_the_running_command_leaves_the_refusal(
    make: Make, fault: str, left: bytes
) -> None:
    modem, clock, out = make(f"{fault},probability=1")
    modem.receive(b"AT+CGMI\r")
    modem.receive(b"AT\r")
    assert out == REFUSED, "the fault took the refusal for an answer of the command that runs"
    out.clear()
    clock.advance(10.0)
    assert out == left
    assert len(modem.faults.log) == (2 if left == b"" else 1)


def test_a_refusal_that_is_damaged_damages_no_other_answer(make: Make) -> None:
    modem, clock, out = make("byte-loss:at=1,probability=1,count=1")
    modem.receive(b"AT+CGMI\r")
    modem.receive(b"AT\r")
    assert len(out) < len(REFUSED)
    out.clear()
    clock.advance(10.0)
    assert out == b"\r\nQuectel\r\n\r\nOK\r\n"
    (command,) = modem.truth.commands
    assert (command.finals, command.damaged) == (["OK"], False)

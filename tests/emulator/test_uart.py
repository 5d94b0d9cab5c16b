"""What a UART at another rate hears."""

from __future__ import annotations

import pytest

from hil.emulator.uart import MOST, garbled

RATES = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)


@pytest.mark.parametrize("rate", RATES)
def test_the_same_rate_changes_nothing(rate: int) -> None:
    assert garbled(b"AT+CSQ\r", rate, rate) == b"AT+CSQ\r"
    assert garbled(b"AT+CSQ\r", rate, rate + rate // 50) == b"AT+CSQ\r"


@pytest.mark.parametrize("sent", RATES)
@pytest.mark.parametrize("heard", RATES)
def test_no_command_and_no_answer_comes_through(sent: int, heard: int) -> None:
    if sent == heard:
        return
    for text in (b"AT\r", b"AT+CSQ\r", b"\r\nOK\r\n", b"\r\nERROR\r\n"):
        noise = garbled(text, sent, heard)
        assert noise == garbled(text, sent, heard)
        assert text.strip() not in noise


def test_a_slower_listener_hears_fewer_bytes_a_faster_one_more() -> None:
    text = b"\r\n+CGMR:V100R100C10B657SP3\r\n"
    assert len(garbled(text, 115200, 9600)) < len(text) < len(garbled(text, 9600, 115200))


def test_a_flood_stays_small() -> None:
    assert len(garbled(b"\x55" * 100_000, 1200, 921600)) <= MOST

"""Pulses on the pins, on a hand-turned clock."""

from __future__ import annotations

from typing import Any

import pytest

from hil.emulator import Network, State


@pytest.mark.parametrize(("model", "shortest"), [("bc95", 0.1), ("bc66", 0.05)])
def test_reset_counts_only_when_it_is_long_enough(
    make_bench: Any, model: str, shortest: float
) -> None:
    bench = make_bench(model)
    pins = bench.modem.pins
    pins.pull("reset", True)
    bench.wait(shortest * 0.9)
    pins.pull("reset", False)
    bench.wait(10)
    assert bench.modem.counters.restarts == 0
    assert "OK" in bench.lines("AT")
    pins.pull("reset", True)
    assert bench.ask("AT", 30) in (b"", b"AT\r\r\nOK\r\n", b"\r\nOK\r\n")  # before it counted
    assert bench.ask("AT") == b""
    pins.pull("reset", False)
    assert (b"Neul" if model == "bc95" else b"BROM") in bench.wait(10)


def test_a_pulse_of_100_ms_on_psm_eint_ends_deep_sleep(make_bench: Any) -> None:
    network = Network(rrc_idle=1, active_time=1)
    bench = make_bench("bc66", network, sleep=True, echo=False)
    bench.ask("AT+QSCLK=1")
    bench.modem.radio.activity()
    bench.wait(60)
    assert bench.modem.state is State.ASLEEP
    assert bench.ask("AT", 1) == bench.ask("AT", 1) == b""  # the UART alone does not wake it
    for seconds, state in ((0.09, State.ASLEEP), (0.1, State.READY)):
        bench.modem.pins.pull("psm_eint", True)
        bench.wait(seconds)
        bench.modem.pins.pull("psm_eint", False)
        assert bench.modem.state is state


def test_pwrkey_switches_on_and_the_supply_off(make_bench: Any) -> None:
    bench = make_bench("bc66", boot="off", echo=False)
    pins = bench.modem.pins
    assert bench.ask("AT", 10) == b""
    pins.pull("pwrkey", True)
    assert bench.wait(0.4) == b""
    assert b"BROM" in bench.wait(1)
    pins.pull("pwrkey", False)
    bench.wait(5)
    assert "OK" in bench.lines("AT")
    pins.pull("power", True)  # it was on already
    pins.pull("power", False)
    assert bench.modem.state is State.OFF


def test_speed_makes_pulses_shorter(make_bench: Any) -> None:
    bench = make_bench("bc95", speed=10)
    bench.modem.pins.pull("reset", True)
    bench.wait(0.011)
    assert not bench.modem.powered

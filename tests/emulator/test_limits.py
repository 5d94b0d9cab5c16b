"""What a modem keeps for its host is bounded, and a few facts about boots and rates."""

from __future__ import annotations

from typing import Any

from tests.emulator.conftest import PEER


def test_nmgr_keeps_so_many_messages_and_counts_the_others(make_bench: Any) -> None:
    bench = make_bench("bc95")
    for number in range(11):
        bench.modem.platform_message(bytes((number,)))
    assert bench.lines("AT+NQMGR")[0] == "BUFFERED=8,RECEIVED=11,DROPPED=3"
    assert [bench.lines("AT+NMGR")[0] for _ in range(8)] == [f"1,{n:02X}" for n in range(8)]
    assert bench.lines("AT+NMGR") == ["OK"]


def test_qird_has_so_much_room(make_bench: Any) -> None:
    bench = make_bench("bc66", echo=False)
    bench.ask(f'AT+QIOPEN=1,0,"UDP","{PEER[0]}",{PEER[1]},0,0', 1)
    for number in range(12):
        bench.wire.inject(bytes((65 + number,)) * 1000, PEER)
    bench.wait(1)
    read = b"".join(bench.ask("AT+QIRD=0,1024") for _ in range(12))
    assert read.count(b"+QIRD: 1000\r\n") == 8
    assert b"H" * 1000 in read
    assert b"I" not in read.replace(b"QIRD", b"")
    bench.wire.inject(b"there is room again", PEER)
    bench.wait(1)
    assert b"there is room again" in bench.ask("AT+QIRD=0,1024")


def test_the_reset_pin_is_a_cause_on_v150_only(make_bench: Any) -> None:
    told = {}
    for model in ("bc95", "bc28"):
        bench = make_bench(model, autoconnect=False)
        bench.modem.reset()
        told[model] = bench.wait(10)
    assert b"REBOOT_CAUSE" not in told["bc95"]
    assert b"\r\nREBOOT_CAUSE_SECURITY_RESET_PIN\r\n" in told["bc28"]


def test_natspeed_stays_when_a_command_is_understood_though_few_are_remembered(
    make_bench: Any,
) -> None:
    bench = make_bench("bc95", keep=1)
    for _ in range(5):
        bench.ask("AT")
    bench.ask("AT+NATSPEED=57600,3,1,2,1")
    bench.ask("AT")
    bench.wait(5)
    assert bench.modem.rate == 57600
    bench.ask("AT+NATSPEED=115200,3,1,2,1")
    bench.wait(5)
    assert bench.modem.rate == 57600


def test_a_bc66_listens_for_any_rate_until_one_is_set(make_bench: Any) -> None:
    bench = make_bench("bc66", echo=False)
    assert bench.modem.rate is None
    bench.modem.rate = 9600  # as the port does at the first AT
    bench.ask("AT&W")
    assert bench.lines("AT+IPR?")[0] == "+IPR: 0"
    bench.modem.power_cycle()
    bench.wait(10)
    assert bench.modem.rate is None
    bench.ask("AT+IPR=57600")
    bench.modem.power_cycle()
    bench.wait(10)
    assert bench.modem.rate == 57600

"""Days of work must not fill the memory."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from hil.emulator import Recent
from tests.emulator.conftest import PEER, Bench


def test_a_recent_list_keeps_the_latest_and_counts_all() -> None:
    recent: Recent[int] = Recent(100)
    for number in range(1000):
        recent.append(number)
    assert recent[-3:] == [997, 998, 999]
    assert 100 <= len(recent) <= 125
    assert recent.total == 1000
    assert recent == list(range(1000))[-len(recent) :]


def work(bench: Bench, rounds: int) -> None:
    for _ in range(rounds):
        bench.ask("AT+CSQ")
        bench.ask(f"AT+NSOST=0,{PEER[0]},{PEER[1]},2,AABB")
        bench.wait(1)
        bench.ask("AT+NSORF=0,512")


def test_the_lists_are_bounded_and_the_counters_are_not(make_bench: Any) -> None:
    bench = make_bench("bc95", keep=50, urc_seed=1)
    bench.echo_peer()
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    work(bench, 500)
    counters, truth = bench.modem.counters, bench.modem.truth
    assert len(counters.commands) <= 63
    assert len(truth.events) <= 63
    assert len(bench.modem.injected_urcs) <= 63
    assert counters.lines == counters.understood == 1501
    assert counters.datagrams == dict.fromkeys(("sent", "passed", "came", "received"), 500)
    assert counters.urcs >= 500
    assert truth.commands[-1].line == "AT+NSORF=0,512"


@pytest.mark.unhygienic
def test_memory_does_not_grow_with_time(make_bench: Any) -> None:
    bench = make_bench("bc95", keep=100)
    bench.echo_peer()
    bench.wire.sent.limit = 100
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    work(bench, 200)
    gc.collect()
    tracemalloc.start()
    try:
        work(bench, 50)
        before = tracemalloc.get_traced_memory()[0]
        work(bench, 500)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 60_000


def test_a_flood_while_a_command_runs_is_cut(make_bench: Any) -> None:
    bench = make_bench("bc95", attached=False, autoconnect=False)
    bench.ask("AT+CFUN=1")  # takes half a second
    for _ in range(100):
        bench.ask(b"AT+CSQ\r" * 1000)
    assert bench.modem.counters.lost_bytes > 600_000
    bench.wait(5)
    assert bench.lines("AT")[-1] in ("OK", "ERROR")  # the cut may have left half a line
    assert bench.lines("AT") == ["OK"]

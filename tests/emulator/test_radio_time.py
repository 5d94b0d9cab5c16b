"""What the network does in the course of time, on a hand-turned clock."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from hil.emulator import Air, Cell, Network, Registration
from tests.emulator.conftest import PEER, Bench


def cell(**values: Any) -> Cell:
    given = {"earfcn": 2509, "pci": 226, "cell_id": 1, "tac": 0x11, "band": 8} | values
    return Cell(**given)


def send(bench: Bench, data: str = "AA") -> None:
    bench.ask(f"AT+NSOST=0,{PEER[0]},{PEER[1]},1,{data}")


@pytest.fixture
def sockets(make_bench: Any) -> Any:
    def make(network: Network) -> Bench:
        bench: Bench = make_bench("bc95", network)
        bench.ask("AT+NSOCR=DGRAM,17,0,1")
        return bench

    return make


# ------------------------------------------------------------- cells, signal


def test_the_signal_follows_its_course(make_bench: Any) -> None:
    network = Network(cells=[cell(course=[(0, -80, 20), (60, -115, -3)])])
    bench = make_bench("bc95", network)
    assert "Signal power:-800" in bench.lines("AT+NUESTATS")
    bench.wait(60)
    stats = bench.lines("AT+NUESTATS")
    assert {"Signal power:-1150", "SNR:-30", "ECL:1"} <= set(stats)


def test_the_strongest_cell_serves_and_the_other_is_a_neighbour(make_bench: Any) -> None:
    network = Network(
        cells=[cell(course=[(0, -80, 20), (60, -110, 0)]), cell(pci=51, tac=0x22, rsrp=-95)]
    )
    bench = make_bench("bc95", network)
    bench.ask("AT+CEREG=2")
    assert bench.lines("AT+CEREG?")[0] == "+CEREG:2,1,0011,00000001,9"
    bench.wait(60)
    assert "PCI:51" in bench.lines("AT+NUESTATS")
    assert bench.lines("AT+CEREG?")[0] == "+CEREG:2,1,0022,00000001,9"
    assert [neighbour.pci for neighbour in bench.network.neighbours] == [226]


def test_coverage_is_lost_and_comes_back(make_bench: Any) -> None:
    course = [(0.0, -80.0, 20.0), (60.0, -150.0, -20.0), (120.0, -90.0, 10.0)]
    bench = make_bench("bc95", Network(cells=[cell(course=course)], attach_delay=2))
    bench.ask("AT+CEREG=1")
    assert b"+CEREG:2" in bench.wait(61)
    assert bench.lines("AT+CSQ")[0] == "+CSQ:99,99"
    assert b"+CEREG:1" in bench.wait(62)


def test_time_can_run_in_circles(make_bench: Any) -> None:
    network = Network(cells=[cell(course=[(0, -80, 20), (7, -100, 5)])], repeat=10.1)
    bench = make_bench("bc95", network)
    for lap in range(50):
        assert network.cells[0].rsrp == -80, lap
        bench.wait(8)
        assert network.cells[0].rsrp == -100, lap
        bench.wait(2.1001)


def test_a_modem_finds_only_cells_of_its_bands(make_bench: Any) -> None:
    bench = make_bench("bc95-g", Network(cells=[cell(band=20)]), attached=False, bands=(8,))
    bench.ask("AT+CFUN=1", 5)
    bench.ask("AT+CGATT=1", 30)
    assert bench.lines("AT+CGATT?")[0] == "+CGATT:0"
    bench.ask("AT+CFUN=0", 1)
    bench.ask("AT+NBAND=8,20")
    bench.ask("AT+CFUN=1", 5)
    bench.ask("AT+CGATT=1", 30)
    assert bench.lines("AT+CGATT?")[0] == "+CGATT:1"


# -------------------------------------------------------------- registration


def test_registration_is_denied_for_a_time(make_bench: Any) -> None:
    entries = [Registration(at=0, stat="denied", cause=22), Registration(at=100, stat=5)]
    bench = make_bench("bc95", Network(registrations=entries), attached=False, autoconnect=False)
    bench.ask("AT+CEREG=3")
    bench.ask("AT+CFUN=1", 5)
    assert b"+CEREG:3,7871,0D09F951,9,0,22" in bench.ask("AT+CGATT=1", 10)
    bench.wait(120)
    assert bench.lines("AT+CEREG?")[0].startswith("+CEREG:3,5,")


def test_the_attach_takes_between_its_limits(make_bench: Any) -> None:
    took = set()
    for seed in range(5):
        network = Network(seed=seed, attach_delay=2, attach_spread=4)
        bench = make_bench("bc95", network, attached=False, autoconnect=False)
        bench.ask("AT+CFUN=1", 5)
        bench.ask("AT+CGATT=1")
        began = bench.clock.time()
        while not bench.modem.radio.attached:
            bench.wait(0.1)
        took.add(round(bench.clock.time() - began, 1))
    assert all(2 <= seconds <= 6.1 for seconds in took)
    assert len(took) > 1


def test_each_attach_gets_another_address(make_bench: Any) -> None:
    network = Network(addresses=IPv4Network("10.1.0.0/29"), attach_delay=1)
    bench = make_bench("bc95", network)
    seen = [bench.modem.radio.address]
    for _ in range(6):
        bench.ask("AT+CGATT=0")
        bench.ask("AT+CGATT=1", 5)
        seen.append(bench.modem.radio.address)
    assert seen == [f"10.1.0.{number}" for number in (1, 2, 3, 4, 5, 6, 1)]


# ----------------------------------------------------------------------- air


def test_latency_and_jitter_keep_the_order(sockets: Any) -> None:
    bench = sockets(Network(up=Air(latency=1.0, jitter=3.0), uplink_queue=20))
    for number in range(8):
        send(bench, f"{number:02X}")
    bench.wait(0.9)
    assert bench.wire.sent == []
    bench.wait(3.2)
    assert [data[0] for _, data in bench.wire.sent] == list(range(8))


@pytest.mark.parametrize("way", ["up", "down"])
def test_loss_is_a_matter_of_chance_and_of_the_seed(sockets: Any, way: str) -> None:
    def survivors(seed: int) -> list[int]:
        bench = sockets(Network(seed=seed, **{way: Air(loss=0.5)}))
        bench.echo_peer()
        for number in range(40):
            send(bench, f"{number:02X}")
            bench.wait(1)
            bench.ask("AT+NSORF=0,9")
        return [data[0] for data in bench.modem.truth.traffic("received")]

    first = survivors(1)
    assert 8 < len(first) < 32
    assert first == survivors(1) != survivors(2)


def test_duplicates_arrive_twice(sockets: Any) -> None:
    bench = sockets(Network(down=Air(duplicate=1.0)))
    bench.echo_peer()
    send(bench)
    bench.wait(1)
    assert bench.modem.truth.traffic("received") == [b"\xaa", b"\xaa"]


def test_what_is_held_back_comes_after_the_next(sockets: Any) -> None:
    network = Network(up=Air(reorder=1.0, hold=5.0))
    bench = sockets(network)
    send(bench, "01")
    bench.wait(1)
    network.up.reorder = 0.0
    send(bench, "02")
    bench.wait(10)
    assert [data for _, data in bench.wire.sent] == [b"\2", b"\1"]


# ---------------------------------------------------------------- power saving


def test_downlink_in_power_saving_is_lost(sockets: Any) -> None:
    bench = sockets(Network(rrc_idle=10, active_time=20))
    send(bench)
    bench.wait(25)  # idle, but not asleep
    bench.wire.inject(b"\1", PEER)
    bench.wait(1)
    bench.wait(40)
    assert bench.modem.radio.psm
    bench.wire.inject(b"\2", PEER)
    bench.wait(100)
    assert bench.modem.truth.traffic("received") == [b"\1"]


def test_the_network_may_keep_some_until_the_modem_wakes(sockets: Any) -> None:
    bench = sockets(Network(rrc_idle=10, active_time=20, buffer=2))
    send(bench)
    bench.wait(40)
    for number in range(4):
        bench.wire.inject(bytes([number]), PEER)
    bench.wait(100)
    assert bench.modem.truth.traffic("received") == []
    send(bench)
    bench.wait(1)
    assert bench.modem.truth.traffic("received") == [b"\0", b"\1"]


def test_t3412_wakes_the_modem_again_and_again(sockets: Any) -> None:
    bench = sockets(Network(rrc_idle=10, active_time=20, tau=600))
    bench.ask("AT+NPSMR=1")
    send(bench)
    urcs = bench.wait(11 + 600 * 3).decode().split()
    assert [text for text in urcs if "NPSMR" in text] == ["+NPSMR:1", "+NPSMR:0"] * 2 + ["+NPSMR:1"]


def test_with_edrx_downlink_waits_for_the_next_window(sockets: Any) -> None:
    bench = sockets(Network(rrc_idle=10, edrx_cycle=20.48, paging_window=2.56))
    send(bench)
    bench.wait(10 + 2)  # idle since 2 s: still listening
    bench.wire.inject(b"\1", PEER)
    bench.wait(0.1)
    assert bench.modem.truth.traffic("received") == [b"\1"]
    bench.wait(10 + 5)  # idle since 5 s: the window is closed
    bench.wire.inject(b"\2", PEER)
    bench.wait(15)
    assert bench.modem.truth.traffic("received") == [b"\1"]
    bench.wait(0.6)
    assert bench.modem.truth.traffic("received") == [b"\1", b"\2"]


# ------------------------------------------------------------------------ NAT


def test_the_nat_forgets_an_idle_socket(sockets: Any) -> None:
    bench = sockets(Network(nat_timeout=60))
    send(bench)
    bench.wait(1)
    first = bench.wire.endpoints[0]
    bench.wait(50)
    first.deliver(b"\1", PEER)
    bench.wait(61)
    first.deliver(b"\2", PEER)  # the binding is gone
    bench.wait(1)
    assert bench.modem.truth.traffic("came") == [b"\1"]
    send(bench)
    bench.wait(1)
    assert bench.wire.endpoints[0] is not first
    bench.wire.inject(b"\3", PEER)
    bench.wait(1)
    assert bench.modem.truth.traffic("came") == [b"\1", b"\3"]

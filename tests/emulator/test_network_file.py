"""Networks in TOML: what they mean, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hil.emulator import BadNetwork, Network
from hil.emulator.netfile import T3324_UNITS, T3412_UNITS, timer_bits

EXAMPLE = Path(__file__).parents[2] / "docs" / "emulator-network.toml"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str) -> Network:
        path = tmp_path / "net.toml"
        path.write_text(text, encoding="utf-8")
        return Network.from_toml(path)

    return load


def test_the_example_of_the_documentation_works() -> None:
    network = Network.from_toml(EXAMPLE)
    assert [cell.pci for cell in network.cells] == [226, 51]
    assert (network.active_time, network.t3324) == (20.0, "00001010")
    assert (network.tau, network.t3412) == (3600.0, "00000110")
    assert (network.edrx_cycle, network.edrx) == (20.48, "0010")
    assert (network.up.loss, network.down.loss) == (0.01, 0.02)
    assert network.dns == {"iot.example": "192.0.2.1"}
    assert network.routes == {("192.0.2.1", 5683): ("127.0.0.1", 5683)}
    assert network.ping == {"192.0.2.1": 120, "192.0.2.9": None}
    assert [entry.stat for entry in network.registrations] == [1, "none", "denied", 5]


def test_an_empty_file_is_the_network_there_is_without_one(load: Any) -> None:
    network, plain = load(""), Network()
    names = ("attach_delay", "stat", "latency", "signal", "active_time", "cells", "up", "down")
    assert all(getattr(network, name) == getattr(plain, name) for name in names)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[network]\nplmn = 46000", ":2: network.plmn = 46000; allowed: 5 or 6 digits"),
        ("[network]\n\nlatency = -1", ":3: network.latency = -1; allowed: a number, 0 or more s"),
        ("[network]\nlatency = nan", ":2: network.latency = nan"),
        ("[network]\nlatency = true", ":2: network.latency = True"),
        ("[network]\nlatenz = 1", ":2: network.latenz = 1; allowed: the keys seed, plmn"),
        ("[netwerk]\nx = 1", ":1: netwerk = {'x': 1}; allowed: the keys network, cell"),
        ("network = 1", ":1: network = 1; allowed: a table [network]"),
        ("[network]\nattach_delay = [3, 1]", ":2: network.attach_delay = [3, 1]"),
        ('[network]\naddress = "10.0.0.0/99"', ":2: network.address = '10.0.0.0/99'"),
        ("[network]\nseed = 1.5", ":2: network.seed = 1.5; allowed: a whole number"),
        ("[[cell]]\nearfcn = 1", ":1: cell[0].pci = 'missing'; allowed: a whole number, 0 to 503"),
        (
            "[[cell]]\nearfcn=1\npci=1\ncell_id=1\ntac=1\nband=8\n\n[[cell]]\nearfcn=1\npci=999",
            ":10: cell[1].pci = 999; allowed: a whole number, 0 to 503",
        ),
        ("[[cell]]\nsignal = [[0, -80]]", ":2: cell[0].signal = [[0, -80]]"),
        ("[[cell]]\nsignal = [[5, -80, 1], [5, -80, 1]]", ":2: cell[0].signal"),
        ("cell = 7", ":1: cell = 7; allowed: tables [[cell]]"),
        ('[[registration]]\nat = 0\nresult = "ok"', ":3: registration[0].result = 'ok'; allowed: "
         "home, roaming, denied, none"),
        ("[uplink]\nloss = 1.1", ":2: uplink.loss = 1.1; allowed: a number, 0 to 1"),
        ("[power_saving]\nt3324 = 63", ":2: power_saving.t3324 = 63; allowed: T3324: 1 to 31"),
        ("[power_saving]\nedrx = 20", ":2: power_saving.edrx = 20; allowed: 20.48, 40.96"),
        ("[dns]\n\"a.example\" = \"nowhere\"", ":2: dns.a.example = 'nowhere'"),
        ("[ping]\n\"192.0.2.1\" = true", ":2: ping.192.0.2.1 = True; allowed: ms, or false"),
        ("[routes]\n\"192.0.2.1\" = \"127.0.0.1:1\"", ":2: routes.192.0.2.1 = '192.0.2.1'"),
        ("[network", ": not TOML: "),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(load: Any, text: str, told: str) -> None:
    with pytest.raises(BadNetwork) as caught:
        load(text)
    assert f"net.toml{told}" in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadNetwork, match=r"gone\.toml: cannot be read"):
        Network.from_toml(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("seconds", "units", "bits"),
    [
        (10, T3324_UNITS, "00000101"),  # as in captures of granted timers
        (60, T3324_UNITS, "00011110"),
        (120, T3324_UNITS, "00100010"),
        (3600, T3412_UNITS, "00000110"),
        (86400, T3412_UNITS, "00111000"),
        (108000, T3412_UNITS, "00111110"),
        (310 * 3600, T3412_UNITS, "01011111"),
    ],
)
def test_timers_are_written_as_3gpp_does(seconds: int, units: dict[int, int], bits: str) -> None:
    assert timer_bits(seconds, units) == bits

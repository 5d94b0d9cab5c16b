"""Recorded dialogues, parsed with the commands of the profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modems.bc66 import BC66
from modems.bc95 import statistics
from modems.bc95g import BC95G
from nbiot.at import Dialect, Event, Final, Parser, Template
from tests.captures import Capture, load

from .commands import command_for
from .feeding import answers, chunked, events_of, feed, only, outcomes, urcs

BC95_CAPTURES = load("bc95")
BC66_CAPTURES = load("bc66")
FAMILIES = {
    **dict.fromkeys(BC95_CAPTURES, (BC95G.dialect, BC95G.commands)),
    **dict.fromkeys(BC66_CAPTURES, (BC66.dialect, BC66.commands)),
}
CAPTURES = BC95_CAPTURES | BC66_CAPTURES


def exchanges(capture: Capture) -> list[tuple[str | None, bytes]]:
    """What was sent, and all that came until the next command."""
    joined: list[tuple[str | None, bytes]] = []
    for tx, rx in capture.dialogue:
        if tx is None and joined:
            joined[-1] = (joined[-1][0], joined[-1][1] + rx)
        else:
            joined.append((tx, rx))
    return joined


def play(
    capture: Capture, dialect: Dialect, table: Mapping[str, Template], cuts: Iterable[int]
) -> list[Event]:
    parser = Parser(dialect)
    events: list[Event] = []
    for tx, rx in exchanges(capture):
        if tx is not None and parser.in_flight is not None:
            parser.settle()  # the log does not show its result
        if tx is not None:
            parser.begin(command_for(tx, table))
        events += feed(parser, chunked(rx, cuts))
    return events


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_says_the_same_whole_byte_by_byte_and_in_pieces(name: str) -> None:
    dialect, table = FAMILIES[name]
    capture = CAPTURES[name]
    whole = play(capture, dialect, table, ())
    assert play(capture, dialect, table, range(5000)) == whole
    assert whole or not b"".join(rx for _, rx in capture.dialogue)

    @settings(max_examples=12)
    @given(st.lists(st.integers(0, 2000), max_size=6))
    def in_pieces(cuts: list[int]) -> None:
        assert play(capture, dialect, table, cuts) == whole

    in_pieces()


@pytest.mark.parametrize("name", CAPTURES)
def test_what_follows_an_answer_does_not_change_it(name: str) -> None:
    dialect, table = FAMILIES[name]
    for tx, rx in CAPTURES[name].dialogue:
        if not rx.endswith((b"\r", b"\n")):
            continue
        command = command_for(tx, table) if tx else None
        alone = events_of(dialect, command, rx)
        for trailing in (b"\r", b"\r\n+CSCON", b"\x00", b"\r\n+CSCON:1\r\n"):
            events = events_of(dialect, command, rx + trailing)
            assert events[: len(alone)] == alone
            assert len(events) - len(alone) == trailing.endswith(b"\n")


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_holds_every_byte(name: str) -> None:
    dialect, table = FAMILIES[name]
    parser = Parser(dialect)
    said = b""
    for tx, rx in CAPTURES[name].dialogue:
        if tx is not None:
            parser.begin(command_for(tx, table))
        said += b"".join(event.raw for event in parser.feed(rx))
    assert said + parser.buffered == b"".join(rx for _, rx in CAPTURES[name].dialogue)


READS: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("bc95-b657sp3-exact-bytes", "AT+CSQ", [{"rssi": 99, "ber": 99}]),
    ("hi2115-b300sp2-stats-nmgs", "AT+CSQ", [{"rssi": 18, "ber": 99}]),
    ("bc95-b657sp3-exact-bytes", "AT+CEREG?", [{"n": 0, "stat": 1, "rest": None}]),
    ("bc95-timestamps-2017-07", "AT+CEREG?", [{"n": 1, "stat": 1, "rest": None}]),
    ("bc28-mbed-cereg-urc-race", "AT+CEREG?", [{"n": 2, "stat": 1, "rest": "7871,0D09F951,9"}]),
    (
        "korean-cereg-nuestats-fixture",
        "AT+CEREG?",
        [{"n": 5, "stat": 1, "rest": "213D,0318886E,9,,,,"}],
    ),
    ("bc95-b657sp3-exact-bytes", "AT+CGSN=1", [{"imei": "869405035846048"}]),
    ("bc95-b657sp3-exact-bytes", "AT+CIMI", [{"imsi": "460043193006443"}]),
    ("bc95-b657sp3-exact-bytes", "AT+CGATT?", [{"attached": 0}]),
    ("bc28-mbed-cereg-urc-race", "AT+CGATT?", [{"attached": 1}]),
    ("bc95g-bestiot-bringup", "AT+NCCID", [{"iccid": "8966031840041733227"}]),
    ("bc95g-bestiot-bringup", "AT+CGPADDR", [{"cid": 0, "address": "10.14.13.64"}]),
    ("bc95g-lupyuen-nsostf-release", "AT+CFUN?", [{"fun": 0}]),
    (
        "bc28-mbed-cereg-urc-race",
        "AT+CGDCONT?",
        [
            {"cid": 0, "type": "IPV4V6", "apn": "", "rest": ",0,0,,,,,0"},
            {"cid": 1, "type": "IP", "apn": "ctnb", "rest": ",0,0,,,,,0"},
        ],
    ),
    (
        "bc95-udp-2017-12-19",
        "AT+NSORF=0,3",
        [
            {
                "address": "119.23.26.195",
                "port": 9100,
                "length": 3,
                "data": b"abc",
                "remaining": 0,
            }
        ],
    ),
    (
        "bc95g-fota-fixture",
        "AT+NSORF=1,2",
        [
            {
                "address": "183.98.244.122",
                "port": 36931,
                "length": 2,
                "data": b"C5",
                "remaining": 300,
            }
        ],
    ),
    ("bc68-attach-udp-echo", "AT+NSOCL=1", []),
    (
        "bc95-manual19-ati-ate",
        "ATI",
        [{"text": "Quectel"}, {"text": "BC95-B5"}, {"text": "Revision:BC95B5HBR01A02W16"}],
    ),
    ("bc66-05", "AT+CGPADDR=1", []),  # the log masks the address as 10.X.Y.Z
    ("bc26doc-22", "AT+CFUN?", [{"fun": 1}]),
    ("bc66-02", "AT+CFUN?", [{"fun": 1}]),
    ("bc66-06", "AT+CPIN?", [{"state": "READY"}]),
    ("bc66-07", "AT+CEREG?", [{"n": 0, "stat": 2, "rest": None}]),
    ("bc26-12", "AT+CEREG?", [{"n": 0, "stat": 1, "rest": None}]),
    ("bc26-12", "AT+CGATT?", [{"attached": 1}]),
    (
        "bc66-06",
        "ATI",
        [
            {"text": "Quectel_Ltd"},
            {"text": "Quectel_BC66"},
            {"text": "Revision: BC66NBR01A11"},
        ],
    ),
]


@pytest.mark.parametrize(("name", "tx", "expected"), READS)
def test_an_answer_gives_its_fields(name: str, tx: str, expected: list[dict[str, Any]]) -> None:
    dialect, table = FAMILIES[name]
    events = events_of(dialect, command_for(tx, table), CAPTURES[name].answer(tx))
    assert answers(events) == expected
    assert [event.ok for event in only(Final, events)] in ([True], [])


def test_the_serving_cell_of_a_bc66() -> None:
    command = command_for("AT+QENG=0", BC66.commands)
    events = events_of(BC66.dialect, command, BC66_CAPTURES["bc66-05"].answer("AT+QENG=0"))
    (cell,) = answers(events)
    known = {name: cell[name] for name in ("earfcn", "pci", "rsrp", "sinr", "ecl")}
    assert known == {"earfcn": 3547, "pci": 127, "rsrp": -91, "sinr": 1, "ecl": 0}


@pytest.mark.parametrize(
    ("name", "power", "count"),
    [
        ("hi2115-b300sp2-stats-nmgs", -819, 12),
        ("bc95-b657sp5-oceanconnect", -718, 11),
        ("bc68-magenta-public", -758, 13),
        ("bc95-manual19-nuestats", -663, 11),
    ],
)
def test_the_figures_of_nuestats(name: str, power: int, count: int) -> None:
    command = command_for("AT+NUESTATS", BC95G.commands)
    events = events_of(BC95G.dialect, command, BC95_CAPTURES[name].answer("AT+NUESTATS"))
    figures = statistics([fields["line"] for fields in answers(events)])
    assert (figures["Signal power"], len(figures)) == (power, count)


@pytest.mark.parametrize(
    ("name", "tx", "count"),
    [
        ("bc95-b657sp3-exact-bytes", "AT+CGMR", 6),
        ("bc95-b657sp5-oceanconnect", "AT+CGMR", 6),
        ("bc95g-bestiot-bringup", "AT+CGMR", 6),
        ("bc35g-ident", "AT+CGMR", 6),
    ],
)
def test_versions_are_a_list_with_or_without_empty_lines(name: str, tx: str, count: int) -> None:
    command = command_for(tx, {})
    events = events_of(BC95G.dialect, command, BC95_CAPTURES[name].answer(tx))
    assert len(answers(events)) == count
    assert all("," in fields["text"] for fields in answers(events))


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("bc68-attach-udp-echo", 0, ("registration", {"stat": 2, "rest": "0000,00000000,9"})),
        ("bc68-attach-udp-echo", 1, ("connection", {"mode": 1})),
        ("bc68-attach-udp-echo", 3, ("announced", {"socket": 1, "length": 12})),
        ("bc68-attach-udp-echo", 5, ("psm", {"mode": 1})),
        ("bc68-boot-resetpin-attach", 9, ("registration", {"stat": 1, "rest": None})),
        ("bc95g-lupyuen-coap-cbor", 0, ("sent", {"socket": 1, "sequence": 1, "status": 1})),
        ("korean-cereg-nuestats-fixture", 0, None),
        ("bc66-03", 1, ("registration", {"stat": 5, "rest": None})),
        ("bc66-03", 2, ("address", {"address": "1*.*.*.***"})),
        (
            "bc66-04",
            0,
            ("registration", {"stat": 5, "rest": '"XXXX","XXXX",9,0,0,"XXXX","XXXX"'}),
        ),
        ("bc26doc-26", 0, ("awake", {})),
    ],
)
def test_a_urc_gives_its_fields(
    name: str, number: int, expected: tuple[str, dict[str, Any]] | None
) -> None:
    dialect, _ = FAMILIES[name]
    said = [rx for tx, rx in CAPTURES[name].dialogue if tx is None][number]
    found = urcs(events_of(dialect, None, said))
    if expected is None:
        assert found == [("registration", {"stat": 1, "rest": "213D,0318886E,9,,,,"}, None)]
    else:
        assert found == [(*expected, None)]


def test_one_burst_with_answer_result_and_two_urcs() -> None:
    tx = "AT+NSOST=1,...,48,<hex>,101"
    burst = b"\r\n1,48\r\n\r\nOK\r\n\r\n+NSOSTR:1,101,1\r\n\r\n+NSONMI:1,1024\r\n"
    assert tx not in {sent for sent, _ in BC95_CAPTURES["bc95g-fota-fixture"].dialogue}
    command = command_for("AT+NSOST=1,10.0.0.1,5683,48,00,101", BC95G.commands)
    events = events_of(BC95G.dialect, command, burst)
    assert answers(events) == [{"accepted": 48}]
    assert [name for name, _, _ in urcs(events)] == ["sent", "announced"]
    assert events[1] == Final(b"\n\r\nOK\r", ok=True, done=True)


def test_a_resolved_name_is_the_second_result() -> None:
    capture = BC95_CAPTURES["bc28-qdns-tcp-driver"]
    command = command_for("AT+QDNS=0,www.baidu.com", BC95G.commands)
    events = events_of(BC95G.dialect, command, b"".join(rx for _, rx in capture.dialogue))
    assert outcomes(events) == [{"address": "111.13.100.91"}]


@pytest.mark.parametrize("name", ["bc95-b657sp1-reboot", "bc95-esp32-good"])
def test_rebooting_is_the_result_of_a_reboot_and_the_ok_of_the_banner_is_not(name: str) -> None:
    _, rx = exchanges(BC95_CAPTURES[name])[0]
    events = events_of(BC95G.dialect, BC95G.commands["reboot"](), rx)
    assert [event.line for event in only(Final, events)] == [b"REBOOTING"]
    assert type(events[-1]).__name__ == "BootLine"

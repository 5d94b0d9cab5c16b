"""Replay the host's side of real captures and compare what the emulator answers.

Identity values (IMEI, firmware ...) are configured from the capture. Values the radio network
decides are configured too where the capture gives them all, else masked, as each `Replay` says.
Text captures are compared line by line; where the source kept empty lines (a record with ""
between its lines) the empty lines count; where it has exact bytes, bytes are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hil.emulator import ManualClock, Neighbour, Network, Options, ScriptedWire, Signal, create

CAPTURES = {
    record["id"]: record
    for path in sorted((Path(__file__).parent / "captures").glob("*.jsonl"))
    for record in map(json.loads, path.read_text().splitlines())
    # What `nbiot capture` recorded needs nothing of this: see tests/capture/test_contributed.py.
    if not record["source"].startswith("captured by nbiot capture")
}

FINAL = re.compile(r"OK|ERROR|\+CM[ES] ERROR: .*")
BANNER_END = re.compile(r"Leaving the BROM|REBOOTING")
PATIENCE = 900.0
"""Virtual seconds to wait for a line."""


@dataclass
class Replay:
    """How to set the emulator up for one record."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    """Commands that had been given before the capture begins."""
    answers: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    """What UDP peers send back to every datagram."""
    inject: dict[int, tuple[tuple[str, int], bytes]] = field(default_factory=dict)
    """Datagrams that arrived (and were announced) before exchange n."""
    mask: tuple[tuple[str, str], ...] = ()
    """Substitutions made on both sides before comparing: radio-decided values."""
    ignore: str = ""
    """Lines the source does not show (its program swallowed them)."""
    ignore_from: int = 0
    """First exchange to which `ignore` applies."""
    missing: dict[int, list[str]] = field(default_factory=dict)
    """Lines that the source left out at the start of the answer of exchange n."""
    pause: float = 0.0
    """Seconds between exchanges."""
    rewrite: dict[str, str] = field(default_factory=dict)
    """Placeholders of the source in tx lines, and what to send instead."""
    unseen: frozenset[int] = frozenset()
    """Exchanges whose answer the source does not show at all."""
    race: dict[int, str] = field(default_factory=dict)
    """URC raised while command n is on its way in."""
    before: dict[int, Callable[[Any], None]] = field(default_factory=dict)
    """Something the world does to the modem before exchange n; its URC is the exchange."""
    exact_blanks: bool = True


def signal(*values: int, **more: int) -> Signal:
    """The eleven values of NUESTATS in its order."""
    names = [
        "power",
        "total",
        "tx_power",
        "tx_time",
        "rx_time",
        "cell_id",
        "ecl",
        "snr",
        "earfcn",
        "pci",
        "rsrq",
    ]
    return Signal(**dict(zip(names, values, strict=True)), **more)


def neighbour(pci: int, power: int) -> Neighbour:
    return Neighbour(earfcn=3547, pci=pci, power=power, rsrq=-108)


def nap(modem: Any) -> None:
    """Sleep deeply and be woken by the pin."""
    modem.fall_asleep()
    modem.wake()


CLOUD = ("104.199.85.211", 5683)
NO_BOOT_LINES = r"Boot: Unsigned|.*Verified"
POLLING = {"attach_delay": 5.5}
"""With a pause of 1 s: four polls find the modem searching, the fifth registered."""

REPLAYS: dict[str, Replay] = {
    # ------------------------------------------------------------- HiSilicon V100
    "bc95-b657sp1-reboot": Replay("bc95", {"firmware": "V100R100C10B657SP1"}),
    "bc95-b657sp5-oceanconnect": Replay(
        "bc95",
        {"firmware": "V100R100C10B657SP5", "bands": (5,), "attached": True},
        {"signal": signal(-718, -625, -30, 652, 22771, 67208020, 1, 38, 2507, 301, -125)},
        mask=((r"STD_\d+", "STD_N"), (r"SENT=\d+", "SENT=N")),
    ),
    "bc95-b657sp3-exact-bytes": Replay(
        "bc95",
        {"imei": "869405035846048", "imsi": "460043193006443", "attached": True},
        mask=((r"\+CSQ:\d+,", "+CSQ:N,"),),
        pause=3.0,
    ),
    "bc95-timestamps-2017-07": Replay(
        "bc95",
        {"firmware": "V100R100C10B656SP2", "bands": (5,), "attached": True},
        prepare=("AT+CEREG=1",),
    ),
    "bc95-udp-2017-12-19": Replay(
        "bc95",
        {"attached": True},
        prepare=("AT+NSOCR=DGRAM,17,0,1",),
        answers={("119.23.26.195", 9100): [b"abc"]},
    ),
    "bc95-manual-udp-coap": Replay(
        "bc95",
        {"attached": True},
        answers={("192.53.100.53", 5683): [bytes.fromhex("60A041C7")]},
    ),
    "bc95-manual19-nuestats": Replay(
        "bc95",
        {"attached": True},
        {"signal": signal(-663, -632, -35, 1572, 17847, 27447553, 0, 290, 3701, 37, -108)},
        mask=((r"(?<=CELL).*", ",N" * 7),),
        exact_blanks=False,
    ),
    "bc95-manual19-config-uart": Replay(
        "bc95",
        {"attached": True, "iccid": "44123456789012345678"},
        {"address": "101.43.5.1"},
        prepare=("AT+NSOCR=DGRAM,17,0,1", "AT+NSOCR=DGRAM,17,0,1"),
        inject={11: (("192.168.5.1", 1024), b"\xab\xab")},
    ),
    "bc95-manual19-ati-ate": Replay("bc95", mask=((r"BC95-?B[58]", "BC95-Bn"),)),
    "calliope-bc95-cgdcont": Replay(
        "bc95",
        {"attached": True},
        {"apn": "internet.nbiot.telekom.de.MNC040.MCC901.GPRS"},
    ),
    "iotclub-udp-8888": Replay(
        "bc95", {"attached": True}, answers={("120.55.96.180", 5000): [b"www.iot-club.cn"]}
    ),
    # ------------------------------------------------------------- HiSilicon V150
    "hi2115-b300sp2-stats-nmgs": Replay(
        "bc28",
        {"attached": True, "firmware": "V150R100C20B300SP2"},
        prepare=("AT+NCDP=192.0.2.9",),
    ),
    "bc68-attach-udp-echo": Replay(
        "bc68",
        {"autoconnect": False},
        {"stat": 5, "tac": 0x0216, "ci": 0x0153803F, "active_time": 2.0},
        prepare=("AT+CEREG=2", "AT+CSCON=1", "AT+NPSMR=1"),
        answers={("188.77.165.106", 16666): [b"Hello World!"]},
    ),
    "bc68-boot-resetpin-attach": Replay(
        "bc68",
        {"boot": "cold", "boot_cause": "REBOOT_CAUSE_SECURITY_RESET_PIN", "autoconnect": False},
        {"ping": {"198.51.100.1": 962}, "ping_ttl": 54},
    ),
    "bc95g-lupyuen-boot-attach": Replay(
        "bc95-g", {"autoconnect": False, "stale_input": b"\x00\xff"}, POLLING, pause=1.0
    ),
    "bc95g-lupyuen-coap-over-nsost": Replay(
        "bc95-g", {"attached": True}, answers={CLOUD: [bytes(35)]}
    ),
    "bc95g-lupyuen-coap-cbor": Replay("bc95-g", {"attached": True}, answers={CLOUD: [bytes(77)]}),
    "bc95g-lupyuen-nsostf-release": Replay(
        "bc95-g", {"autoconnect": False}, {"attach_delay": 2.5, "latency": 9.0}, pause=1.0
    ),
    "bc95g-lupyuen-reopen-while-attached": Replay(
        "bc95-g", {"attached": True}, {"latency": 9.0}, pause=1.0
    ),
    "bc28-production-poweron": Replay("bc28", {"boot": "cold", "autoconnect": False}),
    "bc95g-bestiot-bringup": Replay(
        "bc95-g",
        {"imei": "867724031411710", "iccid": "8966031840041733227", "attached": True},
        {"address": "10.14.13.64"},
        prepare=("AT+NSOCR=DGRAM,17,19956,1",),
    ),
    "bc95-esp32-good": Replay(
        "bc95-g", {"autoconnect": False, "first_socket": 0}, ignore=NO_BOOT_LINES, pause=1.0
    ),
    "bc95-esp32-bad": Replay("bc95-g", prepare=("AT+NRB",)),
    "bc95-esp32-tcp-fail": Replay(
        "bc95-g",
        {
            "boot": "cold",
            "boot_cause": "REBOOT_CAUSE_APPLICATION_AT",
            "autoconnect": False,
        },
        ignore=NO_BOOT_LINES,
        unseen=frozenset({6}),
    ),
    "bc68-magenta-public": Replay(
        "bc68",
        {"autoconnect": False},
        {
            "stat": 5,
            "active_time": 2.0,
            "attach_delay": 20.0,
            "ping": {"8.8.8.8": 2867},
            "ping_ttl": 52,
            "signal": signal(-758, -719, 40, 2330, 73205, 6160743, 1, 134, 3547, 254, -109),
        },
        prepare=("AT+CFUN=1",),
        before={4: lambda modem: modem.radio.search()},
        mask=((r"(?<=CELL).*", ",N" * 7),),
        ignore=r"\+(CSCON|NPSMR):[01]",
        ignore_from=9,
        rewrite={"IP,PORT": "192.0.2.1,5000"},
        unseen=frozenset({0, 1, 2, 3}),
        exact_blanks=False,
    ),
    "bc68-magenta-gateway": Replay(
        "bc68",
        {"attached": True, "firmware": "V150R100C20B300SP2"},
        {
            "ping": {"10.112.28.10": 909},
            "ping_ttl": 61,
            "signal": signal(-815, -707, 120, 1263, 1914285, 7164511, 1, 10, 3547, 186, -139),
            "neighbours": [
                neighbour(235, -868),
                neighbour(244, -847),
                neighbour(338, -874),
                neighbour(464, -880),
            ],
        },
        mask=((r"(?<=CELL,3547,186).*", ",N" * 5),),
        unseen=frozenset({2}),
    ),
    "bc35g-ident": Replay(
        "bc35-g",
        {"imei": "863716049970731", "cmee": 1},
        missing={0: ["Quectel"]},
    ),
    "bc28-mbed-cereg-urc-race": Replay(
        "bc28",
        {"attached": True},
        {"tac": 0x7871, "ci": 0x0D09F951, "signal": Signal(total=-750)},
        prepare=("AT+CEREG=2", 'AT+CGDCONT=1,"IP","ctnb"'),
        race={2: "+CEREG:1,7871,0D09F951,9"},
    ),
    "korean-cereg-nuestats-fixture": Replay(
        "bc95-g",
        {"attached": True},
        {
            "tac": 0x213D,
            "ci": 0x0318886E,
            "now": lambda: datetime(2021, 6, 10, 8, 22, 58, tzinfo=UTC),
            "zone_quarters": 36,
        },
        prepare=("AT+CEREG=5",),
        before={
            1: lambda modem: modem.on_stat(),
            3: lambda modem: modem.network.change("none"),
        },
        ignore=r"\+CEREG:2,.*",
    ),
    "bc28-qdns-tcp-driver": Replay(
        "bc28", {"attached": True}, {"dns": {"www.baidu.com": "111.13.100.91"}}
    ),
    # -------------------------------------------------------------- MediaTek MT2625
    "bc66-01": Replay(
        "bc66",
        {"boot": "cold", "echo": False, "firmware": "BC66NBR01A06"},
        {"stat": "none"},
        pause=3.0,
    ),
    "bc66-02": Replay(
        "bc66",
        {"echo": False, "firmware": "BC66NBR01A06", "attached": True},
        {"stat": "none"},
        pause=3.0,
        mask=((r"\+CFUN ?:", "+CFUN:"),),
    ),
    "bc66-03": Replay(
        "bc66",
        {"echo": False, "firmware": "BC66NBR01A06"},
        {"stat": 5, "attach_delay": 20.0},
        mask=((r"\+IP: .*", "+IP: A"),),
    ),
    "bc66-04": Replay(
        "bc66",
        {"echo": False, "firmware": "BC66NBR01A06"},
        {"stat": 5, "active_time": 10.0},
        mask=((r"\+IP: .*", "+IP: A"), (r'"[0-9A-FX]+"', '"X"')),
    ),
    "bc66-05": Replay(
        "bc66",
        {"echo": False, "firmware": "BC66NBR01A06", "attached": True},
        {
            "address": "10.X.Y.Z",
            "ci": 0x490A65,
            "tac": 0x3AD6,
            "signal": signal(
                -910, -700, 230, 0, 0, 0, 0, 10, 3547, 127, -210, earfcn_offset=2, band=8
            ),
        },
        mask=((r"(?<=\+CESQ: )\d+,\d+,255,255,\d+,\d+", "N,N,255,255,N,N"),),
    ),
    "bc66-06": Replay(
        "bc66",
        {"boot": "cold", "echo": False},
        {"stat": "none"},
        unseen=frozenset({14, 15}),
        pause=2.0,
    ),
    "bc66-07": Replay(
        "bc66",
        {"echo": False, "firmware": "BC66NAR01A03_BETA0808", "attached": True},
        {"stat": "none"},
        pause=3.0,
    ),
    "bc66na-11": Replay("bc66-na", {"boot": "cold"}, before={8: lambda modem: modem.reboot()}),
    "bc26-12": Replay(
        "bc26",
        {"attached": True},
        {"attach_delay": 0.5, "rrc_idle": None},
        prepare=('AT+QCGDEFCONT="IP","psm0.eDRX0.ctnb"',),
        pause=3.0,
        mask=((r"(?<=\+CESQ: )\d+,\d+,255,255,\d+,\d+", "N,N,255,255,N,N"),),
        ignore=r"AT\+QRST=1|\+IP: .*",
    ),
    "bc26-14": Replay("bc26", {"echo": False, "attached": True}),
    "bc26doc-20": Replay("bc26", {"echo": False}, {"stat": "none"}, mask=((r'" ,"', '","'),)),
    "bc26doc-26": Replay(
        "bc26",
        {"echo": False, "attached": True, "sleep": True},
        before={1: nap},
    ),
}

NOT_APPLICABLE = {
    "bc28-mbed-tcp-nsosd-nsorf": "TCP, and the source cut the hex out of command and answer",
    "bc35g-tcp-nsosd": "driver comments around TCP with addresses mixed from a manual",
    "bc95g-fota-fixture": "tx lines are placeholders: see test_burst_and_partial_reads",
    "bc95-bc28-error-literals": "no commands: see test_literal_frames",
    "bc26doc-21": "preliminary manual of BETA firmware: no blank after the colon",
    "bc26doc-22": "preliminary manual of BETA firmware: no blank after the colon",
    "bc26doc-24": "preliminary manual of BETA firmware: `+QGACT=1` as printed",
    "bc66coap-27": "a driver's comment, not a capture",
}


def test_every_capture_is_replayed_or_excused() -> None:
    assert set(CAPTURES) == set(REPLAYS) | set(NOT_APPLICABLE)
    assert not set(REPLAYS) & set(NOT_APPLICABLE)


def always(answers: list[bytes], data: bytes) -> list[bytes]:
    """A peer that does not care what it was sent."""
    return answers


class Player:
    """Plays one record against one modem."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.clock = ManualClock()
        self.wire = ScriptedWire()
        for address, answers in replay.answers.items():
            self.wire.peers[address] = partial(always, answers)
        network = Network(**replay.network, wire=self.wire)
        self.out = bytearray()
        self.number = 0
        self.modem = create(
            replay.model, Options(**replay.options), network, send=self.send, clock=self.clock
        )
        for command in replay.prepare:
            self.modem.receive(command.encode() + b"\r")
            self.clock.advance(1.0)
        self.out.clear()

    def send(self, data: bytes) -> None:
        if data != getattr(self.modem, "JUNK", None):  # bytes between two speeds: `garbage`
            self.out += data

    def raw_until(self, enough: Callable[[bytes], bool]) -> bytes:
        """Let time pass event by event until `enough` has come."""
        end = self.clock.time() + PATIENCE
        while not enough(bytes(self.out)) and self.clock.step(end):
            pass
        data = bytes(self.out)
        self.out.clear()
        return data

    def masked(self, line: str) -> list[str]:
        for pattern, text in self.replay.mask:
            line = re.sub(pattern, text, line)
        return line.split("\n")

    def compared(self, lines: list[str]) -> list[str]:
        kept = [line for line in lines if line and not self.ignored(line)]
        return [part for line in kept for part in self.masked(line)]

    def ignored(self, line: str) -> bool:
        active = bool(self.replay.ignore) and self.number >= self.replay.ignore_from
        return active and re.fullmatch(self.replay.ignore, line) is not None

    def put_back(self, lines: list[str]) -> None:
        """Keep lines that came early for the next exchange."""
        self.out[:0] = "".join(f"\r\n{line}\r\n" for line in lines).encode("latin-1")

    def take_lines(self, count: int) -> list[str]:
        """The next `count` lines that are not ignored, with the empty ones between them."""

        def enough(data: bytes) -> bool:
            return len(self.compared(text_lines(data))) >= count and data[-1:] in b"\r\n"

        lines = text_lines(self.raw_until(enough))
        end = next(n for n in range(len(lines) + 1) if len(self.compared(lines[:n])) >= count)
        self.put_back([line for line in lines[end:] if line])
        return lines[:end]


def text_lines(data: bytes) -> list[str]:
    """Lines with the empty ones between them."""
    text = data.decode("latin-1").strip("\r\n")
    return re.split(r"\r\r\n|\r\n|\n\r|[\r\n]", text)


def play_urc(player: Player, urc: str) -> None:
    wanted = player.compared([urc])
    assert player.compared(player.take_lines(len(wanted))) == wanted


def play_command(player: Player, exchange: dict[str, Any]) -> None:
    replay, number, tx = player.replay, player.number, exchange["tx"]
    for placeholder, text in replay.rewrite.items():
        tx = tx.replace(placeholder, text)
    player.modem.receive(tx.encode("latin-1"))
    if number in replay.race:
        player.modem.urc(replay.race[number])
    player.modem.receive(b"\r")
    raw = exchange.get("rx_raw", exchange.get("raw_rx"))
    if number in replay.unseen:
        player.out.clear()
    elif raw is not None and not any(re.search(mask[0], raw) for mask in replay.mask):
        expected = raw.encode("latin-1")
        assert player.raw_until(lambda data: len(data) >= len(expected)) == expected
    else:
        compare_answer(player, replay.missing.get(number, []) + exchange["rx"])


def compare_answer(player: Player, rx: list[str]) -> None:
    wanted = player.compared(rx)
    got = player.take_lines(len(wanted))
    assert player.compared(got) == wanted
    if "" in rx and player.replay.exact_blanks:
        shown = rx[1:] if rx[0] == "" else rx
        assert [not line for line in got] == [not line for line in shown]
    if wanted and not FINAL.fullmatch(wanted[-1]) and not BANNER_END.fullmatch(wanted[-1]):
        assert player.compared(player.take_lines(1)) == ["OK"]  # not printed by the source


@pytest.mark.parametrize("name", sorted(REPLAYS))
def test_capture(name: str) -> None:
    replay = REPLAYS[name]
    player = Player(replay)
    for number, exchange in enumerate(CAPTURES[name]["exchanges"]):
        player.number = number
        if number in replay.inject:
            address, data = replay.inject[number]
            player.wire.inject(data, address, 0)
            player.raw_until(lambda out: bool(out))
        if number in replay.before:
            replay.before[number](player.modem)
        if "tx" in exchange:
            if replay.pause:
                player.clock.advance(replay.pause)
            play_command(player, exchange)
        elif exchange["urc"]:
            play_urc(player, exchange["urc"])
    assert player.compared(text_lines(bytes(player.out))) == []
    player.modem.close()


def test_brom_banner_bytes(make_bench: Any) -> None:
    """Capture bc66-06: every line of the boot ROM ends with LF CR, an empty one around them."""
    raw = "".join(e["raw"] for e in CAPTURES["bc66-06"]["exchanges"] if "raw" in e)
    bench = make_bench("bc66", boot="cold", attached=False)
    assert bench.wait(1.0) == raw.encode()


def test_burst_and_partial_reads(make_bench: Any) -> None:
    """Fixture bc95g-fota-fixture: its tx lines are placeholders, so they are made up here."""
    exchanges = [e for e in CAPTURES["bc95g-fota-fixture"]["exchanges"] if "rx_raw" in e]
    burst, partial, whole = (exchange["rx_raw"].encode() for exchange in exchanges)
    peer = ("183.98.244.122", 36931)
    bench = make_bench("bc95-g")
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    bench.wire.peers[peer] = lambda data: [bytes(1024)]
    assert bench.ask(f"AT+NSOST=1,{peer[0]},{peer[1]},48,{'00' * 48},101", 1.0) == burst

    bench.ask("AT+NSORF=1,1024")
    bench.wire.inject(b"\x43\x35" + bytes(300), peer)
    bench.wait(1.0)
    assert bench.ask("AT+NSORF=1,2") == partial + b"\r\nOK\r\n"

    bench.ask("AT+NSORF=1,300")
    ip, port, _, hexa, _ = whole.decode().split("\r\n")[1].split(",")[1:]
    bench.wire.inject(bytes.fromhex(hexa), (ip, int(port)))
    bench.wait(1.0)
    assert bench.ask("AT+NSORF=1,158") == whole


def test_literal_frames(make_bench: Any) -> None:
    """Record bc95-bc28-error-literals: frames of URCs and errors, byte by byte."""
    exchanges = CAPTURES["bc95-bc28-error-literals"]["exchanges"]
    urcs = [e["raw"].encode() for e in exchanges if "urc" in e]
    busy, refused, plain = (e["rx_raw"].encode() for e in exchanges if "tx" in e)
    bench = make_bench("bc95", Network(uplink_queue=0))
    bench.ask("AT+CSCON=1")
    assert bench.ask("AT+NPING=192.0.2.1", 1.0).replace(b"\r\nOK\r\n", b"").startswith(urcs[0])
    assert bench.wait(60.0) == urcs[1]
    bench.ask("AT+CMEE=1")
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    assert bench.ask("AT+NSOST=0,192.0.2.1,7,1,00") == busy
    assert bench.ask("AT+NSOCL=5") == refused
    assert bench.ask("AT+NOSUCH") == plain

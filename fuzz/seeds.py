"""Make the corpus anew from captures, tables and the emulators: ``python -m fuzz.seeds``.

Files with a name in words are made here; those named by a hash are what fuzzing added.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from hil.emulator import Network, Options, ScriptedWire, create
from nbiot.channel import Channel
from nbiot.coap.message import Method, Request, encode_request
from nbiot.errors import NbiotError
from nbiot.link.memory import MemoryLink
from tests.captures import load
from tests.virtualtime import VirtualTimeLoop

from . import answers, at_parser, coap, session
from .script import PROFILES, chosen

CORPUS = Path(__file__).parent / "corpus"
Seeds = Iterator[tuple[str, bytes]]


def from_captures() -> Seeds:
    """Recorded dialogues, as the parser hears them."""
    for family, profile in (("bc95", b"bc95-g"), ("bc66", b"bc66")):
        for name, capture in load(family).items():
            fields = [profile]
            for sent, came in capture.dialogue:
                if sent is not None:
                    fields.append(b"b" + sent.encode("latin-1"))
                if b"|" not in came:
                    fields.append(b"<" + came)
            yield name, b"|".join(fields)[:600]


def of_the_parser() -> Seeds:
    """What the captures do not hold."""
    yield from from_captures()
    yield (
        "abandoned-then-probe",
        b"bc95|bAT+CSQ|a|p|<\r\n+CSQ:18,99\r\n\r\nOK\r\n|<\r\n+CGATT:1\r\n",
    )
    yield "banner-with-ok", b"bc95|bAT+CFUN=1|<\r\nREBOOT_CAUSE_WATCHDOG\r\nNeul \r\nOK\r\n|e"
    yield "cut-data", b'bc66|<\r\n+QIURC: "recv",0,5\r\nab|g|<c\r\nOK\r\n'
    yield "data-inline", b'bc66|<\r\n+QIURC: "recv",0,5,a,b\r\n\r\n+QIURC: "recv",0\r\n'
    yield "data-with-results", b'bc66|bAT|<\r\n+QIURC: "recv",0,6\r\n\r\nOK\r\n\r\nOK\r\n'
    yield "echo-required", b"bc95 echo|bAT|<\r\nOK\r\n|<AT\r\r\nOK\r\n"
    yield "flood", b"bc66 small|<abcdefghijklmnop|x200|<\r\nOK\r\n"
    yield "noise", b"bc95-g|bAT+CIMI|<\x00\xff\r\n\xff460043193006443\r\n\x00OK\r"
    yield "prompt", b"bc66|bAT+QISEND=1,2|<\r\n> |<\r\nOK\r\n\r\nSEND OK\r\n"
    yield "prompt-late", b"bc66|bAT+QISEND=1,2|c|<AT\r\n> \r\nOK\r\n\r\nSEND FAIL\r\n"
    yield "unknown-modem", b"any|bATI|<ATI\r\r\nQuectel\r\nBC95-B5\r\n\r\nOK\r\n|s"


def of_the_answers() -> Seeds:
    """Every line of every capture, under the first row whose shape it has."""
    for name, family in ((b"bc95", "bc95"), (b"bc95-g", "bc95"), (b"bc66", "bc66")):
        for row, shape in answers.TABLES[name].items():
            lines: dict[bytes, None] = {}
            for capture in load(family).values():
                for _, came in capture.dialogue:
                    for line in re.split(rb"[\r\n]+", came):
                        if line and b"|" not in line and shape.match(line) is not None:
                            lines[line] = None
            words = re.sub(r"\W+", "-", f"{name.decode()} {row.decode()}").strip("-").lower()
            example = [] if lines else [shape.prefix]
            yield words, b"|".join([name, row, *list(lines)[:12], *example])[:600]


def of_the_exchange() -> Seeds:
    """Answers of a server to our request, and what is no answer."""
    mine = b"MI" + coap.TOKEN
    bodies = {
        "piggybacked": b"s|<\x68\x44" + mine,
        "with-payload": b"s|<\x68\x45" + mine + b'\xc1\x32\xff{"code":200}',
        "with-commands": b"s|<\x68\x44" + mine + b"\xe2\x07\x27\x01\x02\x22ab",
        "refused": b"s|<\x68\x81" + mine + b"\xffwrong signature",
        "separate": b"s|<\x60\x00MI|<\x48\x44\x01\x02" + coap.TOKEN,
        "separate-twice": b"s|<\x60\x00MI|-\x48\x44\x01\x02" + coap.TOKEN,
        "separate-non": b"s|<\x58\x44\x01\x02" + coap.TOKEN,
        "reset": b"s|<\x70\x00MI",
        "ping": b"s|<\x40\x00\x01\x02",
        "other-token": b"s|<\x68\x44MITokenXYZ",
        "other-message": b"s|<\x68\x44XX" + coap.TOKEN,
        "critical-option": b"s|<\x68\x44" + mine + b"\xd1\x0a\x06",
        "block2": b"s|<\x68\x45" + mine + b"\xd1\x0a\x0e\xffabc",
        "silence": b"s|t|s|t|s|t|s|t",
        "long-option": b"<\x68\x45" + mine + b"\xde\x00\x00\x05" + b"x" * 274,
        "malformed": b"<\x49|<\x48\x44MI|<\x40\x44MI\xff|<\x40\x44MI\xf0",
        "malformed-options": b"<\x40\x00MIx|<\x40\x44MI\x1e|<\x40\x44MI\xd0",
    }
    for name, text in bodies.items():
        yield name, b"|" + text
    request = encode_request(Request(Method.POST, ("a" * 20, "b"), b"{}", 50), 1, b"x")
    yield "a-request", b"|<" + request.replace(b"|", b"~")


def of_the_emulator() -> Seeds:
    """Dialogues that a driver has with each family, and trouble."""
    for name in PROFILES:
        lines = list(at_parser.DIALECTS[name][1])
        for number in range(0, len(lines), 5):
            host = b"|".join(b">" + line + b"\r" for line in lines[number : number + 5])
            model = name.decode()
            yield f"{model}-{number // 5}", name + b" attached cmee|" + host + b"|t10"
        captured = load("bc66" if name == b"bc66" else "bc95")
        for capture in captured.values():
            sent = [s.encode("latin-1") for s, _ in capture.dialogue if s and "|" not in s]
            if sent:
                text = b"|".join(b">" + line + b"\r|t2" for line in sent[:20])
                yield f"{name.decode()}-{capture.id}", name + b"|" + text
    yield (
        "bc95-datagrams",
        (
            b"bc95 attached echo|>AT+NSOCR=DGRAM,17,0,1\r|>AT+NSOST=0,192.0.2.1,7,2,4F4B\r|t2"
            b"|dhello|>AT+NSORF=0,512\r|>AT+NSOCL=0\r|n|t9|n"
        ),
    )
    yield (
        "bc66-datagrams",
        (
            b'bc66 attached|>AT+QIOPEN=1,0,"UDP","192.0.2.1",7,0,1\r|t2|>AT+QISEND=0,2\r|>OK|t2'
            b'|dhello|>AT+QISEND=0\r|>a\x1a|>AT+QICLOSE=0\r|>AT+QIDNSGIP=1,"coap.example"\r|t9'
        ),
    )
    yield (
        "bc66-coap",
        (
            b"bc66 attached|>AT+QCOAPCREATE=9\r|>AT+QCOAPHEAD=5,7,2,6162\r"
            b'|>AT+QCOAPOPTION=1,11,"a"\r|>AT+QCOAPSEND=0,2,192.0.2.1,7\r|>{}\x1a|t2'
            b"|d\x62\x45\x00\x07ab\xffhi|t60|>AT+QCOAPDEL\r"
        ),
    )
    yield "bc66-asleep", b"bc66 sleep cold|t9|>AT+QSCLK=1\r|t600|>AT\r|>AT\r|o|t9|r|t9"
    yield "bc95-junk", b"bc95 junk busy slow urcs|>AT\r|>AT+CSQ;+CEREG?\r|t1|x9|t9|r|t9|>AT\r"


def of_the_settings() -> Seeds:
    """Good ones and bad ones."""
    texts = {
        "server": ("coap.example", "coap.example:5683", "192.0.2.1:1", "[::1]:5683", "a:99999"),
        "enos": ("abc.def.com", "https://abc.def.com/", "coap-x"),
        "emulator": (
            "bc66?attached=1&speed=10&baud=115200",
            "bc95?boot=cold&sim=pin&imei=867726030047601&latency=0.5",
            "bc95-g?chunk_seed=1&urc_seed=2&attach_delay=3",
            "bc95?speed=x",
        ),
        "apn": ("iot.example", 'a"b'),
        "product": ("pk123456",),
        "device": ("867726030047601",),
        "command": ("AT+CSQ",),
    }
    for kind, given in texts.items():
        for number, text in enumerate(given):
            yield f"{kind}-{number}", f"{kind}|{text}".encode()


def of_a_session() -> Seeds:
    """What an emulator says while a profile is at work."""
    for name in PROFILES:
        for method in session.METHODS:
            for attached in (True, False):
                if attached or method in (b"attach", b"registration", b"address", b"sim"):
                    words = f"{name.decode()}-{method.decode()}{'' if attached else '-detached'}"
                    yield words, recorded(name, method, attached)


def recorded(name: bytes, method: bytes, attached: bool) -> bytes:
    """A script of what the emulator of ``name`` says to ``method``."""
    fields: list[bytes] = []

    async def record() -> None:
        loop = asyncio.get_running_loop()
        wire = ScriptedWire()
        wire.peers[session.PEER] = lambda data: [
            data if data == b"ping" else b"\x62\x44" + data[2:4] + data[4 : 4 + (data[0] & 15)]
        ]
        network = Network(wire=wire, dns={"coap.example": "192.0.2.9"})

        def written(data: bytes) -> None:
            fields.append(b"<")
            loop.call_soon(modem.receive, data)

        def said(data: bytes) -> None:
            if not fields or (loop.time() - last[0] > 0.5 and fields[-1] != b"<"):
                fields.append(b"+")
            last[0] = loop.time()
            fields[-1] += data
            link.feed(data)

        last = [0.0]
        link = MemoryLink(on_write=written)
        options = Options(attached=attached, echo=name == b"bc66")
        modem = create(name.decode(), options, network, send=said, clock=loop)
        channel = Channel(link, PROFILES[name].dialect)
        try:
            async with asyncio.timeout(200.0):
                await chosen(session.METHODS, method)(PROFILES[name](channel))
        except (NbiotError, TimeoutError) as error:
            print(name, method, error)
        await channel.close()
        modem.close()

    loop = VirtualTimeLoop()
    loop.run_until_complete(record())
    loop.close()
    return b"|".join([name, b"m" + method, *(f for f in fields if b"|" not in f[1:])])


MAKERS = {
    "at_parser": of_the_parser,
    "answers": of_the_answers,
    "session": of_a_session,
    "coap": of_the_exchange,
    "emulator": of_the_emulator,
    "settings": of_the_settings,
}


def main() -> None:
    """Write the seeds."""
    for target, maker in MAKERS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in maker():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()

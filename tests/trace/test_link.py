"""``replay:FILE`` as a port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nbiot.errors import BadInput, PortError, PortLost, Unsupported
from nbiot.link import open_link
from nbiot.link.replay import ReplayLink, ReplayMismatch
from nbiot.trace import Trace
from tests.virtualtime import run_virtual

from .samples import REPLAYS, trace_of


class Host:
    """Gathers what the modem says."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self.errors: list[PortLost] = []

    def received(self, data: bytes) -> None:
        self.heard.append((asyncio.get_running_loop().time() - 1000, data))

    def lost(self, error: PortLost) -> None:
        self.errors.append(error)

    @property
    def said(self) -> bytes:
        return b"".join(data for _, data in self.heard)


async def talk(link: ReplayLink, *words: bytes, pause: float = 0.0) -> Host:
    """Start the link, say ``words`` one after the other, wait until all is quiet."""
    host = Host()
    link.start(host)
    await asyncio.sleep(0)
    for word in words:
        await asyncio.sleep(pause)
        link.write(word)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return host


def linked(*lines: str | bytes, speed: float = 0.0, strict: bool = False) -> ReplayLink:
    return ReplayLink("replay:made", trace_of(*lines), speed=speed, strict=strict)


DIALOGUE = ("< +NOTE:1", "> AT", "< OK", "> AT+CSQ", "< +CSQ:1,99", "< OK", "< +NOTE:2")


async def test_it_answers_what_was_answered_then() -> None:
    link = linked(*DIALOGUE)
    assert link.remaining == 2
    host = await talk(link)
    assert host.said == b"\r\n+NOTE:1\r"
    link.write(b"AT\r")
    assert host.said == b"\r\n+NOTE:1\r"  # never from inside a method
    await asyncio.sleep(0)
    assert host.said.endswith(b"\r\nOK\r")
    assert link.remaining == 1
    link.write(b"AT+CSQ\r")
    await asyncio.sleep(0)
    assert host.said.endswith(b"\r\n+CSQ:1,99\r\r\nOK\r\r\n+NOTE:2\r")
    assert (link.remaining, host.errors) == (0, [])
    await link.close()


@pytest.mark.parametrize(
    ("said", "line", "words"),
    [
        (
            b"AT+CSQ\r",
            3,
            "'AT\\r' then and says 'AT+CSQ\\r' now; the first difference is at byte 3",
        ),
        (b"AX\r", 3, "at byte 2"),
        (b"A", 3, "at byte 2"),
        (b"AT\r\r", 3, "at byte 4"),
    ],
)
async def test_another_word_is_refused_with_the_first_difference(
    said: bytes, line: int, words: str
) -> None:
    link = linked(*DIALOGUE)
    with pytest.raises(ReplayMismatch) as caught:
        await talk(link, said)
    assert f"line {line}" in caught.value.message
    assert words in caught.value.message
    assert (caught.value.line, caught.value.given) == (line, said)
    with pytest.raises(ReplayMismatch):
        link.write(b"AT\r")  # there is no way back
    await link.close()


async def test_a_mismatch_ends_whatever_waits() -> None:
    link = linked(*DIALOGUE)
    host = Host()
    link.start(host)
    with pytest.raises(ReplayMismatch) as caught:
        link.write(b"X")
    assert host.errors == []
    await asyncio.sleep(0)
    assert host.errors == [caught.value]
    await link.close()


async def test_the_end_of_the_trace_is_told() -> None:
    link = linked("> AT", "< OK")
    with pytest.raises(
        ReplayMismatch, match=r"the trace ends here, but the host says 'ATI\\r'"
    ) as e:
        await talk(link, b"AT\r", b"ATI\r")
    assert e.value.expected is None
    await link.close()


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("> AT+QCOAPCREATE=49152", b"AT+QCOAPCREATE=6\r"),
        ("> AT+QCOAPHEAD=5,7,2,a1b2", b"AT+QCOAPHEAD=5,65535,2,0000\r"),
        ("> AT+NSOST=0,203.0.113.5,5683,4,60000001", b"AT+NSOST=0,203.0.113.5,5683,4,6000FFFF\r"),
        ('> {"sign":"00112233445566778899"}', b'{"sign":"FFEEDDCCBBAA99887766"}\r'),
        ("> AT+PSK=***", b"AT+PSK=s3cret,hush\r"),
    ],
)
async def test_what_is_drawn_at_random_may_differ_unless_strict(then: str, now: bytes) -> None:
    link = linked(then, "< OK")
    assert (await talk(link, now)).said == b"\r\nOK\r"
    await link.close()
    strict = linked(then, "< OK", strict=True)
    with pytest.raises(ReplayMismatch):
        await talk(strict, now)
    await strict.close()


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("> AT+NSOST=0,203.0.113.5,5683,4,60000001", b"AT+NSOST=0,203.0.113.5,5683,5,6000FFFF00\r"),
        ("> AT+NSOST=0,203.0.113.5,5683,4,60000001", b"AT+NSOST=1,203.0.113.5,5683,4,60000001\r"),
        ("> AT+NSOST=0,203.0.113.5,5683,4,60000001", b"AT+NSOST=0,203.0.113.5,5684,4,60000001\r"),
        ("> AT+NSOST=0,203.0.113.5,5683,4,60000001", b"AT+NSOST=0,203.0.113.5,5683,4,600000zz\r"),
        ("> AT+QCOAPHEAD=5,7,2,a1b2", b"AT+QCOAPHEAD=4,7,2,a1b2\r"),
        ("> AT+NSOCL=0", b"AT+NSOCL=1\r"),
        ("> AT+CGSN=490154203237518", b"AT+CGSN=867726030047601\r"),
    ],
)
async def test_nothing_else_may_differ(then: str, now: bytes) -> None:
    link = linked(then, "< OK")
    with pytest.raises(ReplayMismatch):
        await talk(link, now)
    await link.close()


# The separate response's message id is the server's, here by chance the one of our request.
CON, ACK, SEPARATE = "42020A874BFEB161", "62440A874BFE", "42440A874BFE"


async def test_the_answer_has_the_message_id_and_token_of_this_run() -> None:
    link = linked(
        f"> AT+NSOST=0,203.0.113.5,5683,8,{CON}",
        "> AT+NSORF=0,512",
        f"< 0,203.0.113.5,5683,6,{ACK},0 [answer]",
        "> AT+NSORF=0,512",
        f"< 0,203.0.113.5,5683,6,{SEPARATE},0 [answer]",
        "> AT+NSORF=0,512",
        "< 0,203.0.113.5,5683,4,60000001,0 [answer]",
    )
    read = b"AT+NSORF=0,512\r"
    host = await talk(link, b"AT+NSOST=0,203.0.113.5,5683,8,4202AAAABBBBB161\r", read, read, read)
    assert [data.split(b",")[4] for _, data in host.heard] == [
        b"6244AAAABBBB",
        b"42440A87BBBB",
        b"60000001",
    ]
    await link.close()


async def test_so_has_a_datagram_of_raw_bytes_and_the_modems_own_client() -> None:
    link = linked(
        '> AT+QIOPEN=1,0,"UDP","203.0.113.5",5683,0,1',
        "> AT+QISEND=0,8",
        b"> " + bytes.fromhex(CON),
        b'< \r\n+QIURC: "recv",0,6\r\n' + bytes.fromhex(ACK),
        "> AT+QCOAPHEAD=5,7,2,a1b2",
        '< +QCOAPURC: "rsp",2,2.04,7 [urcreceived]',
        '< +QCOAPURC: "rsp",0,2.04,7 [urcreceived]',
    )
    host = await talk(
        link,
        b'AT+QIOPEN=1,0,"UDP","203.0.113.5",5683,0,1\r',
        b"AT+QISEND=0,8\r",
        bytes.fromhex("4202AAAABBBBB161"),
        b"AT+QCOAPHEAD=5,50000,2,a1b2\r",
    )
    first, piggybacked, separate = (data for _, data in host.heard)
    assert first == b'\r\n+QIURC: "recv",0,6\r\n' + bytes.fromhex("6244AAAABBBB")
    assert piggybacked == b'\r\n+QCOAPURC: "rsp",2,2.04,50000\r'
    assert separate == b'\r\n+QCOAPURC: "rsp",0,2.04,7\r'
    await link.close()


async def test_an_echo_is_that_of_this_run() -> None:
    link = linked("> AT+QCOAPCREATE=49152", b"< AT+QCOAPCREATE=49152\r")
    link._trace.records[1] = link._steps[1] = _as_echo(link._trace)
    assert (await talk(link, b"AT+QCOAPCREATE=5\r")).said == b"AT+QCOAPCREATE=5\r"
    await link.close()


def _as_echo(trace: Trace):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(trace.records[1], event="echo")


def test_the_recorded_times_are_kept_when_asked_for() -> None:
    async def main(speed: float) -> list[float]:
        link = linked("> AT", "< OK", "< +NOTE:1", "> ATI", "< OK", speed=speed)
        host = await talk(link, b"AT\r")
        await asyncio.sleep(10)
        link.write(b"ATI\r")
        await asyncio.sleep(10)
        await link.close()
        return [when for when, _ in host.heard]

    assert run_virtual(main(1.0)) == pytest.approx([1, 2, 11])
    assert run_virtual(main(4.0)) == pytest.approx([0.25, 0.5, 10.25])
    assert run_virtual(main(0.0)) == pytest.approx([0, 0, 10])


def test_what_came_after_a_time_out_comes_after_it_again() -> None:
    async def main() -> Host:
        link = linked("> AT+CIMI", "- no result of AT+CIMI within 1 s", "< ERROR", "> AT", "< OK")
        host = await talk(link, b"AT+CIMI\r")
        await asyncio.sleep(1.5)
        assert host.heard == []
        await asyncio.sleep(1.5)
        link.write(b"AT\r")
        await asyncio.sleep(0)
        await link.close()
        return host

    assert [when for when, _ in run_virtual(main()).heard] == pytest.approx([2, 3])


def test_a_host_that_is_faster_than_then_loses_nothing() -> None:
    async def main() -> Host:
        link = linked("> AT", "< OK", "< +NOTE:1", "> ATI", "< X", speed=1.0)
        host = await talk(link, b"AT\r", b"ATI\r")
        await asyncio.sleep(10)
        await link.close()
        return host

    assert run_virtual(main()).said == b"\r\nOK\r\r\n+NOTE:1\r\r\nX\r"


# --- as any link ----------------------------------------------------------------------------


async def test_it_keeps_the_contract_of_links() -> None:
    link = linked(*DIALOGUE)
    with pytest.raises(PortError, match="not started"):
        link.write(b"AT\r")
    host = Host()
    link.start(host)
    with pytest.raises(PortError, match="started"):
        link.start(host)
    await link.set_baudrate(115200)
    assert link.baudrate == 115200
    with pytest.raises(BadInput, match="baudrate"):
        await link.set_baudrate(7)
    await link.set_lines()
    with pytest.raises(Unsupported):
        await link.set_lines(dtr=True)
    link.write(b"")
    await link.close()
    await link.close()
    with pytest.raises(PortError, match="closed"):
        link.write(b"AT\r")
    await asyncio.sleep(0)
    assert (host.heard, host.errors) == ([], [])  # nothing after close()


async def test_it_opens_by_url() -> None:
    link = await open_link(f"replay:{REPLAYS['bc66-no-sim']}", baudrate=115200)
    assert isinstance(link, ReplayLink)
    assert link.baudrate == 115200
    assert link.name.startswith("replay:")
    await link.close()


@pytest.mark.parametrize(
    ("tail", "allowed"),
    [
        ("?speed=x", "a number"),
        ("?speed=-1", "a number"),
        ("?speed=inf", "a number"),
        ("?speed=1&loud=1", "strict=0 or strict=1"),
        ("?strict=yes", "strict=0 or strict=1"),
        ("nonsense", "a file that can be read"),
    ],
)
async def test_a_bad_url_says_what_is_allowed(tail: str, allowed: str) -> None:
    with pytest.raises(BadInput) as caught:
        await open_link(f"replay:{REPLAYS['bc66-no-sim']}{tail}")
    assert allowed in caught.value.allowed


async def test_an_empty_url_says_what_is_allowed() -> None:
    with pytest.raises(BadInput, match="replay:FILE"):
        await open_link("replay:")


async def test_a_file_may_have_a_question_mark_in_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "what?.jsonl"
    odd.write_bytes(REPLAYS["bc66-no-sim"].read_bytes())
    link = await open_link(f"replay:{odd}?speed=2")
    await link.close()

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nbiot.at import Command
from nbiot.errors import CommandTimeout, NbiotError
from nbiot.trace import FileTracer
from tests.virtualtime import run_virtual

from .modem import Modem, Plan, num, opened, put

SECRET = Command(b"AT+PSK=s3cret,hush", shown="AT+PSK=***", seconds=0.5)


def records(path: Path) -> list[dict[str, object]]:
    """What the trace tells of the dialogue; a header line is none of it."""
    told = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [record for record in told if "dir" in record]


def test_a_trace_tells_each_byte_and_each_remark_with_its_time(tmp_path: Path) -> None:
    now = 100.0
    tracer = FileTracer(tmp_path / "t", lambda: now)
    tracer.sent(b"AT\r")
    now += 0.25
    tracer.heard(b"\r\nOK\xff\r", "final")
    tracer.note("a remark")
    said = records(tmp_path / "t")
    tracer.close()
    assert said == [
        {"t": 0, "dir": ">", "raw": "AT\r"},
        {"t": 0.25, "dir": "<", "raw": "\r\nOK\xff\r", "event": "final"},
        {"t": 0.25, "dir": "-", "note": "a remark"},
    ]
    tracer.sent(b"too late")
    tracer.close()
    assert len(records(tmp_path / "t")) == 3


def test_a_full_disk_ends_the_trace_and_not_the_dialogue() -> None:
    tracer = FileTracer(Path("/dev/full"), lambda: 0.0)
    tracer.sent(b"AT\r")
    assert isinstance(tracer.error, OSError)
    tracer.heard(b"OK", "final")
    tracer.close()


@pytest.mark.parametrize("echo", ["whole", "damaged", "cut", "none", "late"])
def test_a_secret_is_in_no_trace_and_in_no_message(tmp_path: Path, echo: str) -> None:
    async def main() -> None:
        modem = Modem()
        tracer = FileTracer(tmp_path / "t", asyncio.get_running_loop().time)
        channel, _ = opened(modem, tracer=tracer)
        said = {
            "whole": SECRET.line + b"\r",
            "damaged": SECRET.line.replace(b"PSK", b"P\x80K") + b"\r",
            "cut": SECRET.line[3:] + b"\r",
            "none": b"",
            "late": b"",
        }[echo]
        with modem.running():
            modem.link.on_write = lambda _: modem.link.feed(said)
            with pytest.raises(CommandTimeout) as caught:
                await channel.run(SECRET)
            assert "AT+PSK=***" in str(caught.value)
            modem.link.on_write = modem._written
            if echo == "late":
                modem.plan = lambda _: Plan(before=SECRET.line + b"\r")
            messages = [str(caught.value)]
            for command in (SECRET, num(1), put(3)):
                try:
                    await channel.run(command)
                except NbiotError as error:
                    messages.append(f"{error} {error!r}")
        assert all("s3cret" not in message and "hush" not in message for message in messages)
        await channel.close()
        tracer.close()

    run_virtual(main())
    text = (tmp_path / "t").read_text()
    assert "s3cret" not in text
    assert "hush" not in text
    assert text.count("AT+PSK=***") >= 2


def test_a_trace_holds_every_byte_of_both_directions(tmp_path: Path) -> None:
    async def main() -> bytes:
        modem = Modem(lambda _: Plan(before=b"\r\n+NOTE:1\r\n\x80\xff\r\n"))
        tracer = FileTracer(tmp_path / "t", asyncio.get_running_loop().time)
        channel, _ = opened(modem, tracer=tracer)
        with modem.running():
            for k in range(3):
                await channel.run(num(k))
        await channel.close()
        tracer.close()
        return bytes(modem.link.sent)

    sent = run_virtual(main())
    told = records(tmp_path / "t")
    both = {
        way: "".join(str(r["raw"]) for r in told if r["dir"] == way).encode("latin-1")
        for way in "<>"
    }
    assert both[">"] == sent
    expected = b"".join(
        b"\r\n+NOTE:1\r\n\x80\xff\r\n\r\n+NUM:%d\r\n\r\nOK\r\n" % k for k in range(3)
    )
    assert expected.startswith(both["<"])
    assert len(expected) - len(both["<"]) <= 1

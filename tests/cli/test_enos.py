"""Reports, raw data, attributes, tags, commands and costs on the command line."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hil.cloud import Behaviour, Cloud, CommandState, Downlink, ThingModel
from nbiot import cli
from nbiot.cli.enos import json_or_text
from nbiot.enos.limits import AuthLimit
from nbiot.errors import BadInput

from .test_cli import FAST, IMEI, NBIOT, PRODUCT_KEY, SECRET, cloud, emulator, environment, run

DEVICE = (PRODUCT_KEY, IMEI)
BC95 = f"emulator:bc95{FAST}"


def where(stand_in: Cloud, port: str = BC95) -> list[str]:
    server = f"{stand_in.host}:{stand_in.port}"
    return ["--port", port, "--product-key", PRODUCT_KEY, "--server", server]


async def say(stand_in: Cloud, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that succeeds, whatever stands before the first option coming first."""
    return await run(*args, *where(stand_in), **({"NBIOT_DEVICE_SECRET": SECRET} | env))


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- one message ------------------------------------------------------------------------------


async def test_a_report_tells_what_was_accepted_and_what_it_took() -> None:
    async with cloud() as stand_in:
        done = await say(stand_in, "report", "t=21.5", "door=open", 'id="007"')
        assert done.returncode == 0, done.stderr
        values = {k: v.value for k, v in stand_in.thing(*DEVICE).measurepoints.items()}
        assert values == {"t": 21.5, "door": "open", "id": "007"}
        assert f"Accepted: 3 measurepoints of device {IMEI}" in done.stdout
        assert 'id = "007"' in done.stdout
        assert "in 2 round trips" in done.stdout
        assert "asked to release the radio" in done.stdout
        assert "authenticated: authenticated (2.04)" in done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert sum(request.path[0] == "auth" for request in stand_in.requests) == 1


async def test_a_report_as_json_has_its_cost_with_the_authentication(tmp_path: Path) -> None:
    points = tmp_path / "points.json"
    points.write_text('{"a": 1, "b": {"value": [1, 2], "quality": 3}}')
    async with cloud() as stand_in:
        args = ["--json-file", str(points), "--quality", "5", "--time", "1700000000000"]
        done = await say(stand_in, "report", "c=x", *args, "--json", "-q")
        found = result(done)
        assert done.stderr == ""
        thing = stand_in.thing(*DEVICE)
        assert {k: tuple(v) for k, v in thing.measurepoints.items()} == {
            "a": (1, 5, 1700000000000),
            "b": ([1, 2], 3, 1700000000000),
            "c": ("x", 5, 1700000000000),
        }
        cost = found["cost"]
        assert (cost["round_trips"], cost["datagrams_up"], cost["released"]) == (2, 2, True)
        assert cost["up"] == sum(len(d.data) for d in stand_in.datagrams if d.direction == "in")
        assert cost["down"] == sum(len(d.data) for d in stand_in.datagrams if d.direction == "out")
        assert found["accepted"]["measurepoints"] == {"a": 1, "b": [1, 2], "c": "x"}


async def test_an_event_and_values_from_standard_input() -> None:
    async with cloud() as stand_in:
        process = await asyncio.create_subprocess_exec(
            *[*NBIOT, "report", "--event", "hot", "--json-file", "-", "t=91", *where(stand_in)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(NBIOT_DEVICE_SECRET=SECRET),
        )
        out, _ = await process.communicate(b'{"limit": 80}')
        assert f"Accepted: event hot of device {IMEI}".encode() in out
        (event,) = stand_in.thing(*DEVICE).events
        assert (event.identifier, event.outputs) == ("hot", {"t": 91, "limit": 80})


async def test_raw_data_and_its_answer(tmp_path: Path) -> None:
    async with cloud() as stand_in:
        stand_in.parser = lambda payload: payload[::-1]
        done = await say(stand_in, "raw", "01", "A2FF")
        assert "Accepted: 3 bytes of raw data" in done.stdout
        assert "answer      ffa201 (3 bytes)" in done.stdout
        file = tmp_path / "payload"
        file.write_bytes(b"\x00\xff")
        found = result(await say(stand_in, "raw", "--file", str(file), "--json"))
        assert found["hex"] == "ff00"


async def test_attributes_and_tags_are_set_read_and_deleted() -> None:
    async with cloud() as stand_in:
        thing = stand_in.thing(*DEVICE)
        await say(stand_in, "attributes", "set", "n=1", "where=roof")
        assert thing.attributes == {"n": 1, "where": "roof"}
        read = await say(stand_in, "attributes", "get", "n", "nope")
        assert "n = 1" in read.stdout
        assert "nope (not set)" in read.stdout
        assert result(await say(stand_in, "attributes", "delete", "n", "--json"))["ok"]
        assert thing.attributes == {"where": "roof"}
        await say(stand_in, "tags", "set", "site/room=007")
        assert thing.tags == {"site/room": "007"}
        assert result(await say(stand_in, "tags", "get", "--json"))["data"] == {"site/room": "007"}
        assert "Deleted: 1 tag" in (await say(stand_in, "tags", "delete", "site/room")).stdout


async def test_a_refusal_has_its_code_and_nothing_was_accepted() -> None:
    async with cloud() as stand_in:
        stand_in.model = ThingModel(measurepoints={"t": "float"})
        done = await say(stand_in, "report", "x=1", "--json")
        assert done.returncode == 54
        assert json.loads(done.stdout)["code"] == "1204"


async def test_without_an_answer_the_report_may_be_there_all_the_same() -> None:
    async with cloud() as stand_in:
        stand_in.next(Behaviour())  # the authentication
        stand_in.behaviour = Behaviour(silent=True)
        patience = ["--ack-timeout", "0.1", "--retransmissions", "0"]
        done = await say(stand_in, "report", "x=1", *patience)
        assert done.returncode == 40
        assert "EnOS may have the message" in done.stderr


@pytest.mark.parametrize("dialect", ["2100+2102", "2100+get"])
async def test_a_command_that_comes_along_is_named_and_not_answered(dialect: Any) -> None:
    async with cloud() as stand_in:
        stand_in.downlink = Downlink(dialect=dialect, on_auth=False)
        command = stand_in.send_command(*DEVICE, "thing/service/reboot", {"delay": 1})
        done = await say(stand_in, "report", "x=1", "--json")
        (waiting,) = result(done)["commands_waiting"]
        assert waiting == {
            "kind": "service",
            "service": "reboot",
            "id": command.id,
            "params": {"delay": 1},
        }
        assert "(service reboot, id 1). It was not answered" in done.stderr
        assert command.state is CommandState.SENT


async def test_an_interrupted_report_gives_the_socket_back() -> None:
    async with cloud() as stand_in:
        stand_in.next(Behaviour())  # the authentication
        stand_in.behaviour = Behaviour(silent=True)
        with emulator("bc95", "--attached", "--speed", "100") as port:
            async with started("report", "t=1", *where(stand_in, port)) as process:
                async with asyncio.timeout(20):
                    while sum(d.direction == "in" for d in stand_in.datagrams) < 2:
                        await asyncio.sleep(0.02)
                process.send_signal(signal.SIGINT)
                _, said = await asyncio.wait_for(process.communicate(), 10)
            assert process.returncode == 130
            assert b"the port is released" in said
            opened = (await run("at", "--port", port, "AT+NSOCR=DGRAM,17,0")).stdout
            assert opened.split() == ["0", "OK"]  # the first socket was free again


async def test_no_wait_fails_before_the_fifth_authentication(tmp_path: Path) -> None:
    async with cloud() as stand_in:
        limit = AuthLimit(tmp_path / "nbiot")
        server = f"0.0.0.0:{stand_in.port}"  # this host, but not known as such
        for _ in range(4):
            limit.take((server, *DEVICE))
        args = ["report", "t=1", "--no-wait", *where(stand_in)[:-1], server]
        done = await run(*args, NBIOT_DEVICE_SECRET=SECRET, XDG_STATE_HOME=str(tmp_path))
        assert done.returncode == 52, done.stderr
        assert not stand_in.requests


# --- bad input --------------------------------------------------------------------------------


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What is said about bad input."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    assert stop.value.code == 2
    said: str = capsys.readouterr().err
    return said


@pytest.fixture
def no_modem(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a port that does not exist: an attempt to open it would exit with 10."""
    monkeypatch.setenv("NBIOT_DEVICE_SECRET", SECRET)
    return ["--port", "/dev/ttyNOSUCH0", "--product-key", PRODUCT_KEY, "--server", "127.0.0.1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("report", "NAME=VALUE"),
        ("report t", "NAME=VALUE"),
        ("report t=1 t=2", "'t=2'"),
        ("report t!=1", "measurepoint: 't!'"),
        ("report t=NaN", "no NaN"),
        ("report t=-Infinity", "no Infinity"),
        ("report t=1e999", "finite"),
        ("report t=.5", "0.5, not .5"),
        ("report t=007", "'t=\"007\"'"),
        ("report t=null", "no null"),
        ("report t=True", "lower case"),
        ('report t={"a":1,"a":2}', "stands twice"),
        ("report t=[1", "line 1 column 3"),
        ("report t=1 --quality 10", "0 to 9"),
        ("report t=1 --event e --quality 1", "events have none"),
        ("report t=1 --time 1700000000", "--time 1700000000000"),
        ("report t=1 --time 2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("report t=1 --json-file /nonexistent/x", "No such file"),
        (f"report t={'x' * 1100}", "at most 1024 bytes"),
        ("report t=1 --lifetime 29", "30 to 86400"),
        ("report t=1 --attach-timeout nan", "attach timeout"),
        ("report t=1 --content-format -1", "content format"),
        ("raw", "one of HEX"),
        ("raw 0", "hexadecimal"),
        ("raw 01 --text a", "more than one"),
        (f"raw {'00' * 1025}", "1024"),
        ("attributes set a", "NAME=VALUE"),
        ("attributes get a a", "each name once"),
        ("attributes delete", "NAME"),
        ("tags set a.b=1", "tag: 'a.b'"),
        ("commands --once --exec", "a program"),
        ("commands --once program", "--exec"),
        ("commands --ack --exec true", "ack"),
        ("commands --exec no-such-program", "no-such-program"),
        ("commands --timeout 61", "0.1 to 60"),
        ("commands --poll 0.5", "1 to 86400"),
        ("commands --poll-raw x", "hexadecimal"),
    ],
)
def test_bad_input_is_found_before_the_modem_is_touched(
    line: str, said: str, no_modem: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, *rest = line.split(" ")
    verb = [rest.pop(0)] if first in ("attributes", "tags") else []
    told = fails(capsys, first, *verb, *no_modem, *rest)
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": Infinity}', "Infinity"),
        ("[1]", "a JSON object such as"),
        ('{"t": 1}', "on the command line and in the file"),
        ('{"a": null}', "null"),
        ("\xff", "UTF-8"),
        ('{"a": "' + "x" * 70000, "at most 65536 bytes"),
    ],
)
def test_a_bad_file_is_told_with_the_place(
    text: str, said: str, no_modem: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "points.json"
    file.write_bytes(text.encode("latin-1"))
    assert said in fails(capsys, "report", *no_modem, "t=1", "--json-file", str(file))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cost --bytes 6", "7 or more"),
        ("cost --bytes 1000", "at most 1024"),
        ("cost --modem bc96", "bc95-g"),
        ("cloud --port 65536", "0 to 65535"),
        ("cloud --device x", "productKey"),
        ("cloud --loss nan", "0 to 1"),
        ("cloud --behaviour slow", "a number"),
        ("cloud --behaviour code=9", "code=4.03"),
        ("cloud --behaviour silence", "silent"),
        ("cloud --send reboot", "service NAME"),
        ("cloud --log /nonexistent/x", "log"),
    ],
)
def test_bad_input_of_what_needs_no_modem(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in fails(capsys, *line.split(" "))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-0.5e1", -5.0),
        ("true", True),
        ("[1]", [1]),
        ('{"a":"b"}', {"a": "b"}),
        ('"1"', "1"),
        ("21,5", "21,5"),
        ("on", "on"),
        ("", ""),
        ("2026-01-31", "2026-01-31"),
        ("1 m", "1 m"),
    ],
)
def test_a_value_is_json_or_text(text: str, value: Any) -> None:
    found = json_or_text("x", text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["nan", "inf", "+5", "5.", "1_0", "FALSE", "None", '"a', "[1,]"])
def test_a_value_that_may_mean_either_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="x="):
        json_or_text("x", text)


def test_every_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report", "raw", "attributes", "tags", "commands", "cost", "cloud"):
        verbs = ("get", "set", "delete") if name in ("attributes", "tags") else ()
        for line in ([name], *([name, verb] for verb in verbs)):
            cli.main([*line, "--help"])
            told = capsys.readouterr().out
            assert f"    nbiot {' '.join(line)}" in told or name == "cloud"


# --- commands ---------------------------------------------------------------------------------

HANDLER = f"""\
#!{sys.executable}
import json, os, sys, time
command = json.load(sys.stdin)
print("NBIOT" in str(os.environ), *sys.argv[1:], file=sys.stderr)
match command:
    case {{"kind": "raw", "hex": digits}}:
        print(json.dumps({{"hex": digits + "ff"}}))
    case {{"service": "fail"}}:
        print("secret words", file=sys.stderr)
        sys.exit(7)
    case {{"service": "babble"}}:
        print("done!")
    case {{"service": "hang"}}:
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
        with open(command["params"]["note"], "w") as file:
            print(os.getpid(), file=file)
        time.sleep(1000)
    case {{"kind": "get"}}:
        print(json.dumps(dict.fromkeys(command["params"], 1)))
"""


@pytest.fixture
def handler(tmp_path: Path) -> str:
    file = tmp_path / "handler"
    file.write_text(HANDLER)
    file.chmod(0o755)
    return str(file)


def group_lives(group: int) -> bool:
    """Whether a process of that group is more than a zombie, which somebody else is to reap."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


async def test_a_program_carries_commands_out(handler: str, tmp_path: Path) -> None:
    async with cloud() as stand_in:
        note = tmp_path / "group"
        sent = [
            stand_in.send_command(*DEVICE, topic, params, raw=raw)
            for topic, params, raw in (
                ("thing/service/reboot", {"delay": 1}, None),
                ("get", ["t"], None),
                ("thing/service/fail", {}, None),
                ("thing/service/babble", {}, None),
                ("down_raw", None, b"\x01\x02"),
                ("thing/service/hang", {"note": str(note)}, None),
            )
        ]
        args = [*where(stand_in), "--once", "--timeout", "1", "--exec", handler, "--loud"]
        env = {"NBIOT_X": SECRET, "NBIOT_DEVICE_SECRET": "x"}
        done = await run("commands", "--secret-from", "env:NBIOT_X", *args, **env)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["answer"] for line in lines] == [
            {"code": 200, "data": {}},
            {"code": 200, "data": {"t": 1}},
            {"code": 2007, "data": {}},
            {"code": 1102, "data": {}},
            {"hex": "0102ff"},
            {"code": 1102, "data": {}},
        ]
        assert all(line["confirmed"] for line in lines)
        assert (lines[0]["service"], lines[0]["params"]) == ("reboot", {"delay": 1})
        assert [command.state.name for command in sent] == (
            ["SUCCESS", "SUCCESS", "FAILED", "FAILED", "SUCCESS", "FAILED"]
        )
        assert "service fail (id 3): exit code 7: secret words" in done.stderr
        assert "service hang (id 6): not done within 1 s: False --loud" in done.stderr
        assert not any(b"secret words" in request.payload for request in stand_in.requests)
        assert not group_lives(int(note.read_text()))


async def test_without_a_program_commands_are_printed_and_refused_or_acknowledged() -> None:
    async with cloud() as stand_in:
        for args, code in (((), 1101), (("--ack",), 200)):
            command = stand_in.send_command(*DEVICE, "set", {"t": 20})
            done = await say(stand_in, "commands", "--once", "-q", *args)
            line = json.loads(done.stdout)
            assert (line["kind"], line["params"], line["answer"]["code"]) == (
                "set",
                {"t": 20},
                code,
            )
            assert command.replies[0].code == code
        done = await say(stand_in, "commands", "--once", "--seconds", "0.2", "--poll", "0")
        assert done.returncode == 55
        assert "no command came" in done.stderr
        assert [request.path[0] for request in stand_in.requests][-2:] == ["topic", "auth"]
        assert (await say(stand_in, "commands", "--seconds", "0.1")).returncode == 0


async def test_commands_of_a_device_that_is_refused_end_with_its_exit_code() -> None:
    async with cloud() as stand_in:
        done = await say(stand_in, "commands", "--json", NBIOT_DEVICE_SECRET="some-other-secret")
        assert (done.returncode, json.loads(done.stdout)["code"]) == (50, "4.01")
    missing = ["--port", "/dev/ttyNOSUCH0", "--product-key", PRODUCT_KEY, "--server", "127.0.0.1"]
    assert (await run("commands", *missing, NBIOT_DEVICE_SECRET=SECRET)).returncode == 10


@asynccontextmanager
async def started(*args: str, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *NBIOT,
        *args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(NBIOT_DEVICE_SECRET=SECRET),
        **more,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_an_interrupt_ends_the_program_and_releases_the_port(
    handler: str, tmp_path: Path
) -> None:
    note = tmp_path / "group"
    async with cloud() as stand_in:
        stand_in.send_command(*DEVICE, "thing/service/hang", {"note": str(note)})
        with emulator("bc95", "--attached", "--speed", "100") as port:
            args = ["commands", *where(stand_in, port), "--exec", handler]
            async with started(*args) as process:
                async with asyncio.timeout(20):
                    while not (note.exists() and note.read_text().endswith("\n")):
                        await asyncio.sleep(0.02)
                process.send_signal(signal.SIGINT)
                _, said = await asyncio.wait_for(process.communicate(), 10)
            assert process.returncode == 130
            assert b"the port is released" in said
            assert not group_lives(int(note.read_text()))
            opened = (await run("at", "--port", port, "AT+NSOCR=DGRAM,17,0")).stdout
            assert opened.split() == ["0", "OK"]  # the first socket was free again


async def test_commands_survive_a_modem_that_goes_and_comes_back(tmp_path: Path) -> None:
    link = str(tmp_path / "modem")
    plug = ["bc95", "--attached", "--speed", "100", "--link", link]
    async with cloud() as stand_in:
        args = ["commands", *where(stand_in, link), "--poll", "1", "--ack", "--once"]
        async with asyncio.timeout(40), AsyncExitStack() as stack:
            with emulator(*plug):
                process = await stack.enter_async_context(started(*args))
                while len(stand_in.requests) < 2:
                    await asyncio.sleep(0.02)
            command = stand_in.send_command(*DEVICE, "set", {"t": 20})
            with emulator(*plug):
                out, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b"recovering: " in said
        assert json.loads(out)["params"] == {"t": 20}
        assert command.state is CommandState.SUCCESS


# --- costs and the stand-in -------------------------------------------------------------------


async def test_costs_are_measured_for_every_modem() -> None:
    done = await run("cost", "--json", "-q", "--bytes", "20", "--bytes", "900")
    rows = {(row["profile"], row["message"]): row for row in result(done)["rows"]}
    assert {profile for profile, _ in rows} == {"bc95", "bc95-g", "bc66"}
    auth = rows["bc95", "auth"]
    assert (auth["up"], auth["up_with_headers"], auth["round_trips"]) == (144, 172, 1)
    assert auth["serial_seconds"] == round(auth["serial_bytes"] * 10 / 9600, 3)
    assert [rows[name, "auth"]["released"] for name in ("bc95", "bc95-g", "bc66")] == (
        [True, True, False]
    )
    report = rows["bc95-g", "report 20"]
    assert report["up"] == 20 + rows["bc95-g", "report 900"]["up"] - 900
    assert rows["bc95", "report 900"]["datagrams_up"] > 1  # 512 bytes a datagram
    table = (await run("cost", "--modem", "bc66")).stdout
    assert "bc66   report 100" in table
    assert "Not in here: headers and signalling of LTE" in table


async def test_the_cloud_a_report_and_a_command_end_to_end(handler: str, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    args = ["cloud", "--port", "0", "--json", "--log", str(log), "--dialect", "2100+get"]
    async with started(*args, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = json.loads(await process.stdout.readline())
        assert hello["device"] == f"{PRODUCT_KEY}/{IMEI}"
        device = ["--port", BC95, "--product-key", PRODUCT_KEY, "--server", hello["listening"]]
        told = await run("report", "t=21.5", *device, NBIOT_DEVICE_SECRET=SECRET)
        assert told.returncode == 0, told.stderr
        process.stdin.write(b'nonsense\nget ["t"]\nraw 01')
        process.stdin.write_eof()  # and the last line has no end
        once = [*device, "--once", "-q", "--exec", handler]
        told = await run("commands", *once, NBIOT_DEVICE_SECRET=SECRET)
        assert [json.loads(line)["confirmed"] for line in told.stdout.splitlines()] == [True, True]
        seen: list[Any] = []
        async with asyncio.timeout(10):
            while sum(line.get("state") == "success" for line in seen) < 2:
                seen.append(json.loads(await process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 130
    assert b"nonsense" in said
    assert {"code": 200, "data": {"t": 1}}.items() <= next(
        line for line in seen if line.get("state") == "success"
    ).items()
    assert seen[-1]["hex"] == "01ff"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["code"] for record in records][:2] == ["2.04", "2.04"]
    assert SECRET not in log.read_text()
    assert all(len(json.loads(r["payload"])["sign"]) < 12 for r in records if "/auth/" in r["path"])


async def test_the_cloud_says_what_to_type_and_what_happens() -> None:
    args = ["cloud", "--port", "0", "--send", "service reboot {}", "--behaviour", "separate"]
    async with started(*args, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        hello = (await process.stdout.readline()).decode()
        hints = [(await process.stderr.readline()).decode() for _ in range(3)]
        typed = hints[1].split()
        assert typed[1:3] == ["nbiot", "report"]
        args = [word.strip("'") for word in typed[2:]]
        done = await run(*args, "--json", NBIOT_DEVICE_SECRET=typed[0].partition("=")[2])
        assert result(done)["commands_waiting"][0]["service"] == "reboot"
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        assert "EnOS stand-in: coap://127.0.0.1:" in hello
        said = out.decode()
        assert f'{IMEI} reports {{"temperature": 21.5}}: 2.04, 200' in said
        assert "command 1, service reboot: handed over to the device" in said
        assert (await run("cloud", "--host", "192.0.2.1")).returncode == 2

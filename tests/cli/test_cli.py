"""The command line as people and scripts use it: real processes, real pseudo-terminals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from hil.cloud import Behaviour, Cloud
from nbiot import errors

NBIOT = [sys.executable, "-m", "nbiot"]
PRODUCT_KEY = "KV315idW"
IMEI = "867726030047601"
SECRET = "M3yy874uGY8INjEGddTR"
FAST = "?attached=1&speed=100"


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NBIOT_")}
    return clean | {"TERM": "dumb", "COLUMNS": "100"} | more


def nbiot(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NBIOT, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # no terminal to prompt on
    )


async def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(nbiot, *args, **env)


@asynccontextmanager
async def cloud() -> AsyncIterator[Cloud]:
    async with Cloud({(PRODUCT_KEY, IMEI): SECRET}) as stand_in:
        yield stand_in


@contextmanager
def emulator(*args: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*NBIOT, "emulate", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def auth_args(stand_in: Cloud, port: str, *more: str) -> list[str]:
    server = f"{stand_in.host}:{stand_in.port}"
    return ["auth", "--port", port, "--product-key", PRODUCT_KEY, "--server", server, *more]


# --- the main job ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"), [("bc95", "udp"), ("bc95-g", "udp"), ("bc66", "udp"), ("bc66", "native")]
)
async def test_auth_prints_the_result_and_steps(model: str, path: str) -> None:
    async with cloud() as stand_in:
        done = await run(
            *auth_args(stand_in, f"emulator:{model}{FAST}", "--coap", path),
            NBIOT_DEVICE_SECRET=SECRET,
        )
        assert done.returncode == 0, done.stderr
        assert f"Authenticated: device {IMEI} of product {PRODUCT_KEY}" in done.stdout
        assert "registered" in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert stand_in.requests[-1].verdict == "signature ok"


async def test_auth_json_is_one_object() -> None:
    async with cloud() as stand_in:
        done = await run(
            *auth_args(
                stand_in, f"emulator:bc95{FAST}", "--json", "--quiet", "--lifetime", "86400"
            ),
            NBIOT_DEVICE_SECRET=SECRET,
        )
        found = json.loads(done.stdout)
        assert done.stderr == ""
        assert found["ok"] is True
        assert (found["code"], found["lifetime"], found["path"]) == ("2.04", 86400, "udp")
        assert found["bytes_up"] <= 145


async def test_a_refusal_is_told_with_its_exit_code() -> None:
    async with cloud() as stand_in:
        wrong = await run(
            *auth_args(stand_in, f"emulator:bc95{FAST}"), NBIOT_DEVICE_SECRET="some-other-secret"
        )
        assert wrong.returncode == 50
        assert "4.01" in wrong.stderr
        assert "some-other-secret" not in wrong.stdout + wrong.stderr
        as_json = await run(
            *auth_args(stand_in, f"emulator:bc95{FAST}", "--json"),
            NBIOT_DEVICE_SECRET="some-other-secret",
        )
        found = json.loads(as_json.stdout)
        assert (found["ok"], found["error"], found["code"]) == (False, "AuthRefused", "4.01")
        assert as_json.returncode == 50


async def test_the_secret_may_come_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o644)
    async with cloud() as stand_in:
        args = auth_args(stand_in, f"emulator:bc95{FAST}", "--secret-from", f"file:{file}")
        open_to_all = await run(*args)
        assert open_to_all.returncode == 53
        assert f"chmod 600 {file}" in open_to_all.stderr
        file.chmod(0o600)
        assert (await run(*args)).returncode == 0


async def test_a_trace_holds_the_dialogue(tmp_path: Path) -> None:
    trace = tmp_path / "dialogue.jsonl"
    async with cloud() as stand_in:
        await run(
            *auth_args(stand_in, f"emulator:bc95{FAST}", "--trace", str(trace)),
            NBIOT_DEVICE_SECRET=SECRET,
        )
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"dir": ">", "raw": "AT+CGSN=1\r"}.items() <= next(
        r for r in records if r.get("raw") == "AT+CGSN=1\r"
    ).items()
    assert any("+CGSN:" in r.get("raw", "") and r["event"] == "answer" for r in records)
    assert SECRET not in trace.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupt_closes_the_socket_and_releases_the_port(
    number: signal.Signals, code: int
) -> None:
    async with cloud() as stand_in:
        stand_in.behaviour = Behaviour(silent=True)
        with emulator("bc95", "--attached", "--speed", "100", "--show") as port:
            process = await asyncio.create_subprocess_exec(
                *NBIOT,
                *auth_args(stand_in, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(NBIOT_DEVICE_SECRET=SECRET),
            )
            while not stand_in.datagrams:
                await asyncio.sleep(0.02)
            process.send_signal(number)
            _, said = await asyncio.wait_for(process.communicate(), 10)
            assert process.returncode == code
            assert b"the port is released" in said
            stand_in.behaviour = Behaviour()
            again = await run(*auth_args(stand_in, port), NBIOT_DEVICE_SECRET=SECRET)
            assert again.returncode == 0, again.stderr
            opened = (await run("at", "--port", port, "AT+NSOCR=DGRAM,17,0")).stdout
            assert opened.split() == ["0", "OK"]  # the first socket was free again


async def test_two_at_once_get_a_clear_refusal() -> None:
    async with cloud() as stand_in:
        stand_in.behaviour = Behaviour(silent=True)
        with emulator("bc66", "--attached", "--speed", "100") as port:
            first = await asyncio.create_subprocess_exec(
                *NBIOT,
                *auth_args(stand_in, port),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(NBIOT_DEVICE_SECRET=SECRET),
            )
            while not stand_in.datagrams:
                await asyncio.sleep(0.02)
            second = await run("info", "--port", port)
            first.send_signal(signal.SIGINT)
            await first.wait()
        assert second.returncode == 11
        assert str(first.pid) in second.stderr


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--lifetime", "29"], "30 to 86400"),
        (["--product-key", "a b"], "productKey"),
        (["--device-key", "ab,c"], "deviceKey"),
        (["--server", "host:0"], "1 to 65535"),
        (["--enos", "abc.def.com"], "--enos"),
        (["--modem", "bc96"], "bc95-g"),
        (["--baud", "7"], "baudrate"),
        (["--ack-timeout", "0"], "ack_timeout"),
        (["--port", "emulator:bc96"], "bc95"),
        (["--port", "emulator:bc95?sped=1"], "speed"),
        (["--port", "nonsense:1"], "emulator:"),
        (["--secret-from", "hunter2"], "file:PATH"),
        (["--trace", "/nonexistent/x"], "trace"),
    ],
)
def test_bad_input_names_the_field_and_what_is_allowed(args: list[str], said: str) -> None:
    base = ["auth", "--port", "emulator:bc95", "--product-key", PRODUCT_KEY]
    server = [] if "--server" in args else ["--server", "127.0.0.1"]
    done = nbiot(*base, *server, *args, NBIOT_DEVICE_SECRET=SECRET)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_missing_port_lists_those_that_exist() -> None:
    done = nbiot("info", "--port", "/dev/ttyNOSUCH0")
    assert done.returncode == 10
    assert "/dev/ttyNOSUCH0" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_terminal_and_variable_the_secret_is_asked_for_in_words() -> None:
    done = nbiot("auth", "--port", "emulator:bc95", "--product-key", "KV315idW", "--server", "h")
    assert done.returncode == 53
    assert "env:NAME" in done.stderr


def test_a_silent_port_is_told_in_a_few_seconds() -> None:
    master, slave = os.openpty()
    try:
        begin = time.monotonic()
        done = nbiot("info", "--port", os.ttyname(slave))
        assert done.returncode == 20
        assert "tried 115200, 9600, 57600, 4800 baud" in done.stderr
        assert time.monotonic() - begin < 14  # nominally 6 s; this computer may be busy
    finally:
        os.close(master)
        os.close(slave)


# --- the other commands ---------------------------------------------------------------------


def test_info_tells_who_is_there() -> None:
    done = nbiot("info", "--json", "--quiet", "--port", f"emulator:bc66{FAST}")
    found = json.loads(done.stdout)
    assert (found["modem"], found["profile"], found["imei"]) == ("BC66", "bc66", IMEI)
    assert found["registration"] == "home"


def test_at_prints_what_comes_back_and_stops_at_a_refusal() -> None:
    with emulator("bc95", "--attached") as port:
        done = nbiot("at", "--port", port, "AT+CSQ", "AT+CEREG?", "AT+NOSUCH", "AT+CGMM")
    assert done.stdout.split() == ["+CSQ:18,99", "OK", "+CEREG:0,1", "OK", "ERROR"]
    assert done.returncode == 24


def test_at_json_is_one_object_a_command() -> None:
    with emulator("bc95", "--attached") as port:
        done = nbiot("at", "--json", "--port", port, "AT+CGMM", "AT+CSQ")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "command": "AT+CGMM",
        "lines": ["BC95HB-02-STD_900"],
        "final": "OK",
        "urcs": [],
    }
    assert second["lines"] == ["+CSQ:18,99"]


def test_emulate_serves_any_program_and_keeps_its_link(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    with emulator("bc66", "--link", str(link)) as port:
        assert link.resolve() == Path(port)
        fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(fd, b"ATE0\r")
            said = b""
            while b"OK" not in said:
                said += os.read(fd, 100)
        finally:
            os.close(fd)
    assert not link.is_symlink()


def test_profiles_show_every_fact_with_its_evidence() -> None:
    listed = nbiot("profiles").stdout
    for name in ("bc95", "bc95-g", "bc66"):
        assert name in listed
        facts = json.loads(nbiot("profiles", "show", name, "--json").stdout)["facts"]
        assert all(re.match(r"(captured|from_manual): \S", f["evidence"]) for f in facts)
        assert any(f["text"] == "AT+CGSN=1" for f in facts)


def test_the_demo_authenticates_through_both_modems() -> None:
    done = nbiot("demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Authenticated: device") == 3
    assert done.stdout.count("signature ok") == 3
    assert "--coap native" in done.stdout
    assert "4.01" in done.stdout


def test_help_lists_every_command_and_loads_none() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nbiot", "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
    )
    for command in ("auth", "info", "ports", "at", "profiles", "emulate", "demo"):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"asyncio", "serial", "aiocoap", "rich", "nbiot.modem", "hil"}


def test_the_exit_codes_are_documented() -> None:
    table = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    documented = {
        name: int(row[1])
        for row in re.findall(r"^\| ((\d+)) \| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row[2])
    }
    classes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.NbiotError)
        and kind is not errors.NbiotError
    }
    assert documented == classes


def test_faults_are_listed_and_taken_by_name() -> None:
    listed = nbiot("emulate", "--list-faults").stdout
    assert "late-final:" in listed
    done = nbiot("info", "--port", "emulator:bc95?attached=1&fault=late-final:delay=0.05")
    assert done.returncode == 0, done.stderr
    unknown = nbiot("info", "--port", "emulator:bc95?fault=late-finl")
    assert unknown.returncode == 2
    assert "late-final" in unknown.stderr
    with emulator("bc95", "--attached", "--fault", "no-answer:on=AT+CSQ,probability=1") as port:
        silent = nbiot("at", "--port", port, "--timeout", "0.5", "AT+CSQ")
    assert silent.returncode == 23

"""What a rig file may say, and what is said about one that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil.rig import BadRig, Rig, emulated_rig, load
from nbiot.errors import BadInput

SECRET = "M3yy874uGY8INjEGddTR"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "rig.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(folder: Path, text: str, mode: int = 0o600) -> BadRig:
    with pytest.raises(BadRig) as caught:
        load(written(folder, text, mode))
    assert caught.value.exit_code == 2
    return caught.value


def test_all_keys(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
[slot.roof]
port = "rfc2217://pi:2217"
modem = "bc66"
baud = 115200
apn = "iot.example"
server = "abc.def.com:5683"
product_key = "KV315idW"
device_key = "dev-1"
secret = "env:NBIOT_DEVICE_SECRET"
tags = ["roof", "slow"]
power = { backend = "http", on_url = "http://relay/on", off_url = "http://relay/off" }
reset = { backend = "gpio", pin = "GPIO17", seconds = 0.5 }

[slot.desk]
port = "emulator:bc95?fault=late-final:probability=0.2"
""",
    )
    rig = load(path)
    roof, desk = rig.slots
    assert (roof.name, roof.line, roof.baud) == ("roof", 2, 115200)
    assert roof.tags == {"roof", "slow"}
    assert roof.power == {
        "backend": "http",
        "on_url": "http://relay/on",
        "off_url": "http://relay/off",
    }
    assert (desk.line, desk.modem, desk.emulated, roof.emulated) == (15, "auto", True, False)
    assert rig.slot("desk") is desk
    assert {roof, desk} == set(rig.slots)  # hashable
    with pytest.raises(BadInput, match="Did you mean roof"):
        rig.slot("rof")


def test_the_emulated_rig_is_one_that_may_be_written(tmp_path: Path) -> None:
    text = "".join(
        f'[slot.{slot.name}]\nport = "{slot.port}"\nmodem = "{slot.modem}"\n'
        for slot in emulated_rig().slots
    )
    assert [s.port for s in load(written(tmp_path, text)).slots] == [
        s.port for s in emulated_rig().slots
    ]


E = '[slot.a]\nport = "emulator:bc66"\n'
BAD = {
    "syntax": ("[slot.a]\nport = \n", ":2", "Invalid value (column 8)"),
    "end": ('[slot.a]\nport = "x', ":2", ""),
    "twice": (E + E, ":3", "twice"),
    "unknown key": (E + "bauds = 9600\n", ":3: slot a has no key 'bauds'", "Did you mean baud?"),
    "unknown table": ("[slots.a]\nx = 1\n", ":1", "Did you mean slot?"),
    "no slots": ("\n", "no slots", "nbiot rig init"),
    "empty slots": ("\n[slot]\n", ":2", "no slots"),
    "slot no table": ("[slot]\na = 1\n", ":2", "a table: [slot.a]"),
    "name": ('[slot."a b"]\nport = "/dev/null"', ":1", "letters, digits"),
    "no port": ('[slot.a]\nmodem = "bc66"\n', ":1", "port is missing"),
    "port type": ("[slot.a]\nport = 3\n", ":2: slot a, key port: 3", "/dev/serial/by-id"),
    "scheme": ('[slot.a]\nport = "telnet://x"\n', ":2", "rfc2217:"),
    "emulator": ('[slot.a]\nport = "emulator:bc67"\n', ":2", "bc66"),
    "emulator option": ('[slot.a]\nport = "emulator:bc66?x=1"\n', ":2", "attached"),
    "emulator fault": ('[slot.a]\nport = "emulator:bc66?fault=x"\n', ":2", "late-final"),
    "relative": ('[slot.a]\nport = "ttyUSB0"\n', ":2", "/dev/..."),
    "dead": ('\n[slot.a]\nport = "/dev/ttyNONE"\n', ":2", "there is no port /dev/ttyNONE"),
    "modem": (E + 'modem = "bc67"\n', ":3", "Did you mean bc66?"),
    "baud": (E + 'baud = "9600"\n', ":3: slot a, key baud: '9600'", "50 to 4000000"),
    "baud bool": (E + "baud = true\n", ":3", "50 to 4000000"),
    "apn": (E + 'apn = "a b"\n', ":3", "letters"),
    "server": (E + 'server = "x:70000"\n', ":3", "HOST:PORT"),
    "product": (E + 'product_key = "x y"\n', ":3", "ASCII"),
    "device": (E + 'device_key = "x"\n', ":3", "4 to 64"),
    "tags": (E + 'tags = "x"\n', ":3", "list of texts"),
    "power text": (E + 'power = "http"\n', ":3", "backend"),
    "no backend": (E + 'power = { on_url = "x" }\n', ":3", "backend"),
    "backend": (E + 'power = { backend = "htpp" }\n', ":3", "Did you mean http?"),
    "its key": (
        E + '[slot.a.power]\nbackend = "http"\non_ulr = "x"\n',
        ":5",
        "Did you mean on_url?",
    ),
    "missing key": (E + 'power = { backend = "http" }\n', ":3", "cannot do without"),
    "its type": (
        E + 'power = { backend = "usb-hub", location = "1-1", port = "2" }\n',
        ":3: slot a, power, key port: 'str'",
        "a whole number",
    ),
    "its value": (
        E + '[slot.a.power]\nbackend="usb-hub"\nlocation="x"\nport=1\n',
        ":5",
        "uhubctl",
    ),
    "list": (
        E + 'power = { backend = "command", on_command = "on", off_command = ["x"] }\n',
        ":3",
        "a list of texts",
    ),
    "pulse": (E + 'reset = { backend = "emulator", seconds = 0 }\n', ":3", "above 0"),
    "gpio pin": (E + 'reset = { backend = "gpio", pin = "17" }\n', ":3", "GPIO17"),
    "emulator power": (
        '[slot.a]\nport = "socket://x:1"\npower = { backend = "emulator" }',
        ":3",
        "emulator:...",
    ),
    "same port": (
        '[slot.a]\nport="/dev/null"\n[slot.b]\nport="/dev/../dev/null"\n',
        ":4: slot b has the port of slot a (line 1, as /dev/null)",
        "cannot share",
    ),
    "same tcp": (
        '[slot.a]\nport="socket://PI:1"\n[slot.b]\nport="rfc2217://pi:1?timeout=5"\n',
        ":4",
        "cannot share",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    text, where, says = BAD[name]
    error = refused(tmp_path, text)
    assert str(error).startswith(str(tmp_path / "rig.toml"))
    assert where in str(error)
    assert says in str(error)


CLEAR = {
    "secret": E + f'secret = "{SECRET}"\n',
    "prefix": E + f'secret = "plain:{SECRET}"\n',
    "type": E + f'secret = ["{SECRET}"]\n',
    "unknown": E + f'device_secret = "{SECRET}"\n',
    "password": E
    + 'power = { backend = "http", on_url = "http://a", off_url = "http://a", user = "u",'
    f' password = "{SECRET}" }}\n',
    "in url": E
    + f'power = {{ backend = "http", on_url = "http://u:{SECRET}@a", off_url = "http://a" }}\n',
    "in odd url": E + f'power = {{ backend = "http", on_url = "{SECRET}", off_url = "http://a" }}',
    "key of backend": E + f'power = {{ backend = "emulator", secret = "{SECRET}" }}\n',
    "broken": E + f'secret = "{SECRET}\n',
    "twice": E + f'secret = "{SECRET}"\nsecret = "{SECRET}"\n',
}


@pytest.mark.parametrize("name", CLEAR)
def test_a_secret_in_clear_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, CLEAR[name])
    assert (":4" if name == "twice" else ":3") in str(error)
    assert SECRET not in f"{error} {error!r} {error.given} {error.args}"
    if name == "secret":
        assert 'secret = "env:NBIOT_DEVICE_SECRET"' in str(error)


WITH_SECRET = E + 'secret = "env:X"\n'
PROGRAM = E + 'power = { backend = "command", on_command = ["a"], off_command = ["b"] }\n'


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o666])
def test_others_must_not_use_a_file_with_secrets(tmp_path: Path, mode: int) -> None:
    error = refused(tmp_path, WITH_SECRET, mode)
    assert f"chmod 600 {tmp_path / 'rig.toml'}" in str(error)
    load(written(tmp_path, E, mode))


def test_others_must_not_write_a_file_that_names_programs(tmp_path: Path) -> None:
    load(written(tmp_path, PROGRAM, 0o644))
    assert "chmod 600" in str(refused(tmp_path, PROGRAM, 0o664))


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo", "latin-1", "long", "deep"])
def test_what_is_no_rig_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rig.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "latin-1":
        path.write_bytes(b"a = 1\n# \xe9\n")
    elif kind == "long":
        path.write_bytes(b"#" * 2_000_000)
    elif kind == "deep":
        path.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(BadRig) as caught:
        load(path)
    if kind == "latin-1":
        assert caught.value.line == 2


def test_a_dead_port_may_be_let_pass(tmp_path: Path) -> None:
    path = written(tmp_path, '[slot.a]\nport = "/dev/ttyNONE"\n')
    assert isinstance(load(path, ports=False), Rig)


def test_one_device_by_two_links(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.symlink_to("/dev/null")
    second.symlink_to(first)
    error = refused(tmp_path, f'[slot.a]\nport = "{first}"\n\n[slot.b]\nport = "{second}"\n')
    assert error.line == 5


TOML_VALUES = st.recursive(
    st.sampled_from(["1", "0.5", "true", '"x"', "'env:X'", "nan", "1979-05-27", '"/dev/null"']),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda v: f"[{', '.join(v)}]")
        | st.dictionaries(st.sampled_from(["backend", "pin", "port"]), inner, max_size=2).map(
            lambda v: "{" + ", ".join(f"{key} = {value}" for key, value in v.items()) + "}"
        )
    ),
    max_leaves=4,
)
KEYS = ("port", "modem", "baud", "apn", "server", "product_key", "device_key", "secret", "power",
        "reset", "tags", "name", "line")  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), TOML_VALUES, max_size=5), st.booleans())
def test_any_values_are_taken_or_refused_with_their_line(
    tmp_path: Path, values: dict[str, str], port: bool
) -> None:
    if port:
        values = {"port": '"emulator:bc66"'} | values
    text = "[slot.a]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    path = written(tmp_path, text)
    with suppress_into(BadRig) as caught:
        load(path)
    if caught:
        (error,) = caught
        assert 1 <= error.line <= len(values) + 1
        for number, key in enumerate(values, 2):
            assert f"key {key}:" not in str(error) or error.line == number


@contextmanager
def suppress_into(kind: type[BadRig]) -> Iterator[list[BadRig]]:
    caught: list[BadRig] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rig.toml"
    path.write_bytes(data)
    with pytest.raises(BadRig):
        load(path)

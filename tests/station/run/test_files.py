"""The station file and the recipe: what is taken, and how each mistake is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nbiot.enos.dtls import DtlsServer
from nbiot.errors import BadInput
from nbiot.station import config as configs
from nbiot.station import recipe as recipes
from nbiot.station.runner import check_together

DOCS = Path(__file__).resolve().parents[3] / "docs"
REGISTER = 'name = "S1"\n[identities]\nfrom = "register"\n'
SLOT = '[slot.1]\nport = "emulator:bc66"\n'


def station(folder: Path, text: str) -> configs.Config:
    path = folder / "station.toml"
    path.write_text(text)
    path.chmod(0o600)
    return configs.load(path)


def recipe(folder: Path, text: str) -> recipes.Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    path.chmod(0o600)
    return recipes.load(path)


def test_the_examples_in_the_documentation_are_taken(tmp_path: Path) -> None:
    for name in ("station.example.toml", "recipe.example.toml"):
        shutil.copy(DOCS / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    config = configs.load(tmp_path / "station.example.toml")
    assert config.recipe == tmp_path / "recipe.example.toml"
    assert [slot.name for slot in config.slots] == ["1", "2"]
    assert str(config.server) == "coap-abc.def.com:5683"
    found = recipes.load(config.recipe)
    assert {phase.kind for phase in found.phases} == set(recipes.KINDS)
    check_together(config, found)


def test_every_key_of_the_examples_is_in_the_documentation() -> None:
    text = (DOCS / "station.md").read_text()
    for kind in recipes.KINDS:
        assert f"`{kind}`" in text


def test_a_station_needs_little(tmp_path: Path) -> None:
    config = station(tmp_path, f'name = "S1"\nstate = "state"\n{SLOT}')
    assert config.state == tmp_path / "state"
    assert config.database == f"sqlite+aiosqlite:///{tmp_path}/state/station.db"
    assert config.vault == f"file:{tmp_path}/state/vault.key"
    assert config.screen.host == "127.0.0.1"
    assert config.rest is None


def test_slots_of_a_rig_file_and_dtls(tmp_path: Path) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text('[slot.roof]\nport = "emulator:bc95"\n')
    rig.chmod(0o600)
    text = 'name = "S1"\nrig = "rig.toml"\n[enos]\nserver = "coaps://192.0.2.1"\n'
    config = station(tmp_path, text)
    assert [slot.name for slot in config.slots] == ["roof"]
    assert isinstance(config.server, DtlsServer)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (SLOT, 0, "the key name is missing"),
        (f'name = "a b"\n{SLOT}', 1, "1 to 32 letters"),
        (f'name = "S1"\ncolour = 1\n{SLOT}', 2, "has no key 'colour'"),
        (f'name = "S1"\nprinters = "file:/x"\n{SLOT}', 2, "Did you mean printer?"),
        (f'name = "S1"\nprinter = "lpt1"\n{SLOT}', 2, "zpl://HOST"),
        (f'name = "S1"\nboards = "detect"\n{SLOT}', 2, "Did you mean detected?"),
        (f'name = "S1"\ntraces = -1\n{SLOT}', 2, "a whole number from 0"),
        (f'name = "S1"\ndatabase = "mysql://x/y"\n{SLOT}', 2, "mysql"),
        (f'name = "S1"\nvault = "secret"\n{SLOT}', 2, "env:NAME, file:PATH"),
        (f'name = "S1"\n[enos]\nlifetime = 3600\n{SLOT}', 2, "one of host"),
        (f'name = "S1"\n[enos]\nhost = "abc.de"\nlifetime = 3\n{SLOT}', 4, "30 to 86400"),
        (f'name = "S1"\n[screen]\nport = 99999\n{SLOT}', 3, "1 to 65535"),
        (f'name = "S1"\n[identities]\nfrom = "register"\n{SLOT}', 2, "the key rest is missing"),
        (f'{REGISTER}rest = "http://apim.example"\n{SLOT}', 4, "http:// is for this machine alone"),
        (f'{REGISTER}rest = "https://apim.example/x"\n{SLOT}', 4, "https://HOST[:PORT]"),
        (f"{REGISTER}rest = 443\n{SLOT}", 4, "key rest: 443"),
        ('name = "S1"\n', 0, "no slots"),
        ('name = "S1"\n[slot.1]\nport = "emulator:bc95"\nspeed = 1\n', 4, "has no key 'speed'"),
        (f'name = "S1"\nrig = "rig.toml"\n{SLOT}', 3, "only one of the two"),
        ("name = \n", 1, "Invalid value"),
    ],
)
def test_mistakes_in_a_station_file(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        station(tmp_path, text)
    place = f"station.toml:{line}:" if line else "station.toml:"
    assert place in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "localhost"])
def test_registration_without_encryption_only_on_this_machine(tmp_path: Path, host: str) -> None:
    more = 'org_id = "o"\naccess_key = "a"\nsecret_key = "env:KEY"\nproduct_key = "KV315idW"\n'
    config = station(tmp_path, f'{REGISTER}rest = "http://{host}"\n{more}{SLOT}')
    assert config.rest is not None
    assert config.rest.address == f"http://{host}"


def test_a_login_in_the_address_of_registration_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not shown") as caught:
        station(tmp_path, f'{REGISTER}rest = "https://me:tellnobody@h"\n{SLOT}')
    assert "tellnobody" not in f"{caught.value} {caught.value!r}"


def test_a_password_in_the_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    text = f'name = "S1"\ndatabase = "postgresql://me:tellnobody@h/d"\n{SLOT}'
    with pytest.raises(BadInput) as caught:
        station(tmp_path, text)
    assert "tellnobody" not in str(caught.value)
    assert "database_password" in str(caught.value)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(f'name = "S1"\n{SLOT}')
    path.chmod(0o666)
    with pytest.raises(BadInput, match="chmod go-w"):
        configs.load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nbiot station init"):
        configs.load(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="a regular file"):
        recipes.load(tmp_path)


IDENTIFY = '[[phase]]\nkind = "identify"\n'
CLAIM = '[[phase]]\nkind = "claim"\n'
ATTACH = '[[phase]]\nkind = "attach"\n'
AUTHENTICATE = '[[phase]]\nkind = "authenticate"\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (IDENTIFY, 0, "the key name is missing"),
        ('name = "r"\n', 0, "no phases"),
        ('name = "r"\n[[phase]]\nkind = "identfy"\n', 3, "Did you mean identify?"),
        (f'name = "r"\n{CLAIM}', 2, "needs a phase identify before it"),
        (f'name = "r"\n{IDENTIFY}{CLAIM}{AUTHENTICATE}', 6, "needs a phase attach"),
        (f'name = "r"\n{IDENTIFY}{IDENTIFY}', 4, "there is a phase identify already"),
        (f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "release"\n{ATTACH}', 6, "behind release"),
        (f'name = "r"\n{IDENTIFY}{ATTACH}{ATTACH}', 6, "(line 4) has this name"),
        (f'name = "r"\n{IDENTIFY}{ATTACH}seconds = 0\n', 6, "0.1 to 3600"),
        (f'name = "r"\n{IDENTIFY}{ATTACH}seconds = true\n', 6, "0.1 to 3600"),
        (f'name = "r"\n{IDENTIFY}{CLAIM}may_skip = true\n', 6, "nothing goes on without claim"),
        (f'name = "r"\n{IDENTIFY}models = []\n', 4, "a list"),
        (f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "radio"\nrsrp = 5\n', 6, "limits such as"),
        (f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "radio"\nrsrp = {{ lo = 5 }}\n', 6, "low"),
        (
            f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "radio"\necl = {{ low = 2, high = 1 }}\n',
            6,
            "not above high",
        ),
        (
            f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "program"\ncommand = ["no-such-program"]\n',
            6,
            "a program in the PATH",
        ),
        (
            f'name = "r"\n{IDENTIFY}[[phase]]\nkind = "program"\ncommand = ["true"]\n'
            "identity = true\n",
            7,
            "needs a phase claim",
        ),
        (
            f'name = "r"\n{IDENTIFY}{CLAIM}{ATTACH}{AUTHENTICATE}[[phase]]\nkind = "report"\n'
            'points = { rsrp = "$rspr" }\n',
            12,
            "$rsrp",
        ),
        (f'name = "r"\nserial_number = "["\n{IDENTIFY}', 2, "a regular expression"),
        (f'name = "r"\nphases = 1\n{IDENTIFY}', 2, "Did you mean phase?"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        recipe(tmp_path, text)
    place = f"recipe.toml:{line}:" if line else "recipe.toml:"
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_recipe_and_station_must_fit(tmp_path: Path) -> None:
    config = station(tmp_path, f'name = "S1"\n{SLOT}')
    with pytest.raises(BadInput, match="enos"):
        check_together(
            config, recipe(tmp_path, f'name = "r"\n{IDENTIFY}{CLAIM}{ATTACH}{AUTHENTICATE}')
        )
    label = '[[phase]]\nkind = "label"\n'
    with pytest.raises(BadInput, match="printer"):
        check_together(config, recipe(tmp_path, f'name = "r"\n{IDENTIFY}{label}'))


@pytest.mark.parametrize(
    ("imei", "good"),
    [
        ("490154203237518", True),  # the example of 3GPP TS 23.003 and many a manual
        ("867726030047601", True),
        ("490154203237519", False),
        ("49015420323751", False),
        ("49015420323751X", False),
        ("４90154203237518", False),
    ],
)
def test_the_check_digit_of_an_imei(imei: str, good: bool) -> None:
    from nbiot.station.phases import luhn

    assert luhn(imei) is good

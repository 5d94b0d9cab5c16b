"""Which commands are sent by themselves, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbiot.capture import Step, check_commands, default_commands, read_commands, steps_of
from nbiot.errors import BadInput
from nbiot.modem import profiles

HARMLESS = {"AT", "ATI", "AT+CGSN=1", "AT+CGPADDR=1", "AT+QENG=0"}


@pytest.mark.parametrize("name", ["bc95", "bc95-g", "bc66"])
def test_the_default_commands_only_ask(name: str) -> None:
    found = default_commands(profiles()[name])
    check_commands(steps_of(found), sure=False)
    for text in found:
        assert text in HARMLESS or text.endswith("?") or "=" not in text, text
    assert not {"AT+COPS=?", "AT+NRB", "AT+QRST?", "AT+QCOAPDEL"} & set(found)
    assert {"AT+CEREG?", "AT+CEREG=?", "AT+CIMI", "AT+CGDCONT=?", "AT+CPIN?"} <= set(found)
    assert len(found) == len(set(found)) > 40


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("AT+NRB", "restarts"),
        ("at+nrb", "restarts"),
        ("AT + QRST=1", "restarts"),
        ("AT+CFUN=1,1", "restarts"),
        ("AT+CSQ;+NRB", "restarts"),
        ("ATE0+NRB", "restarts"),
        ('AT+CGDCONT=1,"IP","a;b";+QRST=1', "writes a setting"),
        ("AT+NCONFIG=AUTOCONNECT,TRUE", "writes a setting"),
        ("ATE0&W", "writes a setting"),
        ("ATZ", "factory"),
        ("AT&F0", "factory"),
        ("AT+QPOWD=0", "off"),
        ('AT+EGMR=1,7,"490154203237518"', "identity"),
        ("AT+CRSM=214,28542", "SIM"),
        ("AT+NFWUPD=0", "firmware"),
    ],
)
def test_what_changes_things_for_good_wants_a_yes(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=r"--yes") as caught:
        check_commands(steps_of([text]), sure=False)
    assert why in str(caught.value)
    check_commands(steps_of([text]), sure=True)


@pytest.mark.parametrize(
    "text",
    [
        'AT+QSSLCFG="psk",1,"secret"',
        'AT+CGAUTH=1,1,"user","hunter22"',
        "AT+CGAUTH?",
        "AT+QSETPSK=867726030047601,hunter22",
        'AT+COAPPSK="hunter22"',
        'AT+QMTCONN=0,"id","user","hunter22"',
        'AT+QMTCFG="aliauth",0,"pk","dn","hunter22"',
        "AT+CPIN=1234",
        'AT+CLCK="SC",1,"1234"',
        "AT+CSQ;+CPIN=1234",
    ],
)
def test_secrets_are_refused_whatever_is_said(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_commands(steps_of([text]), sure=True)
    assert "hunter22" not in str(caught.value)
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "AT+CEREG=2",
        "AT+NRB=?",
        "AT+CGAUTH=?",
        "AT+CPIN?",
        "AT+CFUN=0",
        "AT+CRSM=176,28539",
        "AT+QISEND=0,0",
        'AT+QMTCFG="keepalive",0,60',
        "AT+IPR?",
        "AT+NSOCR=DGRAM,17,0,1",
    ],
)
def test_what_a_user_may_ask_for(text: str) -> None:
    check_commands(steps_of([text]), sure=False)


@pytest.mark.parametrize("text", ["", "CSQ", "AT+CSQ\rAT+NRB", "AT+X=é", "AT" + "x" * 3000])
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(BadInput):
        check_commands(steps_of([text]), sure=True)


def test_a_command_that_waits_for_data_gets_some() -> None:
    with pytest.raises(BadInput, match="data for it"):
        check_commands(steps_of(["AT+QISEND=0,5"]), sure=False)
    check_commands([Step("AT+QISEND=0,5", payload=b"hello")], sure=False)


def test_a_file_of_commands(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    file.write_text("# sockets\n\nAT+QISEND=0,5\n> he\\x00lo\nwait 0.5\n  AT+CSQ\n")
    data, wait, last = read_commands(file)
    assert (data.text, data.payload) == ("AT+QISEND=0,5", b"he\x00lo")
    assert wait.wait == 0.5
    assert (last.text, last.where) == ("AT+CSQ", "c.txt, line 6")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("AT\nCSQ\n", "line 2"),
        ("AT\nwait\n", "line 2"),
        ("AT\nwait nan\n", "line 2"),
        ("wait 9999\n", "line 1"),
        ("> data\n", "line 1"),
        ("AT\nwait 1\n> data\n", "line 3"),
        ("AT+QISEND=0,5\n> \\xZZ\n", "line 2"),
        ("# nothing\n", "a command a line"),
    ],
)
def test_rubbish_in_a_file_of_commands_is_named_with_its_line(
    tmp_path: Path, text: str, line: str
) -> None:
    file = tmp_path / "c.txt"
    file.write_text(text)
    with pytest.raises(BadInput, match=line):
        read_commands(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can be read"):
        read_commands(tmp_path / "none")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        read_commands(tmp_path / "b")

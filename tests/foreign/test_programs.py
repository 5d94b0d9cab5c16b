"""gammu, chat, a shell and two Python libraries against the BC66 and the BC95.

Where a real modem would turn a program away, the emulated one must as well: a BC95 has neither
+CREG nor +CPIN. All that matters then is that it says so at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hil.emulator import PtyModem

from .hosts import RATES, Done, needs, needs_module, on_each, run

HERE = Path(__file__).parent
IMEI, IMSI = "867726030047601", "460043193006443"


# ---------------------------------------------------------------------- gammu


async def gammu(folder: Path, model: str, pty: PtyModem, command: str) -> Done:
    settings = folder / f"{model}.rc"
    settings.write_text(f"[gammu]\ndevice = {pty.path}\nconnection = at{RATES[model]}\n")
    return await run("gammu", "-c", settings, command)


@needs("gammu", "gammu")
async def test_gammu_identify(tmp_path: Path) -> None:
    done = await on_each(lambda model, pty: gammu(tmp_path, model, pty, "--identify"))

    told, asked = done["bc66"]
    assert told.code == 0, told.output
    assert told.fields["Manufacturer"] == "Quectel_Ltd"
    assert told.fields["Model"] == "unknown (Quectel_BC66)"
    assert told.fields["Firmware"] == "BC66NBR01A11"
    assert told.fields["IMEI"] == IMEI
    assert told.fields["SIM IMSI"] == IMSI
    assert len(asked) >= 15, asked

    told, asked = done["bc95"]
    assert told.code == 0, told.output
    assert told.fields["Manufacturer"] == "Quectel"
    assert told.fields["Model"] == "unknown (BC95HB-02-STD_900)"
    assert told.fields["SIM IMSI"] == IMSI
    assert "IMEI" not in told.fields  # it asks AT+CGSN, where a BC95 wants AT+CGSN=1
    assert len(asked) >= 15, asked


@needs("gammu", "gammu")
async def test_gammu_networkinfo(tmp_path: Path) -> None:
    done = await on_each(lambda model, pty: gammu(tmp_path, model, pty, "--networkinfo"))

    told, asked = done["bc66"]
    assert told.code == 0, told.output
    assert told.fields["Network state"] == told.fields["Packet network state"] == "home network"
    assert told.fields["Network"].startswith("460 00 (China Mobile, China), LAC 7871")
    assert told.fields["GPRS"] == "attached"
    assert {"AT+CREG?", "AT+CGREG?", "AT+COPS?"} <= set(asked)

    told, asked = done["bc95"]
    assert told.code != 0
    assert told.output.strip() == "Unknown error."
    assert asked[-2:] == ["AT+CREG=2", "AT+CREG=1"]  # a BC95 has only AT+CEREG


# ----------------------------------------------------------------------- chat


@needs("chat", "ppp")
async def test_chat_attaches_and_asks_the_signal(tmp_path: Path) -> None:
    async def chat(model: str, pty: PtyModem) -> Done:
        attached = {"bc66": "'CGATT: 1'", "bc95": "CGATT:1"}[model]
        script = tmp_path / model
        script.write_text(
            "ABORT ERROR TIMEOUT 5 REPORT +CSQ:\n"
            "'' ATE0 OK AT+CFUN=1 OK AT+CGATT=1 OK '\\d\\dAT+CGATT?'\n"
            f"{attached} '\\c' OK AT+CSQ OK '\\c'\n"
        )
        return await run("chat", "-r", tmp_path / f"{model}.txt", "-f", script, port=pty.path)

    done = await on_each(chat, attached=False, speed=10.0)
    for model, (told, asked) in done.items():
        assert told.code == 0, (model, told.output, asked)
        assert asked == ["ATE0", "AT+CFUN=1", "AT+CGATT=1", "AT+CGATT?", "AT+CSQ"]
    assert "+CSQ: 18,0" in (tmp_path / "bc66.txt").read_text()
    assert "+CSQ:18,99" in (tmp_path / "bc95.txt").read_text()


@needs("chat", "ppp")
async def test_chat_aborts_at_an_unknown_command(tmp_path: Path) -> None:
    done = await on_each(
        lambda model, pty: run(
            "chat", "-t", "5", "ABORT", "ERROR", "", "ATE0", "OK", "AT+NOPE", "OK", port=pty.path
        )
    )
    assert {told.code for told, _ in done.values()} == {4}  # the first of the ABORT strings


# ---------------------------------------------------------------------- shell


@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_a_plain_shell_script(shell: str) -> None:
    script = HERE / "plain.sh"
    commands = ("ATE0", "AT+CSQ", "AT+CEREG?", "AT+CIMI", "AT+CGSN=1", "AT+NOPE", "AT+CGMI")
    done = await on_each(
        lambda model, pty: run(shell, script, pty.path, str(RATES[model]), *commands)
    )
    for told, asked in done.values():
        assert told.code == 1  # AT+NOPE ended it
        assert asked == list(commands[:-1])
    assert done["bc66"][0].output.splitlines() == [
        "+CSQ: 18,0",
        "+CEREG: 0,1",
        IMSI,
        f"+CGSN: {IMEI}",
    ]
    assert done["bc95"][0].output.splitlines() == [
        "+CSQ:18,99",
        "+CEREG:0,1",
        IMSI,
        f"+CGSN:{IMEI}",
    ]


# --------------------------------------------------------- libraries of Python

# In processes of their own: they start threads, and one of them does not compile without warnings.

GSMMODEM = """
import json, sys
from gsmmodem.exceptions import CommandError
from gsmmodem.modem import GsmModem
modem = GsmModem(sys.argv[1], int(sys.argv[2]))
try:
    modem.connect()
except CommandError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([modem.imei, modem.imsi, modem.manufacturer, modem.model, modem.revision,
                      modem.signalStrength, modem.networkName, modem.smsc]))
modem.close()
"""


@needs_module("gsmmodem", "python-gsmmodem-new")
async def test_python_gsmmodem() -> None:
    done = await on_each(
        lambda model, pty: run(
            sys.executable, "-W", "ignore", "-c", GSMMODEM, pty.path, str(RATES[model])
        )
    )

    told, asked = done["bc66"]
    assert told.code == 0, told.output
    assert told.last == [
        *(IMEI, IMSI, "Quectel_Ltd", "Quectel_BC66", "Revision: BC66NBR01A11", 18, "46000", None)
    ]
    assert len(asked) >= 30, asked

    told, asked = done["bc95"]
    assert told.code == 0, told.output
    assert told.last == "AT+CPIN?"  # it cannot do without; a BC95 has none
    assert asked == ["ATZ", "AT+CMEE=1", "AT+CPIN?"]


PYATCOMMAND = """
import json, sys
from pyatcommand import AtClient
client = AtClient()
client.connect(port=sys.argv[1], baudrate=int(sys.argv[2]))
answers = [client.send_command(command) for command in sys.argv[3:]]
print(json.dumps([[answer.ok, answer.info] for answer in answers]))
client.disconnect()
"""


@needs_module("pyatcommand", "pyatcommand")
async def test_pyatcommand() -> None:
    commands = ("AT+CSQ", "AT+CGSN=1", "AT+CEREG?", "AT+NOPE", "AT+CGMI")

    async def host(model: str, pty: PtyModem) -> Done:
        return await run(sys.executable, "-c", PYATCOMMAND, pty.path, str(RATES[model]), *commands)

    done = await on_each(host)
    answers = {}
    for model, (told, asked) in done.items():
        assert told.code == 0, told.output
        answers[model] = told.last
        assert asked[-5:] == list(commands)
    assert answers["bc66"] == [
        [True, "+CSQ: 18,0"],
        [True, f"+CGSN: {IMEI}"],
        [True, "+CEREG: 0,1"],
        [False, None],
        [True, "Quectel_Ltd"],
    ]
    assert answers["bc95"] == [
        [True, "+CSQ:18,99"],
        [True, f"+CGSN:{IMEI}"],
        [True, "+CEREG:0,1"],
        [False, None],
        [True, "Quectel"],
    ]

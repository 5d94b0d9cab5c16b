"""ModemManager against a pseudo terminal: no hardware, no udev, nothing of the system touched.

ModemManager only takes ports that udev or the kernel knows, so the terminal is mounted over
/dev/tty63, with rules that let it be probed. That, its D-Bus and polkitd live in namespaces of
their own: with the first process of the namespace all others and all mounts are gone.

By hand, as root:  python -m tests.foreign.modemmanager PORT [BAUDRATE]
From a test:       command(port, rate, folder) is the program; it prints a `Report` as JSON.
Inside:            python -m tests.foreign.modemmanager PORT BAUDRATE FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

TTY = "tty63"  # /sys/class/tty must know the name; nobody uses the last console
RULES = Path("/usr/lib/udev/rules.d")
POLKITD = Path("/usr/lib/polkit-1/polkitd")
BUS = Path("/run/dbus/system_bus_socket")
BUS_SETTINGS = f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={BUS}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""
FOUND_WITHIN = 40.0  # s; probing takes about 5
REGISTERED_WITHIN = 30.0
ALL_WITHIN = 100.0


class Report(TypedDict):
    """What a user would see; `modem` and `registered` are those of `mmcli -m any -J`."""

    error: str
    modem: dict[str, Any]
    text: str
    enable: str
    registered: dict[str, Any]
    after: str


def missing() -> str:
    """Why this cannot run here; empty when it can."""
    needed = {
        "ModemManager": "modemmanager",
        "mmcli": "modemmanager",
        "dbus-daemon": "dbus",
        "unshare": "util-linux",
    }
    packages = {package for program, package in needed.items() if shutil.which(program) is None}
    if not POLKITD.exists():
        packages.add("polkitd")
    if packages:
        return f"needs the Debian packages: {' '.join(sorted(packages))}"
    if os.geteuid() != 0:
        return "needs root: it mounts the terminal over a console in a namespace of its own"
    if not Path(f"/dev/{TTY}").exists() or not Path(f"/sys/class/tty/{TTY}").exists():
        return f"needs the console device /dev/{TTY}"
    probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        return f"needs namespaces: {probe.stderr.strip()}"
    return ""


_UNSHARE = ["unshare", "--mount", "--propagation", "private", "--ipc", "--pid", "--fork"]
_UNSHARE += ["--mount-proc", "--kill-child"]


def command(port: str, rate: int, folder: Path) -> list[str]:
    """The program that starts everything; when it ends, so does everything."""
    run = [sys.executable, "-m", "tests.foreign.modemmanager", port, str(rate), str(folder)]
    return [*_UNSHARE, *run]


def show(port: str, rate: int) -> int:
    """What a user types `mmcli` for."""
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        run = command(os.path.realpath(port), rate, Path(folder))
        done = subprocess.run(run, stdout=subprocess.PIPE, timeout=ALL_WITHIN)
        if done.returncode:
            return done.returncode
        report: Report = json.loads(done.stdout)
    for text in (report["text"], report["enable"], report["after"], report["error"]):
        print(text)
    return 1 if report["error"] else 0


# --------------------------------------------------------------------------- inside


def main(port: str, rate: int, folder: Path) -> Report:
    report = Report(error="", modem={}, text="", enable="", registered={}, after="")
    os.environ["TMPDIR"] = str(folder)  # so that a test can tell whose these processes are
    _mount(port, rate, folder)
    BUS.parent.mkdir()
    (folder / "bus.conf").write_text(BUS_SETTINGS)
    _start(folder, "dbus-daemon", f"--config-file={folder / 'bus.conf'}", "--nofork", "--nopidfile")
    _wait(BUS.exists, 5)
    _start(folder, str(POLKITD), "--no-debug")
    events = folder / "events"
    events.write_text(f"action=add,subsystem=tty,name={TTY},uid=emulator\n")
    _start(
        folder,
        "ModemManager",
        "--test-no-udev",
        "--no-auto-scan",
        f"--initial-kernel-events={events}",
        "--debug",
    )
    if not _wait(lambda: bool(_mmcli("-L", "-J").get("modem-list")), FOUND_WITHIN):
        report["error"] = "ModemManager found no modem"
        return report
    _wait(lambda: _state() not in ("", "unknown", "initializing"), 20)
    report["modem"] = _modem()
    report["text"] = _run("mmcli", "-m", "any")
    if _state() == "failed":
        report["error"] = str(report["modem"]["generic"]["state-failed-reason"])
        return report
    report["enable"] = _run("mmcli", "-m", "any", "--enable")
    if not _wait(lambda: _state() in ("registered", "connected"), REGISTERED_WITHIN):
        report["error"] = f"not registered but {_state()}"
    report["registered"] = _modem()
    report["after"] = _run("mmcli", "-m", "any")
    return report


def _mount(port: str, rate: int, folder: Path) -> None:
    rules = folder / "rules.d"
    shutil.copytree(RULES, rules)
    told = {"DEVICE_PROCESS": 1, "PORT_TYPE_AT_PRIMARY": 1, "TTY_BAUDRATE": rate}
    marks = "".join(f'KERNEL=="{TTY}", ENV{{ID_MM_{n}}}="{v}"\n' for n, v in told.items())
    (rules / "78-mm-emulator.rules").write_text(marks)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["mount", "--bind", str(rules), str(RULES)], check=True)
    subprocess.run(["mount", "--bind", port, f"/dev/{TTY}"], check=True)


def _start(folder: Path, *program: str) -> None:
    with (folder / f"{Path(program[0]).name}.log").open("wb") as log:
        subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _run(*program: str) -> str:
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def _mmcli(*arguments: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(_run("mmcli", *arguments))
    except ValueError:  # not on the bus yet: a message in words
        return {}
    return told


def _modem() -> dict[str, Any]:
    modem: dict[str, Any] = _mmcli("-m", "any", "-J").get("modem", {})
    return modem


def _state() -> str:
    return str(_modem().get("generic", {}).get("state", ""))


def _wait(condition: Any, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    port, rate = sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 115200
    if not sys.argv[3:]:
        sys.exit(show(port, rate))
    print(json.dumps(main(port, rate, Path(sys.argv[3]))))

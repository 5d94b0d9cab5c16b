"""The lock of a port, between real processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hil.lock import FOLDER_VARIABLE, lock_file, locked
from nbiot.errors import PortBusy, PortError, PortMissing

HOLD = """
import sys
from hil.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "locks"
    found.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(found))
    return found


@pytest.fixture
def port() -> Iterator[str]:
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


@contextmanager
def another_run(port: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_run_is_named(port: str) -> None:
    with another_run(port) as other:
        with pytest.raises(PortBusy) as caught, locked(port):
            pass
        assert f"(pid {other.pid})" in caught.value.message
        assert "python" in caught.value.message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_dies_leaves_no_lock(port: str, how: signal.Signals) -> None:
    with another_run(port) as other:
        other.send_signal(how)
        other.wait()
        with locked(port):
            pass


def test_a_child_of_a_dead_run_does_not_keep_the_lock(port: str) -> None:
    program = HOLD.replace(
        'print("held"',
        'import subprocess; print(subprocess.Popen(["sleep", "60"], stdout=-3).pid, "held"',
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[0])
        process.kill()
        process.wait()
        try:
            with locked(port):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_all_names_of_a_device_are_one(port: str, tmp_path: Path) -> None:
    by_id = tmp_path / "usb-Quectel"
    by_id.symlink_to(port)
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | 0o020000, os.stat(port).st_rdev)
    except PermissionError:  # only root may
        node.symlink_to(by_id)
    assert lock_file(port) == lock_file(str(by_id)) == lock_file(str(node))
    with another_run(str(by_id)), pytest.raises(PortBusy), locked(port):
        pass


def test_one_tcp_port_by_two_schemes() -> None:
    with locked("socket://PI:2217"):
        with pytest.raises(PortBusy, match="this process"), locked("rfc2217://pi:2217?timeout=5"):
            pass
        with locked("rfc2217://pi:2218"):
            pass


def test_emulators_share_nothing() -> None:
    with locked("emulator:bc66"), locked("emulator:bc66"):
        pass


def test_it_can_be_taken_again_and_lets_go_after_an_error(port: str) -> None:
    with pytest.raises(ZeroDivisionError), locked(port):
        raise ZeroDivisionError
    with locked(port):
        pass


def test_a_removed_lock_file_is_no_way_round(port: str) -> None:
    with another_run(port):
        lock_file(port).unlink()
        with locked(port):  # the lock of a file that is gone counts for nothing
            assert lock_file(port).exists()


def test_every_user_can_use_the_file(port: str) -> None:
    old = os.umask(0o077)
    try:
        with locked(port):
            assert lock_file(port).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def test_a_symbolic_link_in_place_of_the_file_is_not_followed(port: str, tmp_path: Path) -> None:
    lock_file(port).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PortError, match=FOLDER_VARIABLE), locked(port):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_port_that_does_not_exist() -> None:
    with pytest.raises(PortMissing), locked("/dev/ttyNONE"):
        pass


def test_a_port_that_is_switched_off_can_be_locked() -> None:
    """With its supply a USB adapter goes, too."""
    gone = "/dev/ttyNONE"
    with locked(gone, unused=False), pytest.raises(PortBusy), locked(gone, unused=False):
        pass


def test_the_folder_does_not_depend_on_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert lock_file("socket://x:1").parent.stat().st_mode & 0o002


def test_two_runs_at_the_same_moment(port: str) -> None:
    """Of many that start together exactly one gets it."""
    program = (
        "import sys\nfrom hil.lock import locked\nfrom nbiot.errors import PortBusy\n"
        "sys.stdin.readline()\n"
        "try:\n    with locked(sys.argv[1]):\n        print('held', flush=True)\n"
        "        sys.stdin.readline()\nexcept PortBusy:\n    print('busy', flush=True)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(6)
    ]
    try:
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("\n")
        said = [run.stdout.readline().strip() for run in runs if run.stdout is not None]
        assert sorted(said) == ["busy"] * 5 + ["held"]
    finally:
        for run in runs:
            run.kill()
            run.communicate()

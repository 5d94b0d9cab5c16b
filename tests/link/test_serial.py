"""Opening, closing and the errors of serial ports, on ptys."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial
import serial.tools.list_ports

from nbiot.errors import (
    BadInput,
    PortBusy,
    PortError,
    PortLost,
    PortMissing,
    PortNotPermitted,
)
from nbiot.link import Link, open_link, ports
from nbiot.link.direct import DirectTransport
from nbiot.link.memory import MemoryLink
from nbiot.link.serial import TRANSPORT_VARIABLE, TRANSPORTS, open_serial

TIOCGEXCL = 0x80045440  # asm-generic/ioctls.h; Python has no name for it


class Ear:
    def __init__(self) -> None:
        self.data = bytearray()
        self.losses = 0

    def received(self, data: bytes) -> None:
        self.data += data

    def lost(self, error: PortLost) -> None:
        self.losses += 1


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def slow_open(monkeypatch: pytest.MonkeyPatch) -> list[serial.Serial]:
    """Opening takes 0.2 s; what was opened stays in a list, so that no garbage collector closes."""
    real_open = serial.Serial.open
    opened: list[serial.Serial] = []

    def slow(port: serial.Serial) -> None:
        time.sleep(0.2)
        real_open(port)
        opened.append(port)

    monkeypatch.setattr(serial.Serial, "open", slow)
    return opened


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each of the two."""
    monkeypatch.setenv(TRANSPORT_VARIABLE, request.param)
    chosen: str = request.param
    return chosen


EACH_TRANSPORT = pytest.mark.usefixtures("transport")


def other_process(path: str, name: str, *, lock: bool) -> subprocess.Popen[bytes]:
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
        f"{lock} and fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "open('/proc/self/comm', 'w').write(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


# --- opening ------------------------------------------------------------------------------------


async def test_loop_runs_while_opening(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = serial.Serial.open
    loop_ran = threading.Event()
    seen = []

    def slow(port: serial.Serial) -> None:
        seen.append(loop_ran.wait(2))
        real_open(port)

    monkeypatch.setattr(serial.Serial, "open", slow)
    opening = asyncio.ensure_future(open_link(pty[1]))
    await asyncio.sleep(0.05)
    loop_ran.set()
    await (await opening).close()
    assert seen == [True]


@pytest.mark.parametrize("after", [0.02, 0.1])
async def test_cancelled_open_leaks_nothing(
    pty: tuple[int, str], slow_open: list[serial.Serial], after: float
) -> None:
    before = descriptors()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(open_link(pty[1]), after)
    async with asyncio.timeout(5):
        while not slow_open or slow_open[0].is_open:
            await asyncio.sleep(0.01)
    assert descriptors() == before
    await (await open_link(pty[1])).close()


async def test_open_cancelled_when_just_done(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    opened: list[serial.Serial] = []
    real_open = serial.Serial.open

    def keep(port: serial.Serial) -> None:
        real_open(port)
        opened.append(port)

    monkeypatch.setattr(serial.Serial, "open", keep)
    opening = asyncio.ensure_future(open_link(pty[1]))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251  # the thread is done, the loop does not know
    assert opened
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert descriptors() == before


def test_loop_that_ends_while_opening_leaks_nothing(
    pty: tuple[int, str], slow_open: list[serial.Serial]
) -> None:
    before = descriptors()

    async def main() -> None:
        opening = asyncio.ensure_future(open_link(pty[1]))
        await asyncio.sleep(0.02)
        assert not opening.done()

    asyncio.run(main())
    assert descriptors() == before
    assert slow_open


@EACH_TRANSPORT
async def test_stale_bytes_are_dropped(pty: tuple[int, str]) -> None:
    master, path = pty
    await (await open_link(path)).close()  # raw from here on: no echo
    os.write(master, b"\r\nOK\r\n")
    await asyncio.sleep(0.02)
    link = await open_link(path)
    ear = Ear()
    link.start(ear)
    os.write(master, b"fresh")
    await asyncio.sleep(0.05)
    await link.close()
    assert ear.data == b"fresh"


@EACH_TRANSPORT
async def test_eight_bits_are_clean(pty: tuple[int, str]) -> None:
    """No flow control and no translation: XON, XOFF, CR, LF, DEL, 0xFF and Ctrl-C are data."""
    master, path = pty
    data = b"\x11\x13\r\n\x7f\xff\x03\x00\x1a"
    link = await open_link(path, baudrate=115200)
    ear = Ear()
    link.start(ear)
    os.write(master, data)
    link.write(data)
    await asyncio.sleep(0.05)
    await link.close()
    assert ear.data == os.read(master, 100) == data


@pytest.mark.parametrize("baudrate", [0, -1, True, 9600.0, "9600"])
async def test_bad_baudrate(pty: tuple[int, str], baudrate: int) -> None:
    with pytest.raises(BadInput, match="baudrate"):
        await open_link(pty[1], baudrate=baudrate)


# --- closing ------------------------------------------------------------------------------------


@EACH_TRANSPORT
async def test_cancelled_close_still_closes(pty: tuple[int, str]) -> None:
    before = descriptors()
    link = await open_link(pty[1])
    link.start(Ear())
    closing = asyncio.ensure_future(link.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await link.close()
    assert descriptors() == before


@EACH_TRANSPORT
def test_loop_that_ends_while_closing_leaks_nothing(pty: tuple[int, str]) -> None:
    before = descriptors()

    async def main() -> None:
        link = await open_link(pty[1])
        link.start(Ear())
        closing = asyncio.ensure_future(link.close())
        await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(main())
    assert descriptors() == before


@EACH_TRANSPORT
async def test_close_drops_what_the_kernel_holds(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real port the kernel would wait, in the event loop, until these bytes are out."""
    real_flush = termios.tcflush
    taken: list[bytes] = []

    def slow_flush(fd: int, queue: int) -> None:
        real_flush(fd, queue)
        taken.append(os.read(pty[0], 100_000))  # what a pty's far end has had already
        time.sleep(0.05)  # time for a writer to fill the room just made

    link = await open_link(pty[1])
    link.start(Ear())
    link.write(b"x" * 60_000)
    await asyncio.sleep(0.02)
    monkeypatch.setattr(termios, "tcflush", slow_flush)
    await link.close()
    assert 0 < len(taken[0]) < 4096
    os.set_blocking(pty[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pty[0], 1)


@EACH_TRANSPORT
async def test_close_with_every_thread_taken(pty: tuple[int, str]) -> None:
    before = descriptors()
    link = await open_link(pty[1])
    link.start(Ear())
    release = threading.Event()
    stuck = [asyncio.ensure_future(asyncio.to_thread(release.wait)) for _ in range(40)]
    await asyncio.sleep(0.01)
    begin = time.monotonic()
    await link.close()
    took = time.monotonic() - begin
    after = descriptors()
    release.set()
    await asyncio.gather(*stuck)
    assert after == before
    assert 0.4 < took < 1  # the flush had no thread, and was given up


@EACH_TRANSPORT
async def test_cancelled_set_baudrate_does_not_hinder_close(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread still works on the port: closing waits for it."""
    link = await open_link(pty[1])
    link.start(Ear())
    order: list[str] = []
    real_close = serial.Serial.close

    def slow(port: serial.Serial) -> None:
        time.sleep(0.1)
        order.append("set up")

    def close(port: serial.Serial) -> None:
        order.append("closed")
        real_close(port)

    monkeypatch.setattr(serial.Serial, "_reconfigure_port", slow)
    monkeypatch.setattr(serial.Serial, "close", close)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.set_baudrate(115200), 0.02)
    await link.close()
    assert order == ["set up", "closed"]


@EACH_TRANSPORT
async def test_loss_while_the_baudrate_is_set(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(Ear):
        def lost(self, error: PortLost) -> None:
            super().lost(error)
            lost.set()

    lost = threading.Event()
    link = await open_link(pty[1])
    link.start(Told())
    monkeypatch.setattr(serial.Serial, "_reconfigure_port", lambda port: lost.wait(2))
    setting = asyncio.ensure_future(link.set_baudrate(115200))
    await asyncio.sleep(0)
    monkeypatch.setattr(os, "read", lambda fd, size: b"")  # a hang-up
    os.write(pty[0], b"x")
    with pytest.raises(PortLost):
        await setting
    assert link.baudrate == 9600
    await link.close()


@EACH_TRANSPORT
@pytest.mark.parametrize("failing", ["read", "write"])
async def test_reopen_as_soon_as_lost_is_called(
    pty: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    """An error of the driver is a loss, told once, without noise; the port is free at once."""
    master, path = pty

    class Again(Ear):
        def lost(self, error: PortLost) -> None:
            super().lost(error)
            reopening.set_result(asyncio.ensure_future(open_link(path)))

    reopening: asyncio.Future[asyncio.Future[Link]] = asyncio.get_running_loop().create_future()
    ear = Again()
    link = await open_link(path)
    link.start(ear)
    real = getattr(os, failing)

    def broken(fd: int, *args: object) -> object:
        if fd != master:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *args)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, broken)
        link.write(b"AT\r")
        os.write(master, b"OK")
        reopened = await asyncio.wait_for(reopening, 1)
    await (await reopened).close()
    await link.close()
    assert ear.losses == 1
    assert not caplog.records


async def test_slow_close_of_the_driver_does_not_block(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """A USB driver may wait for a device that does not answer any more."""
    real_close = serial.Serial.close
    closed_in: list[int] = []

    def slow(port: serial.Serial) -> None:
        closed_in.append(threading.get_ident())
        time.sleep(0.1)
        real_close(port)

    before = descriptors()
    monkeypatch.setattr(serial.Serial, "close", slow)
    link = await open_link(pty[1])
    link.start(Ear())
    await link.close()
    assert closed_in
    assert threading.get_ident() not in closed_in
    assert descriptors() == before


# --- the two transports -------------------------------------------------------------------------


async def test_direct_is_the_default(pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for value, direct in (("", True), ("direct", True), ("pyserial-asyncio", False)):
        monkeypatch.setenv(TRANSPORT_VARIABLE, value)
        link = await open_link(pty[1])
        link.start(Ear())
        assert isinstance(link._transport, DirectTransport) is direct  # type: ignore[attr-defined]
        await link.close()


async def test_unknown_transport(pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRANSPORT_VARIABLE, "fast")
    with pytest.raises(BadInput, match="'fast' cannot be used; allowed: direct or pyserial-"):
        await open_link(pty[1])


async def test_woken_for_nothing_is_no_hang_up(pty: tuple[int, str]) -> None:
    """pyserial's usual setting, VMIN 0, reads nothing where nothing is, as after a hang-up."""
    link = await open_serial(pty[1], transport="direct")
    ear = Ear()
    link.start(ear)
    link._transport._read_ready()
    await link.set_baudrate(115200)  # sets up the whole port again
    link._transport._read_ready()
    os.write(pty[0], b"OK\r\n")
    await asyncio.sleep(0.01)
    assert (bytes(ear.data), ear.losses) == (b"OK\r\n", 0)
    await link.close()


async def test_writer_rests_when_all_is_out(pty: tuple[int, str]) -> None:
    link = await open_serial(pty[1], transport="direct")
    link.start(Ear())
    link.write(b"x" * 60_000)
    assert link._transport.get_write_buffer_size() > 40_000
    taken = 0
    while taken < 60_000:
        taken += len(os.read(pty[0], 60_000))
        await asyncio.sleep(0.001)
    begin = time.process_time()
    await asyncio.sleep(0.1)
    assert time.process_time() - begin < 0.02
    link.write(b"again")
    assert os.read(pty[0], 100) == b"again"
    await link.close()


async def test_released_descriptor_may_be_the_next_links(pty: tuple[int, str]) -> None:
    """A thread closes the port; until the loop goes on, its number may be given out again."""
    master, slave = os.openpty()
    first = await open_serial(pty[1], transport="direct")
    first.start(Ear())
    first.write(b"x" * 60_000)
    number = first._port.fileno()
    first._transport.pause_reading()
    first._transport.flush()
    first._port.close()
    ear = Ear()
    link = await open_serial(os.ttyname(slave), transport="direct")
    assert link._port.fileno() == number
    link.start(ear)
    await first.close()
    os.write(master, b"OK")
    await asyncio.sleep(0.01)
    assert ear.data == b"OK"
    await link.close()
    os.close(master)
    os.close(slave)


# --- errors -------------------------------------------------------------------------------------


async def test_open_twice_in_this_process(pty: tuple[int, str]) -> None:
    link = await open_link(pty[1])
    with pytest.raises(PortBusy, match=rf"in this process \(pid {os.getpid()}\)"):
        await open_link(pty[1])
    await link.close()


async def test_busy_names_who_locked(pty: tuple[int, str]) -> None:
    with other_process(pty[1], "minicom", lock=True) as child:
        with pytest.raises(PortBusy) as caught:
            await open_link(pty[1])
        child.communicate()
    assert f"minicom (pid {child.pid})" in str(caught.value)
    assert caught.value.hint.endswith(f"kill {child.pid}")
    await (await open_link(pty[1])).close()


async def test_another_process_cannot_lock_ours(pty: tuple[int, str]) -> None:
    link = await open_link(pty[1])
    code = "import serial, sys; serial.Serial(sys.argv[1], exclusive=True)"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, pty[1]], capture_output=True, check=False
    )
    await link.close()
    assert b"exclusively lock" in done.stderr


@pytest.mark.parametrize("real", [True, False])
async def test_only_real_ports_are_closed_to_everybody(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    """On a pty TIOCEXCL would outlive us, and lock the emulator's next user out."""
    monkeypatch.setattr("nbiot.link.serial.is_pty", lambda found: not real)
    link = await open_link(pty[1])
    slave = next(fd for fd in map(int, descriptors()) if path_of(fd) == pty[1])
    exclusive = fcntl.ioctl(slave, TIOCGEXCL, bytes(4))
    await link.close()
    assert int.from_bytes(exclusive, sys.byteorder) == real


async def test_real_port_in_use_by_modem_manager(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lets root open it all the same; our own descriptors are no reason to refuse."""
    monkeypatch.setattr("nbiot.link.ports.is_pty", lambda found: False)
    await (await open_link(pty[1])).close()
    with other_process(pty[1], "ModemManager", lock=False) as child:
        with pytest.raises(PortBusy) as caught:
            await open_link(pty[1])
        child.communicate()
    assert f"ModemManager (pid {child.pid})" in str(caught.value)
    assert "sudo systemctl stop ModemManager" in caught.value.hint
    assert 'ENV{ID_MM_DEVICE_IGNORE}="1"' in caught.value.hint


async def test_emulated_port_may_be_open_elsewhere(pty: tuple[int, str]) -> None:
    with other_process(pty[1], "emulator", lock=False) as child:
        holders = await asyncio.to_thread(ports.holder_of, pty[1])
        assert (child.pid, "emulator") in holders
        await (await open_link(pty[1])).close()
        child.communicate()


def fake_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *devices: str) -> None:
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    found = []
    for number, device in enumerate(devices):
        (by_id / f"usb-Modem_{number}").symlink_to(device)
        found.append(
            SimpleNamespace(
                device=device, description="Modem", vid=0x10C4, pid=0xEA60, serial_number="7"
            )
        )
    monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: found)
    monkeypatch.setattr(ports, "BY_ID", by_id)


async def test_list_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_ports(monkeypatch, tmp_path, "/dev/ttyUSB8", "/dev/ttyUSB7")
    first, second = await ports.list_ports_async()
    by_id = str(tmp_path / "by-id" / "usb-Modem_1")
    assert first == ("/dev/ttyUSB7", by_id, "Modem", 0x10C4, 0xEA60, "7")
    assert second.path == "/dev/ttyUSB8"


def test_list_ports_of_this_machine() -> None:
    assert all(os.path.exists(port.path) for port in ports.list_ports())


async def test_missing_names_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ports(monkeypatch, tmp_path, "/dev/ttyUSB7")
    with pytest.raises(PortMissing, match="there is no port") as caught:
        await open_link(f"{tmp_path}/ttyUSB0")
    assert "/dev/ttyUSB7" in caught.value.hint
    assert "usb-Modem_0" in caught.value.hint


async def test_missing_when_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_ports(monkeypatch, tmp_path)
    with pytest.raises(PortMissing, match="no serial port now"):
        await open_link("no-such-port")


async def test_modem_manager_hint_has_the_usb_ids(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ports(monkeypatch, tmp_path, pty[1])
    with other_process(pty[1], "ModemManager", lock=True) as child:
        with pytest.raises(PortBusy) as caught:
            await open_link(pty[1])
        child.communicate()
    assert 'ATTRS{idVendor}=="10c4", ATTRS{idProduct}=="ea60"' in caught.value.hint


def no_ioctl(number: int) -> object:
    def fail(port: serial.Serial) -> None:
        raise serial.SerialException(number, os.strerror(number))

    return fail


async def test_not_permitted(pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial.Serial, "open", no_ioctl(errno.EACCES))
    real_stat = os.stat(pty[1])
    found = SimpleNamespace(
        st_mode=(real_stat.st_mode & ~0o777) | 0o660, st_gid=54321, st_rdev=real_stat.st_rdev
    )
    monkeypatch.setattr(os, "stat", lambda path: found)
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name=f"group{gid}"))
    with pytest.raises(PortNotPermitted, match="group54321, mode 0660") as caught:
        await open_link(pty[1])
    assert "sudo usermod -aG group54321 $USER\n" in caught.value.hint
    found.st_mode &= ~0o060
    with pytest.raises(PortNotPermitted, match="udev rule"):
        await open_link(pty[1])


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EBUSY, PortBusy), (errno.ENODEV, PortMissing), (errno.EIO, PortError)],
)
async def test_what_the_kernel_says(
    pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch, number: int, kind: type[PortError]
) -> None:
    monkeypatch.setattr(serial.Serial, "open", no_ioctl(number))
    with pytest.raises(PortError) as caught:
        await open_link(pty[1])
    assert type(caught.value) is kind


async def test_not_a_serial_port(tmp_path: Path) -> None:
    file, fifo = tmp_path / "file", tmp_path / "fifo"
    file.touch()
    os.mkfifo(fifo)
    before = descriptors()
    for path, reason in (
        (tmp_path, "a folder, not a serial port"),
        (file, "not a device, not a serial port"),
        (fifo, "not a device, not a serial port"),
        (Path("/dev/null"), "a device, but not a serial port"),
    ):
        with pytest.raises(PortError, match=reason):
            await open_link(str(path))
    assert descriptors() == before


async def test_not_a_serial_port_where_sysfs_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nbiot.link.serial.check_port", lambda path: None)
    before = descriptors()
    with pytest.raises(PortError, match="cannot be used as a serial port"):
        await open_link("/dev/null")
    assert descriptors() == before


# --- other links --------------------------------------------------------------------------------


async def open_memory(rest: str, *, baudrate: int) -> Link:
    return MemoryLink(rest, baudrate)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "nbiot.links"
    entries = [
        EntryPoint("mine", f"{__name__}:open_memory", group),
        EntryPoint("broken", "no_such_module:open", group),
    ]
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda **which: entries if which == {"group": group} else [],
    )


async def test_link_of_a_package(entries: None) -> None:
    link = await open_link("mine:with:colons", baudrate=115200)
    assert isinstance(link, MemoryLink)
    assert (link.name, link.baudrate) == ("with:colons", 115200)


async def test_unknown_link(entries: None) -> None:
    with pytest.raises(BadInput, match=r"broken:\.\.\., mine:\.\.\."):
        await open_link("memory:")


async def test_broken_link(entries: None) -> None:
    with pytest.raises(PortError, match="no_such_module"):
        await open_link("broken:")


@pytest.mark.parametrize("url", ["", "/dev/tty\0", "/dev/tty\n"])
async def test_bad_url(url: str) -> None:
    with pytest.raises(BadInput, match="port"):
        await open_link(url)


async def test_path_may_have_colons(pty: tuple[int, str], tmp_path: Path) -> None:
    path = tmp_path / "pci-0000:00:14.0-usb"
    path.symlink_to(pty[1])
    link = await open_link(str(path))
    assert link.name == str(path)
    await link.close()

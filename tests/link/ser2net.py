"""Debian's ser2net: serial ports served over TCP, as another machine would do it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

requires_ser2net = pytest.mark.skipif(
    shutil.which("ser2net") is None, reason="ser2net is missing: Debian package ser2net"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def ser2net(
    folder: Path, device: str, accepter: str = "telnet(rfc2217)"
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Serve ``device`` on the TCP port that this gives, with the process that serves it."""
    port = free_port()
    config = folder / f"ser2net-{port}.yaml"
    stack = ",".join(filter(None, (accepter, "tcp(nodelay)", f"127.0.0.1,{port}")))
    config.write_text(
        "connection: &modem\n"
        f"  accepter: {stack}\n"
        f"  connector: serialdev,{device},9600n81,local\n"
        "  options:\n"
        "    chardelay: false\n"
    )
    process = subprocess.Popen(
        ["ser2net", "-n", "-c", str(config), "-P", str(folder / f"ser2net-{port}.pid")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 5
        while not _listening(port):
            assert process.poll() is None, "ser2net ended"
            assert time.monotonic() < until, "ser2net does not listen"
            time.sleep(0.002)
        yield port, process
    finally:
        process.kill()
        process.wait()


def _listening(port: int) -> bool:
    """Without connecting: that would open the serial port."""
    wanted = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in table)

"""pyserial's own RFC 2217 server, in a thread: what pyserial's example server does."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Any

import serial
from serial.rfc2217 import PortManager


class RecordingPort(serial.Serial):
    """A port on a pty that has modem lines."""

    lines: dict[str, bool]
    cts = dsr = ri = cd = True

    def __init__(self, path: str) -> None:
        self.lines = {}
        super().__init__(path, 9600, timeout=0, inter_byte_timeout=0)

    def _update_dtr_state(self) -> None:
        self.lines["dtr"] = self.dtr

    def _update_rts_state(self) -> None:
        self.lines["rts"] = self.rts


class Rfc2217Server:
    """Serves one port to one client after the other."""

    def __init__(self, path: str) -> None:
        self.serial = RecordingPort(path)
        self.idle = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.port: int = self._listener.getsockname()[1]
        self._stop, self._stopper = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopper.close()
        self._thread.join()

    def _run(self) -> None:
        with self._listener, self._stop, contextlib.closing(self.serial):
            while True:
                self.idle.set()
                if self._stop in select.select([self._listener, self._stop], [], [])[0]:
                    return
                self.idle.clear()
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with client, contextlib.suppress(OSError):
                    if not self._serve(client):
                        return

    def _serve(self, client: socket.socket) -> bool:
        class Connection:
            write = staticmethod(client.sendall)

        make: Any = PortManager  # types-pyserial wants a Serial for the connection, too
        manager = make(self.serial, Connection())
        fd = self.serial.fileno()
        unwritten = b""
        while True:
            hear: list[Any] = [fd, self._stop] + ([] if unwritten else [client])
            ready, writable, _ = select.select(hear, [fd] if unwritten else [], [])
            if self._stop in ready:
                return False
            if writable:
                with contextlib.suppress(BlockingIOError):
                    unwritten = unwritten[os.write(fd, unwritten) :]
            if client in ready:
                if not (data := client.recv(4096)):
                    return True
                unwritten = b"".join(manager.filter(data))
            if fd in ready:
                if not (data := os.read(fd, 4096)):
                    return False
                client.sendall(b"".join(manager.escape(data)))

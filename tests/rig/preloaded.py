"""A Python program without the half second and more that its imports take each time.

Each call is a fork of one process that has them behind it, and is to the caller what the program
itself would be: arguments, environment, folder, output and exit code, and it dies with its caller.

Any Python runs this file: ``python preloaded.py SOCKET MODULE:FUNCTION [MODULE ...]``.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

CALLER = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({path!r})
call = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [call], [0, 1, 2])
sys.exit(int(server.recv(16) or 1))
"""


def write_caller(program: Path, path: str) -> None:
    """Make ``program``, which is to be called."""
    program.write_text(CALLER.format(python=sys.executable, path=path))
    program.chmod(0o700)


def serve(path: str, main: Callable[[], object]) -> None:
    """Fork for each call, until killed."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(path)
    server.listen(16)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        caller, _ = server.accept()
        if os.fork() == 0:
            server.close()
            answer(caller, main)
        caller.close()


def answer(caller: socket.socket, main: Callable[[], object]) -> None:
    """Do what was called for, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, fds, *_ = socket.recv_fds(caller, 1 << 20, 3)
    sys.argv, environment, folder = json.loads(message)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    threading.Thread(target=lambda: caller.recv(1) or os._exit(1), daemon=True).start()
    code: object = 1
    try:
        code = main() or 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    caller.send(str(code if isinstance(code, int) else 1).encode())
    os._exit(0)


if __name__ == "__main__":
    module, _, function = sys.argv[2].partition(":")
    for name in sys.argv[3:]:
        importlib.import_module(name)
    serve(sys.argv[1], getattr(importlib.import_module(module), function))

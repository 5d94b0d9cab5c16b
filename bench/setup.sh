#!/usr/bin/env bash
# Builds the fake modem and installs the peers under $BENCH_HOME (default ~/.cache/nbiot-bench).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${BENCH_HOME:-$HOME/.cache/nbiot-bench}
mkdir -p "$home"
gcc -O2 -o "$home/fakemodem" "$here/fakemodem.c"
[ -x "$home/venv/bin/python" ] || python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check \
    pyserial==3.5 pyserial-asyncio==0.6 pyatcommand==0.5.3 python-gsmmodem-new==0.13.0 \
    async-gsm-modem==0.1.2
# gsm-sms needs Python 3.13; without one it is left out.
if command -v python3.13 >/dev/null && python3.13 -V >/dev/null 2>&1; then
    [ -x "$home/venv313/bin/python" ] || python3.13 -m venv "$home/venv313"
    "$home/venv313/bin/pip" install -q --disable-pip-version-check gsm-sms==0.1.0
fi

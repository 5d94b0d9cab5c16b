"""Many modems in one process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from bench import many_emulators
from hil.emulator import Emulators, Network, Options, PtyModem
from hil.emulator.many import numbered
from tests.emulator.ports import connected
from tests.emulator.test_port import host_on


async def test_every_modem_has_its_own_port_and_numbers() -> None:
    async with Emulators("bc95", 12) as many:
        assert len(set(many.urls)) == len(many) == 12
        assert len({modem.options.imei for modem in many.modems}) == 12
        for port in many:
            with host_on(port.url) as host:
                answer = await host.ask("AT+CGSN=1")
                assert port.modem.options.imei.encode() in answer


async def test_tcp_ports_count_on_from_the_first() -> None:
    async with Emulators("bc95", 1, port="tcp") as one:
        free = one[0].port + 1  # type: ignore[attr-defined]
    async with Emulators("bc66", 3, port="rfc2217", first_port=free) as many:
        assert many.urls == [f"rfc2217://127.0.0.1:{free + index}" for index in range(3)]
        async with connected(free + 2) as client:
            client.send(b"AT\r")
            assert await client.read(b"OK\r\n")


async def test_a_network_can_be_shared_or_each_ones_own() -> None:
    async with Emulators("bc95", 3, network=Network()) as shared:
        assert len({id(modem.network) for modem in shared.modems}) == 1
    async with Emulators("bc95", 3, network=lambda index: Network(apn=f"n{index}")) as own:
        assert [modem.network.apn for modem in own.modems] == ["n0", "n1", "n2"]


def test_numbers_count_on_and_imeis_stay_valid() -> None:
    options = numbered(Options(nv=Path("a/nv.json"), urc_seed=5), 7)
    assert options.imei == "867726030047676"
    assert options.imsi == "460043193006450"
    assert (options.nv, options.urc_seed) == (Path("a/nv-7.json"), 12)
    with pytest.raises(ValueError, match="nv: a dict"):
        numbered(Options(nv={}), 1)


async def test_a_port_that_cannot_be_opened_closes_the_others() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with Emulators("bc95", 1, port="tcp") as one:
        with pytest.raises(OSError, match="address already in use"):
            async with Emulators("bc95", 2, port="tcp", first_port=one[0].port):  # type: ignore[attr-defined]
                pass
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_the_measuring_program_measures() -> None:
    figures: dict[str, Any] = await many_emulators.measure(
        count=20, seconds=1.0, model="bc95", baud=9600, port="pty", keep=1000
    )
    assert figures["errors"] == 0
    assert figures["slowest_per_s"] > 2
    assert figures["cores"] < 1


async def test_stale_bytes_do_not_wait_for_the_next_program() -> None:
    async with PtyModem("bc95", Options(autoconnect=False)) as pty:
        pty.modem.urc("+CSCON:1")  # nobody is there
        with host_on(pty.path) as host:
            assert await host.ask("AT") == b"\r\nOK\r\n"
            host.write(b"AT+CGMR\r")
            await asyncio.sleep(0.02)  # its answer is in the terminal, unread
        await asyncio.sleep(0.02)
        with host_on(pty.path) as host:
            assert await host.ask("AT") == b"\r\nOK\r\n"
            with host_on(pty.path) as second:  # as `stty -F` does beside the user
                second.write(b"")
            assert await host.ask("AT") == b"\r\nOK\r\n"


async def test_a_pty_nobody_reads_costs_little_memory() -> None:
    async with PtyModem("bc95") as pty:
        with host_on(pty.path) as host:
            await host.ask("AT")
            for _ in range(100):
                pty.modem.urc("x" * 10_000)
            assert len(pty._ready) <= 128 * 1024
            assert pty.unread > 500_000


async def test_a_host_that_writes_faster_than_the_line_is_held_back() -> None:
    async with PtyModem("bc95", Options(baud=9600)) as pty:
        with host_on(pty.path) as host:
            total = 0
            for _ in range(100):
                try:
                    total += os.write(host.fd, b"x" * 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            assert total < 100_000
            assert pty._unheard < 100_000

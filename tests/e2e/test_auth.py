"""The main job: a device authenticated through a modem."""

from __future__ import annotations

import asyncio

import pytest

from hil.cloud import Behaviour
from hil.emulator import Network
from nbiot.enos import Server
from nbiot.errors import (
    AuthRefused,
    ModemRebooted,
    NameNotResolved,
    NoResponse,
    NotRegistered,
    PortLost,
    ResponseReset,
    SimLocked,
    SimMissing,
    SocketError,
    Unsupported,
)

from .conftest import IMEI, MODELS, PATHS, PRODUCT_KEY, OpenBench


@pytest.mark.parametrize(("model", "path"), PATHS)
async def test_a_device_is_authenticated(bench: OpenBench, model: str, path: str) -> None:
    async with bench(model) as b:
        await b.modem.attach(timeout=20)
        result = await b.authenticate(path=path)
        assert result.code == "2.04"
        assert result.device_key == IMEI
        assert [r.verdict for r in b.cloud.requests] == ["signature ok"]
        assert b.cloud.is_online(PRODUCT_KEY, IMEI)
        assert b.open_sockets() == []


@pytest.mark.parametrize("model", ["bc95-g", "bc68", "bc28", "bc35-g", "bc66-na", "bc26"])
async def test_siblings_are_recognised(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        family = "bc66" if model in ("bc66-na", "bc26") else "bc95-g"
        assert b.modem.profile.name == family
        await b.modem.attach(timeout=20)
        assert (await b.authenticate()).code == "2.04"


@pytest.mark.parametrize("rate", [4800, 9600, 57600, 115200])
@pytest.mark.parametrize("model", MODELS)
async def test_the_baud_rate_is_found_and_left_alone(
    bench: OpenBench, model: str, rate: int
) -> None:
    async with bench(model, rate=rate, check_baud=True) as b:
        assert await b.modem.imei() == IMEI
        assert b.modem.channel.link.baudrate == rate
        assert b.pty.modem.rate == rate


@pytest.mark.parametrize(("model", "path"), PATHS)
async def test_a_wrong_secret_is_told_in_plain_words(
    bench: OpenBench, model: str, path: str
) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        with pytest.raises(AuthRefused, match="signature") as caught:
            await b.authenticate(secret="another-secret", path=path)
        assert caught.value.code == "4.01"
        assert "secret" in caught.value.hint
        assert "another-secret" not in str(caught.value)
        assert b.open_sockets() == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(8))
async def test_urcs_and_ragged_reads_change_nothing(
    bench: OpenBench, model: str, seed: int
) -> None:
    async with bench(
        model, chunk_seed=seed, urc_seed=seed, urc_rate=0.5, early_urcs=bool(seed % 2)
    ) as b:
        await b.modem.attach(timeout=20)
        result = await b.authenticate()
        assert result.code == "2.04"
        assert b.cloud.requests[-1].verdict == "signature ok"
        assert b.pty.modem.injected_urcs


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(slow=0.4),
        Behaviour(separate=True, slow=0.05),
        Behaviour(duplicate=True),
        Behaviour(separate=True, duplicate=True),
        Behaviour(lose_requests=1),
        Behaviour(lose_answers=1),
        Behaviour(options=[(2100, b"/topic/x"), (2102, b"\x01\x02")]),
    ],
    ids=lambda b: (
        ",".join(n for n, v in vars(b).items() if v and n != "success_code")
        .replace("strict_case", "")
        .strip(",")
    ),
)
async def test_a_difficult_server_is_got_along_with(
    bench: OpenBench, model: str, behaviour: Behaviour
) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(behaviour)
        result = await b.authenticate()
        assert result.code == "2.04"
        assert result.retransmissions == behaviour.lose_requests + behaviour.lose_answers
        assert result.commands_waiting == bool(behaviour.options)
        assert b.open_sockets() == []


@pytest.mark.parametrize("model", MODELS)
async def test_a_silent_server_ends_in_no_response(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour(silent=True), 9)
        with pytest.raises(NoResponse, match="4 transmissions"):
            await b.authenticate()
        assert [s.step for s in b.steps].count("retransmitted") == 3
        assert b.open_sockets() == []


async def test_a_rejecting_server_is_told_at_once(bench: OpenBench) -> None:
    async with bench("bc95", attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour(reset=True))
        with pytest.raises(ResponseReset):
            await b.authenticate()


@pytest.mark.parametrize(
    ("model", "by"), [("bc95", "host"), ("bc95-g", "modem"), ("bc66", "modem")]
)
async def test_the_name_is_resolved_by_whoever_can(bench: OpenBench, model: str, by: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        result = await b.authenticate(server=Server("localhost", b.cloud.port))
        assert (result.resolved_by, result.address) == (by, f"127.0.0.1:{b.cloud.port}")


@pytest.mark.parametrize("model", ["bc95-g", "bc66"])
async def test_a_name_without_address_is_an_error(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        with pytest.raises(NameNotResolved, match=r"coap-nowhere\.example"):
            await b.authenticate(server=Server("coap-nowhere.example"))


@pytest.mark.parametrize("model", ["bc95", "bc95-g"])
async def test_native_coap_is_refused_where_the_modem_has_none(
    bench: OpenBench, model: str
) -> None:
    async with bench(model, attached=True) as b:
        with pytest.raises(Unsupported, match="--coap udp"):
            await b.authenticate(path="native")


# --- SIM and network ------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_a_missing_sim_is_named(bench: OpenBench, model: str) -> None:
    async with bench(model, sim="absent") as b:
        with pytest.raises(SimMissing):
            await b.modem.attach(timeout=20)


@pytest.mark.parametrize("model", MODELS)
async def test_a_locked_sim_is_named(bench: OpenBench, model: str) -> None:
    async with bench(model, sim="pin") as b:
        with pytest.raises((SimLocked, SimMissing)):
            await b.modem.attach(timeout=20)


@pytest.mark.parametrize("model", MODELS)
async def test_a_refused_attach_tells_the_cause(bench: OpenBench, model: str) -> None:
    async with bench(model, network=Network(stat="denied", reject_cause=11)) as b:
        with pytest.raises(NotRegistered, match="EMM cause 11"):
            await b.modem.attach(timeout=4)
        assert "denied" in [s.step for s in b.steps]


@pytest.mark.parametrize("model", MODELS)
async def test_no_coverage_says_so(bench: OpenBench, model: str) -> None:
    async with bench(model, network=Network(stat="none")) as b:
        with pytest.raises(NotRegistered, match="no signal"):
            await b.modem.attach(timeout=1)


@pytest.mark.parametrize("model", MODELS)
async def test_progress_is_told_in_order(bench: OpenBench, model: str) -> None:
    async with bench(model, network=Network(stat=5)) as b:
        await b.modem.attach(timeout=20)
        await b.authenticate()
        told = [s.step for s in b.steps]
        assert told[:2] == ["port", "modem"]
        order = [told.index(s) for s in ("radio", "sim", "registered", "address", "sent")]
        assert order == sorted(order)
        assert told[-1] == "authenticated"
        assert any("roaming" in s.text for s in b.steps)


@pytest.mark.parametrize("model", MODELS)
async def test_an_apn_is_set_once(bench: OpenBench, model: str) -> None:
    async with bench(model) as b:
        await b.modem.attach("iot.example", timeout=20)
        assert (await b.authenticate()).code == "2.04"
        before = len(b.pty.modem.counters.commands)
        await b.modem.attach("iot.example", timeout=20)
        later = b.pty.modem.counters.commands[before:]
        assert not [c for c in later if "iot.example" in c]


# --- things that go wrong -------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_a_modem_that_still_boots_is_waited_for(bench: OpenBench, model: str) -> None:
    async with bench(model, boot="cold", speed=5.0) as b:
        await b.modem.attach(timeout=20)
        assert (await b.authenticate()).code == "2.04"


@pytest.mark.parametrize("model", MODELS)
async def test_a_restart_while_waiting_for_the_server_is_told(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour(silent=True), 9)
        task = asyncio.create_task(b.authenticate())
        while not b.cloud.datagrams:
            await asyncio.sleep(0.005)
        b.pty.modem.reboot()
        with pytest.raises(ModemRebooted):
            await task
        await b.modem.profile.prepare()
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour())
        assert b.modem.channel.reboots >= 1


@pytest.mark.parametrize("model", MODELS)
async def test_a_commanded_restart_comes_back(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.profile.reboot()
        await b.modem.attach(timeout=20)
        assert (await b.authenticate()).code == "2.04"


@pytest.mark.parametrize("model", MODELS)
async def test_a_pulled_cable_is_told(bench: OpenBench, model: str) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour(silent=True), 9)
        task = asyncio.create_task(b.authenticate())
        while not b.cloud.datagrams:
            await asyncio.sleep(0.005)
        b.pty.hang_up()
        with pytest.raises(PortLost):
            await task


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("step", range(12))
async def test_a_cancelled_call_leaves_no_socket_behind(
    bench: OpenBench, model: str, step: int
) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        b.cloud.next(Behaviour(silent=True), 99)
        task = asyncio.create_task(b.authenticate())
        for _ in range(2 * step):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert b.open_sockets() == []
        b.cloud.next(Behaviour())
        assert await b.modem.imei() == IMEI


@pytest.mark.parametrize("model", MODELS)
async def test_sockets_of_a_dead_host_do_not_lock_the_next_one_out(
    bench: OpenBench, model: str
) -> None:
    async with bench(model, attached=True) as b:
        await b.modem.attach(timeout=20)
        opened = 0
        try:
            while opened <= b.modem.profile.limits.sockets:
                await b.modem.udp("127.0.0.1", 9)
                opened += 1
        except SocketError:
            pass
        assert 5 <= opened <= b.modem.profile.limits.sockets
        b.modem.profile.open_sockets.clear()  # as a host that died would forget them
        assert (await b.authenticate()).code == "2.04"

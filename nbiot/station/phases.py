"""What happens in each phase of a run. A phase measures (``work.measure``) and raises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nbiot.errors import ImeiTaken, PrinterError
from nbiot.station import recipe as recipes
from nbiot.station.program import run_program
from nbiot.station.reasons import NotGood
from nbiot.station.record import Value
from nbiot.station.work import Work

if TYPE_CHECKING:
    from nbiot.profile import Signal

RADIO_POLL = 0.5  # s between two looks at the signal
GRACE = 10.0  # s that a phase with a limit of its own has above it


def luhn(imei: str) -> bool:
    """Are these 15 digits whose last one is the check digit (3GPP TS 23.003, annex B)?"""
    if not re.fullmatch(r"[0-9]{15}", imei):
        return False
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(imei))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


async def _identify(work: Work, phase: recipes.Identify) -> None:
    modem = await work.modem()
    model, firmware = modem.identity.model, modem.identity.firmware
    work.fact(model=model, firmware=firmware)
    as_wanted = work.measure("model", model, allowed=phase.models)
    if not (work.measure("firmware", firmware, allowed=phase.firmware) and as_wanted):
        return
    imei = await modem.imei()
    work.measure("imei", imei)
    if not luhn(imei):
        raise NotGood(
            "imei_invalid",
            f"the modem's IMEI {imei} has a wrong check digit",
            hint="The modem's memory may be damaged, or it was never given an IMEI.",
            imei=imei,
        )
    other = work.services.imeis.setdefault(imei, work.slot.name)
    if other != work.slot.name:
        raise ImeiTaken(
            f"the board in slot {other} has the same IMEI, {imei}",
            hint="Two boards must not have one IMEI: set both aside.",
        )
    work.fact(imei=imei)
    if phase.sim:
        await modem.profile.radio_on()
        await modem.profile.check_sim()
        work.fact(iccid=await modem.profile.iccid())
        work.measure("iccid", work.text_of("iccid"))


async def _radio(work: Work, phase: recipes.Radio) -> None:
    modem = await work.modem()
    await modem.profile.radio_on()
    loop = asyncio.get_running_loop()
    until = loop.time() + phase.seconds
    while True:
        if _signal_within(work, await modem.signal(), phase) or loop.time() >= until:
            return
        await asyncio.sleep(RADIO_POLL)


def _signal_within(work: Work, signal: Signal, phase: recipes.Radio | None) -> bool:
    """Note the signal; is it within the limits of ``phase``?"""
    found = [
        work.measure("rsrp", signal.rsrp, "dBm", phase.rsrp if phase else recipes.ANY),
        work.measure("snr", signal.snr, "dB", phase.snr if phase else recipes.ANY),
        work.measure("ecl", signal.ecl, "", phase.ecl if phase else recipes.ANY),
    ]
    work.fact(rsrp=signal.rsrp, snr=signal.snr, ecl=signal.ecl)
    return all(found)


async def _attach(work: Work, phase: recipes.Attach) -> None:
    modem = await work.modem()
    began = asyncio.get_running_loop().time()
    await modem.attach(work.slot.apn, timeout=phase.seconds)
    took = round(asyncio.get_running_loop().time() - began, 3)
    work.measure("attach", took, "s", recipes.Range(high=phase.seconds))
    if work.facts.get("rsrp") is None:
        _signal_within(work, await modem.signal(), None)


async def _claim(work: Work, _: recipes.Claim) -> None:
    claim = await work.take_identity()
    work.measure("device_key", claim.device_key)


async def _authenticate(work: Work, _: recipes.Authenticate) -> None:
    await work.bind()
    await work.modem()
    began = asyncio.get_running_loop().time()
    await work.session()
    work.measure("authenticate", round(asyncio.get_running_loop().time() - began, 3), "s")


async def _report(work: Work, phase: recipes.Report) -> None:
    session = await work.session()
    points = {name: _point(work, value) for name, value in phase.points.items()}
    began = asyncio.get_running_loop().time()
    answer = await session.report({name: v for name, v in points.items() if v is not None})
    work.measure("answer", round(asyncio.get_running_loop().time() - began, 3), "s")
    work.measure("bytes_up", answer.cost.up, "B")
    work.measure("retransmissions", answer.cost.retransmissions)


def _point(work: Work, value: Value) -> Value:
    if isinstance(value, str) and value.startswith("$"):
        return work.facts.get(value[1:])
    return value


async def _command(work: Work, phase: recipes.Command) -> None:
    """EnOS hands a command over with an answer of its own: it must be asked for."""
    session = await work.session()
    came = work.came(phase.service)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not came.is_set():
        if loop.time() - began > phase.seconds:
            raise NotGood(
                "no_command",
                f"no command {phase.service} came within {phase.seconds:g} s",
                hint="Does something send it when the board reports? See EnOS's console.",
                service=phase.service,
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(phase.every):
                await came.wait()
        if not came.is_set():
            await session.request(session.enos.shortest(), repeat=True)
    await session.settled()
    if session.dropped:
        raise NotGood(
            "no_command",
            f"the command {phase.service} was not answered: {next(iter(session.dropped))}",
            service=phase.service,
        )
    work.measure("command", round(loop.time() - began, 3), "s")


async def _program(work: Work, phase: recipes.Program) -> None:
    if phase.port:
        await work.let_modem_go()
        await work.switch_on()
    about: dict[str, Any] = {
        "run": work.run,
        "slot": work.slot.name,
        "phase": phase.name,
        "port": work.place.port if phase.port else None,
        **{name: work.facts.get(name) for name in recipes.FACTS},
    }
    await run_program(work, phase, about)


async def _label(work: Work, phase: recipes.Label) -> None:
    if work.services.print is None:
        raise PrinterError(
            "this station has no printer",
            hint='Name one in station.toml: printer = "zpl://HOST:9100"; or drop the phase.',
        )
    if work.claim is not None:
        await work.bind()  # what stands on a label is given
    await work.services.print(dict(work.facts), phase.copies)


async def _release(work: Work, _: recipes.Release) -> None:
    await work.leave()


_PHASES: dict[type[recipes.Phase], Callable[[Work, Any], Awaitable[None]]] = {
    recipes.Identify: _identify,
    recipes.Radio: _radio,
    recipes.Attach: _attach,
    recipes.Claim: _claim,
    recipes.Authenticate: _authenticate,
    recipes.Report: _report,
    recipes.Command: _command,
    recipes.Program: _program,
    recipes.Label: _label,
    recipes.Release: _release,
}
_LIMIT_OF_ITS_OWN = (recipes.Radio, recipes.Attach, recipes.Command, recipes.Program)


async def perform(work: Work, phase: recipes.Phase) -> None:
    """One phase, within its time. Raises what fails; measurements are in ``work.measured``."""
    grace = GRACE if isinstance(phase, _LIMIT_OF_ITS_OWN) else 0.0
    work.said = ""
    await work.limited(phase.seconds + grace, _PHASES[type(phase)](work, phase))

"""For those who have OpenHTF: our records as its records, and our modem as its plug.

    json.dump(to_openhtf(record), file)          # what OpenHTF's OutputToJSON writes

    Modem = modem_plug("/dev/serial/by-id/usb-...", model="bc66")

    @openhtf.plug(modem=Modem)
    @openhtf.measures(openhtf.Measurement("rsrp").in_range(minimum=-110))
    def radio(test, modem):
        modem.attach("iot")
        test.measurements.rsrp = modem.signal().rsrp

``to_openhtf`` does without OpenHTF; the plug needs ``nbiot-driver[openhtf]``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from nbiot.errors import NbiotError
from nbiot.modem import Modem
from nbiot.profile import Identity, Signal
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Reason, Record

T = TypeVar("T")

# --- records ------------------------------------------------------------------------------------

_UNITS = {  # UNECE codes, as in openhtf.util.units
    "dBm": ("Decibel-milliwatts", "DBM"),
    "dB": ("decibel", "2N"),
    "s": ("second [unit of time]", "SEC"),
    "ms": ("millisecond", "C26"),
    "V": ("volt", "VLT"),
    "mV": ("millivolt", "2Z"),
    "A": ("ampere", "AMP"),
    "mA": ("milliampere", "4K"),
    "µA": ("microampere", "B84"),
    "%": ("percent", "P1"),
}
_NO_CODE = {"name": "", "docstring": None, "sourcecode": ""}
_PHASE_OUTCOMES = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.ERROR: "ERROR",
    Outcome.ABORTED: "ERROR",  # OpenHTF's phases know no other
    Outcome.SKIPPED: "SKIP",
}
_OPTIONS = {
    "name": None,
    "timeout_s": None,
    "run_if": None,
    "requires_state": False,
    "force_repeat": False,
    "repeat_on_measurement_fail": False,
    "repeat_on_timeout": False,
    "repeat_limit": None,
    "run_under_pdb": False,
    "phase_name_case": "KEEP",
    "stop_on_measurement_fail": False,
}
_OWN = (
    "id", "slot", "operator", "imei", "iccid", "model", "firmware", "rsrp", "product_key",
    "device_key", "trace",
)  # fmt: skip


def to_openhtf(record: Record) -> dict[str, Any]:
    """``record`` as the JSON of OpenHTF's TestRecord (1.6).

    The board is its serial number, or else its IMEI. What OpenHTF has no place for is in
    ``metadata``, under ``nbiot``.
    """
    own = {name: getattr(record, name) for name in _OWN}
    return {
        "dut_id": record.serial_number or record.imei,
        "station_id": record.station,
        "start_time_millis": _millis(record.started),
        "end_time_millis": _millis(record.ended),
        "outcome": record.outcome.name,
        "outcome_details": [_details(record.reason)] if record.reason else [],
        "marginal": False if record.outcome is Outcome.PASS else None,
        "metadata": {"test_name": record.recipe, "nbiot": own, "config": {}},
        "phases": [_phase(number, phase) for number, phase in enumerate(record.phases)],
        "subtests": [],
        "branches": [],
        "diagnosers": [],
        "diagnoses": [],
        "log_records": [],
        "code_info": _NO_CODE,
    }


def _phase(number: int, phase: PhaseRecord) -> dict[str, Any]:
    return {
        "descriptor_id": number,
        "name": phase.name,
        "codeinfo": _NO_CODE,
        "measurements": {m.name: _measurement(m) for m in phase.measurements},
        "options": _OPTIONS,
        "diagnosers": [],
        "subtest_name": None,
        "start_time_millis": _millis(phase.started),
        "end_time_millis": _millis(phase.ended),
        "attachments": {},
        "diagnosis_results": [],
        "failure_diagnosis_results": [],
        "result": {"phase_result": _result(phase)},
        "outcome": _PHASE_OUTCOMES[phase.outcome],
        "marginal": False if phase.outcome is Outcome.PASS else None,
    }


def _result(phase: PhaseRecord) -> str | dict[str, str]:
    """What the phase's function would have returned, or raised."""
    if phase.outcome is Outcome.SKIPPED:
        return "SKIP"
    if phase.outcome in (Outcome.ERROR, Outcome.ABORTED):
        details = _details(phase.reason or Reason(phase.outcome.value))
        return {"exc_type": details["code"], "exc_val": details["description"], "exc_tb": ""}
    by_limits = any(not measurement.passed for measurement in phase.measurements)
    if phase.outcome is Outcome.FAIL and not by_limits:
        return "FAIL_AND_CONTINUE"
    return "CONTINUE"


def _measurement(measurement: Measurement) -> dict[str, Any]:
    made: dict[str, Any] = {"name": measurement.name}
    if measurement.value is None:
        made["outcome"] = "UNSET"
    else:
        made["outcome"] = "PASS" if measurement.passed else "FAIL"
    validators = _validators(measurement)
    if validators:
        made["validators"] = validators
    if measurement.unit:
        name, code = _UNITS.get(measurement.unit, (measurement.unit, ""))
        made["units"] = {"name": name, "code": code, "suffix": measurement.unit}
    if measurement.value is not None:
        made["measured_value"] = measurement.value
    return made


def _validators(measurement: Measurement) -> list[str]:
    """The limits in OpenHTF's words."""
    made = []
    low, high = measurement.low, measurement.high
    if low is not None and low == high:
        made.append(f"x == {low}")
    elif low is not None or high is not None:
        made.append(
            (f"{low} <= " if low is not None else "")
            + "x"
            + (f" <= {high}" if high is not None else "")
        )
    if measurement.allowed is not None:
        made.append(f"'x' is one of {list(measurement.allowed)}")
    return made


def _details(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "description": str(reason.detail.get("message") or reason.code)}


def _millis(seconds: float) -> int:
    return round(seconds * 1000)


# --- the plug -----------------------------------------------------------------------------------

_STEP_SECONDS = 0.2  # in which OpenHTF's order to end a phase must reach a thread that waits


class LoopThread:
    """An event loop in a thread of its own, for code that knows no asyncio. Close it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Wait for ``work``. Raises what it raises; TimeoutError after ``timeout`` s.

        An exception in the waiting thread (Ctrl-C, OpenHTF's abort) cancels ``work``.
        """

        async def limited() -> T:
            async with asyncio.timeout(timeout):
                return await work

        future = asyncio.run_coroutine_threadsafe(limited(), self._loop)
        try:
            return _waited(future)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop; what still runs is cancelled."""
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


def _waited(future: Future[T]) -> T:
    """Like ``future.result()``, in short steps: nothing else lets OpenHTF end a thread."""
    while True:
        try:
            return future.result(_STEP_SECONDS)
        except FutureTimeout:
            if future.done():  # the work's own
                raise
        except CancelledError:
            raise NbiotError("the modem's plug was closed meanwhile") from None


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def modem_plug(
    port: str, *, model: str = "auto", baudrate: int | None = None, apn: str | None = None
) -> Any:
    """A class for ``openhtf.plug``: the modem at ``port``, opened for each test, then released.

    Raises ImportError without OpenHTF. Its phases may run in any thread.
    """
    from openhtf.plugs import BasePlug

    class ModemPlug(BasePlug):  # type: ignore[misc]  # OpenHTF is not typed
        """The modem. ``call`` reaches all of nbiot.modem.Modem; the rest is for short phases."""

        def __init__(self) -> None:
            self._threads = LoopThread(f"modem {port}")
            self._modem = Modem(port, model=model, baudrate=baudrate)
            try:
                self._threads.run(self._modem.__aenter__())
            except BaseException:
                self._threads.close()
                raise

        def tearDown(self) -> None:  # OpenHTF's name
            """OpenHTF calls it when the test ended, however it did."""
            try:
                self._threads.run(self._modem.__aexit__(None, None, None))
            finally:
                self._threads.close()

        def call(
            self, work: Callable[[Modem], Coroutine[Any, Any, T]], timeout: float | None = 300.0
        ) -> T:
            """Run ``work`` with the modem and wait for it: ``plug.call(lambda m: m.imei())``."""
            return self._threads.run(work(self._modem), timeout)

        def identity(self) -> Identity:
            """Model and firmware."""
            return self._modem.identity

        def imei(self) -> str:
            """The IMEI."""
            return self.call(lambda modem: modem.imei())

        def iccid(self) -> str:
            """The SIM's number. Raises SimMissing, SimLocked."""

            async def asked(modem: Modem) -> str:
                await modem.profile.radio_on()
                await modem.profile.check_sim()
                return await modem.profile.iccid()

            return self.call(asked)

        def attach(self, own_apn: str | None = None, timeout: float = 300.0) -> str:
            """Register and attach; the address. Raises NotRegistered."""
            wanted = own_apn or apn
            return self.call(lambda modem: modem.attach(wanted, timeout=timeout), timeout + 30)

        def signal(self) -> Signal:
            """RSRP in dBm and more."""
            return self.call(lambda modem: modem.signal())

        def authenticate(self, device: Any, server: Any) -> Any:
            """Authenticate ``device`` with EnOS: see nbiot.enos.authenticate."""
            from nbiot.enos import authenticate

            return self.call(lambda modem: authenticate(modem, device, server))

    return ModemPlug

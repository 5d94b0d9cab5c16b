"""Our record against the record that OpenHTF itself makes of the same run; the plug in a test."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from nbiot.errors import NotRegistered, PortMissing
from nbiot.station.openhtf import LoopThread, modem_plug, to_openhtf
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Reason, Record

pytestmark = [
    pytest.mark.unhygienic,  # OpenHTF keeps pipes and threads for the life of the process
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
htf = pytest.importorskip("openhtf")

REASON = Reason("not_registered", {"message": "the network denies this SIM", "hint": "..."})
RECORD = Record(
    id="0f8f9b1e-0000-4000-8000-000000000001",
    station="S1",
    slot="A1",
    started=1_800_000_000.25,
    ended=1_800_000_033.5,
    outcome=Outcome.FAIL,
    recipe="meters 3",
    serial_number="SN-17",
    imei="866971030000017",
    device_key="866971030000017",
    credential=5,
    fence=2,
    phases=(
        PhaseRecord(
            "identify",
            1_800_000_000.25,
            1_800_000_001.0,
            Outcome.PASS,
            (
                Measurement("imei", "866971030000017"),
                Measurement("firmware", "A07", allowed=("A06", "A07")),
                Measurement("iccid", None),
            ),
        ),
        PhaseRecord(
            "radio",
            1_800_000_001.0,
            1_800_000_003.0,
            Outcome.FAIL,
            (
                Measurement("rsrp", -120.5, "dBm", low=-110),
                Measurement("snr", 7, "dB", low=-3, high=30),
                Measurement("ecl", 0, low=0, high=0),
                Measurement("current", 4.5, "mA", high=5.5),
            ),
        ),
        PhaseRecord("flash", 1_800_000_003.0, 1_800_000_004.0, Outcome.FAIL),
        PhaseRecord("attach", 1_800_000_004.0, 1_800_000_033.5, Outcome.ERROR, reason=REASON),
        PhaseRecord("label", 1_800_000_033.5, 1_800_000_033.5, Outcome.SKIPPED),
    ),
    reason=REASON,
)


class OneOf:
    """A validator of OpenHTF's kind."""

    def __init__(self, allowed: tuple[object, ...]) -> None:
        self.allowed = allowed

    def __call__(self, value: object) -> bool:
        return value in self.allowed

    def __str__(self) -> str:
        return f"'x' is one of {list(self.allowed)}"


def built_with_openhtf(record: Record) -> dict[str, Any]:
    """The same run, told to OpenHTF's own classes, and written as its OutputToJSON would."""
    from openhtf.core import test_record
    from openhtf.output.callbacks import json_factory
    from openhtf.util import data

    made = test_record.TestRecord(
        dut_id=record.serial_number,
        station_id=record.station,
        start_time_millis=round(record.started * 1000),
        end_time_millis=round(record.ended * 1000),
        outcome=test_record.Outcome[record.outcome.name],
        marginal=False if record.outcome is Outcome.PASS else None,
        metadata={
            "test_name": record.recipe,
            "nbiot": to_openhtf(record)["metadata"]["nbiot"],
            "config": {},
        },
    )
    if record.reason:
        made.add_outcome_details(record.reason.code, str(record.reason.detail["message"]))
    for phase in record.phases:
        made.add_phase_record(_phase(phase))
    found = json_factory.convert_test_record_to_json(made)
    return json.loads(json.dumps(data.convert_to_base_types(found)))  # type: ignore[no-any-return]


def _phase(phase: PhaseRecord) -> Any:
    from openhtf.core import phase_descriptor, phase_executor, test_record

    name = {"SKIPPED": "SKIP"}.get(phase.outcome.name, phase.outcome.name)
    made = test_record.PhaseRecord(0, phase.name, test_record.CodeInfo.uncaptured())
    made.options = phase_descriptor.PhaseOptions()
    made.start_time_millis = round(phase.started * 1000)
    made.end_time_millis = round(phase.ended * 1000)
    made.outcome = test_record.PhaseOutcome[name]
    made.marginal = False if phase.outcome is Outcome.PASS else None
    made.measurements = {m.name: _measurement(m) for m in phase.measurements}
    result = {
        "identify": htf.PhaseResult.CONTINUE,
        "radio": htf.PhaseResult.CONTINUE,
        "flash": htf.PhaseResult.FAIL_AND_CONTINUE,
        "label": htf.PhaseResult.SKIP,
    }.get(phase.name)
    if result is None:
        error = NotRegistered("the network denies this SIM")
        result = phase_executor.ExceptionInfo(NotRegistered, error, None)
    made.result = phase_executor.PhaseExecutionOutcome(result)
    return made


def _measurement(measurement: Measurement) -> Any:
    made = htf.Measurement(measurement.name)
    if measurement.low is not None or measurement.high is not None:
        made.in_range(minimum=measurement.low, maximum=measurement.high)
    if measurement.allowed is not None:
        made.with_validator(OneOf(measurement.allowed))
    if measurement.unit:
        made.with_units(measurement.unit)
    if measurement.value is not None:
        made.measured_value.set(measurement.value)
        made.validate()
    return made


def test_our_record_is_what_openhtf_would_have_written() -> None:
    ours, theirs = json.loads(json.dumps(to_openhtf(RECORD))), built_with_openhtf(RECORD)
    for phase in ours["phases"]:
        phase["descriptor_id"] = 0
    raised = theirs["phases"][3]["result"]["phase_result"]  # theirs is of a Python exception
    assert {name: type(value) for name, value in raised.items()} == dict.fromkeys(raised, str)
    raised |= {"exc_type": "not_registered", "exc_tb": ""}
    assert ours == theirs


def test_a_good_record_likewise() -> None:
    good = replace(RECORD, outcome=Outcome.PASS, reason=None, phases=RECORD.phases[:1])
    ours = json.loads(json.dumps(to_openhtf(good)))
    assert ours == built_with_openhtf(good)


def test_units_that_openhtf_knows_not_are_kept() -> None:
    phase = replace(RECORD.phases[1], measurements=(Measurement("noise", 3, "furlongs"),))
    made = to_openhtf(replace(RECORD, phases=(phase,)))
    assert made["phases"][0]["measurements"]["noise"]["units"]["suffix"] == "furlongs"


def test_an_aborted_run_is_one_there_too() -> None:
    aborted = replace(
        RECORD,
        outcome=Outcome.ABORTED,
        phases=(replace(RECORD.phases[0], outcome=Outcome.ABORTED),),
    )
    made = to_openhtf(aborted)
    assert made["outcome"] == "ABORTED"
    assert made["phases"][0]["result"]["phase_result"]["exc_type"] == "aborted"


def test_no_lease_or_secret_goes_out() -> None:
    assert not {"fence", "credential"} & set(to_openhtf(RECORD)["metadata"]["nbiot"])


# --- the plug -----------------------------------------------------------------------------------


def test_a_modem_as_a_plug_in_a_test_of_openhtf() -> None:
    records = []

    @htf.plug(modem=modem_plug("emulator:bc66?speed=50", model="bc66"))
    @htf.measures(
        htf.Measurement("imei").matches_regex(r"\d{15}"),
        htf.Measurement("rsrp").in_range(minimum=-130),
        htf.Measurement("iccid"),
    )
    def radio(test: Any, modem: Any) -> None:
        assert modem.identity().model
        test.measurements.imei = modem.imei()
        test.measurements.iccid = modem.iccid()
        modem.attach()
        test.measurements.rsrp = modem.signal().rsrp

    test = htf.Test(radio, test_name="meters")
    test.add_output_callbacks(records.append)
    assert test.execute(test_start=lambda: "SN-17")
    (record,) = records
    assert record.outcome.name == "PASS"
    assert not [thread for thread in threading.enumerate() if "modem" in thread.name]


def test_a_plug_without_modem_fails_its_test_and_leaves_no_thread() -> None:
    with pytest.raises(PortMissing):
        modem_plug("socket://127.0.0.1:1", model="bc66", baudrate=9600)()
    assert not [thread for thread in threading.enumerate() if "modem" in thread.name]


def test_a_call_out_of_time_is_cancelled() -> None:
    import asyncio

    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    there = LoopThread("modem of a test")
    try:
        with pytest.raises(TimeoutError):
            there.run(work(), timeout=0.01)
        assert ended.wait(10)
    finally:
        there.close()


def test_closing_ends_what_still_runs() -> None:
    import asyncio

    started = threading.Event()
    errors: list[BaseException] = []

    async def work() -> None:
        started.set()
        await asyncio.sleep(60)

    there = LoopThread("modem of a test")

    def waits() -> None:
        try:
            there.run(work())
        except Exception as error:
            errors.append(error)

    waiting = threading.Thread(target=waits)
    waiting.start()
    assert started.wait(10)
    there.close()
    waiting.join(10)
    assert "closed meanwhile" in str(errors[0])

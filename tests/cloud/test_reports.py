"""Reports: raw ones, and those of the JSON topics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hil.cloud import Behaviour, Cloud, Device, Limits, Measurepoint, ThingModel

from .conftest import Clock
from .wire import DK, GET, PK, SECRET, UP_RAW, Talker, claim, topic

MEASUREPOINT, EVENT = "thing/measurepoint/post", "thing/event/overheat/post"
UPDATE, QUERY, DELETE = (f"thing/attribute/{name}" for name in ("update", "query", "delete"))
TAG_UPDATE, TAG_QUERY, TAG_DELETE = (f"thing/tag/{name}" for name in ("update", "query", "delete"))
POWER = {"measurepoints": {"Power": 1.0}}

# --- up_raw


async def test_a_raw_report_is_kept_and_answered_by_nothing(cloud: Cloud, device: Talker) -> None:
    answer = await device.ask(UP_RAW, b"\x01\x02")
    assert (answer.code, answer.payload, answer.options) == ("2.04", b"", ())
    (report,) = cloud.reports
    assert (report.device, report.topic, report.payload, report.params) == (
        (PK, DK),
        "thing/model/up_raw",
        b"\x01\x02",
        None,
    )
    assert cloud.thing(PK, DK).accepted == cloud.counters.accepted == 1


async def test_the_parser_makes_the_reply(cloud: Cloud, device: Talker) -> None:
    cloud.parser = lambda raw: raw[::-1] * 2
    assert (await device.ask(UP_RAW, b"ab")).payload == b"baba"


async def test_a_parser_may_refuse(cloud: Cloud, device: Talker) -> None:
    cloud.parser = lambda raw: bytes.fromhex(raw.decode())
    assert (await device.ask(UP_RAW, b"zz")).code == "4.00"
    assert (await device.ask(UP_RAW, b"0a0b")).payload == b"\x0a\x0b"
    assert (cloud.counters.accepted, cloud.counters.rejected) == (1, 1)


async def test_a_parser_that_breaks_is_an_internal_error(cloud: Cloud, device: Talker) -> None:
    cloud.parser = lambda raw: raw[0:1] + 1  # type: ignore[operator]
    assert (await device.ask(UP_RAW, b"x")).code == "5.00"
    assert cloud.reports == []


@pytest.mark.parametrize("name", ["thing/model/up_raw", MEASUREPOINT])
async def test_a_forced_error_accepts_nothing(cloud: Cloud, device: Talker, name: str) -> None:
    cloud.next(Behaviour(code="5.00"))
    assert (await device.report(name, POWER)).code == "5.00"
    assert cloud.reports == []
    assert cloud.thing(PK, DK).measurepoints == {}
    assert (cloud.counters.accepted, cloud.counters.rejected) == (0, 1)


async def test_a_forced_success_is_one(cloud: Cloud, device: Talker) -> None:
    cloud.next(Behaviour(code="2.05"))
    assert (await device.report(MEASUREPOINT, POWER)).code == "2.05"
    assert cloud.counters.accepted == 1


# --- the JSON topics


async def test_measurepoints_with_quality_and_time(cloud: Cloud, device: Talker) -> None:
    values = {"Power": {"value": 1.0, "quality": 9}, "temp": 1.02, "branchCurr": ["1.02", "2.02"]}
    answer = await device.report(MEASUREPOINT, {"measurepoints": values, "time": 1500})
    assert (answer.code, answer.json) == ("2.04", {"id": "1", "code": 200, "data": {}})
    assert cloud.thing(PK, DK).measurepoints == {
        "Power": Measurepoint(1.0, 9, 1500),
        "temp": Measurepoint(1.02, None, 1500),
        "branchCurr": Measurepoint(["1.02", "2.02"], None, 1500),
    }
    assert cloud.reports[-1].params == {"measurepoints": values, "time": 1500}
    assert cloud.requests[-1].body_code == 200


async def test_the_latest_measurepoint_wins_at_the_clouds_time(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    await device.report(MEASUREPOINT, POWER)
    clock.advance(2.5)
    await device.report(MEASUREPOINT, {"measurepoints": {"Power": {"a": 1, "value": 2}}})
    assert cloud.thing(PK, DK).measurepoints["Power"] == Measurepoint(
        {"a": 1, "value": 2}, None, 1002500
    )


async def test_events(cloud: Cloud, device: Talker) -> None:
    assert (await device.report(EVENT, {"events": {"temp": 99}, "time": 5})).json["code"] == 200
    assert (await device.report(EVENT, {"events": {}})).json["code"] == 200
    assert cloud.thing(PK, DK).events[0] == ("overheat", {"temp": 99}, 5)
    assert [event.identifier for event in cloud.thing(PK, DK).events] == ["overheat"] * 2


async def test_attributes_are_set_asked_for_and_deleted(cloud: Cloud, device: Talker) -> None:
    given = {"attributes": {"attr1": {"value": 1.0}, "attr2": 1.02, "attr3": "x"}}
    assert (await device.report(UPDATE, given)).json["data"] == {}
    kept = {"attr1": 1.0, "attr2": 1.02, "attr3": "x"}
    assert cloud.thing(PK, DK).attributes == kept
    every: list[Any] = [None, {}, {"attributes": []}]
    for params in every:
        assert (await device.report(QUERY, params)).json["data"] == kept
    some = await device.report(QUERY, {"attributes": ["attr3", "nothing"]})
    assert some.json["data"] == {"attr3": "x"}
    gone = await device.report(DELETE, {"attributes": ["attr1", "nothing"]})
    assert gone.json["code"] == 200
    assert cloud.thing(PK, DK).attributes == {"attr2": 1.02, "attr3": "x"}


async def test_tags_are_set_asked_for_and_deleted(cloud: Cloud, device: Talker) -> None:
    tags = [{"tagKey": "T", "tagValue": "36.8"}, {"tagKey": "a/b-c_d", "tagValue": ""}]
    assert (await device.report(TAG_UPDATE, tags)).json["code"] == 200
    assert cloud.thing(PK, DK).tags == {"T": "36.8", "a/b-c_d": ""}
    assert (await device.report(TAG_QUERY, {"tags": ["T"]})).json["data"] == {"T": "36.8"}
    assert (await device.report(TAG_DELETE, {"tags": ["T"]})).json["code"] == 200
    assert (await device.report(TAG_QUERY, None)).json["data"] == {"a/b-c_d": ""}


@pytest.mark.parametrize("identity", ["1", "", "ü" * 20, 7, -1, 10**20, 1.5])
async def test_the_id_comes_back_as_it_was(device: Talker, identity: Any) -> None:
    answer = await device.report(MEASUREPOINT, POWER, id=identity)
    assert answer.json == {"id": identity, "code": 200, "data": {}}
    assert type(answer.json["id"]) is type(identity)


ENVELOPES: list[tuple[dict[str, Any], int]] = [
    ({"id": None}, 1220),
    ({"id": True}, 1220),
    ({"id": ["1"]}, 1220),
    ({"version": None}, 1220),
    ({"version": 1.0}, 1220),
    ({"method": None}, 1260),
    ({"method": 5}, 1260),
    ({"method": "thing.measurepoint.posts"}, 1260),
    ({"method": "thing/measurepoint/post"}, 1260),
    ({"version": "1.1"}, 200),
]


@pytest.mark.parametrize(("changes", "code"), ENVELOPES)
async def test_the_envelope(device: Talker, cloud: Cloud, changes: Any, code: int) -> None:
    fields = {"id": "1", "version": "1.0", "method": "thing.measurepoint.post", "params": POWER}
    fields |= changes
    kept = {name: value for name, value in fields.items() if value is not None}
    answer = await device.ask(topic(MEASUREPOINT), json.dumps(kept).encode())
    assert (answer.code, answer.json["code"]) == ("2.04", code)
    assert answer.json["id"] == ("1" if "id" not in changes else "")
    assert cloud.counters.accepted == (code == 200)
    assert ("message" in answer.json) == (code != 200)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1251),
        (b" ", 1220),
        (b"{", 1220),
        (b"[]", 1220),
        (b"null", 1220),
        (b"\xff\xfe", 1220),
        (b"\xef\xbb\xbf{}", 1220),
        (b'{"id":NaN}', 1220),
        (b'{"id":Infinity}', 1220),
        (b'{"id":-Infinity}', 1220),
        (b'{"id":1e999}', 1220),
        (b"[" * 1024, 1220),
        (b'{"id":"1",' + b'"a":' * 10 + b"1}", 1220),
        (b" " * 1025, 1008),
    ],
)
async def test_what_is_no_json_object(device: Talker, payload: bytes, code: int) -> None:
    answer = await device.ask(topic(MEASUREPOINT), payload)
    assert (answer.code, answer.json["id"], answer.json["code"]) == ("2.04", "", code)


PARAMS: list[tuple[str, Any, int]] = [
    (MEASUREPOINT, None, 1206),
    (MEASUREPOINT, [], 1206),
    (MEASUREPOINT, {"measurepoints": {}}, 1206),
    (MEASUREPOINT, {"measurepoints": ["Power"]}, 1206),
    (MEASUREPOINT, {"measurepoints": {"Power": None}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"Po wer": 1}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"": 1}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"x" * 129: 1}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"x" * 128: 1}}, 200),
    (MEASUREPOINT, {"measurepoints": {"A-b_c.9": 1}}, 200),
    (MEASUREPOINT, {"measurepoints": {"Power": {"value": 1, "quality": 10}}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"Power": {"value": 1, "quality": -1}}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"Power": {"value": 1, "quality": True}}}, 1206),
    (MEASUREPOINT, {"measurepoints": {"Power": {"value": 1, "quality": 0}}}, 200),
    (MEASUREPOINT, POWER | {"time": "now"}, 1206),
    (MEASUREPOINT, POWER | {"time": 1.5}, 1206),
    (MEASUREPOINT, POWER | {"time": -1}, 1206),
    (MEASUREPOINT, POWER | {"time": 2**63}, 1206),
    (EVENT, None, 1220),
    (EVENT, {"events": []}, 1220),
    (EVENT, {"events": {"a b": 1}}, 1220),
    (UPDATE, {"attributes": []}, 1207),
    (UPDATE, {"attributes": {}}, 1207),
    (UPDATE, {"attributes": {"a": None}}, 1207),
    (UPDATE, {"attributes": {"ä": 1}}, 1207),
    (QUERY, [], 1208),
    (QUERY, {"attributes": "all"}, 1208),
    (QUERY, {"attributes": [1]}, 1208),
    (DELETE, None, 1209),
    (DELETE, {"attributes": []}, 1209),
    (DELETE, {"attributes": {"a": 1}}, 1209),
    (TAG_UPDATE, {"tagKey": "T", "tagValue": "1"}, 1220),
    (TAG_UPDATE, [], 1220),
    (TAG_UPDATE, ["T"], 1220),
    (TAG_UPDATE, [{"tagKey": "T", "tagValue": 1}], 1220),
    (TAG_UPDATE, [{"tagKey": "T t", "tagValue": "1"}], 1220),
    (TAG_UPDATE, [{"tagKey": "T" * 101, "tagValue": "1"}], 1220),
    (TAG_QUERY, {"tags": [None]}, 1220),
    (TAG_DELETE, {}, 1220),
]


@pytest.mark.parametrize(("name", "params", "code"), PARAMS)
async def test_the_params(cloud: Cloud, device: Talker, name: str, params: Any, code: int) -> None:
    answer = await device.report(name, params)
    assert (answer.code, answer.json["id"], answer.json["code"]) == ("2.04", "1", code)
    thing = cloud.thing(PK, DK)
    if code != 200:
        assert (thing.attributes, thing.tags, thing.measurepoints, thing.events) == ({}, {}, {}, [])
    assert (thing.accepted, thing.rejected) == ((1, 0) if code == 200 else (0, 1))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        (MEASUREPOINT, {"measurepoints": {f"m{n}": 1 for n in range(201)}}),
        (UPDATE, {"attributes": {f"a{n}": 1 for n in range(201)}}),
        (QUERY, {"attributes": [f"a{n}" for n in range(201)]}),
        (TAG_UPDATE, [{"tagKey": f"t{n}", "tagValue": ""} for n in range(201)]),
    ],
)
async def test_two_hundred_names_are_enough(
    cloud: Cloud, device: Talker, name: str, params: Any
) -> None:
    cloud.limits = Limits(message_size=None, up_rate=None)
    assert (await device.report(name, params)).json["code"] in (1206, 1207, 1208, 1220)
    cloud.limits = Limits(message_size=None, up_rate=None, names=None)
    assert (await device.report(name, params)).json["code"] == 200


async def test_an_attribute_has_at_most_4000_characters(cloud: Cloud, device: Talker) -> None:
    cloud.limits = Limits(message_size=None)
    for length, code in ((4000, 200), (4001, 1207)):
        answer = await device.report(UPDATE, {"attributes": {"a": "x" * length}})
        assert answer.json["code"] == code


# --- the thing model

MODEL = ThingModel(
    measurepoints={"Power": "double", "on": "bool", "list": "array", "count": "int"},
    attributes={"name": "string", "place": "struct"},
    events={"overheat": {"temp": "float"}},
    services={"reboot": {}},
)


@pytest.mark.parametrize(
    ("name", "params", "code"),
    [
        (MEASUREPOINT, {"measurepoints": {"Power": 1, "on": True, "list": [], "count": 3}}, 200),
        (MEASUREPOINT, {"measurepoints": {"Power": {"value": 1.5, "quality": 1}}}, 200),
        (MEASUREPOINT, {"measurepoints": {"on": 1}}, 200),
        (MEASUREPOINT, {"measurepoints": {"on": 2}}, 1204),
        (MEASUREPOINT, {"measurepoints": {"Power": True}}, 1204),
        (MEASUREPOINT, {"measurepoints": {"Power": "1"}}, 1204),
        (MEASUREPOINT, {"measurepoints": {"Power": {"value": "1"}}}, 1204),
        (MEASUREPOINT, {"measurepoints": {"count": 1.5}}, 1204),
        (MEASUREPOINT, {"measurepoints": {"power": 1}}, 1204),
        (UPDATE, {"attributes": {"name": "x", "place": {"x": 1}}}, 200),
        (UPDATE, {"attributes": {"name": 1}}, 1204),
        (EVENT, {"events": {"temp": 99}}, 200),
        (EVENT, {"events": {"temp": "hot"}}, 1204),
        (EVENT, {"events": {"tmp": 99}}, 1204),
        ("thing/event/other/post", {"events": {}}, 1204),
    ],
)
async def test_a_model_is_kept_to(
    cloud: Cloud, device: Talker, name: str, params: Any, code: int
) -> None:
    cloud.model = MODEL
    assert (await device.report(name, params)).json["code"] == code
    assert cloud.counters.accepted == (code == 200)


def test_a_model_has_known_types() -> None:
    with pytest.raises(ValueError, match="integer"):
        ThingModel(events={"e": {"x": "integer"}})


# --- topics which are none


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("thing/measurepoint/post/batch", "not over CoAP: batches of measurepoints"),
        ("thing/measurepoint/resume", "not over CoAP: offline measurepoints"),
        ("thing/measurepoint/resume/batch", "not over CoAP: offline measurepoints"),
        ("ota/device/inform", "not over CoAP: OTA"),
        ("ext/file/upload", "not over CoAP: files"),
        ("thing/device/register", "not over CoAP: registration of devices"),
        ("thing/topo/add", "not over CoAP: sub-devices"),
        ("thing/tsltemplate/get", "not over CoAP: thing models"),
        ("thing/measurepoint", "no such path"),
        ("thing/event/a b/post", "no such path"),
        ("thing/event//post", "no such path"),
        ("otaku", "no such path"),
        ("", "no such path"),
    ],
)
async def test_topics_without_coap(cloud: Cloud, device: Talker, name: str, why: str) -> None:
    assert (await device.ask(topic(name), b"{}")).code == "4.04"
    assert cloud.requests[-1].verdict == why


async def test_sessions_of_sub_devices_are_not_over_coap(cloud: Cloud, device: Talker) -> None:
    path = ("topic", "ext", "session", PK, DK, "combine", "login")
    assert (await device.ask(path, b"{}")).code == "4.04"
    assert cloud.requests[-1].verdict == "not over CoAP: sub-devices and activation"


async def test_a_slash_in_a_segment_makes_no_topic(device: Talker) -> None:
    path = ("topic", "sys", PK, DK, "thing/model", "up_raw")
    assert (await device.ask(path, b"x")).code == "4.04"


async def test_reports_are_posted(cloud: Cloud, device: Talker) -> None:
    assert (await device.ask(UP_RAW, b"", code=GET)).code == "4.05"
    assert (await device.ask(topic(MEASUREPOINT), b"", code=3)).code == "4.05"
    assert cloud.counters.rejected == 0  # they were no reports


async def test_an_unknown_critical_option_is_refused(cloud: Cloud, device: Talker) -> None:
    assert (await device.ask(UP_RAW, b"x", options=[(2101, b"AB")])).code == "4.02"
    assert (await device.ask(UP_RAW, b"x", options=[(2100, b"AB"), (12, b"\x32")])).code == "2.04"
    assert cloud.counters.accepted == 1


async def test_no_secret_is_kept(cloud: Cloud, device: Talker) -> None:
    await device.report(UPDATE, {"attributes": {"a": SECRET}})
    await device.report(UPDATE, {"attributes": {f"{SECRET} is bad": 1}})
    await device.ask(UP_RAW, SECRET.encode())
    assert cloud.reports[0].params == {"attributes": {"a": "<secret>"}}
    shown = repr([cloud, cloud.devices, cloud.requests, cloud.reports])
    assert SECRET not in shown
    assert "sign" in shown
    assert claim().decode()[-40:] not in shown


async def test_an_attribute_called_sign_is_kept_whole(cloud: Cloud, device: Talker) -> None:
    given = {"attributes": {"sign": "of the times, not of a device"}}
    await device.report(UPDATE, given)
    assert b"of the times, not of a device" in cloud.requests[-1].payload
    assert cloud.reports[-1].params == given


@pytest.mark.parametrize("secret", ["1", "params", '"', "{"])
async def test_a_silly_secret_breaks_nothing(cloud: Cloud, device: Talker, secret: str) -> None:
    cloud.devices[PK, "other"] = Device(PK, "other", secret)
    assert (await device.report(MEASUREPOINT, POWER)).json["code"] == 200
    assert cloud.counters.accepted == len(cloud.reports) == 1

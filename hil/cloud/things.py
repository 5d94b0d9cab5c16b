"""The JSON topics, the thing model, and what the cloud knows of a device.

Documented for MQTT ("Reporting Measurement Points" and its siblings) and usable over CoAP as the
protocol matrix says ("Device Protocol Selection"): measurepoints, events, attributes, tags.  The
request is ``{"id", "version", "method", "params"}``, the answer ``{"id", "code", "data"
[, "message"]}`` as the payload of 2.04.  Codes: 200 ok, 1204 model validation, 1206 to 1209 format
of measurepoints, attribute update, query, delete; 1220 bad JSON, 1251 empty, 1260 method, 1008
size.

Assumed, because nothing is written about it:

- A bad envelope (no id, no version) and bad params of events and tags are 1220.
- A missing method is 1260, as a wrong one; it is compared before the params are looked at.
- NaN, Infinity and numbers beyond a double are no JSON, so 1220.
- More names than allowed in one message is the format error of the topic.
- ``{"value": x}`` and ``{"value": x, "quality": q}`` are x; any other object is a struct.
- A value null is a format error.
- Deleting what is not there succeeds; a query leaves out what is not there.
- The data of a query is an object from name to value; tags too.
- A failed request answers ``"data": {}``; one whose id could not be read has ``"id": ""``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hil.cloud.limits import Limits
from hil.cloud.records import DeviceId, Kept

OK = 200
TOO_LARGE = 1008
MODEL = 1204
MEASUREPOINT_FORMAT = 1206
ATTRIBUTE_UPDATE_FORMAT = 1207
ATTRIBUTE_QUERY_FORMAT = 1208
ATTRIBUTE_DELETE_FORMAT = 1209
FORMAT = 1220
EMPTY = 1251
METHOD = 1260

MESSAGES = {
    TOO_LARGE: "message too large",
    MODEL: "model validate failed",
    MEASUREPOINT_FORMAT: "measurepoint post format error",
    ATTRIBUTE_UPDATE_FORMAT: "attribute update format error",
    ATTRIBUTE_QUERY_FORMAT: "attribute query format error",
    ATTRIBUTE_DELETE_FORMAT: "attribute delete format error",
    FORMAT: "payload format error",
    EMPTY: "payload is empty",
    METHOD: "methods are not consistent",
}

NAMES_KEPT = 10_000  # of each kind and device; far above what a thing model may have
EVENTS_KEPT = 1000
LONGEST_TIME = 2**63 - 1  # ms
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_TAG_KEY = re.compile(r"[A-Za-z0-9_\-/]{1,100}")


class Measurepoint(NamedTuple):
    """The latest of one measurepoint.  ``time`` is in ms, the cloud's clock if none was sent."""

    value: Any
    quality: int | None
    time: int


class Event(NamedTuple):
    identifier: str
    outputs: dict[str, Any]
    time: int


@dataclass
class Thing:
    """What the cloud knows of one device.  ``accepted`` and ``rejected`` count its reports."""

    device: DeviceId
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    measurepoints: dict[str, Measurepoint] = field(default_factory=dict)
    events: Kept[Event] = field(default_factory=lambda: Kept(EVENTS_KEPT))
    accepted: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class ThingModel:
    """A model: identifiers with their types, of events the outputs, of services the inputs.

    Types: int, float, double, bool, string, array, struct, enum, date, timestamp (`TYPES`).
    """

    measurepoints: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        groups = [self.measurepoints, self.attributes]
        groups += [*self.events.values(), *self.services.values()]
        unknown = {kind for group in groups for kind in group.values()} - TYPES.keys()
        if unknown:
            raise ValueError(f"no type of a thing model: {', '.join(sorted(unknown))}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


TYPES: dict[str, Callable[[Any], bool]] = {
    "int": _is_int,
    "float": _is_number,
    "double": _is_number,
    "bool": lambda value: isinstance(value, bool) or (_is_int(value) and value in (0, 1)),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "struct": lambda value: isinstance(value, dict),
    "enum": _is_int,
    "date": lambda value: isinstance(value, str),
    "timestamp": _is_int,
}


class Wrong(Exception):
    """The report is answered by this code in its envelope."""

    def __init__(self, code: int, detail: str = "") -> None:
        words = MESSAGES[code]
        super().__init__(f"{words}: {detail}" if detail else words)
        self.code = code


class Outcome(NamedTuple):
    """What became of a JSON report."""

    code: int
    payload: bytes
    params: Any
    verdict: str


@dataclass(frozen=True)
class Context:
    """What a topic needs besides its params.  ``now`` is in ms."""

    thing: Thing
    limits: Limits
    model: ThingModel | None
    now: int


# --- the envelope -------------------------------------------------------------------------------


def is_topic(topic: str) -> bool:
    return _find(topic) is not None


def report(topic: str, payload: bytes, context: Context) -> Outcome:
    """Take a JSON report on one of the topics here, and make the answer to it."""
    handler = _find(topic)
    assert handler is not None, topic
    identity: Any = ""
    params = None
    try:
        body = _envelope(payload, context.limits)
        identity = _identity(body)
        _check_envelope(body, topic)
        params = body.get("params")
        data = handler(params, context)
    except Wrong as wrong:
        answer = {"id": identity, "code": wrong.code, "message": str(wrong), "data": {}}
        return Outcome(wrong.code, dump(answer), params, f"{wrong.code} {wrong}")
    return Outcome(OK, dump({"id": identity, "code": OK, "data": data}), params, "200")


def dump(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def load(payload: bytes) -> Any:
    """The JSON value of these bytes; ValueError if it is none."""
    try:
        return json.loads(payload.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond a double")
    return value


def _envelope(payload: bytes, limits: Limits) -> dict[str, Any]:
    if not payload:
        raise Wrong(EMPTY)
    if limits.message_size is not None and len(payload) > limits.message_size:
        raise Wrong(TOO_LARGE, f"{len(payload)} bytes")
    try:
        body = load(payload)
    except ValueError:
        raise Wrong(FORMAT, "no JSON") from None
    if not isinstance(body, dict):
        raise Wrong(FORMAT, "no object")
    return body


def _identity(body: dict[str, Any]) -> Any:
    identity = body.get("id")
    if not (isinstance(identity, str) or _is_number(identity)):
        raise Wrong(FORMAT, "id is no string or number")
    return identity


def _check_envelope(body: dict[str, Any], topic: str) -> None:
    if not isinstance(body.get("version"), str):
        raise Wrong(FORMAT, "version is no string")
    if body.get("method") != topic.replace("/", "."):
        raise Wrong(METHOD)


# --- the topics ---------------------------------------------------------------------------------

_Handler = Callable[[Any, Context], Any]


def _find(topic: str) -> _Handler | None:
    if topic in _TOPICS:
        return _TOPICS[topic]
    match topic.split("/"):
        case ["thing", "event", identifier, "post"] if _IDENTIFIER.fullmatch(identifier):
            return lambda params, context: _post_event(identifier, params, context)
    return None


def _post_measurepoints(params: Any, context: Context) -> dict[str, Any]:
    code = MEASUREPOINT_FORMAT
    values = _values(params, "measurepoints", code, context)
    time = _time(params, code, context)
    read = {name: _measurepoint(name, value, time, code) for name, value in values.items()}
    if context.model is not None:
        _validate({name: it.value for name, it in read.items()}, context.model.measurepoints)
    _store(context.thing.measurepoints, read)
    return {}


def _measurepoint(name: str, value: Any, time: int, code: int) -> Measurepoint:
    quality = None
    if _is_wrapped(value):
        value, quality = value["value"], value.get("quality")
        if quality is not None and not (_is_int(quality) and quality in range(10)):
            raise Wrong(code, f"quality of {name!a} is not in 0..9")
    if value is None:
        raise Wrong(code, f"{name!a} is null")
    return Measurepoint(value, quality, time)


def _post_event(identifier: str, params: Any, context: Context) -> dict[str, Any]:
    outputs = _values(params, "events", FORMAT, context, may_be_empty=True)
    time = _time(params, FORMAT, context)
    if context.model is not None:
        if identifier not in context.model.events:
            raise Wrong(MODEL, f"no event {identifier!a}")
        _validate(outputs, context.model.events[identifier])
    context.thing.events.append(Event(identifier, outputs, time))
    return {}


def _update_attributes(params: Any, context: Context) -> dict[str, Any]:
    code = ATTRIBUTE_UPDATE_FORMAT
    given = _values(params, "attributes", code, context)
    values = {n: v["value"] if _is_wrapped(v) else v for n, v in given.items()}
    longest = context.limits.string_length
    for name, value in values.items():
        if value is None:
            raise Wrong(code, f"{name!a} is null")
        if longest is not None and isinstance(value, str) and len(value) > longest:
            raise Wrong(code, f"{name!a} has more than {longest} characters")
    if context.model is not None:
        _validate(values, context.model.attributes)
    _store(context.thing.attributes, values)
    return {}


def _query_attributes(params: Any, context: Context) -> dict[str, Any]:
    return _query("attributes", context.thing.attributes, params, ATTRIBUTE_QUERY_FORMAT, context)


def _delete_attributes(params: Any, context: Context) -> dict[str, Any]:
    return _delete("attributes", context.thing.attributes, params, ATTRIBUTE_DELETE_FORMAT, context)


def _update_tags(params: Any, context: Context) -> dict[str, Any]:
    if not isinstance(params, list) or not params:
        raise Wrong(FORMAT, "params is no list of tags")
    _check_number(params, FORMAT, context)
    tags: dict[str, str] = {}
    for tag in params:
        if not isinstance(tag, dict):
            raise Wrong(FORMAT, "a tag is no object")
        key, value = tag.get("tagKey"), tag.get("tagValue")
        if not isinstance(key, str) or not isinstance(value, str):
            raise Wrong(FORMAT, "tagKey or tagValue is no string")
        if context.limits.identifiers and not _TAG_KEY.fullmatch(key):
            raise Wrong(FORMAT, f"{key!a} is no tag key")
        tags[key] = value
    _store(context.thing.tags, tags)
    return {}


def _query_tags(params: Any, context: Context) -> dict[str, Any]:
    return _query("tags", context.thing.tags, params, FORMAT, context)


def _delete_tags(params: Any, context: Context) -> dict[str, Any]:
    return _delete("tags", context.thing.tags, params, FORMAT, context)


_TOPICS: dict[str, _Handler] = {
    "thing/measurepoint/post": _post_measurepoints,
    "thing/attribute/update": _update_attributes,
    "thing/attribute/query": _query_attributes,
    "thing/attribute/delete": _delete_attributes,
    "thing/tag/update": _update_tags,
    "thing/tag/query": _query_tags,
    "thing/tag/delete": _delete_tags,
}


# --- what the topics share ----------------------------------------------------------------------


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value and value.keys() <= {"value", "quality"}


def _values(
    params: Any, name: str, code: int, context: Context, *, may_be_empty: bool = False
) -> dict[str, Any]:
    """The object ``name`` in the params, its keys checked."""
    values = params.get(name) if isinstance(params, dict) else None
    if not isinstance(values, dict) or not (values or may_be_empty):
        raise Wrong(code, f"params has no object {name}")
    _check_number(values, code, context)
    for identifier in values:
        _check_identifier(identifier, code, context)
    return values


def _names(params: Any, name: str, code: int, context: Context) -> list[str] | None:
    """The list ``name`` in the params, None if it is absent or empty."""
    if params is not None and not isinstance(params, dict):
        raise Wrong(code, "params is no object")
    names = (params or {}).get(name)
    if names is None or names == []:
        return None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise Wrong(code, f"{name} is no list of strings")
    _check_number(names, code, context)
    return names


def _query(
    name: str, known: Mapping[str, Any], params: Any, code: int, context: Context
) -> dict[str, Any]:
    names = _names(params, name, code, context)
    return {each: known[each] for each in names or known if each in known}


def _delete(
    name: str, known: dict[str, Any], params: Any, code: int, context: Context
) -> dict[str, Any]:
    names = _names(params, name, code, context)
    if names is None:
        raise Wrong(code, f"{name} is empty")
    for each in names:
        known.pop(each, None)
    return {}


def _check_number(values: Any, code: int, context: Context) -> None:
    most = context.limits.names
    if most is not None and len(values) > most:
        raise Wrong(code, f"more than {most} names")


def _check_identifier(identifier: str, code: int, context: Context) -> None:
    if context.limits.identifiers and not _IDENTIFIER.fullmatch(identifier):
        raise Wrong(code, f"{identifier[:200]!a} is no identifier")


def _time(params: dict[str, Any], code: int, context: Context) -> int:
    time = params.get("time", context.now)
    if not _is_int(time) or not 0 <= time <= LONGEST_TIME:
        raise Wrong(code, "time is no time in milliseconds")
    return int(time)


def _validate(values: Mapping[str, Any], types: Mapping[str, str]) -> None:
    for name, value in values.items():
        if name not in types:
            raise Wrong(MODEL, f"no {name!a} in the model")
        if not TYPES[types[name]](value):
            raise Wrong(MODEL, f"{name!a} is no {types[name]}")


def _store(known: dict[str, Any], values: Mapping[str, Any]) -> None:
    known.update(values)
    while len(known) > NAMES_KEPT:
        del known[next(iter(known))]

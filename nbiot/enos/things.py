"""What a device says to EnOS and how EnOS answers: topics, payloads, limits, body codes.

Over CoAP EnOS's resources are "/topic" and the topics of its MQTT protocol ("CoAP-based Connection
and Communication", 2.1 to 2.4.4). A request is ``{"id","version":"1.0","method","params"}``, its
answer the payload ``{"id","code","data"}`` of the 2.04. All that can be checked is checked here,
before a byte is sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbiot.errors import BadInput, BadReply, RequestRefused, Unsupported

VERSION = "1.0"
MOST_PAYLOAD = 1024  # bytes of one message (EnOS 2.4.4, limitations)
MOST_ITEMS = 200  # attributes or tags in one message
MOST_STRING = 4000  # characters of a string value
MOST_QUALITY = 9
MOST_DEPTH = 32  # ours: nothing that fits into 1 KB and means something is deeper

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
# Two pages differ: 50 characters with hyphen and slash, 100 without them. EnOS decides.
_TAG_KEY = re.compile(r"[A-Za-z0-9_/-]{1,100}", re.ASCII)

# Topics that EnOS's matrix "Selecting a Device Protocol" (2.1, 2.3) does not have over CoAP.
_EXCLUDED = (
    (r"thing/measurepoint/post/batch", "batches of measurepoints"),
    (r"thing/measurepoint/resume(/batch)?", "measurepoints from a time without connection"),
    (r"ota/.*", "firmware updates (OTA)"),
    (r"(thing/)?file/.*|ext/file/.*", "files"),
    (r"thing/(topo|device/register|sub).*|ext/session/.*|.*/combine/.*", "sub-devices"),
)

# EnOS, "Common return codes" and the pages of the topics.
MEANINGS = {
    429: "too many requests",
    700: "device error",
    705: "no such device",
    723: "the device is disabled",
    742: "the signature is wrong",
    1008: "the message is too large",
    1009: "no permission, or not logged in",
    1204: "the model of the product does not allow this (identifier or type)",
    1206: "the format of the measurepoints is wrong",
    1207: "the format of the attributes is wrong",
    1208: "the format of the query is wrong",
    1209: "the format of the deletion is wrong",
    1212: "no permission for this sub-device",
    1220: "the payload is not what the topic wants",
    1251: "the payload is empty",
    1260: "method and topic do not fit",
}
_HINTS = {
    1204: "Compare identifiers and types with the product's model in the EnOS console.",
    1220: "Is the product's data type JSON? Custom products take raw data only (`nbiot raw`).",
}

# The CoAP codes of "Reporting Data".
COAP_CODES = {
    "4.00": ("EnOS cannot read the message", "Is the product's data type right (JSON or Custom)?"),
    "4.01": ("EnOS does not know this device at this address", "Authenticate again."),
    "4.03": ("EnOS forbids it", "The device may be disabled: look at it in the EnOS console."),
    "4.04": ("EnOS has no such path", "Is the identifier in the product's model?"),
    "4.05": ("EnOS does not allow the method", "Something between rewrites the request."),
    "4.08": ("EnOS missed a part of the message", "Send it again."),
    "4.29": (
        "EnOS limits this device for now",
        "At most 10 KB a second and 4 logins in 2 minutes.",
    ),
    "4.13": ("the message is too large for EnOS", f"At most {MOST_PAYLOAD} bytes."),
}


@dataclass(frozen=True, slots=True)
class Measurepoint:
    """A value with its quality, 0 to 9."""

    value: Any
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A request to a JSON topic. ``topic`` from "thing/" on. ``params`` is checked already."""

    topic: str
    params: Any

    @property
    def method(self) -> str:
        """``thing.measurepoint.post`` for topic ``thing/measurepoint/post``."""
        return self.topic.replace("/", ".")

    def encode(self, number: str) -> bytes:
        """The payload: compact UTF-8 JSON. ``number``: its "id". Raises BadInput."""
        body = {"id": number, "version": VERSION, "method": self.method, "params": self.params}
        return checked_size(to_json("params", body))


# --- messages -----------------------------------------------------------------------------------


def measurepoints(points: Mapping[str, Any], time: int | None = None) -> Message:
    """Values by identifier, plain or as Measurepoint. ``time``: ms since 1970; None: EnOS's own."""
    values = {_identifier("measurepoint", k): _point(k, v) for k, v in _some("points", points)}
    return Message("thing/measurepoint/post", _timed({"measurepoints": values}, time))


def event(name: str, outputs: Mapping[str, Any], time: int | None = None) -> Message:
    """Event ``name`` of the product's model with its output values."""
    _identifier("event", name)
    values = {_identifier("output", k): checked_value(k, v) for k, v in outputs.items()}
    return Message(f"thing/event/{name}/post", _timed({"events": values}, time))


def update_attributes(values: Mapping[str, Any]) -> Message:
    """Set attributes; at most 200."""
    items = _some("attributes", values, MOST_ITEMS)
    found = {_identifier("attribute", k): checked_value(k, v) for k, v in items}
    return Message("thing/attribute/update", {"attributes": found})


def query_attributes(names: Iterable[str] = ()) -> Message:
    """Ask for attributes; for all when none is named."""
    return Message("thing/attribute/query", {"attributes": _names("attribute", names)})


def delete_attributes(names: Iterable[str]) -> Message:
    """Delete attributes; at least one."""
    return Message("thing/attribute/delete", {"attributes": _names("attribute", names, least=1)})


def update_tags(tags: Mapping[str, str]) -> Message:
    """Set tags; at most 200."""
    items = _some("tags", tags, MOST_ITEMS)
    return Message(
        "thing/tag/update",
        [{"tagKey": _tag_key(k), "tagValue": _tag_value(k, v)} for k, v in items],
    )


def query_tags(keys: Iterable[str] = ()) -> Message:
    """Ask for tags; for all when none is named."""
    return Message("thing/tag/query", {"tags": [_tag_key(key) for key in _listed("tag", keys)]})


def delete_tags(keys: Iterable[str]) -> Message:
    """Delete tags; at least one."""
    found = [_tag_key(key) for key in _listed("tag", keys, least=1)]
    return Message("thing/tag/delete", {"tags": found})


def other(topic: str, params: Any) -> Message:
    """Any other topic that has a JSON body. Raises Unsupported for what EnOS does not take."""
    topic = topic.strip("/")
    if not re.fullmatch(r"(?=.{1,200}$)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", topic, re.ASCII):
        raise BadInput("topic", topic, "a topic such as thing/measurepoint/post")
    refuse_excluded(topic)
    return Message(topic, checked_value("params", params))


def refuse_excluded(topic: str) -> None:
    """Raises Unsupported for the topics that EnOS does not take over CoAP."""
    for pattern, what in _EXCLUDED:
        if re.fullmatch(pattern, topic):
            raise Unsupported(
                f"EnOS takes no {what} over CoAP (topic {topic})",
                hint="EnOS documents these for MQTT only ('Selecting a Device Protocol').",
            )


# --- checks -------------------------------------------------------------------------------------


def to_json(name: str, body: Any) -> bytes:
    """Compact JSON in UTF-8. Raises BadInput for what JSON or UTF-8 cannot say."""
    try:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(name, error.object[error.start : error.end], "text that is UTF-8") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(name, str(error), "what JSON can say, without NaN and infinities") from None


def checked_size(payload: bytes) -> bytes:
    """``payload``, if EnOS takes so much in one message."""
    if len(payload) > MOST_PAYLOAD:
        raise BadInput(
            "payload",
            f"{len(payload)} bytes",
            f"at most {MOST_PAYLOAD} bytes a message",
            hint="Send the values in several messages.",
        )
    return payload


def checked_value(name: str, value: Any, depth: int = 0) -> Any:
    """``value``, if JSON and EnOS can take it: no NaN, no infinity, no string over 4000."""
    if depth > MOST_DEPTH:
        raise BadInput(name[:80], "a deeper one", f"lists and objects at most {MOST_DEPTH} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(name, value, "a finite number")
    if isinstance(value, str) and len(value) > MOST_STRING:
        raise BadInput(name, f"{len(value)} characters", f"at most {MOST_STRING} characters")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInput(name, key, "strings as names")
            checked_value(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            checked_value(f"{name}[{number}]", inner, depth + 1)
    elif not isinstance(value, (str, int, float, type(None))):
        raise BadInput(name, value, "a number, text, true or false, a list or an object")
    return value


def _point(name: str, value: Any) -> Any:
    if not isinstance(value, Measurepoint):
        return checked_value(name, value)
    if value.quality is None:
        return checked_value(name, value.value)
    if type(value.quality) is not int or not 0 <= value.quality <= MOST_QUALITY:
        raise BadInput(f"{name}.quality", value.quality, "an integer from 0 to 9")
    return {"value": checked_value(name, value.value), "quality": value.quality}


def _timed(params: dict[str, Any], time: int | None) -> dict[str, Any]:
    if time is None:
        return params
    if type(time) is not int or not 0 <= time < 1 << 53:
        raise BadInput("time", time, "milliseconds since 1970, an integer")
    return params | {"time": time}


def _identifier(what: str, name: Any) -> str:
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise BadInput(what, name, "1 to 128 letters, digits, '-', '_' and '.'")
    return name


def _tag_key(key: Any) -> str:
    if not isinstance(key, str) or not _TAG_KEY.fullmatch(key):
        raise BadInput("tag", key, "1 to 100 letters, digits, '-', '_' and '/'")
    return key


def _tag_value(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput(key, value, "text, as the value of a tag")
    return str(checked_value(key, value))


def _some(what: str, items: Mapping[str, Any], most: int | None = None) -> Sequence[Any]:
    if not isinstance(items, Mapping) or not items or (most and len(items) > most):
        given = f"{len(items)} items" if isinstance(items, Mapping) else items
        raise BadInput(what, given, "one or more" if most is None else f"1 to {most}")
    return list(items.items())


def _listed(what: str, names: Iterable[str], least: int = 0) -> list[str]:
    found = [names] if isinstance(names, str) else list(names)
    if not least <= len(found) <= MOST_ITEMS:
        raise BadInput(what, f"{len(found)} names", f"{least} to {MOST_ITEMS}")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise BadInput(what, twice, "each name once")
    return found


def _names(what: str, names: Iterable[str], least: int = 0) -> list[str]:
    return [_identifier(what, name) for name in _listed(what, names, least)]


# --- answers ------------------------------------------------------------------------------------


def check_code(code: str) -> None:
    """Raises RequestRefused unless the CoAP code of the response is a success."""
    if code.startswith("2."):
        return
    if code.startswith("5."):
        words, hint = "EnOS failed inside", "Nothing is wrong on this side as far as can be seen."
    else:
        words, hint = COAP_CODES.get(code, ("EnOS refused the request", "See RFC 7252, 12.1.2."))
    raise RequestRefused(f"{words} ({code})", code=code, hint=hint)


def read_answer(payload: bytes, number: str) -> Any:
    """The "data" of an answer with code 200; None when there is none.

    An empty payload is taken for a success without data: the CoAP code said 2.04, and EnOS
    documents only "response data". Raises RequestRefused with the body's code, BadReply.
    """
    if not payload:
        return None
    body = from_json(payload)
    if not isinstance(body, dict):
        raise BadReply(f"EnOS's answer is no JSON object: {_shown(payload)}")
    if "id" in body and str(body["id"]) != number:
        raise BadReply(f"EnOS answered request {str(body['id'])[:40]!r}; ours was {number!r}")
    code = body.get("code")
    if type(code) is not int:
        raise BadReply(f"EnOS's answer has no code: {_shown(payload)}")
    if code != 200:
        raise refusal(code, body.get("message"))
    return body.get("data")


def refusal(code: int, message: Any = None) -> RequestRefused:
    """The error for a body code."""
    meaning = MEANINGS.get(code, "user-defined" if code >= 2000 else "see EnOS's return codes")
    said = f": {message[:200]}" if isinstance(message, str) and message else ""
    return RequestRefused(
        f"EnOS took the message but refuses it: {code}, {meaning}{said}",
        code=str(code),
        hint=_HINTS.get(code, ""),
    )


def from_json(payload: bytes) -> Any:
    """What ``payload`` says. Raises BadReply: not UTF-8, not JSON, NaN, a name twice, too deep."""
    try:
        return json.loads(payload.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadReply(f"not JSON ({error}): {_shown(payload)}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _shown(payload: bytes) -> str:
    text = payload[:60].decode("ascii", "backslashreplace")
    return f"{text!r}{'...' if len(payload) > 60 else ''}"

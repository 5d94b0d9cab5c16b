"""A stand-in for EnOS's REST interface: tokens, signatures, products, devices. In memory.

    async with RestStandIn(products=["KV315idW"]) as cloud:
        ...  # cloud.address, cloud.org, cloud.access_key, cloud.secret_key

It is written from EnOS's documentation alone, and imports nothing of nbiot: a client's mistake must
fail here. What the documentation leaves open is marked "our choice".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import socket
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

TOKEN_SECONDS = 7200
MOST_IN_A_BATCH = 1000
MOST_ON_A_PAGE = 200

OK = 0
DEVICE_EXISTS = 11702
TOO_MANY_DEVICES = 11739
BAD_TIMEZONE = 11858
INVALID_ARGUMENTS = 99400


@dataclass
class Device:
    """A device; times are ms since 1970, 0 is never."""

    product_key: str
    key: str
    name: str
    timezone: str
    secret: str = field(repr=False)
    asset: str
    status: str = "inactive"
    active: int = 0
    online: int = 0
    offline: int = 0


@dataclass
class Fault:
    """What happens to the next ``times`` requests for ``action`` (token, create, get ...).

    status: the gateway answers so, and nothing is done
    lost: the request is done, but its answer breaks off
    delay: s before anything happens
    """

    action: str
    status: int = 0
    lost: bool = False
    delay: float = 0.0
    times: int = 1


class _Refused(Exception):
    """An envelope with a code, or a status of the gateway."""

    def __init__(self, code: int, text: str, status: int = 200) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status


class RestStandIn:
    """Listens on loopback while it is entered. What it did is in its attributes.

    most_devices: in each product
    clock_off: s by which its clock is ahead of this machine's; it takes no timestamp that is more
               than ``tolerance`` s away from it (our choice: the documentation gives no number)
    """

    def __init__(
        self,
        *,
        products: tuple[str, ...] | list[str] = ("KV315idW",),
        most_devices: int = 1_000_000,
        clock_off: float = 0.0,
        tolerance: float = 300.0,
        token_seconds: int = TOKEN_SECONDS,
    ) -> None:
        self.org = "o15504722874071"
        self.access_key = str(uuid.uuid4())
        self.secret_key = str(uuid.uuid4())
        self.products = list(products)
        self.devices: dict[tuple[str, str], Device] = {}
        self.faults: list[Fault] = []
        self.done: Counter[str] = Counter()
        """How often each action was done, whether or not its answer arrived."""
        self.requests: Counter[str] = Counter()
        """How often each was asked for."""
        self.address = ""
        self._most_devices = most_devices
        self._clock_off = clock_off
        self._tolerance = tolerance
        self._token_seconds = token_seconds
        self._tokens: dict[str, float] = {}  # until when, by our clock
        self._seen: set[str] = set()
        self._in_product: Counter[str] = Counter()
        self._server: uvicorn.Server | None = None

    async def __aenter__(self) -> RestStandIn:
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = Starlette(
            routes=[
                Route("/apim-token-service/v2.0/token/{what}", self._token, methods=["POST"]),
                Route(
                    "/connect-service/{version}/{kind:str}", self._connect, methods=["GET", "POST"]
                ),
            ]
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", date_header=False
        )
        await asyncio.to_thread(config.load)  # it imports
        self._server = uvicorn.Server(config)  # without serve(): it polls, and takes the signals
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[listener])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.force_exit = True
            await self._server.shutdown()

    def forget_tokens(self) -> None:
        """As when all tokens ran out, or somebody revoked them."""
        self._tokens.clear()

    def now(self) -> float:
        """Its clock, s since 1970."""
        return time.time() + self._clock_off

    # --- tokens -----------------------------------------------------------------------------

    async def _token(self, request: Request) -> Response:
        return await self._guarded(request, "token", self._token_answer)

    def _token_answer(self, request: Request, raw: bytes) -> dict[str, Any]:
        operation = request.path_params["what"]
        if operation not in ("get", "refresh"):
            raise _Refused(404, "no such operation", 404)
        asked = _object(raw, 1004)
        stamp = asked.get("timestamp")
        if not isinstance(stamp, int) or not isinstance(asked.get("encryption"), str):
            raise _Refused(1004, "timestamp (long) and encryption are required")
        if asked.get("appKey") != self.access_key:
            raise _Refused(1002, "appKey does not exist")
        proof = hashlib.sha256()
        for part in (self.access_key, str(stamp), self.secret_key):
            proof.update(part.encode("ascii"))
        if asked["encryption"] != proof.hexdigest() or not self._is_now(stamp):
            raise _Refused(1003, "encryption is not correct")
        if asked["encryption"] in self._seen:
            raise _Refused(1001, "encryption was used before")
        self._seen.add(asked["encryption"])
        token = self._refreshed(asked) if operation == "refresh" else self._got()
        data = {"accessToken": token, "expire": int(self._tokens[token] - self.now())}
        return {"status": OK, "msg": "SUCCESS", "business": "apim-token-service", "data": data}

    def _got(self) -> str:
        """The same token as long as one is valid."""
        for token, until in self._tokens.items():
            if until > self.now():
                return token
        token = secrets.token_hex(16)
        self._tokens[token] = self.now() + self._token_seconds
        return token

    def _refreshed(self, asked: Mapping[str, Any]) -> str:
        token = asked.get("accessToken")
        if not token:
            raise _Refused(1202, "accessToken is empty")
        if self._tokens.get(token, 0) <= self.now():
            raise _Refused(1203, "accessToken expired")
        del self._tokens[token]
        fresh = secrets.token_hex(16)
        self._tokens[fresh] = self.now() + TOKEN_SECONDS
        return fresh

    def _is_now(self, stamp: int) -> bool:
        return abs(stamp / 1000 - self.now()) <= self._tolerance

    # --- the connect service ----------------------------------------------------------------

    async def _connect(self, request: Request) -> Response:
        action = request.query_params.get("action", "")
        return await self._guarded(request, action, self._connect_answer)

    def _connect_answer(self, request: Request, raw: bytes) -> dict[str, Any]:
        self._check_signature(request, raw)
        query = request.query_params
        version, kind = request.path_params["version"], request.path_params["kind"]
        if query.get("orgId") != self.org:
            raise _Refused(403, "no right to this organisation", 403)
        answers = {
            ("POST", "devices", "create"): self._create,
            ("POST", "devices", "batchCreate"): self._create_many,
            ("GET", "devices", "get"): self._get,
            ("POST", "devices", "search"): self._search,
            ("GET", "products", "get"): self._product,
        }
        answer = answers.get((request.method, kind, query.get("action", "")))
        if answer is None or version not in ("v2.0", "v2.1", "v2.4"):
            raise _Refused(404, "no such interface", 404)
        extra = answer(query, raw)
        self.done[query["action"]] += 1
        found = {"code": OK, "msg": "OK", "requestId": str(uuid.uuid4()), **extra}
        return _encrypted(found) if version == "v2.4" else found

    def _check_signature(self, request: Request, raw: bytes) -> None:
        head = request.headers
        token, stamp = head.get("apim-accesstoken", ""), head.get("apim-timestamp", "")
        if self._tokens.get(token, 0) <= self.now():  # our choice of status
            raise _Refused(1203, "accessToken expired", 401)
        if not re.fullmatch(r"\d{13}", stamp) or not self._is_now(int(stamp)):
            raise _Refused(401, "apim-timestamp is not ms of now", 401)
        if head.get("apim-signature") != self.signature(token, request, raw, stamp):
            raise _Refused(401, "apim-signature does not match", 401)

    def signature(self, token: str, request: Request, raw: bytes, stamp: str) -> str:
        """As the documentation has it: token, parameters by name, body, timestamp, secret."""
        pairs = sorted(request.query_params.multi_items())
        return signature_of(token, pairs, raw, stamp, self.secret_key)

    def _create(self, query: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        return {"data": self._made(_object(raw, INVALID_ARGUMENTS))}

    def _create_many(self, query: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        options = _object(raw, INVALID_ARGUMENTS).get("deviceList")
        if not isinstance(options, list) or not 1 <= len(options) <= MOST_IN_A_BATCH:
            raise _Refused(INVALID_ARGUMENTS, f"deviceList needs 1 to {MOST_IN_A_BATCH} devices")
        results: list[dict[str, Any]] = []
        for option in options:
            try:
                results.append({"code": OK, "msg": "OK", "data": self._made(option)})
            except _Refused as refused:
                results.append({"code": -1, "msg": refused.text, "data": None})
        good = sum(result["code"] == OK for result in results)
        return {"data": results, "successSize": good, "totalSize": len(results)}

    def _made(self, option: Any) -> dict[str, Any]:
        if not isinstance(option, dict) or option.get("productKey") not in self.products:
            raise _Refused(INVALID_ARGUMENTS, "productKey is unknown")
        name = option.get("deviceName")
        if not isinstance(name, dict) or not name.get("defaultValue") or "i18nValue" not in name:
            raise _Refused(INVALID_ARGUMENTS, "deviceName needs defaultValue and i18nValue")
        if not re.fullmatch(r"[+-]\d\d:\d\d", str(option.get("timezone"))):
            raise _Refused(BAD_TIMEZONE, "timezone is wrong")
        product, key = option["productKey"], option.get("deviceKey") or secrets.token_hex(5)
        if (product, key) in self.devices:
            raise _Refused(DEVICE_EXISTS, "deviceKey exists")
        if self._in_product[product] >= self._most_devices:
            raise _Refused(TOO_MANY_DEVICES, "the product has too many devices")
        secret, asset = secrets.token_urlsafe(15), secrets.token_hex(4)
        device = Device(product, key, name["defaultValue"], option["timezone"], secret, asset)
        self.devices[product, key] = device
        self._in_product[product] += 1
        return {
            "productKey": product,
            "deviceKey": key,
            "deviceSecret": secret,
            "assetId": asset,
        }

    def _get(self, query: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        device = self.devices.get((query.get("productKey", ""), query.get("deviceKey", "")))
        if device is None:  # our choice of code
            raise _Refused(INVALID_ARGUMENTS, "no such device")
        return {"data": _shown(device)}

    def _search(self, query: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        asked = _object(raw, INVALID_ARGUMENTS)
        wanted = re.fullmatch(r"productKey='(\w+)'", str(asked.get("expression")))
        page = asked.get("pagination") or {}
        number, size = page.get("pageNo", 1), page.get("pageSize", 10)
        if wanted is None or not 1 <= size <= MOST_ON_A_PAGE or number < 1:
            raise _Refused(INVALID_ARGUMENTS, "expression or pagination is wrong")
        found = [_shown(d) for d in self.devices.values() if d.product_key == wanted[1]]
        return {"data": found[(number - 1) * size : number * size]}

    def _product(self, query: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        if query.get("productKey") not in self.products:
            raise _Refused(INVALID_ARGUMENTS, "productKey is unknown")
        return {
            "data": {
                "productKey": query["productKey"],
                "productName": {"defaultValue": "meter", "i18nValue": {}},
                "productSecret": "not-for-stations",
                "dataFormat": "Json",
                "dynamicActivateEnabled": False,
            }
        }

    # --- faults and envelopes ---------------------------------------------------------------

    async def _guarded(self, request: Request, action: str, answer: Any) -> Response:
        self.requests[action] += 1
        raw = await request.body()
        fault = self._fault(action)
        if fault and fault.delay:
            await asyncio.sleep(fault.delay)
        if fault and fault.status:
            return self._response({"msg": "by the gateway"}, fault.status)
        try:
            found, status = answer(request, raw), 200
            if action == "token":
                self.done["token"] += 1
        except _Refused as refused:
            name = "status" if action == "token" else "code"
            found, status = {name: refused.code, "msg": refused.text}, refused.status
        return _BreaksOff() if fault and fault.lost else self._response(found, status)

    def _fault(self, action: str) -> Fault | None:
        for fault in self.faults:
            if fault.action == action and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _response(self, found: Any, status: int) -> Response:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now()))
        return JSONResponse(found, status, headers={"date": date})


def signature_of(
    token: str, pairs: list[tuple[str, str]], raw: bytes, stamp: str, secret: str
) -> str:
    """apim-signature; ``pairs`` in the order of their names."""
    digest = hashlib.sha256(token.encode())
    for name, value in pairs:
        digest.update(name.encode() + value.encode())
    digest.update(raw)
    digest.update(stamp.encode() + secret.encode())
    return digest.hexdigest()


def _shown(device: Device) -> dict[str, Any]:
    return {
        "productKey": device.product_key,
        "deviceKey": device.key,
        "deviceSecret": device.secret,
        "assetId": device.asset,
        "deviceName": {"defaultValue": device.name, "i18nValue": {}},
        "timezone": device.timezone,
        "status": device.status,
        "activeTime": device.active or None,
        "lastOnlineTime": device.online or None,
        "lastOfflineTime": device.offline or None,
    }


def _encrypted(found: dict[str, Any]) -> dict[str, Any]:
    """From 2.4 on there is no secret in plain text."""
    if isinstance(found.get("data"), dict) and "deviceSecret" in found["data"]:
        found["data"]["deviceSecret"] = secrets.token_hex(32)
        found["data"]["sessionKey"] = secrets.token_hex(64)
    return found


def _object(raw: bytes, code: int) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Refused(code, "the body is no JSON object")
    return found


class _BreaksOff(Response):
    """An answer whose connection ends in its middle."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"5000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code":'})

"""EnOS's REST interface, as much of it as a station needs: registering devices, looking them up.

    async with EnosRest("https://apim-abc.def.com", org_id, access_key, secret_key) as rest:
        secret = await rest.register("KV315idW", "866971030000017", "meter 17")

Source: EnOS documentation, "API management: token" and "Connect service" (2.1 to 3.0). Use 2.1:
from 2.4 on, secrets come encrypted for the application's RSA key, which this does not do. No EnOS
was at hand: it has been tried against hil.enos_rest, written from the same documentation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from nbiot.errors import BadInput, RestError
from nbiot.signing import Secret, check_device_key, check_product_key

BATCH_MOST = 1000
PAGE_MOST = 200
TRIES = 4
SKEW_SECONDS = 60.0  # by which a clock may be off before an error names it
_EARLY_SECONDS = 60.0  # before its end a token is renewed
_STATUSES = frozenset(HTTPStatus)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_T = TypeVar("_T")
EXISTS = 11702
_TOKEN_EXPIRED = 1203
_REPEATED = 1001

WORDS = {
    1001: ("the request for a token was a repetition", "Try again."),
    1002: ("the access key is unknown", "Compare it with EnOS's page Application Registration."),
    1003: ("the signature is wrong", "Is the secret key that of this access key?"),
    1004: ("a parameter of the token request is missing or wrong", ""),
    1005: ("EnOS's token service has an internal error", "Try again later."),
    1202: ("the token is empty", "Try again."),
    1203: ("the token expired", "Try again."),
    1204: ("the token cannot be refreshed", "Try again."),
    11702: ("a device with this device key exists already", ""),
    11704: ("the new device key is the old one", ""),
    11714: ("EnOS could not make a key", "Try again."),
    11739: (
        "the product has as many devices as it may",
        "Have the product's or the organisation's limit raised, or delete devices.",
    ),
    11794: ("the device's status does not allow this", "Look at the device in EnOS's console."),
    11858: ("the time zone is wrong", 'It looks like "+08:00".'),
    99400: (
        "EnOS finds an argument invalid",
        "Is the product key right, and of this organisation?",
    ),
    400: ("the gateway finds the request wrong", "Compare address and API version."),
    401: ("the gateway takes neither token nor signature", "Compare access key and secret key."),
    403: (
        "the application may not do this",
        "Give it, in EnOS's console, the rights to Connect Service and to this organisation.",
    ),
    404: ("there is no such interface", "Compare address and API version; 2.1 is known to work."),
    413: ("the request is too long", "Register fewer devices at a time."),
    429: ("EnOS wants fewer requests", "Wait; register fewer devices at a time."),
    500: ("EnOS has an internal error", "Try again later."),
    503: ("EnOS is not available", "Try again later."),
}
"""What codes mean, and what to do; from EnOS's documentation."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as EnOS knows it. Times are s since 1970; None: never."""

    product_key: str
    device_key: str
    asset_id: str
    name: str
    status: str
    """online, offline, inactive (never seen yet) or disabled."""
    secret: Secret | None
    active_time: float | None
    last_online: float | None
    last_offline: float | None


@dataclass(frozen=True, slots=True)
class ProductInfo:
    """A product as EnOS knows it."""

    product_key: str
    name: str
    data_format: str
    """Custom (pass-through) or Json."""
    dynamic_activation: bool


@dataclass(frozen=True, slots=True)
class NewDevice:
    """One of many to be registered."""

    product_key: str
    device_key: str
    name: str
    timezone: str = "+08:00"

    def __post_init__(self) -> None:
        check_product_key(self.product_key)
        check_device_key(self.device_key)
        if not self.name.strip() or not self.name.isprintable():
            raise BadInput("device name", self.name, "printable text, not empty")
        if not re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", self.timezone):
            raise BadInput("timezone", self.timezone, "-14:59 to +14:59, as +08:00")

    def as_body(self) -> dict[str, Any]:
        """As EnOS's CreateOption."""
        return {
            "productKey": self.product_key,
            "deviceKey": self.device_key,
            "deviceName": {"defaultValue": self.name, "i18nValue": {}},
            "timezone": self.timezone,
        }


@dataclass(frozen=True, slots=True)
class Registered:
    """The outcome for one of many: its secret, or why there is none."""

    device: NewDevice
    secret: Secret | None
    error: RestError | None = None


@dataclass(slots=True)
class _Token:
    text: str = field(repr=False)
    until: float
    """By the monotonic clock."""


def sign(token: str, params: str, body: str, timestamp: int, secret: Secret) -> str:
    """The header apim-signature: SHA-256 in lower-case digits.

    params: names and values of the query, by name, one after the other without separators
    """
    public = f"{token}{params}{body}{timestamp}"
    return hashlib.sha256((public + secret.reveal()).encode()).hexdigest()


class EnosRest:
    """A client for one application of one organisation. An async context manager.

    address: https://HOST[:PORT] of the API gateway, ``apim-...``; http:// only to this machine
    access_key, secret_key: of the application registered in EnOS
    version: of the connect service; batches have their own, as the documentation has it
    timeout: s that EnOS may keep silent; a request is sent up to ``TRIES`` times

    Every method raises RestError. What may have been done without an answer is asked again only
    where that cannot do it twice.
    """

    def __init__(
        self,
        address: str,
        org_id: str,
        access_key: str,
        secret_key: Secret,
        *,
        version: str = "v2.1",
        batch_version: str = "v2.0",
        token_version: str = "v2.0",
        timeout: float = 20.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._address = check_address(address)
        for name, given in (
            ("version", version),
            ("batch_version", batch_version),
            ("token_version", token_version),
        ):
            if not re.fullmatch(r"v\d+\.\d+", given):
                raise BadInput(name, given, 'text such as "v2.1"')
        for name, given in (("org_id", org_id), ("access_key", access_key)):
            if not given or not given.isascii() or not given.isprintable() or " " in given:
                raise BadInput(name, given, "the text that EnOS's console shows")
        if not 0.1 <= timeout <= 600:
            raise BadInput("timeout", timeout, "0.1 to 600 s")
        self._org_id = org_id
        self._access_key = access_key
        self._secret_key = secret_key
        self._devices = f"/connect-service/{version}/devices"
        self._batches = f"/connect-service/{batch_version}/devices"
        self._products = f"/connect-service/{version}/products"
        self._tokens = f"/apim-token-service/{token_version}/token"
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._client: httpx.AsyncClient | None = None
        self._token: _Token | None = None
        self._token_turn = asyncio.Lock()
        self._last_timestamp = 0
        self._skew = 0.0

    async def __aenter__(self) -> EnosRest:
        self._client = await asyncio.to_thread(self._made_client)
        return self

    def _made_client(self) -> httpx.AsyncClient:
        """Takes a while: it reads 150 certificates."""
        local = urlsplit(self._address).hostname in _LOOPBACK
        return httpx.AsyncClient(
            base_url=self._address,
            timeout=self._timeout,
            verify=ssl.create_default_context(),
            trust_env=not local,  # proxies
            follow_redirects=False,  # a signature is for one address
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        client, self._client, self._token = self._client, None, None
        if client is not None:
            await client.aclose()

    # --- what a station asks ----------------------------------------------------------------

    async def register(
        self, product_key: str, device_key: str, name: str, timezone: str = "+08:00"
    ) -> Secret:
        """The secret of a device, which is registered unless it is already. May be repeated."""
        device = NewDevice(product_key, device_key, name, timezone)
        try:
            # A repetition of what was done finds that the device exists, and so it is safe.
            data = await self._call("POST", self._devices, "create", device.as_body())
        except RestError as error:
            if error.code != EXISTS:
                raise
            return await self._secret_of(product_key, device_key)
        return _secret_in(data)

    async def register_all(self, devices: Sequence[NewDevice]) -> list[Registered]:
        """Like ``register`` for many, up to 1000 in a request; one's failure is only its own."""
        done: list[Registered] = []
        for start in range(0, len(devices), BATCH_MOST):
            some = devices[start : start + BATCH_MOST]
            body = {"deviceList": [device.as_body() for device in some]}
            answers = await self._call("POST", self._batches, "batchCreate", body)
            if not isinstance(answers, list) or len(answers) != len(some):
                raise _strange(f"there is no list of {len(some)} results in it")
            for device, answer in zip(some, answers, strict=True):
                done.append(await self._registered(device, answer))
        return done

    async def device(self, product_key: str, device_key: str) -> DeviceInfo:
        """What EnOS knows of a device. Raises RestError, too, when there is none."""
        check_product_key(product_key)
        check_device_key(device_key)
        data = await self._call(
            "GET", self._devices, "get", productKey=product_key, deviceKey=device_key
        )
        return _device_in(data)

    async def search(self, expression: str, *, page: int = PAGE_MOST) -> AsyncIterator[DeviceInfo]:
        """Devices that match, e.g. ``productKey='KV315idW'``, ``page`` of them in a request."""
        if not 1 <= page <= PAGE_MOST:
            raise BadInput("page", page, f"1 to {PAGE_MOST}")
        number = 1
        while True:
            pagination = {"pageNo": number, "pageSize": page}
            body = {"expression": expression, "pagination": pagination}
            found = await self._call("POST", self._devices, "search", body)
            if not isinstance(found, list):
                raise _strange("there is no list of devices in it")
            for data in found:
                yield _device_in(data)
            if len(found) < page:
                return
            number += 1

    async def product(self, product_key: str) -> ProductInfo:
        """What EnOS knows of a product."""
        check_product_key(product_key)
        data = _table(await self._call("GET", self._products, "get", productKey=product_key))
        return ProductInfo(
            product_key=str(data.get("productKey", product_key)),
            name=_name_in(data.get("productName")),
            data_format=str(data.get("dataFormat", "")),
            dynamic_activation=bool(data.get("dynamicActivateEnabled", False)),
        )

    async def check(self) -> str:
        """Get a token, for ``nbiot station doctor``: what it saw, in words."""
        token = await self._repeated(self._valid_token)
        seconds = token.until - time.monotonic()
        skew = f"; this clock is {self._skew:+.0f} s off" if abs(self._skew) > SKEW_SECONDS else ""
        return f"a token for {seconds / 60:.0f} minutes{skew}"

    # --- parts of those ---------------------------------------------------------------------

    async def _secret_of(self, product_key: str, device_key: str) -> Secret:
        found = await self.device(product_key, device_key)
        if found.status == "disabled":
            raise RestError(
                f"the device {device_key} exists already, and is disabled",
                code=EXISTS,
                hint="Enable it in EnOS's console, or find out why somebody disabled it.",
            )
        if found.secret is None:
            raise _strange("there is no secret of the device in it")
        return found.secret

    async def _registered(self, device: NewDevice, answer: Any) -> Registered:
        code = _code_in(answer)
        try:
            if code == 0:
                return Registered(device, _secret_in(_table(answer).get("data")))
            # The code of one result may be -1 (documentation), whatever was wrong with it.
            secret = await self._secret_of(device.product_key, device.device_key)
            return Registered(device, secret)
        except RestError as error:
            if code and error.code not in (0, EXISTS):  # there is no such device: so say why
                error = _refusal(code, _table(answer).get("msg"))
            return Registered(device, None, error)

    # --- one call ---------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, action: str, body: Any = None, **query: str
    ) -> Any:
        """The field data of the answer. Every call used here may be repeated."""
        query = {"action": action, "orgId": self._org_id, **query}
        content = "" if body is None else json.dumps(body, ensure_ascii=False)

        async def once() -> Any:
            token = await self._valid_token()
            answer = await self._request(
                method, path, query, content, self._signed(token, query, content)
            )
            return _data_of(answer)

        return await self._repeated(once)

    async def _repeated(self, once: Callable[[], Awaitable[_T]]) -> _T:
        renewed = False
        for attempt in range(1, TRIES + 1):
            try:
                return await once()
            except RestError as error:
                if error.code in (401, 403, _TOKEN_EXPIRED) and not renewed:
                    renewed = True  # refused before it was done; the token may have been revoked
                    self._token = None
                elif not _passes(error) or attempt == TRIES:
                    raise self._with_skew(error) from error.__cause__
                else:
                    await self._sleep(_pause(attempt))
        raise AssertionError("not reached")

    def _signed(self, token: _Token, query: dict[str, str], content: str) -> dict[str, str]:
        params = "".join(name + query[name] for name in sorted(query))
        timestamp = self._timestamp()
        return {
            "apim-accesstoken": token.text,
            "apim-signature": sign(token.text, params, content, timestamp, self._secret_key),
            "apim-timestamp": str(timestamp),
        }

    async def _request(
        self, method: str, path: str, query: dict[str, str], content: str, headers: dict[str, str]
    ) -> Any:
        """The JSON of an answer of 200. Raises RestError with the status of another."""
        if self._client is None:
            raise RuntimeError("EnosRest is not entered: use `async with`")
        if content:
            headers = {**headers, "content-type": "application/json;charset=UTF-8"}
        try:
            answer = await self._client.request(
                method, path, params=query or None, content=content.encode(), headers=headers
            )
        except httpx.TimeoutException:
            raise RestError(
                f"{self._address} does not answer within {self._timeout:g} s",
                code=0,
                hint="Is this machine's way to the internet open?",
            ) from None
        except httpx.HTTPError as error:  # its text names neither headers nor body
            raise RestError(
                f"{self._address} cannot be asked: {error}",
                code=0,
                hint="Compare the address; try it with curl from this machine.",
            ) from None
        self._note_skew(answer)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.status_code != 200:
            raise _status(answer, found)
        if not isinstance(found, dict):
            raise _strange("it is no JSON object")
        return found

    # --- the token --------------------------------------------------------------------------

    async def _valid_token(self) -> _Token:
        async with self._token_turn:
            now = time.monotonic()
            if self._token is None or self._token.until <= now:
                self._token = await self._new_token("get")
            elif self._token.until - now < _EARLY_SECONDS:
                # EnOS gives the same token again while it is valid: only a refresh prolongs it.
                try:
                    self._token = await self._new_token("refresh", self._token)
                except RestError as error:
                    if error.code not in (1202, 1203, 1204):
                        raise
                    self._token = await self._new_token("get")
            return self._token

    async def _new_token(self, operation: str, old: _Token | None = None) -> _Token:
        for attempt in (1, 2, 3):
            try:
                return await self._asked_token(operation, old)
            except RestError as error:
                # Another process with this key asked in the same millisecond.
                if error.code != _REPEATED or attempt == 3:
                    raise
                await self._sleep(random.uniform(0.005, 0.05))
        raise AssertionError("not reached")

    async def _asked_token(self, operation: str, old: _Token | None) -> _Token:
        timestamp = self._timestamp()
        public = f"{self._access_key}{timestamp}"
        body = {
            "appKey": self._access_key,
            "encryption": hashlib.sha256((public + self._secret_key.reveal()).encode()).hexdigest(),
            "timestamp": timestamp,
        }
        if old is not None:
            body["accessToken"] = old.text
        asked = time.monotonic()
        answer = await self._request(
            "POST", f"{self._tokens}/{operation}", {}, json.dumps(body), {}
        )
        data = _table(_data_of(answer))
        text, expire = data.get("accessToken"), data.get("expire")
        if not isinstance(text, str) or not text or not isinstance(expire, int | float):
            raise _strange("there is no token in it")
        return _Token(text, asked + expire)

    def _timestamp(self) -> int:
        """ms since 1970; never the same twice, since EnOS takes no repetition."""
        now = int(self._clock() * 1000)
        if self._last_timestamp - 1000 < now <= self._last_timestamp:  # else the clock was set
            now = self._last_timestamp + 1
        self._last_timestamp = now
        return now

    # --- this machine's clock ---------------------------------------------------------------

    def _note_skew(self, answer: httpx.Response) -> None:
        try:
            there = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return
        self._skew = self._clock() - there

    def _with_skew(self, error: RestError) -> RestError:
        if error.code not in (400, 401, 403, 1003, 1004) or abs(self._skew) <= SKEW_SECONDS:
            return error
        way = "ahead of" if self._skew > 0 else "behind"
        message = f"{error.message}; this machine's clock is {abs(self._skew):.0f} s {way} EnOS's"
        hint = "Set the clock (timedatectl set-ntp true): signatures have the time in them."
        return RestError(message, code=error.code, hint=hint)


# --- what comes back ----------------------------------------------------------------------------


def check_address(address: str) -> str:
    """``address`` without a path, if it can be the API gateway's. Raises BadInput.

    http:// only to this machine: a token stands in every request.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    good = parts.hostname and parts.path in ("", "/") and not parts.query and not parts.username
    if good and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    ):
        return f"{parts.scheme}://{parts.netloc}"
    shown = "an address with a login in it (not shown)" if "@" in address else address
    hint = "http:// is for this machine alone: a token stands in every request."
    raise BadInput(
        "REST address",
        shown,
        "https://HOST[:PORT], as https://apim-abc.def.com",
        hint=hint if parts.scheme == "http" else "",
    )


def _passes(error: RestError) -> bool:
    """May the same succeed a little later?"""
    return error.code in (0, 429, 500, 502, 503, 504, 1005)


def _pause(attempt: int) -> float:
    """s; with chance in it, so that stations that failed together do not come back together."""
    return float(2**attempt) * random.uniform(0.25, 0.5)


def _status(answer: httpx.Response, found: Any) -> RestError:
    status = answer.status_code
    if 300 <= status < 400:
        return RestError(
            f"EnOS answers HTTP {status}: another address",
            code=status,
            hint="Give the API gateway's address itself.",
        )
    found = found if isinstance(found, dict) else {}
    own = _code_or_none(found)
    if own in WORDS and own not in _STATUSES:  # it says more than the status
        return _refusal(own, found.get("msg"))
    return _refusal(status, found.get("msg"), "HTTP ")


def _refusal(code: int, said: object, kind: str = "") -> RestError:
    words, hint = WORDS.get(code, ("EnOS refuses", "Look the code up in EnOS's documentation."))
    quoted = f', it says "{said[:200]}"' if isinstance(said, str) and said else ""
    return RestError(f"{words} ({kind}{code}{quoted})", code=code, hint=hint)


def _strange(what: str) -> RestError:
    return RestError(
        f"EnOS answers HTTP 200, but {what}",
        code=200,
        hint="Is this the API gateway's address, and is the API version right?",
    )


def _code_in(found: Any) -> int:
    code = _code_or_none(found)
    if code is None:
        raise _strange("there is no code in it")
    return code


def _code_or_none(found: Any) -> int | None:
    """``code`` of the connect service, ``status`` of the token service (a sample: "stauts")."""
    for name in ("code", "status", "stauts"):
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            return int(value)
    return None


def _data_of(found: Any) -> Any:
    code = _code_in(found)
    if code:
        raise _refusal(code, found.get("msg") or found.get("message"))
    return found.get("data")


def _is_token(text: Any) -> bool:
    """May it stand in a header?"""
    return isinstance(text, str) and re.fullmatch(r"[!-~]{1,2048}", text) is not None


def _table(data: Any) -> dict[str, Any]:
    if isinstance(data, dict):
        return data
    raise _strange("there are no data in it")


def _secret_in(data: Any) -> Secret:
    if _table(data).get("sessionKey"):
        raise RestError(
            "EnOS sends the device's secret encrypted",
            code=200,
            hint='Use version "v2.1": from v2.4 on, secrets come encrypted.',
        )
    secret = _secret_or_none(data)
    if secret is None:
        raise _strange("there is no device secret in it")
    return secret


def _secret_or_none(data: dict[str, Any]) -> Secret | None:
    if data.get("sessionKey") or not isinstance(data.get("deviceSecret"), str):
        return None
    try:
        return Secret(data["deviceSecret"])
    except BadInput:
        return None


def _device_in(data: Any) -> DeviceInfo:
    data = _table(data)
    return DeviceInfo(
        product_key=str(data.get("productKey", "")),
        device_key=str(data.get("deviceKey", "")),
        asset_id=str(data.get("assetId", "")),
        name=_name_in(data.get("deviceName")),
        status=str(data.get("status", "")).lower(),
        secret=_secret_or_none(data),
        active_time=_seconds(data.get("activeTime")),
        last_online=_seconds(data.get("lastOnlineTime")),
        last_offline=_seconds(data.get("lastOfflineTime")),
    )


def _name_in(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("defaultValue")
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    """EnOS counts in ms; 0 or nothing: never."""
    return value / 1000 if isinstance(value, int | float) and value else None

"""Redaction: what names a device is gone, all else stays."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.datagrams import datagrams
from nbiot.errors import BadInput
from nbiot.redact import Redaction, luhn
from nbiot.trace import Trace, read_trace

from .samples import REPLAYS, trace_of

IMEI, IMSI, ICCID = "490154203237518", "460043193006443", "89860317492039000001"
SIGN = "89D38F6A" * 8
ADDRESS = "100.64.12.7"


def text_of(trace: Trace, folder: Path) -> str:
    trace.write(folder / "t")
    return (folder / "t").read_text()


def digits(text: str) -> str:
    return text.encode().hex().upper()


def told() -> Trace:
    payload = f'\x02{IMEI}\xff{{"lifetime":3600,"sign":"{SIGN}"}}'.encode("latin-1")
    return trace_of(
        "> AT+CGSN=1",
        f"< +CGSN:{IMEI} [answer]",
        "> AT+CIMI",
        f"< {IMSI} [answer]",
        "> AT+NCCID",
        f"< +NCCID: {ICCID} [answer]",
        "> AT+CGPADDR",
        f"< +CGPADDR:0,{ADDRESS} [answer]",
        f"> AT+NSOST=0,203.0.113.5,5683,{len(payload)},{payload.hex().upper()}",
        f"> AT+NSOST=0,203.0.113.5,5683,{len(payload)},{payload.hex()}",
        b"> " + payload,
        f"- the modem {IMEI} at {ADDRESS} restarted",
        f"> AT+QCOAPOPTION=1,11,{IMEI}",
    )


@pytest.mark.parametrize("private", [IMEI, IMSI, ICCID, SIGN, ADDRESS, "203.0.113.5"])
def test_identities_are_gone_as_text_and_as_digits(private: str, tmp_path: Path) -> None:
    before, after = text_of(told(), tmp_path), text_of(Redaction()(told()), tmp_path)
    for shape in (private, digits(private), digits(private).lower()):
        assert shape not in after
    assert private in before


def test_they_are_replaced_by_the_same_thing_everywhere_and_of_the_same_length() -> None:
    before = told()
    after = Redaction()(before)
    assert after.header["redacted"] is True
    for then, now in zip(before.records, after.records, strict=True):
        assert (len(then.raw), len(then.note)) == (len(now.raw), len(now.note))
        assert (then.t, then.dir, then.event, then.number) == (
            now.t,
            now.dir,
            now.event,
            now.number,
        )
    new = after.records[1].raw.split(b":")[1].strip().decode()
    assert re.fullmatch(r"49015420\d{7}", new)
    assert luhn(new[:14].encode()) == new[14:].encode()
    first, second = (r.raw for r in after.records[8:10])
    assert digits(new).encode() in first
    assert digits(new).lower().encode() in second
    assert new.encode() in after.records[10].raw
    assert new in after.records[11].note
    assert new.encode() in after.records[12].raw
    (up, again) = datagrams(after.records)
    assert up.data == again.data == after.records[10].raw
    assert re.search(rb'"sign":"[0-9A-F]{64}"', up.data)
    assert up.data.startswith(b"\x02")


def test_what_names_a_model_or_an_operator_stays() -> None:
    after = Redaction()(told())
    assert after.records[3].raw.strip().startswith(b"46004")
    assert after.records[5].raw.split(b": ")[1].startswith(b"898603")


def test_two_redactions_agree_only_on_what_is_kept(tmp_path: Path) -> None:
    first, second = (text_of(Redaction()(told()), tmp_path) for _ in range(2))
    assert first != second
    same = (text_of(Redaction(rng=random.Random(1))(told()), tmp_path) for _ in range(2))
    assert len(set(same)) == 1


def test_damaged_lines_keep_no_pieces() -> None:
    sent = digits(f'"sign":"{SIGN}"')
    trace = trace_of(
        f"> AT+NSOST=0,203.0.113.5,5683,75,{sent}",
        f"< 7{sent[31:90]} [unknown]",
        f"< {IMEI[3:]} [unknown]",
        f"< +CGSN:{IMEI} [orphan]",
    )
    after = Redaction()(trace)
    assert sent[40:60].encode() not in after.records[1].raw
    assert after.records[2].raw.strip() == after.records[3].raw.split(b":")[1].strip()[3:]
    assert IMEI[8:].encode() not in after.records[2].raw


@pytest.mark.parametrize(
    "text",
    [
        "+CSQ:18,99",
        "V100R100C10B657SP3",
        "+NSONMI:1,48",
        "1.2.3.400",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.0",
        "12:34:56",
        "+CCLK:20/11/22,10:24:37+32",
        "F1: 0000 0000",
        "SVN01.2.3.4",
        "1234567890123456",
        "123456789012345",  # no IMEI: the check digit is another; an IMSI only behind AT+CIMI
    ],
)
def test_what_names_nobody_stays(text: str) -> None:
    trace = trace_of(f"> AT+X={text}", f"< x {text} x [unknown]")
    assert Redaction()(trace).records == trace.records


@pytest.mark.parametrize(
    "address",
    ["10.200.3.44", "fe80:0:0:0:a1b2::1", "2001:db8::7", "32.1.13.184.0.0.0.0.1.2.3.4.5.6.7.8"],
)
def test_addresses_of_each_kind_are_replaced_by_their_like(address: str) -> None:
    trace = trace_of(f"< +IP: {address} [urcreceived]", f'< +CGPADDR: 1,"{address}" [answer]')
    first, second = (r.raw.decode() for r in Redaction()(trace).records)
    new = first.split(": ")[1].strip()
    assert new != address
    assert re.sub(r"[0-9a-f]", "x", new) == re.sub(r"[0-9a-f]", "x", address)
    assert f'"{new}"' in second


def test_also_takes_what_only_the_user_knows(tmp_path: Path) -> None:
    trace = trace_of(
        '> AT+CGDCONT=1,"IP","secret.Apn7"', f"> AT+NSOST=0,203.0.113.5,1,8,{digits('KV315idW')}"
    )
    after = text_of(Redaction(["secret.Apn7", "KV315idW"])(trace), tmp_path)
    assert "secret.Apn7" not in after
    assert digits("KV315idW") not in after
    assert re.search(r'"[a-z]{6}\.[A-Z][a-z]{2}\d\\"', after)
    for text in ("abc", "", "köln"):
        with pytest.raises(BadInput, match="4 or more"):
            Redaction([text])


@pytest.mark.parametrize("whole", ["490154203237518", "867726030047601", "356938035643809"])
def test_the_check_digit_is_that_of_known_imeis(whole: str) -> None:
    assert luhn(whole[:14].encode()) == whole[14:].encode()


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6))
def test_any_bytes_keep_their_length(raws: list[bytes]) -> None:
    trace = trace_of(*(b"< " + raw for raw in raws))
    after = Redaction()(trace)
    assert [len(r.raw) for r in after.records] == [len(raw) for raw in raws]


@pytest.mark.parametrize("name", REPLAYS)
def test_the_replays_kept_here_were_redacted(name: str) -> None:
    assert read_trace(REPLAYS[name]).header["redacted"] is True

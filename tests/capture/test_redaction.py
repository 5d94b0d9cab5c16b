"""What names a device or a place is replaced, the same everywhere, by its like."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from nbiot.redact import Redaction, luhn
from nbiot.trace import Record
from tests.trace.samples import trace_of


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


@st.composite
def imeis(draw: st.DrawFn) -> str:
    body = draw(digits(14))
    return body + luhn(body.encode()).decode()


def redacted(*lines: str | bytes) -> list[bytes]:
    return [r.raw for r in Redaction(cells=True)(trace_of(*lines)).records]


@given(imeis(), st.integers(0, 9), st.integers(0, 9))
def test_an_imei_is_the_same_in_every_shape(imei: str, one: int, two: int) -> None:
    payload = f"urn:imei:{imei}|".encode().hex().upper()
    plain, version, inside, hexa, lower = redacted(
        f"< +CGSN: {imei}",
        f'< +CGSN: "{imei[:14]}{one}{two}"',
        f'> AT+QLWCFG="endpoint","dev{imei}x"',
        f"> AT+NSOST=0,203.0.113.5,1,{len(payload) // 2},{payload}",
        f"> AT+NSOST=0,203.0.113.5,1,{len(payload) // 2},{payload.lower()}",
    )
    found = re.search(rb"\d{15}", plain)
    assert found is not None
    new = found[0]
    assert new != imei.encode()
    assert new[:8] == imei[:8].encode()
    assert luhn(new[:14]) == new[14:]
    assert new[:14] in version
    assert b"dev" + new + b"x" in inside
    assert new.hex().upper().encode() in hexa
    assert new.hex().encode() in lower


@given(digits(15), digits(19))
def test_imsi_and_iccid_are_the_same_in_every_shape(imsi: str, rest: str) -> None:
    body = "89" + rest[2:]
    iccid = body + luhn(body.encode()).decode()
    swapped = "".join(iccid[at : at + 2][::-1] for at in range(0, 20, 2))
    first, inside, second, file = redacted(
        f"< {imsi}",
        f'< +X: "{imsi}@realm"',
        f"< +QCCID: {iccid}",
        f'< +CRSM: 144,0,"{swapped}"',
    )
    new = first.strip()
    assert len(new) == 15
    assert new[:5] == imsi[:5].encode()
    assert b'"' + new + b"@" in inside
    card = second.split(b": ")[1].strip()
    assert card[:6] == iccid[:6].encode()
    assert card != iccid.encode()
    assert luhn(card[:-1]) == card[-1:]
    turned = b"".join(card[at : at + 2][::-1] for at in range(0, 20, 2))
    assert turned in file


@given(
    st.integers(0x10, 0xFFFFFFE),
    st.integers(0x10, 0xFFFD),
    st.booleans(),
    st.booleans(),
)
def test_a_cell_is_the_same_in_hexadecimal_and_decimal(
    cell: int, area: int, lower: bool, padded: bool
) -> None:
    ci, tac = (f"{cell:08X}", f"{area:04X}") if padded else (f"{cell:X}", f"{area:X}")
    if lower:
        ci, tac = ci.lower(), tac.lower()
    asked, urc, quoted, engineering, figures = redacted(
        f'< +CEREG: 2,1,"{tac}","{ci}",9',
        f"< +CEREG:1,{tac},{ci},9",
        f'< +CREG: 5,"{tac}","{ci}"',
        f'< +QENG: 0,3547,2,127,"{cell:X}",-91,-21,-70,1,8,"{tac}",0,230',
        f"< Cell ID:{cell}",
    )
    match = re.search(rb'2,1,"([^"]*)","([^"]*)"', asked)
    assert match is not None
    new_tac, new_ci = match.groups()
    assert (len(new_tac), len(new_ci)) == (len(tac), len(ci))
    assert b"1,%s,%s,9" % (new_tac, new_ci) in urc
    assert b'"%s","%s"' % (new_tac, new_ci) in quoted
    assert int(new_ci, 16) != cell
    assert int(new_tac, 16) != area
    assert figures.strip() == b"Cell ID:%d" % int(new_ci, 16)
    assert len(figures.strip()) == len(f"Cell ID:{cell}")
    fields = engineering.replace(b'"', b"").strip().split(b",")
    assert int(fields[4], 16) == int(new_ci, 16)
    assert int(fields[10], 16) == int(new_tac, 16)
    assert fields[:4] + fields[5:10] == b"+QENG: 0,3547,2,127,-91,-21,-70,1,8".split(b",")


def test_what_says_that_there_is_no_cell_stays() -> None:
    for text in (
        '+CEREG: 2,0,"0000","00000000",9',
        "Cell ID:4294967295",
        "+CEREG:0,FFFE,FFFFFFFF",
        "+CEREG: 0,1",
        "+CEREG:3,0,,,0,15",
    ):
        assert text.encode() in redacted(f"< {text}")[0]


@given(st.lists(st.integers(0x10, 0xFFF), min_size=2, max_size=30, unique=True))
def test_different_cells_stay_different(cells: list[int]) -> None:
    lines = redacted(*(f'< +CEREG: 2,1,"7871","{cell:08X}",9' for cell in cells))
    assert len(set(lines)) == len(cells)


def test_an_address_with_its_mask_is_the_address() -> None:
    first, second, third = redacted(
        "< +CGPADDR: 1,10.64.3.9",
        '< +CGCONTRDP: 1,5,"apn","10.64.3.9.255.255.255.0","10.64.3.1"',
        f"> AT+NSOST=0,1.2.3.4,1,17,{b'host is 10.64.3.9'.hex()}",
    )
    new = first.split(b",")[1].strip()
    assert new != b"10.64.3.9"
    assert b'"' + new + b'.255.255.255.0"' in second
    assert b"10.64.3.1" not in second
    assert (b"host is " + new).hex().encode() in third


def test_serial_and_phone_numbers_go_too() -> None:
    first, second = redacted("< +CGSN:CHN29181AB77", '< +CNUM: ,"+436641234567",145')
    assert b"CHN29181AB77" not in first
    assert b"436641234567" not in second
    assert re.search(rb'"\+\d{12}",145', second)


def test_what_was_replaced_is_counted_by_kind() -> None:
    redaction = Redaction(["my.apn"], cells=True, rng=random.Random(1))
    redaction(
        trace_of(
            "< +CGSN: 490154203237518",
            '< +CGSN: "4901542032375101"',
            "< +CGPADDR: 1,10.64.3.9",
            "< +CGPADDR: 1,10.64.3.9",
            '< +CEREG: 2,1,"7871","0D09F951",9',
            '< +CGDCONT: 1,"IP","my.apn"',
        )
    )
    assert redaction.counts == {
        "IMEI": 1,
        "IP address": 1,
        "cell identity": 1,
        "tracking area": 1,
        "named by you": 1,
    }
    assert redaction.count == 5


@given(st.lists(st.binary(min_size=1, max_size=80), max_size=5))
def test_any_bytes_keep_their_length(raws: list[bytes]) -> None:
    after = redacted(*(b"< " + raw for raw in raws))
    assert [len(raw) for raw in after] == [len(raw) for raw in raws]


def test_records_keep_their_places() -> None:
    before = trace_of("> AT+CEREG?", '< +CEREG: 2,1,"7871","0D09F951",9 [answer]')
    after = Redaction(cells=True)(before)

    def frame(record: Record) -> tuple[int, float, str, str]:
        return record.number, record.t, record.dir, record.event

    assert list(map(frame, after.records)) == list(map(frame, before.records))

"""Identities from CSV files into the pool, and out again."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from nbiot.errors import BadInput, VaultError
from nbiot.signing import Secret
from nbiot.station.identities import import_csv, read_csv, write_csv
from nbiot.station.store import Store
from nbiot.station.store.imports import CHUNK
from nbiot.station.vault import Vault
from tests.station.store.line import PLENTY, identities, imei, new_run

HEADER = "product_key,device_key,device_secret\n"


@pytest.fixture
def csv(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "identities.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


Csv = Callable[[str | bytes], Path]


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "pk12,new1,s1\npk12,new2,s2\n",
        "\ufeff" + HEADER + "pk12,new1,s1\npk12,new2,s2",
        (HEADER + "pk12,new1,s1\npk12,new2,s2\n").replace("\n", "\r\n"),
        (HEADER + "pk12,new1,s1\npk12,new2,s2\n").replace("\n", "\r"),
        HEADER + '"pk12","new1","s1"\n pk12 , new2 ,s2 \n',
        HEADER + "pk12,new1,s1\n\n,,\npk12,new2,s2\npk12,new1,s1\n",
        "note,Device_Secret,device_key,product_key\nx,s1,new1,pk12\n,s2,new2,pk12\n",
        HEADER + "pk12,new1,s1,more\npk12,new2,s2,,,\n",
    ],
    ids=["plain", "bom", "crlf", "cr", "quotes", "blank and twice", "order", "more columns"],
)
def test_the_usual_ways_to_write_it(csv: Csv, text: str) -> None:
    found, problems = read_csv(csv(text))
    assert problems == []
    assert [(i.product_key, i.device_key) for i in found] == [("pk12", "new1"), ("pk12", "new2")]
    assert found[0].secret == Secret("s1")


def test_quotes_and_commas_in_a_secret(csv: Csv) -> None:
    found, _ = read_csv(csv(HEADER + 'pk12,new1,"a,""b"""\n'))
    assert found[0].secret == Secret('a,"b"')


def test_each_bad_row_is_named_with_its_line_and_without_its_secret(csv: Csv) -> None:
    rows = [
        "pk12,good,hidden-0",
        "pk12,abc,hidden-1",  # too short
        "pk 12,good2,hidden-2",
        "pk12,good3",
        "pk12,,hidden-4",
        "pk12,good5,",
        "pk12,good6,hidden\x01-6",
        'pk12,good7,"hidden-7',
        "pk12,good8,hidden-8",
        "pk12,good,hidden-9",
        "pkOther,good,hidden-0",
        "pk12,hidden secret in the wrong column,x",
        "pk12,good12,\xff",
    ]
    found, problems = read_csv(csv((HEADER + "\n".join(rows)).encode("latin-1")))
    assert [identity.device_key for identity in found] == ["good", "good8"]
    assert [problem.line for problem in problems] == [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]
    text = "\n".join(map(str, problems))
    assert "hidden" not in text
    assert "line 3: device_key" in text
    assert "4 to 64" in text
    assert "line 11: device key good stands in line 2 already" in text
    assert "not UTF-8" in text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "pk12,new1,hidden\n",
        HEADER.replace(",", ";"),
        HEADER.replace("device_key,", ""),
        HEADER.encode("utf-16"),
        b"\x00\xff" * 50,
        "product_key,device_key,device_secret,device_secret\n",
        '"product_key',
    ],
)
def test_another_header_is_refused_with_a_hint(csv: Csv, content: str | bytes) -> None:
    with pytest.raises(BadInput, match=r"(?s)header of .*UTF-8") as raised:
        read_csv(csv(content))
    assert "hidden" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="directory"):
        read_csv(tmp_path)


# --- into the pool --------------------------------------------------------------------------------


async def test_an_import_is_done_once_however_often_it_is_asked(store: Store, csv: Csv) -> None:
    path = csv(HEADER + "pk12,new1,s1\npk12,new2,s2\n")
    report = await import_csv(store, path, who="li")
    assert (report.added, report.unchanged, report.problems) == (2, 0, ())
    report = await import_csv(store, path, who="li")
    assert (report.added, report.unchanged, report.problems) == (0, 2, ())
    assert (await store.counts()).free == PLENTY + 2
    (entry,) = [e for e in await store.audit() if e.who == "li"]
    assert (entry.action, entry.why) == ("import", "2 identities added, 0 were there")


async def test_one_bad_row_and_nothing_is_imported(store: Store, csv: Csv) -> None:
    path = csv(HEADER + "pk12,new1,s1\npk12,bad!,s2\npk12,new3,s3\n")
    report = await import_csv(store, path)
    assert (report.added, [p.line for p in report.problems]) == (0, [3])
    assert (await store.counts()).free == PLENTY
    report = await import_csv(store, path, skip_bad=True)
    assert (report.added, [p.line for p in report.problems]) == (2, [3])


async def test_a_row_that_contradicts_the_database_is_a_conflict(store: Store, csv: Csv) -> None:
    path = csv(
        HEADER + "pk12,new1,s1\npk12,dev0000,hidden\nother,dev0001,secret-0001\n"
        "pk12,dev0002,secret-0002\npk12,bad!,s\n"
    )
    path.write_text(path.read_text().replace("pk12,bad!,s\n", ""))
    report = await import_csv(store, path)
    assert (report.added, [p.line for p in report.problems]) == (0, [3, 4])
    text = "\n".join(map(str, report.problems))
    assert "line 3: device key dev0000 has another secret" in text
    assert "line 4: device key dev0001 is of product pk12" in text
    assert "hidden" not in text
    assert (await store.counts()).free == PLENTY
    report = await import_csv(store, path, skip_bad=True)
    assert (report.added, report.unchanged) == (1, 1)
    assert [p.line for p in report.problems] == [3, 4]


async def test_an_import_of_what_is_given_out_changes_nothing(store: Store) -> None:
    await store.claim(new_run(), "1", imei(1))
    report = await store.add(identities(PLENTY))
    assert (report.added, report.unchanged) == (0, PLENTY)
    assert (await store.counts()).claimed == 1


async def test_two_imports_of_the_same_file_at_once(store: Store) -> None:
    found = await asyncio.gather(*(store.add(identities(CHUNK + 100, start=100)) for _ in range(3)))
    assert sorted(report.added for report in found) == [0, 0, CHUNK + 100]
    assert (await store.counts()).free == PLENTY + CHUNK + 100


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_large_import_holds_up_neither_the_loop_nor_a_claim(store: Store) -> None:
    """The loop is watched by the hygiene fixture; 100,000 rows are measured in the docs."""
    task = asyncio.create_task(store.add(identities(5 * CHUNK, start=100)))
    while not task.done():
        await asyncio.sleep(0.01)
        await store.counts()
    claim = await store.claim(new_run(), "1", imei(1))
    assert (await task).added == 5 * CHUNK
    assert claim.device_key == "dev0000"


async def test_an_export_has_all_but_the_secrets(store: Store) -> None:
    claim = await store.claim(new_run(), "7", imei(1))
    await store.bind(claim, imei(1))
    rows = [row async for row in store.export()]
    file = io.StringIO()
    assert write_csv(rows, file) == PLENTY
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("product_key,device_key,state,imei,iccid")
    assert lines[1].startswith(f"pk12,dev0000,bound,{imei(1)},")
    assert "secret" not in file.getvalue()


# --- the key of the database ----------------------------------------------------------------------


async def test_rotation_encrypts_all_again_and_the_old_key_is_told_so(
    store: Store, url: str, vault: Vault, tmp_path: Path
) -> None:
    new = Vault.create(tmp_path / "new")
    other = Store(url, vault, station="S2")
    async with other:
        assert await store.rotate(new, who="li") == PLENTY
        claim = await store.claim(new_run(), "1", imei(1))
        assert claim.secret == Secret("secret-0000")
        with pytest.raises(VaultError, match=new.key_id):
            await other.claim(new_run(), "1", imei(2))
        with pytest.raises(VaultError, match=new.key_id):
            await other.add(identities(1, start=50))
        with pytest.raises(VaultError, match=new.key_id):
            await Store.open(url, vault, station="S3")
        assert (await store.counts()).claimed == 1
        # the line's database goes back to the key that the other tests have
        await store.rotate(vault, who="li")

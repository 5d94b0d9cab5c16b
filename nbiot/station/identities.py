"""Identities from and to CSV files, with the header ``product_key,device_key,device_secret``.

All functions block; the files hold secrets, and no message here shows one: a value from a wrong
column is not shown either, for it may be one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from nbiot.errors import BadInput
from nbiot.signing import Secret, check_device_key, check_product_key
from nbiot.station.store.model import Identity, ImportReport, Problem

if TYPE_CHECKING:
    from nbiot.station.store import Store

HEADER = ("product_key", "device_key", "device_secret")
_HEADER_TEXT = ",".join(HEADER)


def read_csv(path: str | os.PathLike[str]) -> tuple[list[Identity], list[Problem]]:
    """The good rows of a file, and what is wrong with the others.

    UTF-8 with or without byte order mark, any line ends, columns in any order. A row that stands
    there twice counts once. Blocks. Raises BadInput: no such file, or it has another header.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return _read(file, str(path))
    except OSError as error:
        raise BadInput("CSV file", str(path), f"a file to read ({error.strerror})") from error


async def import_csv(
    store: Store, path: str | os.PathLike[str], *, skip_bad: bool = False, who: str = ""
) -> ImportReport:
    """Read a file and put its identities into the pool.

    Where any row is bad nothing is imported, unless ``skip_bad``: then the good rows are. Rows
    that contradict the database are bad rows, too. The report has every problem with its line.
    """
    import asyncio

    rows, problems = await asyncio.to_thread(read_csv, path)
    if problems and not skip_bad:
        return ImportReport(problems=tuple(problems))
    report = await store.add(rows, who=who)
    if report.problems and skip_bad:  # what contradicts the database, found by its line
        bad = {problem.line for problem in report.problems}
        problems += report.problems
        report = await store.add([row for row in rows if row.line not in bad], who=who)
    both = sorted([*problems, *report.problems], key=lambda problem: problem.line)
    return replace(report, problems=tuple(both))


def write_csv(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    """Write rows of ``Store.export``; returns how many."""
    writer: csv.DictWriter[str] | None = None
    count = 0
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        count += 1
    return count


def _read(file: IO[str], name: str) -> tuple[list[Identity], list[Problem]]:
    columns = _columns(file.readline(), name)
    good: dict[str, Identity] = {}
    problems: list[Problem] = []
    for line, text in enumerate(file, start=2):
        if not text.strip(" \t\r\n,"):
            continue
        try:
            identity = _identity(_cells(text), columns, line)
        except BadInput as error:
            problems.append(Problem(line, error.message))
            continue
        first = good.setdefault(identity.device_key, identity)
        if (first.product_key, first.secret) != (identity.product_key, identity.secret):
            problems.append(
                Problem(
                    line,
                    f"device key {identity.device_key} stands in line {first.line} already, with "
                    "another secret or product key",
                )
            )
    return list(good.values()), problems


def _columns(text: str, name: str) -> dict[str, int]:
    try:
        header = [title.strip().lower() for title in _cells(text)]
    except BadInput:
        header = []
    if any(header.count(title) != 1 for title in HEADER):
        raise BadInput(
            f"header of {name}",
            "another first line (not shown: it may hold a secret)",
            _HEADER_TEXT,
            hint="The separator is a comma and the encoding UTF-8; Excel calls that "
            "'CSV UTF-8 (comma delimited)'.",
        )
    return {title: header.index(title) for title in HEADER}


def _cells(text: str) -> list[str]:
    """One line at a time: no value has a line end in it, and so a quote that is never closed
    spoils its own line only.
    """
    try:
        return next(csv.reader([text.rstrip("\r\n")], strict=True), [])
    except csv.Error as error:
        raise BadInput("row", f"no CSV ({error})", _HEADER_TEXT) from None


def _identity(row: list[str], columns: Mapping[str, int], line: int) -> Identity:
    if len(row) <= max(columns.values()):
        raise BadInput("columns", len(row), f"{max(columns.values()) + 1} ({_HEADER_TEXT})")
    product_key = _key("product_key", row[columns["product_key"]], check_product_key)
    device_key = _key("device_key", row[columns["device_key"]], check_device_key)
    return Identity(product_key, device_key, Secret(row[columns["device_secret"]].strip()), line)


def _key(field: str, text: str, check: Any) -> str:
    try:
        checked: str = check(text.strip())
    except BadInput as error:
        given = "an empty text" if not text.strip() else "a text (not shown: it may be a secret)"
        raise BadInput(field, given, error.allowed) from None
    return checked

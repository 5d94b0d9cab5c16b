"""Non-volatile settings of a modem, kept in a file or a dict: `Options.nv`.

What a restart keeps is an attribute of the dialect, in the form of plain data. This module takes
snapshots of those attributes after each command and gives them to the next modem.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Modem

KEPT: dict[str, tuple[str, ...]] = {
    "hisilicon": ("nv",),  # NCONFIG, NBAND, NATSPEED (stored), NCDP, QREGSWT, CPSMS
    "mt2625": ("nv", "saved_cmee"),  # IPR, QCGDEFCONT, QBAND, QCFG, CPSMS ...; &W: E, CMEE
}
"""The attributes, by family."""
VOLATILE_COPIES = ("rate", "echo")
"""Fields of `nv` that a boot copies into the modem."""


class BadMemory(ValueError):
    """Stored settings that this modem cannot have."""


class Memory:
    """The non-volatile memory of one modem; does nothing without `Options.nv`."""

    def __init__(self, modem: Modem) -> None:
        self._modem = modem
        self._place = modem.options.nv
        self._names = KEPT.get(modem.FAMILY, ("nv",))
        if self._place is None:
            return
        stored = self._load()
        if stored:
            self._recall(stored)
        self._last = self._snapshot()

    def keep(self) -> None:
        """Store the settings if they changed."""
        if self._place is None:
            return
        snapshot = self._snapshot()
        if snapshot != self._last:
            self._last = snapshot
            self._save(snapshot)

    def _snapshot(self) -> dict[str, Any]:
        modem = self._modem
        values = {name: _plain(getattr(modem, name)) for name in self._names}
        return {"model": modem.model.name, **values}

    def _save(self, snapshot: dict[str, Any]) -> None:
        if not isinstance(self._place, Path):
            assert self._place is not None
            self._place.update(snapshot)
            return
        partial = self._place.with_name(f".{self._place.name}.{os.getpid()}")
        partial.write_text(json.dumps(snapshot, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._place)  # whole or not at all

    def _load(self) -> Mapping[str, Any]:
        if not isinstance(self._place, Path):
            return copy.deepcopy(dict(self._place or {}))
        if not self._place.exists():
            return {}
        try:
            stored = json.loads(self._place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadMemory(f"{self._place}: not JSON: {error}") from None
        if not isinstance(stored, dict):
            raise BadMemory(f"{self._place}: not a JSON object")
        return stored

    # --------------------------------------------------------------- recall

    def _recall(self, stored: Mapping[str, Any]) -> None:
        modem = self._modem
        if stored.get("model") != modem.model.name:
            raise self._wrong("model", stored.get("model"), modem.model.name)
        for name in self._names:
            if name in stored:
                setattr(modem, name, self._thawed(name, stored[name], getattr(modem, name)))
        for name in VOLATILE_COPIES:
            if hasattr(modem.nv, name):
                setattr(modem, name, getattr(modem.nv, name))
        modem.cmee = getattr(modem, "saved_cmee", modem.cmee)
        modem.reset_volatile()

    def _thawed(self, key: str, value: Any, old: Any) -> Any:
        """JSON to what the modem had: the old value shows the type."""
        if is_dataclass(old) and not isinstance(old, type):
            return self._thawed_record(key, value, old)
        value = _frozen(value)
        optional = value is None or old is None
        if not optional and type(value) is not type(old):
            raise self._wrong(key, value, f"like {old!r}")
        return {**old, **value} if isinstance(old, dict) and value else value

    def _thawed_record(self, key: str, value: Any, old: Any) -> Any:
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        known = {entry.name: getattr(old, entry.name) for entry in fields(old)}
        for name in value:
            if name not in known:
                raise self._wrong(f"{key}.{name}", value[name], f"the keys {', '.join(known)}")
        changed = {
            name: self._thawed(f"{key}.{name}", entry, known[name]) for name, entry in value.items()
        }
        return type(old)(**{**known, **changed})

    def _wrong(self, key: str, value: Any, allowed: str) -> BadMemory:
        place = self._place if isinstance(self._place, Path) else "nv"
        return BadMemory(f"{place}: {key} = {value!r}; allowed: {allowed}")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return copy.deepcopy(value)


def _frozen(value: Any) -> Any:
    """JSON has lists where the modem has tuples."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry) for entry in value)
    return value

"""Records: structs as JSON in rows, with a version, keeping fields that a newer program added.

    {"schema":1,"id":…}

A field more needs no new version: a program that does not know it keeps it when it writes the record again, inside of
nested objects as well, and of those items of lists that are still there.  What an older program would take for
something else needs one, and an upgrade; a database with records of a newer version is not opened (`examine`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    RawRecord = dict[str, Any]  # the JSON of a record, of whichever version: only its upgrades know its members
    Upgrade = Callable[[RawRecord], None]

NEWER = "run the newer version of ketch that wrote it"
HEAD = 24  # bytes of a record that are enough for `version_of`
_T = TypeVar("_T", bound=msgspec.Struct)
_VERSION = re.compile(rb'\{"schema":([0-9]{1,9})[,}]')


def version_of(record: bytes) -> int:
    """The version of a record's form, from its first bytes; 1 for records without one."""
    match = _VERSION.match(record)
    return int(match[1]) if match else 1


class Form(Generic[_T]):
    """The form of one struct's records: ``upgrades[i]`` changes version i + 1 to version i + 2.

    ``identify`` says by which field an item of a list (its name in JSON) is known again; without, by all that it says.
    """

    def __init__(
        self, kind: type[_T], *, upgrades: Sequence[Upgrade] = (), identify: Mapping[str, str] | None = None
    ) -> None:
        self.version = 1 + len(upgrades)
        self._upgrades = upgrades
        self._identify = identify or {}
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(kind).decode
        self._head = b'{"schema":%d,' % self.version

    def encode(self, value: _T) -> bytes:
        """Encode a new record."""
        return self._head + self._encode(value)[1:]

    def decode(self, record: bytes) -> _T:
        """Decode a record without its unknown fields (msgspec.DecodeError, UnicodeDecodeError)."""
        return self._decode(self._upgraded(record))

    def _upgraded(self, record: bytes) -> bytes:
        version = version_of(record)
        if version == self.version:
            return record
        if version > self.version:
            raise DataLoss(f"read a record of version {version}: this program knows {self.version}", hint=NEWER)
        raw: RawRecord = msgspec.json.decode(record, type=dict)
        for upgrade in self._upgrades[version - 1 :]:
            upgrade(raw)
        raw.pop("schema", None)
        return self._head + self._encode(raw)[1:]

    def read(self, record: bytes) -> tuple[_T, Unknown | None]:
        """Decode a record, and find its unknown fields."""
        record = self._upgraded(record)
        value = self._decode(record)
        known = self.encode(value)
        if known == record:
            return value, None
        return value, self._compare(msgspec.json.decode(record), msgspec.json.decode(known), "")

    def write(self, value: _T, unknown: Unknown) -> bytes:
        """Encode a record with its ``unknown`` fields, as far as their places still exist."""
        raw = msgspec.json.decode(self.encode(value))
        self._restore(raw, unknown, "")
        return msgspec.json.encode(raw)

    def _compare(self, raw: Any, known: Any, name: str) -> Unknown | None:
        """The fields of ``raw`` that ``known`` lacks; ``name`` is that of their field."""
        found = Unknown()
        if isinstance(raw, dict) and isinstance(known, dict):
            found.fields = {key: value for key, value in raw.items() if key not in known}
            pairs = ((key, self._compare(raw[key], known[key], key)) for key in raw.keys() & known.keys())
            found.below = {key: below for key, below in pairs if below is not None}
        elif isinstance(raw, list) and isinstance(known, list) and len(raw) == len(known):
            both = zip(raw, known, strict=True)
            items = ((self._identity(mine, name), self._compare(item, mine, name)) for item, mine in both)
            found.items = [(identity, below) for identity, below in items if below is not None]
        return found if found.fields or found.below or found.items else None

    def _restore(self, known: Any, unknown: Unknown, name: str) -> bool:
        """Insert the unknown fields into ``known``; False when there is no place for any of them."""
        if isinstance(known, dict):
            for key, value in unknown.fields.items():
                known.setdefault(key, value)
            unknown.below = {k: below for k, below in unknown.below.items() if self._restore(known.get(k), below, k)}
        elif isinstance(known, list):
            free = [(self._identity(item, name), item) for item in known]
            kept = []
            for identity, below in unknown.items:
                index = next((i for i, (mine, _) in enumerate(free) if mine == identity), None)
                if index is not None and self._restore(free.pop(index)[1], below, name):
                    kept.append((identity, below))
            unknown.items = kept
        else:
            return False
        return True

    def _identity(self, item: Any, name: str) -> Any:
        key = self._identify.get(name)
        if isinstance(item, dict):
            return item.get(key) if key else dict(item)
        return item


@dataclass(slots=True)
class Unknown:
    """The unknown fields, of a newer program, in an object or a list, and in the values inside."""

    fields: dict[str, object] = field(default_factory=dict)
    below: dict[str, Unknown] = field(default_factory=dict)
    items: list[tuple[Any, Unknown]] = field(default_factory=list)


class Records(Generic[_T]):
    """The records of one table by key, with the unknown fields that were read."""

    def __init__(self, form: Form[_T]) -> None:
        self._form = form
        self._unknown: dict[Hashable, Unknown] = {}

    def read(self, key: Hashable, record: bytes) -> _T:
        """Decode a record (msgspec.DecodeError, UnicodeDecodeError, TypeError)."""
        value, unknown = self._form.read(record)
        if unknown is not None:
            self._unknown[key] = unknown
        return value

    def write(self, key: Hashable, value: _T) -> bytes:
        """Encode a record for its row."""
        unknown = self._unknown.get(key)
        return self._form.encode(value) if unknown is None else self._form.write(value, unknown)

    def forget(self, key: Hashable) -> None:
        """Drop the unknown fields of a deleted row."""
        self._unknown.pop(key, None)

"""Rules of pruning: Docker's filters, and limits of space, in the order in which BuildKit goes through them."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.notation import booleans, moments, sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.cache.pruning.usage import UsageRow

_HOUR = 3600 * 10**9
_LEAST_TEMPORARY = 512_000_000
_TEMPORARY_SHARE = math.e * math.pi * (1 + 5**0.5) / 200  # of what is reserved: for what is most easily had again
_TEMPORARY = ("source.local", "exec.cachemount", "source.git.checkout")
_FIELDS = ("description", "id", "inuse", "parent", "private", "shared", "type")
_AGES = ("until", "unused-for")
_IGNORED = ("label", "label!")  # which dockerd takes, too, because its client sends it to all prunes


class PruneOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a prune: what matches and was not used for ``keep_ns`` goes, until the limits (bytes, 0: none) hold.

    ``everything``: what images share, and what the builder keeps for itself, too.  ``kinds``: only these;
    ``wanted``: only rows of which it is true.
    """

    everything: bool = False
    fields: Mapping[str, str] = {}
    kinds: Sequence[str] = ()
    keep_ns: int = 0
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    wanted: Callable[[UsageRow], bool] | None = None

    @property
    def limited(self) -> bool:
        """Whether something is kept for want of need."""
        return bool(self.reserved_space or self.max_used_space or self.min_free_space)


def parse(
    filters: Mapping[str, Sequence[str]],
    now_ns: int,
    *,
    everything: bool = False,
    spaces: tuple[int, int, int] = (0, 0, 0),
    what: str = "failed to prune build cache",
) -> PruneOptions:
    """Options of Docker's filters (InvalidArgument); ``spaces``: reserved, most used, least free."""
    for name in sorted(filters):
        if name not in (*_FIELDS, *_AGES, *_IGNORED):
            raise InvalidArgument(f"{what}: invalid filter '{name}'")
    if filters.get("until") and filters.get("unused-for"):
        raise InvalidArgument(f'{what}: conflicting filters: "until" and "unused-for"')
    fields = {}
    for name, values in sorted(filters.items()):
        if len(values) > 1 and name not in _IGNORED:
            raise InvalidArgument(f"{what}: filters expect only one value")
        if name in _FIELDS:
            fields[name] = values[0] if values else ""
    if fields.get("id"):
        _pattern(fields["id"], what)
    ages = [(name, value) for name in _AGES for value in filters.get(name, ())]
    reserved, most, free = spaces
    return PruneOptions(
        everything=everything,
        fields=fields,
        keep_ns=_age(*ages[0], now_ns, what) if ages else 0,
        reserved_space=reserved,
        max_used_space=most,
        min_free_space=free,
    )


def _age(name: str, text: str, now_ns: int, what: str) -> int:
    moment = moments.parse(text, now_ns)
    if moment is None:
        raise InvalidArgument(
            f"{what}: \"{name}\" filter expects a duration (e.g., '24h') or a timestamp: "
            f'failed to parse value as time or duration: "{text}"'
        )
    return max(now_ns - moment, 0)


def _pattern(text: str, what: str = "") -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise InvalidArgument(f"{what}: the filter id={text} is no regular expression: {e}") from e


def matches(row: UsageRow, options: PruneOptions, now_ns: int) -> bool:
    """Whether a prune may remove a row, whatever space there is."""
    if row.in_use:
        return False
    if not options.everything and (row.shared or row.kind in ("internal", "frontend")):
        return False
    if options.keep_ns and row.last_used > now_ns - options.keep_ns:
        return False
    if options.kinds and row.kind not in options.kinds:
        return False
    if options.wanted is not None and not options.wanted(row):
        return False
    return all(_field(row, name, value) for name, value in options.fields.items())


def _field(row: UsageRow, name: str, value: str) -> bool:
    match name:
        case "id":
            return bool(_pattern(value).search(row.id))
        case "parent":
            return value in row.parents if value else bool(row.parents)
        case "type":
            return row.kind == value or not value
        case "description":
            return row.description == value if value else bool(row.description)
    is_so = {"inuse": row.in_use, "shared": row.shared, "private": not row.shared}[name]
    return is_so == (not value or booleans.parse(value))


def kept_bytes(total: int, free: int, options: PruneOptions) -> int:
    """The bytes that a prune leaves; 0: it has no such limit."""
    if not options.limited:
        return 0
    kept, lacking = options.max_used_space, options.min_free_space - free
    if lacking > 0:
        kept = min(kept, total - lacking) if kept else total - lacking
    elif options.min_free_space and not kept:
        kept = total
    return max(kept, options.reserved_space)


class PruneQueue:
    """The rows that a prune may remove, by how little they were used: long ago and seldom first.

    What others stand on comes after them, and not at all when they stay.
    """

    def __init__(self, rows: Sequence[UsageRow], options: PruneOptions, now_ns: int) -> None:
        found = [row for row in rows if matches(row, options, now_ns)]
        last, count = _ranks([row.last_used for row in found]), _ranks([row.usage_count for row in found])
        self._rank = {row.id: (last[row.last_used] + count[row.usage_count], row.last_used) for row in found}
        self._rows = {row.id: row for row in found}
        self._children = Counter(parent for row in rows for parent in row.parents)
        self._free = [(self._rank[row.id], row.id) for row in found if not self._children[row.id]]
        heapq.heapify(self._free)

    def next(self) -> UsageRow | None:
        """The row that goes next."""
        return self._rows[heapq.heappop(self._free)[1]] if self._free else None

    def removed(self, row: UsageRow) -> None:
        """Note that a row is gone."""
        for parent in row.parents:
            self._children[parent] -= 1
            if not self._children[parent] and parent in self._rank:
                heapq.heappush(self._free, (self._rank[parent], parent))


def _ranks(values: Sequence[int]) -> dict[int, float]:
    ordered = sorted(set(values))
    return {value: rank / max(len(ordered) - 1, 1) for rank, value in enumerate(ordered)}


class CollectionRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A rule of ``builder.gc.policy`` in daemon.json."""

    all: bool = False
    filter: tuple[str, ...] | dict[str, dict[str, bool]] = ()
    keep_storage: str = ""
    reserved_space: str = ""
    max_used_space: str = ""
    min_free_space: str = ""


class CollectionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``builder.gc`` in daemon.json."""

    enabled: bool = True
    default_keep_storage: str = ""
    default_reserved_space: str = ""
    default_max_used_space: str = ""
    default_min_free_space: str = ""
    policy: tuple[CollectionRule, ...] | None = None


def rules(settings: CollectionSettings, disk: int) -> list[PruneOptions]:
    """The prunes that are done after builds, in their order (InvalidArgument); ``disk``: the bytes of the disk."""
    if not settings.enabled:
        return []
    if settings.policy is None:
        reserved = _space(settings.default_reserved_space or settings.default_keep_storage, "defaultReservedSpace")
        most = _space(settings.default_max_used_space, "defaultMaxUsedSpace")
        free = _space(settings.default_min_free_space, "defaultMinFreeSpace")
        return default_rules(reserved, most, free, disk)
    return [_rule(rule) for rule in settings.policy]


def default_rules(reserved: int, most: int, free: int, disk: int) -> list[PruneOptions]:
    """dockerd's own rules: what is easily had again first, then what is old, then as much as is too much."""
    reserved = reserved or _share(disk, 10)
    temporary = max(int(reserved * _TEMPORARY_SHARE), _LEAST_TEMPORARY)
    too_much = PruneOptions(
        reserved_space=reserved,
        max_used_space=most or _share(disk, 80),
        min_free_space=free or _share(disk, 20),
    )
    return [
        PruneOptions(kinds=_TEMPORARY, keep_ns=48 * _HOUR, max_used_space=temporary),
        msgspec.structs.replace(too_much, keep_ns=60 * 24 * _HOUR),
        too_much,
        msgspec.structs.replace(too_much, everything=True),
    ]


def _share(disk: int, percent: int) -> int:
    return (disk * percent // 100 // (1 << 30) + 1) * 10**9


def _rule(rule: CollectionRule) -> PruneOptions:
    filters: dict[str, list[str]] = {}
    listed = rule.filter
    if isinstance(listed, dict):  # the form that docker's clients send
        listed = tuple(f"{name}={value}" for name, values in listed.items() for value in values)
    for one in listed:
        name, _, value = one.partition("=")
        filters.setdefault(name.strip().lower(), []).append(value.lstrip("=").strip())
    return parse(
        filters,
        0,
        everything=rule.all,
        what="builder.gc",
        spaces=(
            _space(rule.reserved_space or rule.keep_storage, "reservedSpace"),
            _space(rule.max_used_space, "maxUsedSpace"),
            _space(rule.min_free_space, "minFreeSpace"),
        ),
    )


def _space(text: str, name: str) -> int:
    found = sizes.parse(text) if text else 0
    if found is None:
        raise InvalidArgument(f"builder.gc: {name}: `{text}` is no size")
    return found

"""Counters for Prometheus (text exposition format 0.0.4), of this process."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0)


class _Kind(NamedTuple):
    name: str
    kind: str
    text: str


_REQUESTS = _Kind("ketch_registry_requests_total", "counter", "Requests by method, route and status.")
_SECONDS = _Kind("ketch_registry_request_seconds", "histogram", "How long requests took, by route.")
_BYTES = _Kind("ketch_registry_bytes_total", "counter", "Bytes of bodies, in from clients and out to them.")
_OTHERS = {
    "uploads": _Kind("ketch_registry_uploads_active", "gauge", "Uploads whose body arrives just now."),
    "gc_runs": _Kind("ketch_registry_gc_runs_total", "counter", "Finished runs of garbage collection."),
    "gc_blobs": _Kind("ketch_registry_gc_blobs_total", "counter", "Blobs deleted by garbage collection."),
    "gc_bytes": _Kind("ketch_registry_gc_bytes_total", "counter", "Bytes freed by garbage collection."),
    "cache_hits": _Kind("ketch_registry_cache_hits_total", "counter", "Answers of the cache from what it has."),
    "cache_misses": _Kind("ketch_registry_cache_misses_total", "counter", "Answers fetched from the upstream."),
}


class Metrics:
    """The counters since the start of the process."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)
        self.bytes = {"in": 0, "out": 0}
        self.values = dict.fromkeys(_OTHERS, 0)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[method, route, status] += 1
        bucket = next((n for n, bound in enumerate(_BOUNDS) if seconds <= bound), len(_BOUNDS))
        self._buckets[route][bucket] += 1
        self._sums[route] += seconds

    def text(self) -> str:
        """All counters, as Prometheus reads them."""
        lines = _head(_REQUESTS)
        for (method, route, status), count in sorted(self._requests.items()):
            lines.append(f'{_REQUESTS.name}{{method="{method}",route="{route}",status="{status}"}} {count}')
        lines += _head(_SECONDS)
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'{_SECONDS.name}_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'{_SECONDS.name}_sum{{route="{route}"}} {self._sums[route]:.6f}')
            lines.append(f'{_SECONDS.name}_count{{route="{route}"}} {total}')
        lines += _head(_BYTES)
        lines += [f'{_BYTES.name}{{direction="{name}"}} {count}' for name, count in self.bytes.items()]
        for name, kind in _OTHERS.items():
            lines += [*_head(kind), f"{kind.name} {self.values[name]}"]
        return "\n".join(lines) + "\n"


def _head(kind: _Kind) -> list[str]:
    return [f"# HELP {kind.name} {kind.text}", f"# TYPE {kind.name} {kind.kind}"]

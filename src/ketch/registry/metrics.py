"""Counters for Prometheus, of this process."""

from __future__ import annotations

from collections import defaultdict

from ketch.notation.metrics.exposition import Family, Point, of_histogram, write

_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0)


_REQUESTS = Family("ketch_registry_requests_total", "counter", "Requests by method, route and status.", [])
_SECONDS = Family("ketch_registry_request_seconds", "histogram", "How long requests took, by route.", [])
_BYTES = Family("ketch_registry_bytes_total", "counter", "Bytes of bodies, in from clients and out to them.", [])
_OTHERS = {
    "uploads": Family("ketch_registry_uploads_active", "gauge", "Uploads whose body arrives just now.", []),
    "gc_runs": Family("ketch_registry_gc_runs_total", "counter", "Finished runs of garbage collection.", []),
    "gc_blobs": Family("ketch_registry_gc_blobs_total", "counter", "Blobs deleted by garbage collection.", []),
    "gc_bytes": Family("ketch_registry_gc_bytes_total", "counter", "Bytes freed by garbage collection.", []),
    "cache_hits": Family("ketch_registry_cache_hits_total", "counter", "Answers of the cache from what it has.", []),
    "cache_misses": Family("ketch_registry_cache_misses_total", "counter", "Answers fetched from the upstream.", []),
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
        requests = [
            Point({"method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in sorted(self._requests.items())
        ]
        seconds = [
            point
            for route, buckets in sorted(self._buckets.items())
            for point in of_histogram({"route": route}, _BOUNDS, buckets, round(self._sums[route], 6))
        ]
        moved = [Point({"direction": name}, count) for name, count in self.bytes.items()]
        others = [kind._replace(samples=[Point({}, self.values[name])]) for name, kind in _OTHERS.items()]
        return write(
            [
                _REQUESTS._replace(samples=requests),
                _SECONDS._replace(samples=seconds),
                _BYTES._replace(samples=moved),
                *others,
            ]
        )

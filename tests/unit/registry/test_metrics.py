"""What a registry counts, as Prometheus' own parser reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ketch.registry.metrics import Metrics


def test_all_counters():
    metrics = Metrics()
    metrics.request("GET", "blob", 200, 0.25)
    metrics.request("GET", "blob", 200, 500)
    metrics.bytes["out"] = 7
    metrics.values["uploads"] = 2
    families = {family.name: family for family in text_string_to_metric_families(metrics.text())}
    samples = {(one.name, *one.labels.values()): one.value for family in families.values() for one in family.samples}
    assert samples["ketch_registry_requests_total", "GET", "blob", "200"] == 2
    below = [samples["ketch_registry_request_seconds_bucket", "blob", le] for le in ("0.1", "0.5", "120", "+Inf")]
    assert below == [0, 1, 1, 2]
    assert samples["ketch_registry_request_seconds_sum", "blob"] == 500.25
    assert (samples["ketch_registry_bytes_total", "in"], samples["ketch_registry_bytes_total", "out"]) == (0, 7)
    assert samples[("ketch_registry_uploads_active",)] == 2
    assert families["ketch_registry_uploads_active"].type == "gauge"

"""Invalid names chosen by a stage are sanitised for the record and do not fail the run."""

from __future__ import annotations

from pydantic import TypeAdapter

from pretrain_bench.harness.contract.records import MetricName
from pretrain_bench.harness.running.untrusted_text import MAX_ITEMS, clean_metrics


def test_every_name_of_a_metric_becomes_one_that_a_record_takes() -> None:
    names = ["loss_ℓ1", "", "a\nb", "\x1b[31m", "x" * 700, "plain"]
    cleaned = clean_metrics({name: 0.5 for name in names})
    for name in cleaned:
        TypeAdapter(MetricName).validate_python(name)
    assert len(cleaned) == len(names) and "loss_\\u21131" in cleaned and cleaned["plain"] == 0.5
    assert len(clean_metrics({str(n): 1.0 for n in range(100 * MAX_ITEMS)})) == 10 * MAX_ITEMS

"""Reading of published numbers."""

from __future__ import annotations

from pretrain_bench.reports.analysis import published


def test_published_numbers_are_what_the_files_say() -> None:
    assert published.score_of("s3dis-sem", "ours").value == 66.5  # type: ignore[union-attr]
    assert published.score_of("sunrgbd-det", "scratch").value == 32.0  # type: ignore[union-attr]
    assert published.score_of("scannet-sem", "supervised") is None and len(published.table1()) == 37
    assert [r for r, _ in published.ratio_curve("scannet-sem", "scratch")] == [5, 10, 20, 30, 40, 100]
    assert published.validation_curve("s3dis-sem", 100.0, "csc")[0] == (200, 62.22)
    assert len(published.validation_curve("scannet-sem", 5.0, "ours")) == 19
    assert published.validation_curve("scannet-sem", 20.0, "ours") == ()
    assert published.per_class("s3dis-inst")["ours"]["column"] == 35.0 and published.per_class("kitti-sem") == {}

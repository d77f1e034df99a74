"""Hours of pre-training behind each effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def with_hours(effects: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Effects with `hours`, the mean of one pre-training of the row under that budget and profile, as in the cost table, and
    `hours_of`: GPU-hours if every pre-training used a GPU, else CPU-hours. Excludes imported checkpoints, whose hours are
    unknown."""
    import pandas as pd

    which = ["budget", "profile", "row"]
    trained = runs[runs["outcome"] == "ok"].drop_duplicates([*which, "pretrain_keys"])
    paid = trained[trained["pretrain_cpu_seconds"] > 0]
    kind = "gpu" if len(paid) and (paid["pretrain_gpu_seconds"] > 0).all() else "cpu"
    hours = (trained.groupby(which)[f"pretrain_{kind}_seconds"].mean() / 3600).rename("hours")
    priced = effects.merge(hours, left_on=which, right_index=True, how="left").assign(hours_of=f"{kind.upper()}-hours")
    unknown = pd.MultiIndex.from_frame(priced[which]).isin(hours.index[hours.isna()])
    return priced[~unknown]

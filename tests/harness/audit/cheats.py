"""Ways to cheat, each as a change of an honest store, with the check that must detect it.

`python -m tests.harness.audit.cheats` regenerates the tables of docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pretrain_bench.harness.audit import (
    account,
    bundle,
    code,
    contamination,
    limits,
    registered,
    rescore,
    seeds,
    split,
    static,
    tables,
)
from tests.conftest import REPOSITORY
from tests.harness.audit.damage import (
    call_it_stopped,
    call_it_stopped_everywhere,
    claim_a_commit,
    claim_an_image,
    claim_fewer_labels,
    claim_isolation,
    claim_ok_without_artifacts,
    claim_real_data,
    count_an_unknown_scene,
    count_below_zero,
    count_one_scene,
    drop_the_worst_seed,
    edit_confusion,
    edit_curve,
    edit_log,
    edit_pictures,
    edit_pruned,
    edit_test_labels,
    end_before_the_start,
    fail_good_runs,
    invent_a_budget_version,
    invent_predictions,
    keep_the_rate_up,
    leave_out_hard_scenes,
    lower_costs,
    make_up_code_list,
    one_finetuning_twice,
    one_pretraining_twice,
    other_batch,
    other_recipe,
    other_width,
    patch_one_arm,
    pretrain_on_task_labels,
    pretrain_on_test_scenes,
    prune_in_the_chain,
    prune_what_contradicts,
    run_in_the_future,
    run_other_code,
    starve_scratch,
    take_a_shipped_name,
    take_the_best,
    train_on_held_out,
)

DOCS = REPOSITORY / "docs/audit.md"
Where = Literal["store", "cache", "bundle"]
RERUN = "a re-run (`--rerun`)"


class Cheat(NamedTuple):
    """`damage` takes the folder of runs, the cache of prepared data, or the files of a bundle, according to `where`. `found_by` is a
    check, with one of `verdicts`; None if no audit of the store detects it; `remedy` then says what does. Without `resealed`, the
    cheat leaves all hashes unchanged."""

    damage: Callable[[Any], object]
    words: str
    found_by: str | None
    verdicts: tuple[str, ...] = ("failed",)
    resealed: bool = True
    where: Where = "store"
    remedy: str = ""


KNOWN = ("failed", "warning")
CHEATS = (
    Cheat(claim_fewer_labels, "20 % of the labels claimed, all trained on", split.REBUILT),
    Cheat(starve_scratch, "`scratch` given one training scene", split.REBUILT),
    Cheat(train_on_held_out, "held-out scenes train", split.REBUILT),
    Cheat(leave_out_hard_scenes, "the hardest test scenes left out, all counts made to fit", split.REBUILT),
    Cheat(claim_real_data, "`synthetic: false` on synthetic data", static.SYNTHETIC),
    Cheat(edit_test_labels, "test labels edited in the prepared data", rescore.LABELS, resealed=False, where="cache"),
    Cheat(edit_curve, "validation curve edited, for a quicker run", static.FILES, resealed=False),
    Cheat(edit_curve, "the same, resealed", account.CURVE),
    Cheat(edit_confusion, "confusion matrices edited", static.FILES, resealed=False),
    Cheat(edit_confusion, "the same, resealed", rescore.MATRICES),
    Cheat(edit_log, "log edited", static.FILES, resealed=False),
    Cheat(edit_pictures, "a nicer picture put in", static.FILES, ("not checked",), resealed=False),
    Cheat(edit_pruned, "`pruned.json` edited", static.PRUNINGS, resealed=False),
    Cheat(take_a_shipped_name, "other content under a shipped profile's name and version", limits.PROFILE),
    Cheat(other_recipe, "another recipe for one method", tables.ONE_RECIPE),
    Cheat(other_batch, "another batch for one method", tables.ONE_RECIPE),
    Cheat(other_width, "a wider network for one method", tables.ONE_NETWORK),
    Cheat(invent_a_budget_version, "a larger budget as version 2 of a shipped one", limits.BUDGET),
    Cheat(keep_the_rate_up, "a rival's learning rate never falls", limits.BUDGET),
    Cheat(call_it_stopped, "a run said to be stopped early", account.OUTCOME),
    Cheat(call_it_stopped_everywhere, "the same, with its last event", account.OUTCOME, ("warning",)),
    Cheat(run_other_code, "other code behind all runs", code.KNOWN, KNOWN),
    Cheat(make_up_code_list, "made-up hashes in `code.json`", code.LISTED),
    Cheat(patch_one_arm, "patched code for one method", tables.ONE_CODE),
    Cheat(pretrain_on_test_scenes, "pre-trained on test scenes", contamination.CHECK),
    Cheat(pretrain_on_task_labels, "pre-trained with the task's labels", "no labels in pre-training"),
    Cheat(one_finetuning_twice, "one fine-tuning under two seeds", seeds.PREDICTIONS),
    Cheat(one_pretraining_twice, "one pre-training under two seeds, its weights moved by 1e-7", seeds.WEIGHTS),
    Cheat(take_the_best("final"), "`final` replaced by `best`", account.CURVE),
    Cheat(take_the_best("selected"), "`selected` replaced by `best`", account.CURVE),
    Cheat(fail_good_runs, "good runs of `scratch` made failures", account.OUTCOME),
    Cheat(end_before_the_start, "runs that end before they start", account.CLOCK),
    Cheat(run_in_the_future, "runs in the future", account.CLOCK),
    Cheat(lower_costs, "costs divided by 100", account.LEDGER),
    Cheat(claim_ok_without_artifacts, "`ok` without artifacts", account.ARTIFACTS_OF),
    Cheat(prune_what_contradicts, "better scores, predictions forged as pruned", static.PRUNINGS),
    Cheat(prune_in_the_chain, "predictions forged as pruned, in the chain too", rescore.CHECK, ("not checked",), resealed=False),
    Cheat(count_one_scene, "bundle: counts of fewer scenes", bundle.POSSIBLE, where="bundle"),
    Cheat(count_an_unknown_scene, "bundle: counts of an unknown scene", bundle.POSSIBLE, where="bundle"),
    Cheat(count_below_zero, "bundle: negative counts", bundle.POSSIBLE, where="bundle"),
    Cheat(claim_a_commit, "another commit claimed", code.KNOWN, KNOWN),
    Cheat(
        drop_the_worst_seed, "the worst seeds dropped", None,
        remedy=f"`--registered FILE`: {registered.PRESENT}",
    ),
    Cheat(invent_predictions, "invented predictions, with a curve that fits", None, remedy=RERUN),
    Cheat(claim_an_image, "another image claimed", None, remedy="running that image"),
    Cheat(claim_isolation, "isolation claimed that was not there", None, remedy=f"{RERUN} in containers"),
)  # fmt: skip
"""Most are resealed: artifacts, manifests, keys, records and the chain fit again after the damage."""


def table() -> str:
    """The rows of docs/audit.md."""
    lines = ["| cheat | resealed | found by |", "|---|---|---|"]
    for cheat in CHEATS:
        found = f"not from a store; {cheat.remedy}" if cheat.found_by is None else cheat.found_by
        if cheat.found_by is not None and cheat.verdicts != ("failed",):
            found += f" ({' or '.join(cheat.verdicts)})"
        lines.append(f"| {cheat.words} | {'yes' if cheat.resealed else 'no'} | {found} |")
    seen = [cheat for cheat in CHEATS if cheat.found_by is not None]
    unclear = sum("not checked" in cheat.verdicts for cheat in seen)
    counts = (
        f"{len(seen) - unclear} of {len(CHEATS)} are found from the store or bundle alone; for {unclear} more the verdict is "
        "`not checked`."
    )
    return "\n".join([*lines, "", counts, ""])


def _ends(text: str, name: str) -> tuple[int, int]:
    """Where a generated table begins and ends in docs/audit.md."""
    begin = text.index("-->", text.index(f"<!-- {name}:")) + len("-->")
    return begin, text.index(f"<!-- end of {name} -->")


def section(text: str, name: str) -> str:
    """A generated table, as it is in docs/audit.md."""
    begin, end = _ends(text, name)
    return text[begin:end].strip()


def write_tables() -> None:
    """Write both tables into docs/audit.md."""
    from tests.harness.audit.test_tampering import tampering_table

    text = DOCS.read_text()
    for name, made in (("cheats", table()), ("tampering", tampering_table())):
        begin, end = _ends(text, name)
        text = f"{text[:begin]}\n\n{made.strip()}\n\n{text[end:]}"
    DOCS.write_text(text)


if __name__ == "__main__":
    write_tables()

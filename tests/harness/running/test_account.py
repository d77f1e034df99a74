"""A stage's own account in its events, and the texts from it that are kept."""

from __future__ import annotations

from pathlib import Path

from pretrain_bench.harness.contract.events import Start, Step, Warn
from pretrain_bench.harness.running.account import StageAccount
from pretrain_bench.harness.running.untrusted_text import MAX_ITEMS, MAX_TEXT, clean_items, fit_to_keep, log_tail


def test_the_highest_step_and_each_warning_once() -> None:
    account = StageAccount()
    account.add(Start(total_steps=9, resumed_from=4, numerics={"torch": "2 /home/someone/torch"}))
    assert account.starts == 1 and account.last_step == 4 and account.numerics == {"torch": "2 torch"}
    for number in (7, 6):
        account.add(Step(step=number, loss=1, learning_rate=1, gradient_norm=1, seconds=0, data_seconds=0))
    assert account.last_step == 7
    for number in range(MAX_ITEMS + 5):
        account.add(Warn(message="the same"))
        account.add(Warn(message=f"warning {number}"))
    account.add("no event")
    assert len(account.warnings) == MAX_ITEMS + 1 and account.warnings[-1] == "more warnings were dropped"
    assert account.warnings.count("the same") == 1


def test_kept_texts_have_no_control_characters_and_no_paths(tmp_path: Path) -> None:
    assert fit_to_keep("\x1b[31mred /home/someone/data/x.npy http://a/b") == " [31mred x.npy http://a/b"
    assert len(fit_to_keep("x" * 3 * MAX_TEXT)) == MAX_TEXT
    assert len(clean_items({str(i): "x" for i in range(2 * MAX_ITEMS)})) == MAX_ITEMS
    assert log_tail(tmp_path / "none") == "(none)"
    (tmp_path / "log").write_text("\n".join(map(str, range(9))))
    assert log_tail(tmp_path / "log") == "4 | 5 | 6 | 7 | 8"
    (tmp_path / "log").write_text("\n")
    assert log_tail(tmp_path / "log") == "(empty)"

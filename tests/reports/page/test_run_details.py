"""Details of runs on the page: text and logs, escaped and without home folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page.plotly_figures import plotly_source
from pretrain_bench.reports.tables.formats import escape_markdown
from tests.reports.stores import add

pytestmark = pytest.mark.usefixtures("undrawn")


def test_untrusted_text_is_escaped(store: Store, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\n# heading | \x1b[31m"
    add(store, "ours", 0.0, outcome="crashed", message=evil, notes={"<script>k": "<img src=x onerror=alert(1)>"})
    build_report(store, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    own = page.replace(plotly_source(), "")
    assert own.count("<script") == 3 and "<img src=x" not in own, "nothing of a run is markup"
    assert "\\u003cscript>alert(1)" in own and own.count("</script") == 3
    assert escape_markdown(evil) == "&lt;script&gt;alert(1)&lt;/script&gt; # heading \\| [31m"
    assert escape_markdown("a [x](javascript:y) [b][c] [d]: e *f* `g`") == (
        r"a \[x\](javascript:y) \[b\]\[c] \[d\]: e \*f\* \`g\`"
    ), "no link, no emphasis, no code"
    assert (
        escape_markdown("+1.5 [-2.0, 3.0], 4 [4.0, 5.0] [paper 66.5]") == "+1.5 [-2.0, 3.0], 4 [4.0, 5.0] [paper 66.5]"
    )


def test_controls_of_direction_are_shown_as_such(store: Store, tmp_path: Path) -> None:
    """With such characters, a name could look like another name."""
    evil = "ours\u202e.sruo\u2066 x\u200f"
    add(store, "ours", 0.0, outcome="crashed", message=evil, notes={evil: evil})
    build_report(store, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in (".html", ".md", ".csv", ".tex"):
            text = path.read_text()
            own = text.replace(plotly_source(), "")
            assert not set("\u202e\u2066\u200f") & set(own) and "\\u202e" not in own, path.name
    assert "ours\\ufffd.sruo" in (tmp_path / "out/index.html").read_text()


def test_the_end_of_a_log_is_on_the_page_without_anybodys_home(store: Store, tmp_path: Path) -> None:
    add(store, "ours", 0.0, outcome="crashed", message="no")
    (key,) = [r.key for r in store.records() if r.kind == "finetune"]
    lines = [f"line {i}" for i in range(50)] + [
        'File "/home/ann/x.py"',
        "/Users/bob: no",
        "/root/y",
        "\x1b[31mred</script>",
    ]
    (store.folder("finetune", key) / "log.txt").write_text("\n".join(lines))
    build_report(store, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    text = page.split('id="data">')[1].split("</script>")[0]
    (log,) = [r["log"] for r in json.loads(text)["runs"] if r.get("log")]
    assert log.splitlines()[-4:] == ['File "~/x.py"', "~: no", "~/y", " [31mred</script>"]
    assert log.splitlines()[0] == "line 42", "twelve lines"

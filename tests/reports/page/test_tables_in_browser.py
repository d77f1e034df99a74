"""The page in a real browser: no errors, filters, sorting, downloads, accessibility, narrow windows and paper."""

from __future__ import annotations

import base64
import re
import time
import zlib
from pathlib import Path
from typing import Any

import pytest


def test_the_page_loads_without_errors_and_without_a_network(browser: Any, page: Path) -> None:
    began = time.monotonic()
    browser.get(page.as_uri())
    print(f"opened in {time.monotonic() - began:.1f} s")
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert "SYNTHETIC DATA" in browser.title
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1], "nothing sticks out of the page"


def test_the_filter_hides_rows_of_other_methods(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    shown = "return [...document.querySelectorAll('table.sortable tbody tr')].filter(r => !r.hidden).length"
    before = browser.execute_script(shown)
    total = browser.execute_script("return page.runs.length")
    browser.find_element("id", "filter").send_keys("depthcontrast 20%")
    after = browser.execute_script(shown)
    assert 0 < after < before / 3, "all words must match, in any order, and the title of a table counts"
    left = browser.execute_script("return matched.map(i => [text(page.runs[i].row), whatOf(page.runs[i])])")
    assert len(left) == 3 and all(row == "depthcontrast" and "20%" in group for row, group in left)
    assert browser.find_element("id", "count").text == f"3 of {total} runs"
    assert "words=depthcontrast" in browser.execute_script("return location.hash")
    empty = [e for e in browser.find_elements("css selector", "p.empty") if e.is_displayed()]
    assert empty and all(e.text == "No row matches the filters." for e in empty), "no table of bare heads"
    browser.find_element("id", "clear").click()
    assert browser.execute_script(shown) == before and not browser.execute_script("return location.hash.slice(1)")


def test_controls_filter_tables_figures_and_runs_and_the_address_keeps_them(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.execute_script("plots.forEach(draw)")
    select(browser, "row", "csc")
    select(browser, "ratio", "20%")
    select(browser, "seed", "1")
    state = browser.execute_script("return location.hash")
    assert state == "#row=csc&ratio=20%25&seed=1"
    for _ in ("as chosen", "after the address was opened anew"):
        assert browser.find_element("id", "count").text.startswith("1 of ")
        run = browser.execute_script("const r = page.runs[matched[0]]; return [text(r.row), whatOf(r), r.seeds]")
        assert run == ["csc", "s3dis-sem, 20% of the labels", "1/0"]
        sections = browser.find_elements("css selector", "section.group")
        assert ["20%" in s.text for s in sections if s.is_displayed()] == [True], "groups of other ratios are hidden"
        heads = browser.execute_script(
            "return [...document.querySelectorAll('.matrix th.ratio')].filter(h => !h.hidden).map(h => h.textContent)"
        )
        assert heads == ["20%"]
        points = browser.execute_script("draw(plots[0]); return " + SHOWN_POINTS)
        assert len(points) == 1 and points[0][0] == "csc", "the main figure shows one method at one ratio"
        browser.get("about:blank")
        browser.get(page.as_uri() + state)
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


SHOWN_POINTS = "plots[0].data.filter(t => t.visible && t.customdata).flatMap(t => t.x.filter(x => x !== null).map(x => [t.name, x]))"


def select(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const s = document.getElementById('by-' + arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        name, value,
    )  # fmt: skip


def test_the_list_of_runs_sorts_turns_pages_and_compares_two_runs(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    head = browser.find_elements("css selector", "#runs th button")[5]
    head.click()
    scores = "return matched.map(i => page.runs[i].score).filter(s => s !== null)"
    rising = browser.execute_script(scores)
    assert rising == sorted(rising) and head.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    head.click()
    assert browser.execute_script(scores) == sorted(rising, reverse=True)
    browser.execute_script(
        "const rows = ['scratch', 'ours'].map(m => page.runs.findIndex(r => text(r.row) === m && r.curve));"
        "rows.forEach(i => compare(i, true))"
    )
    side = browser.find_element("id", "side-by-side")
    assert side.is_displayed() and len(side.find_elements("css selector", "svg polyline")) == 2
    differing = {r.text.split(" ")[0] for r in side.find_elements("css selector", "tr.differs")}
    assert {"method", "spec:"} <= differing and "fields are equal" in side.text
    state = browser.execute_script("return location.hash")
    assert re.fullmatch(r"#compare=[0-9a-f]{8}%2C[0-9a-f]{8}", state), "short keys"
    browser.get("about:blank")
    browser.get(page.as_uri() + state)
    assert browser.find_element("id", "side-by-side").is_displayed()


def test_tables_and_figures_can_be_downloaded(browser: Any, page: Path, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(page.as_uri())
    names = [place.get_attribute("data-name") for place in browser.find_elements("css selector", "[data-name]")]
    assert len(set(names)) == len(names) and sum(name.startswith("scores-synthetic-") for name in names) > 1, names
    for part in ("#overview .wide + .download", "#all-runs .download", "figure.main .download"):
        button = browser.find_element("css selector", part)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", button)
    end = time.monotonic() + 20
    wanted = {"overview.csv", "runs.csv", "synthetic-forest.svg"}
    while not wanted <= {p.name for p in tmp_path.iterdir()}:
        assert time.monotonic() < end, sorted(p.name for p in tmp_path.iterdir())
        time.sleep(0.1)
    assert (tmp_path / "overview.csv").read_text().splitlines()[1].startswith("method,5%,10%")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + browser.execute_script(
        "return page.runs.length"
    )
    assert browser.execute_script("return ['=1+1', 'a,b', '+1.5', '-'].map(csvCell)") == ["'=1+1", '"a,b"', "+1.5", "-"]


AXE = Path(__file__).parent / "axe" / "axe.min.js"
RUN_AXE = (
    "const done = arguments[0]; axe.run().then(done, error => done({violations: [{id: String(error), nodes: []}]}))"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_names_no_violation(browser: Any, page: Path, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(page.as_uri())
    browser.execute_script("plots.forEach(draw); openRun(page.runs[0].key); [0, 1].forEach(i => compare(i, true))")
    browser.execute_script(AXE.read_text())
    violations = browser.execute_async_script(RUN_AXE)["violations"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(v["id"], v.get("impact"), [n["html"] for n in v["nodes"][:3]]) for v in violations] == []


def test_nothing_sticks_out_of_a_narrow_page_or_of_paper(browser: Any, page: Path) -> None:
    size = {"width": 500, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 500
    # The printable width of landscape A4 without two margins of 12 mm.
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"width": round((297 - 24) / 25.4 * 96)})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("print(true)")
    wide = "return [...document.querySelectorAll('table, figure')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.execute_script(wide + ".map(e => e.className)") == []
    assert (
        browser.execute_script("return getComputedStyle(document.querySelector('.matrix .interval')).visibility")
        == "visible"
    )
    cut = (
        "return [...document.querySelectorAll('figure:not(.main) .plot .ytitle')].filter(title => {"
        " const [own, plot] = [title, title.closest('.plot')].map(e => e.getBoundingClientRect());"
        " return own.top < plot.top || own.bottom > plot.bottom; }).map(title => title.textContent)"
    )
    assert browser.execute_script(cut) == [], "the title of an axis is cut"
    scrolled = "return [...document.querySelectorAll('.plot .legend .scrollbar')].filter(e => +e.getAttribute('height')).length"
    assert browser.execute_script(scrolled) == 0, "paper does not scroll"
    broken = (
        "return [...document.querySelectorAll('table.sortable th')].map(e => { const range = document.createRange();"
        " range.selectNodeContents(e.querySelector('button') ?? e); return [e.textContent, range.getClientRects().length]; })"
        ".filter(([text, lines]) => lines > text.split(/[ -]/).length)"
    )
    assert browser.execute_script(broken) == [], "a word of a head is broken"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_table_over_several_sheets_of_paper_repeats_its_head(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.execute_script(
        "document.querySelectorAll('main > section:not(#all-runs), #all-runs h2').forEach(e => e.remove())"
    )
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    unpacked = (zlib.decompress(packed) for packed in re.findall(rb"stream\r?\n(x.*?)endstream", pdf, re.DOTALL))
    sheets = [re.findall(rb"/(F\d+) |<([0-9A-F]+)> Tj", text) for text in unpacked if b"BT\n" in text]  # fonts, letters
    assert len(sheets) > 1
    bold = sheets[0][0]
    rows_begin = next(i for i, (font, _) in enumerate(sheets[0]) if font and font != bold[0])
    heads = sheets[0][:rows_begin]
    assert sum(font == bold[0] for font, _ in heads) >= 6, "the heads of all columns but that of the boxes to compare"
    assert [sheet[:rows_begin] for sheet in sheets] == [heads] * len(sheets)


def test_a_table_sorts_by_a_column(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    column = (
        "return [...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map(r => r.cells[2].textContent)"
    )
    head = browser.find_elements("css selector", "table.sortable th button")[2]
    head.click()
    rising = [float(text.split()[0]) for text in browser.execute_script(column)]
    head.click()
    falling = [float(text.split()[0]) for text in browser.execute_script(column)]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True) and rising != falling


def test_numbers_of_thousands_sort_as_numbers(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    asked = "return ['1,204', '724', '4,319,211 + 12', '-1.5 [-2, 3]', 'not run', 'about 7 seeds', '<0.001', '+2.1'].map(number)"
    assert browser.execute_script(asked) == [1204, 724, 4319211, -1.5, None, 7, 0.001, 2.1]
    names = ["scratch", "ours (s3dis)", "10", "ours #1bc2de", "a10 (scannet)", "-", "method-2", "9"]
    assert browser.execute_script("return arguments[0].sort(inOrder)", names) == [
        "-", "a10 (scannet)", "method-2", "ours (s3dis)", "ours #1bc2de", "scratch", "9", "10",
    ], "digits in a name do not sort as a number"  # fmt: skip

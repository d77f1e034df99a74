"""The page in a real browser: no errors, filters, sorting, deep links."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pretrain_bench.api.running_stages import RunningStages
from pretrain_bench.api.serving import served
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from tests.reports.planted import plant
from tests.test_running_stages import evaluation, key_of, lay_out, step

NEEDED = ("chromium", "chromedriver")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    plant(Store(folder / "runs"), 3, 1)
    seen = next(path.parent for path in sorted(folder.glob("runs/finetune/*/events.jsonl")))
    (seen / "pictures").mkdir()
    Image.new("RGB", (96, 80), "#0072B2").save(seen / "pictures/room-selected.png")
    return build_report(Store(folder / "runs"), folder / "report").files["page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        if os.environ.get("BENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(f"BENCH_REQUIRE_BROWSER is 1, and there is no {missing[0]}")
        pytest.skip(f"needs {missing[0]} (Debian: chromium, chromium-driver), which is not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,1600",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(300)  # on a busy machine
    yield driver
    driver.quit()


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
    for part in ("#overview .wide + .download", "#all-runs .download", "figure.main .download"):
        button = browser.find_element("css selector", part)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", button)
    end = time.monotonic() + 20
    wanted = {"overview.csv", "runs.csv", "figure-synthetic-forest.svg"}
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


OPENED = "return [...document.querySelectorAll('tr.details')].map(r => r.previousElementSibling.id)"


def test_a_link_opens_its_run(browser: Any, page: Path) -> None:
    """Also a run that the list does not show at first; facts, curve and classes are present."""
    browser.get(page.as_uri())
    key, method = browser.execute_script("const r = page.runs.findLast(r => r.curve); return [r.key, r.method]")
    browser.get(f"{page.as_uri()}#{key}")
    browser.refresh()
    assert browser.execute_script(OPENED) == [key]
    details = browser.find_element("css selector", "tr.details")
    assert "SYNTHETIC DATA" in details.text and "pre-trained on" in details.text and "chair" in details.text
    assert "IoU on voxels (%) of" in details.text
    assert details.find_elements("css selector", "svg polyline")
    row = browser.find_element("id", key)
    assert method in row.text
    row.find_elements("tag name", "td")[1].click()
    button = row.find_element("tag name", "button")
    assert browser.execute_script(OPENED) == [] and button.get_attribute("aria-expanded") == "false"
    button.send_keys("\ue007")
    assert browser.execute_script(OPENED) == [key], "the keyboard opens it too"


MATRIX = (
    "return [...document.querySelectorAll('table.confusion tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
)


def test_a_run_shows_how_its_classes_were_confused_and_its_pictures(browser: Any, page: Path) -> None:
    """In the light and the dark theme; every value is text with a complete description."""
    browser.get(page.as_uri())
    key = browser.execute_script("return page.runs.find(r => r.pictures).key")
    browser.get(f"{page.as_uri()}#{key}")
    browser.refresh()
    rows = browser.execute_script(MATRIX)
    assert [row[0] for row in rows] == ["ceiling", "floor", "wall", "chair", "table"]
    right, wrong = int(rows[0][1]), int(rows[0][2])
    assert 30 < right < 90 and rows[0][3:] == ["0"] * 3
    assert abs(right + wrong - 100) <= 1, "each is rounded to whole per cent"
    assert rows[4][1:] == ["-"] * 5, "nothing is labelled table"
    cell = browser.find_element("css selector", "table.confusion tbody tr:nth-child(2) td:nth-child(4)")
    assert re.fullmatch(r"labelled floor, predicted wall: [\d.]+ % of 1,000 voxels", cell.get_attribute("title"))
    assert browser.execute_script("return document.querySelectorAll('table.confusion th[scope]').length") == 10
    image = browser.find_element("css selector", "tr.details figure img")
    assert (
        image.get_attribute("alt") == "picture of predictions: room-selected"
        and image.get_property("naturalWidth") == 96
    )
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        worst = browser.execute_script(CONTRAST)
        assert worst >= 4.5, f"{scheme}: a number of the matrix has a contrast of {worst:.1f}"
        browser.find_element("css selector", "tr.details").screenshot(str(page.with_name(f"run-{scheme}.png")))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


# The lowest contrast (WCAG 2) of a value on its translucent shade over the background.
CONTRAST = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
const painted = (...colours) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255);
};
const light = rgb => rgb.map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
const ground = getComputedStyle(document.querySelector("tr.details > td")).backgroundColor;
return Math.min(...[...document.querySelectorAll("table.confusion tbody td")].map(cell => {
  const style = getComputedStyle(cell);
  const [a, b] = [light(painted(ground, style.backgroundColor)), light(painted(ground, style.color))];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}));
"""


def test_a_failed_run_says_why(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    browser.find_element("id", "filter").send_keys("crashed")
    rows = browser.find_elements("css selector", "#runs tr.run")
    assert rows and all("crashed" in row.text for row in rows)
    rows[0].click()
    assert "planted" in browser.find_element("css selector", "tr.details").text


def test_figures_are_drawn_when_they_come_into_sight_and_their_points_open_runs(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    drawn = "return document.querySelectorAll('.plot[data-drawn] .plotly').length > 0"
    first = browser.find_element("css selector", ".plot")
    browser.execute_script("arguments[0].scrollIntoView()", first)
    wait(browser, drawn)
    assert browser.execute_script("return document.querySelectorAll('.plot:not([data-drawn])').length") > 0
    key = browser.execute_script(
        "const plot = plots.find(p => page.figures[p.dataset.figure].data.some(t => typeof t.customdata?.[0] === 'number')); draw(plot);"
        "const trace = plot.data.find(t => typeof t.customdata?.[0] === 'number');"
        "plot.emit('plotly_click', {points: [{customdata: trace.customdata[0]}]}); return page.runs[trace.customdata[0]].key"
    )
    wait(browser, OPENED.replace("return ", "return (") + ").length === 1")
    assert browser.execute_script(OPENED) == [key]
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_a_cell_of_the_overview_leads_to_its_group(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    rows = {r.find_element("tag name", "th").text: r for r in browser.find_elements("css selector", ".matrix tbody tr")}
    assert list(rows) == ["scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours"]
    heads = [h.text for h in browser.find_elements("css selector", ".matrix th.ratio")]
    assert heads == ["5%", "10%", "20%", "40%", "100%"]
    assert [h.text for h in browser.find_elements("css selector", ".matrix th.task")] == ["s3dis-sem"]
    speed = browser.find_element("css selector", "table.reach").text
    assert "steps to within 1 point of scratch" in speed and "speed-up" in speed
    link = rows["supervised"].find_element("tag name", "a")
    assert (
        "▲ +" in link.text
        and "n=3" in link.text
        and "better" in link.find_element("class name", "sr").get_attribute("textContent")
    )
    coloured = browser.execute_script(
        "return [...document.querySelectorAll('.matrix td a')].map(a => [a.querySelector('.sr').textContent,"
        " getComputedStyle(a.parentElement).backgroundColor])"
    )
    plain = {colour for words, colour in coloured if "better" not in words and "worse" not in words}
    assert len(plain) == 1 and plain.isdisjoint({c for w, c in coloured if "better" in w}), "colour needs a test"
    interval = link.find_element("class name", "interval")
    assert interval.value_of_css_property("visibility") == "hidden"
    link.send_keys("")  # the keyboard's focus
    assert interval.value_of_css_property("visibility") == "visible" and re.fullmatch(r"\[.+, .+\]", interval.text)
    link.click()
    target = browser.execute_script("return new URLSearchParams(location.hash.slice(1)).get('at')")
    assert "5% of the labels" in browser.find_element("id", target).text


def test_five_thousand_runs_open_quickly(browser: Any, tmp_path: Path) -> None:
    """The target is 3 s in an idle browser; this tests that only visible parts are built."""
    runs = tmp_path / "runs"
    plant(Store(runs), 17, 10)
    many = build_report(Store(runs), tmp_path / "report").files["page"]
    began = time.monotonic()
    browser.get(many.as_uri())
    shown = browser.execute_script("return [page.runs.length, document.querySelectorAll('#runs tr.run').length]")
    print(f"{shown[0]} runs, {many.stat().st_size >> 20} MiB, opened in {time.monotonic() - began:.1f} s")
    assert shown[0] >= 5000 and shown[1] == 100
    assert browser.execute_script("return document.getElementsByTagName('*').length") < 8000
    own = re.sub(r"data:image/png;base64,[^\"]*", "", many.read_text())
    assert len(own) < 8e6, f"{len(own):,} bytes without pictures"
    key = browser.execute_script("return page.runs.at(-1).key")
    visible = "return [...document.querySelectorAll('table.sortable tbody tr')].filter(r => !r.hidden).length"
    before = browser.execute_script(visible)
    browser.execute_script(f"location.hash = '{key}'")
    wait(browser, f"return document.querySelector('tr.details')?.previousElementSibling.id === '{key}'")
    assert browser.execute_script(visible) == before, "a link to a run far down hides no row of any table"
    parent = browser.execute_script(
        "return page.texts[page.runs.at(-1).facts.find(f => page.texts[f[0]] === 'pre-training runs')[1]]"
    )
    for word, least in ((parent, 10), ("synthetic", 5000)):
        browser.execute_script(f"filter.value = '{word}'; filter.dispatchEvent(new Event('input'))")
        count = browser.find_element("id", "count").text
        assert int(count.split(" of ")[0]) >= least, f"{word}: {count}"
        assert (browser.execute_script(f"return document.getElementById('{key}') !== null")) == (word == parent)


@pytest.mark.usefixtures("undrawn")
def test_a_served_page_shows_the_curves_of_running_stages(browser: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    events = lay_out(store)
    report = build_report(store, tmp_path / "out", live=True).files["page"]
    browser.get(report.as_uri())
    assert "Waiting for the server" in browser.find_element("id", "running").text, "a page from a file asks no server"
    begun = step(10, 2.0) + step(20, 1.5) + evaluation(20, 0.25)
    events.write_text(begun + step(30, 1.0)[:40])
    points = "return [...document.querySelectorAll('#running .plot')].map(p => p.data[p.data.length - 1].y)"
    with (
        store.lock(key_of(events), print),
        served(report.parent, 0, {"/running.json": RunningStages(store).as_json}) as address,
    ):
        browser.get(address)
        wait(browser, "return document.querySelectorAll('#running .plot .scatterlayer').length === 2")
        assert browser.execute_script(points) == [[2.0, 1.5], [25.0]]
        shown = browser.find_element("id", "running").text
        assert "1 stage runs." in shown and "s3dis-sem at 100%, seed ?/3 running 20" in shown and "(running)" in shown
        browser.save_screenshot(str(tmp_path / "running.png"))
        events.write_text(begun + step(30, 1.0))
        wait(browser, points + ".flat().includes(1)")
        os.utime(report, (1, 1))
        wait(browser, "return document.getElementById('running').textContent.includes('reload the page')")
    wait(browser, "return document.getElementById('running').textContent.includes('does not respond')")


def wait(browser: Any, script: str, seconds: float = 20) -> None:
    """Wait until a script returns true."""
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, f"not within {seconds} s: {script}"
        time.sleep(0.1)

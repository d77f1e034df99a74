"""Runs on the page in a real browser: links to their details, figures and groups, many runs, and running stages."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.api.running_stages import RunningStages
from pretrain_bench.api.serving import served
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from tests.reports.planted import plant
from tests.test_running_stages import evaluation, key_of, lay_out, step

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

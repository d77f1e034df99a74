"""A report page, and a browser that opens it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from tests.reports.planted import plant

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

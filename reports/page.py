"""One HTML file that opens from disk: no network, everything from a container escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render_page(groups: list[dict[str, Any]], failures: list[dict[str, Any]], synthetic: bool) -> str:
    """Fill `templates/report.html.j2`; autoescape is on for every value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("report.html.j2")
    return template.render(groups=groups, failures=failures, synthetic=synthetic)


def data_uri(png: Path) -> str:
    """A picture as text, to stand inside the page."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()

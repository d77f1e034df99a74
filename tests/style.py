"""Reports phrases that docs/style.md bans, as `make lint` runs it: python -m tests.style."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from tests.conftest import REPOSITORY

STYLE = REPOSITORY / "docs/style.md"
CHECKED = ("*.md", "*.py", "*.yaml", "*.yml", "*.cff")
# Between two words of a comment, docstring or string that continues on the next line.
GAP = r"""(?:[ \t]|["']?\n[ \t#]*f?["']?)+"""


def banned() -> dict[re.Pattern[str], str]:
    """Map each pattern of the table in docs/style.md to its replacement."""
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", STYLE.read_text().partition("## Banned phrases")[2], flags=re.M)
    patterns = {}
    for phrase, instead in rows:
        text = phrase.replace("\\|", "|")
        bounded = text if text.startswith("^") else rf"\b(?:{text.replace(' ', GAP)})\b"
        patterns[re.compile(bounded, re.I | re.M)] = instead
    return patterns


def violations(text: str, patterns: dict[re.Pattern[str], str]) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and replacement of each banned phrase in a text."""
    for pattern, instead in patterns.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead


def main() -> int:
    patterns = banned()
    listed = subprocess.run(
        ["git", "ls-files", "-z", *CHECKED], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    count = 0
    for path in files:
        if path in (STYLE, REPOSITORY / "tests/test_style.py") or not path.is_file():
            continue
        for line, phrase, instead in sorted(violations(path.read_text(), patterns)):
            count += 1
            print(f"{path.relative_to(REPOSITORY)}:{line}: {phrase!r}; write: {instead}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

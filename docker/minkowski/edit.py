"""Apply edits.tsv to an unpacked source tree: `edit.py TREE`. Exits with an error unless each edited line occurs exactly once."""

import sys
from pathlib import Path


def main() -> None:
    """Edit the tree in place."""
    tree = Path(sys.argv[1])
    for line in Path(__file__).with_name("edits.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, old, new = line.split("\t")
        lines = (tree / name).read_text().split("\n")
        if lines.count(old) != 1:
            sys.exit(f"{name}: {lines.count(old)} lines equal {old!r}, expected one; edits.tsv is for another version")
        lines[lines.index(old)] = new.replace("\\n", "\n")
        (tree / name).write_text("\n".join(lines))


if __name__ == "__main__":
    main()

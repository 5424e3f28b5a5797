"""Write the tables of encoders in README.md and docs/encoders.md, and of releases in data/README.md.

python docs/make_encoders.py    # after a config.yaml of models/, or a reader of a release, has changed
"""

from __future__ import annotations

import re
from pathlib import Path

from common.base.files import read_text, write_text
from common.base.options import CommandParser
from common.base.runtime import run_main
from common.dataset.importing.catalogue import releases_table
from common.weights import ledger, overview

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- python docs/make_encoders.py -->", "<!-- end of the table -->"
TABLES = {
    ROOT / "README.md": overview,
    ROOT / "docs" / "encoders.md": ledger,
    ROOT / "data" / "README.md": releases_table,
}


def main(argv: list[str] | None = None) -> int:
    """Entry point: every file, each with its own table."""
    CommandParser(None, __doc__).parse_args(argv)
    for path in TABLES:
        write_text(path, with_table(path))
    return 0


def with_table(path: Path) -> str:
    """A document with the table between its marks as configs and readers have it now."""
    table = f"{START}\n{TABLES[path]()}\n{END}"
    return re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: table, read_text(path), flags=re.DOTALL)


if __name__ == "__main__":
    run_main(main)

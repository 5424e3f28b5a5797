"""Write docs/speed.md from the last `make bench` or `make bench-full`: its numbers with date and machine, none typed.

python docs/make_speed.py
"""

from __future__ import annotations

from pathlib import Path

from common.base import paths
from common.base.files import read_text, write_text
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main

PAGE = Path(__file__).with_name("speed.md")
TITLE = """# Speed

<!-- python docs/make_speed.py -->
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point: the measured page under a title."""
    CommandParser(None, __doc__).parse_args(argv)
    measured = paths.comparison_results() / "benchmarks.md"
    if not measured.is_file():
        raise UserError(f"{measured}: nothing measured here yet; run make bench first")
    write_text(PAGE, f"{TITLE}\n{read_text(measured)}")
    return 0


if __name__ == "__main__":
    run_main(main)

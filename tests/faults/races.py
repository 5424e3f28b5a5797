"""Pairs of extractions, each in a folder of its own, the second begun at a drawn moment of the first one's work.

python -m tests.faults.races RESULTS_FILE ROOT_ALONE ROOT...

In the first root one extraction works alone, which says how long that takes. Writes for each root a list with exit code
and words of each command, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.faults.driver import finish, import_for, start
from tests.faults.world import EXTRACT

DECODING_ASIDE = replace(EXTRACT, words=(*EXTRACT.words, "--num_decoders", "2"))


def outcome(child: int, said: Path) -> dict[str, object]:
    """Exit code and words of a command, at its end."""
    code, _, words = finish(child, said)
    return {"code": code, "said": words}


def race(root: Path, offset_seconds: float) -> list[dict[str, object]]:
    """Both commands' outcomes, the second of them begun so much later."""
    first_said, second_said = root / "first.txt", root / "second.txt"
    first = start(EXTRACT, root, first_said)
    time.sleep(offset_seconds)
    second = start(DECODING_ASIDE, root, second_said)
    return [outcome(first, first_said), outcome(second, second_said)]


def main() -> None:
    """Entry point of `python -m tests.faults.races`."""
    results, alone, *roots = map(Path, sys.argv[1:])
    import_for(EXTRACT.module)
    started = time.monotonic()
    outcomes = [[outcome(start(EXTRACT, alone, alone / "first.txt"), alone / "first.txt")]]
    seconds = time.monotonic() - started
    moments = random.Random(1)
    outcomes += [race(root, moments.uniform(0, 1) * seconds) for root in roots]
    results.write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()

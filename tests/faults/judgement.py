"""What is wrong with the way in which a command met a damaged input."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.faults.driver import KILLED, Case, Outcome

DOCUMENTED_CODES = (0, 1, 2, 3)
LONGEST_LINE = 1500  # characters: a message with a few paths and names
BAD_CHARACTERS = {chr(code) for code in range(32)} - set("\t\n\r")  # that a terminal would obey


def faults_of(case: Case, outcome: Outcome) -> list[str]:
    """Words on each rule that was broken; empty when none was."""
    said, names = outcome.said, {PurePosixPath(case.target.path).name, *case.target.also}
    is_named = any(name in said for name in names)
    is_to_be_seen = case.damage.is_certain and not (case.damage.is_inside and case.command.skips_values)
    rules = {
        "took too long": outcome.code == KILLED,
        f"ended with {outcome.code}": outcome.code not in (*DOCUMENTED_CODES, KILLED),
        "fails with sound files": case.is_sound and outcome.code != 0,
        "ended with a traceback": "Traceback (most recent call last)" in said,
        "does not name the file": outcome.code != 0 and not is_named,
        "passed it over in silence": outcome.code == 0 and is_to_be_seen and not (is_named or outcome.is_replaced),
        "says several errors": sum(line.startswith("error:") for line in said.splitlines()) > 1,
        "has a line without end": max(map(len, said.splitlines()), default=0) > LONGEST_LINE,
        "prints control characters": any(character in BAD_CHARACTERS for character in said),
        f"left undone: {', '.join(outcome.missing)}": bool(outcome.missing),
        "ran code of the file": outcome.has_run_code,
        "wrote outside its folders": outcome.has_written_outside,
    }
    return [fault for fault, is_broken in rules.items() if is_broken]

"""Forms of label files: the two that are read, and what people put in their place, named with a way to labels.

A file holds one phase name a line, or the challenge's header and all names on the line below it. Whatever else it holds
is an error: a table read word by word would be labels too, of other frames.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from common.base.entries import CHALLENGE_HEADER
from common.base.runtime import UserError, shown

HEADER = re.compile(r"###\s*Frame level recognition\s*:?\s*###", re.IGNORECASE)
PLAIN = "write one phase name a line, one line a label, and nothing else"
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}
# words of a table's head, and the importer that reads such tables
IMPORTERS = {
    ("videoid", "frameno", "phase"): "pretrain/cataract101/import_annotations.py",
    ("comment", "frame", "endframe"): "pretrain/cataracts1k/import_annotations.py",
}


class NotLabels(UserError):
    """A file in place of labels that holds something else: `line` (from 1), what is `found` there, and `advice`."""

    def __init__(self, path: Path, line: int, found: str, advice: str = PLAIN):
        self.line, self.advice = line, advice
        self.found = f"{path}, line {line}: {found}"
        super().__init__(f"{self.found}; {advice}")


def frame_names(path: Path, text: str, known: Sequence[str]) -> tuple[list[str], Sequence[int]]:
    """Split the text of a label file into names `(T,)`, each with its line (from 1).

    Names may be unknown, as typing errors are. Raises `UserError` for no name at all, and `NotLabels` for another form than
    the two, told apart with the help of the `known` names: what is one of them is never taken for something else.
    """
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:  # ends of lines at the end of the file: no label is shifted by them
        lines.pop()
    first = 1 if lines and HEADER.fullmatch(lines[0]) else 0
    body = lines[first:]
    if not body:
        raise UserError(f"{path}: the label file is empty; {PLAIN}")
    if first and len(body) == 1:
        names, places = body[0].split(), [2] * len(body[0].split())
    else:
        names, places = body, range(first + 1, first + 1 + len(body))
    unknown = set(names).difference(known)  # mostly none: then no line has to be looked at
    for name, place in zip(names, places, strict=True) if unknown else ():
        if name in unknown and (found := _something_else(name, lines, known)):
            raise NotLabels(path, place, *found)
    return names, places


def _something_else(name: str, lines: list[str], known: Sequence[str]) -> tuple[str, str] | None:
    """What stands in place of a name, and what to do; None for a single word, which is a name."""
    head = "" if lines[0] in known else lines[0]
    if not name:
        found = "a blank line; without it every later label would stand a frame early"
        return found, "give the frame a name of mapping.txt, or take the line out where it stands for no frame"
    if HEADER.search(name):
        return f"the challenge's header stands alone in line 1, found {shown(name)}", PLAIN
    for beginnings, form in ((("{", "["), "JSON"), (("<",), "XML or HTML")):
        if head.startswith(beginnings):
            return f"{form} in place of labels, found {shown(name)}", _way_to_labels(head)
    if name.startswith("#") and not any(other.startswith("#") for other in known):
        return f"a header or comment in place of a label, found {shown(name)}", f"take it out; {PLAIN}"
    for separator, plural in SEPARATORS.items():
        # a comma may be part of a phase's name, but then it is in the mapping
        if separator in name and not any(separator in other for other in known):
            return f"a table with {plural}, found {shown(name)}", _way_to_labels(head, lines[-1], separator, known)
    words = name.split()
    if len(words) < 2:
        return None
    found = f"{len(words)} words on a line, found {shown(name)}"
    if "_".join(words) in known:
        return found, f"write {'_'.join(words)!r}: names have no blanks"
    if len(lines) == 1 and all(word in known for word in words):
        return found, f"put the line {CHALLENGE_HEADER!r} above the names, or {PLAIN}"
    return found, _way_to_labels(head, lines[-1], None, known)


def _way_to_labels(head: str, row: str = "", separator: str | None = None, known: Sequence[str] = ()) -> str:
    """The importer that reads a file of this first line, or the column in which its last `row` has a name."""
    words = {word.strip().lower() for word in re.split(r"[\t;,|\s]+", head)}
    for columns, importer in IMPORTERS.items():
        if words >= set(columns):
            return f"python {importer} reads such tables from its release"
    cells = [cell.strip() for cell in row.split(separator)]
    named = [number for number, cell in enumerate(cells, 1) if cell in known]
    # a wider table has intervals, whose names alone would be one label for each
    columns = f"where a row is a label, keep column {named[0]} alone; " if len(cells) == 2 and len(named) == 1 else ""
    return f"no importer here reads it: {columns}{PLAIN}"

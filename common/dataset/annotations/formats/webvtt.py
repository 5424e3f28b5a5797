"""WebVTT: a phase a cue, which any browser shows as a subtitle (W3C, https://www.w3.org/TR/webvtt1/)."""

import html
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from common.base.files import read_text
from common.base.runtime import UserError, shown
from common.dataset.annotations.annotated import Annotated
from common.dataset.annotations.formats.interval_table import clock_seconds
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.importing.label_tables import PhaseInterval

ARROW = "-->"
TAG = re.compile(r"<[^>]*>")
TIME = re.compile(r"(?:\d+:)?\d\d:\d\d\.\d{3}")
DOUBT_CLASS = "doubtful"


def read_webvtt(path: Path) -> Iterator[Annotated]:
    """The cues of a file, of the video that it is called as. Raises `UserError` for a file without its first line."""
    first = read_text(path).partition("\n")[0]
    if not re.fullmatch(r"WEBVTT(?:[ \t].*)?", first):
        raise UserError(
            f"{path}, line 1: not readable as WebVTT: expected WEBVTT, found {shown(first)}; write it there"
        )
    yield Annotated(path, str(path), {path.name.rpartition(".")[0]: 0.0}, partial(_cues, path))


def _cues(path: Path) -> Iterator[PhaseInterval]:
    """Cues: blocks with a line of times; others are head, notes, styles and regions."""
    lines = read_text(path).split("\n")
    line = 0
    while line < len(lines):
        block = []
        while line < len(lines) and lines[line].strip():
            block.append((line + 1, lines[line]))
            line += 1
        line += 1
        if block and not re.match(r"(?:NOTE|STYLE|REGION)\b", block[0][1]):
            timed = next((index for index, (_, text) in enumerate(block) if ARROW in text), None)
            if timed is not None:
                yield _cue(path, *block[timed], " ".join(text for _, text in block[timed + 1 :]))


def _cue(path: Path, number: int, times: str, payload: str) -> PhaseInterval:
    where = f"{path}, line {number}"
    start, _, rest = times.partition(ARROW)
    words = [start.strip(), *rest.split()[:1]]
    seconds = [clock_seconds(word) if TIME.fullmatch(word) else None for word in words]
    if len(seconds) != 2 or None in seconds:
        raise UserError(
            f"{where}: has no time that WebVTT knows: expected 00:01:02.345 --> 00:01:03.000, found {shown(times)}; "
            "correct the line"
        )
    return PhaseInterval(where, *seconds, html.unescape(TAG.sub("", payload)).strip())


def webvtt_text(video: Prelabelled, phases: Sequence[str], colours: Sequence[str]) -> str:
    """A cue for each segment in the colour of its phase (classes `p<id>`); doubtful ones have a class, and say why."""
    ids = {name: index for index, name in enumerate(phases)}
    used = sorted({ids[segment.phase] for segment in video.segments})
    styles = [f"::cue(.p{index}) {{ color: {colours[index]}; }}" for index in used]
    blocks = ["WEBVTT", "\n".join(["STYLE", *styles, f"::cue(.{DOUBT_CLASS}) {{ font-style: italic; }}"])]
    for segment in video.segments:
        start, end = map(_clock, video.seconds(segment))
        if segment.doubt:
            blocks.append(f"NOTE {segment.doubt.replace(ARROW, '->')}")
        classes = f"p{ids[segment.phase]}" + (f".{DOUBT_CLASS}" if segment.doubt else "")
        blocks.append(f"{start} {ARROW} {end}\n<c.{classes}>{html.escape(segment.phase, quote=False)}</c>")
    return "\n\n".join([*blocks, ""])


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * max(0.0, seconds))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"

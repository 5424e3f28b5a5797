"""BORIS projects: JSON, perhaps packed by gzip, with observations of videos whose phases are state events.

Facts of the format by olivierfriard/BORIS (`boris/config.py`, `project_functions.py`). A project has no mark of start or stop:
of the events of one subject and behaviour the first, third, ... start it, the others stop it, in order of time.
"""

import gzip
import json
import math
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.base.files import MOST_TEXT_BYTES, misfit, parse_json, read_text, require_regular
from common.base.runtime import UserError, listed, shown
from common.dataset.annotations.annotated import Annotated, KnownPhases
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.importing.label_tables import PhaseInterval

FORMAT_VERSION = "7.0"
GZIP_BEGINS = b"\x1f\x8b"
PLAYERS = tuple("12345678")
KEYS = (*string.ascii_lowercase, *string.digits, *(f"F{number}" for number in range(1, 13)))
NO_SUBJECT = "No focal subject"
ADVICE = "save the project again in BORIS"
SHAPE = {
    "project_format_version?": str | float,
    "behaviors_conf": {str: {"code": str, "type": str}},
    "observations": {
        str: {
            "type?": str, "file?": dict | list, "events": [list], "time offset?": float,
            "media_info?": {"length?": {str: float}, "fps?": {str: float}},
        }
    },
}  # fmt: skip


def read_boris(path: Path, known: KnownPhases) -> Iterator[Annotated]:
    """The videos and subjects of a project's observations. Raises `UserError` for what is no project."""
    project = parse_json(_text(path), str(path), ADVICE)
    if wrong := misfit(project, SHAPE):
        raise UserError(f"{path}: not a project of BORIS ({wrong}); {ADVICE}")
    if not project["observations"]:
        raise UserError(f"{path}: has no observation; code a video in BORIS first, or leave it out")
    version = str(project.get("project_format_version") or FORMAT_VERSION)
    notes = []
    if _number_of(version) > _number_of(FORMAT_VERSION):
        notes.append(f"{path}: a newer format ({shown(version)}) than the {FORMAT_VERSION} that is known here")
    for name, observation in project["observations"].items():
        yield from _observation(path, project, name, observation, known, notes)


def is_gzip(path: Path) -> bool:
    """Whether a file is packed by gzip, whatever it is called. Raises `UserError` for one that cannot be read."""
    try:
        require_regular(path)
        with path.open("rb") as stream:
            return stream.read(len(GZIP_BEGINS)) == GZIP_BEGINS
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _text(path: Path) -> str:
    if not is_gzip(path):
        return read_text(path)
    try:
        with gzip.open(path) as stream:
            content = stream.read(MOST_TEXT_BYTES + 1)
        if len(content) > MOST_TEXT_BYTES:
            raise UserError(f"{path}: unpacks to more than {MOST_TEXT_BYTES:,} bytes; name another file")
        return content.decode("utf-8-sig")
    except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
        raise UserError(f"{path}: not readable as a packed project ({error}); {ADVICE}") from error


def _number_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _observation(
    path: Path,
    project: Mapping[str, Any],
    name: str,
    observation: Mapping[str, Any],
    known: KnownPhases,
    notes: Sequence[str],
) -> Iterator[Annotated]:
    """An observation's files, which are played one after the other, by each subject that has a phase."""
    where = f"{path}, observation {name}"
    files, kind = observation.get("file") or [], observation.get("type") or "MEDIA"
    media = files if isinstance(files, list) else files.get("1")
    if kind != "MEDIA" or not media or misfit(media, [str]):
        yield Annotated(path, f"{where} ({kind})", {}, list)
        return
    info = observation.get("media_info") or {}
    lengths, rates = info.get("length") or {}, info.get("fps") or {}
    starts = [0.0]
    for medium in media[:-1]:
        starts.append(starts[-1] + lengths.get(medium, float("nan")))
    ends = [*starts[1:], float("inf")]
    subjects = sorted({str(event[1]) for event in observation["events"] if len(event) > 2 and known.has(event[2])})
    for subject in subjects or [""]:
        for medium, start, end in zip(media, starts, ends, strict=True):
            own = list(notes)
            read = partial(_intervals, where, project, observation, known, subject, (start, end), own)
            yield Annotated(path, where, {medium: 0.0}, read, subject or NO_SUBJECT, rates.get(medium), notes=own)


def _intervals(
    where: str,
    project: Mapping[str, Any],
    observation: Mapping[str, Any],
    known: KnownPhases,
    subject: str,
    span: tuple[float, float],
    notes: list[str],
) -> Iterator[PhaseInterval]:
    """The states of a subject within the `span` of one of the observation's files, in seconds of that file."""
    if span[0] != span[0] or span[1] != span[1]:
        raise UserError(f"{where}: plays several files, and does not say how long they are; {ADVICE}")
    kinds = {behaviour["code"]: behaviour["type"] for behaviour in project["behaviors_conf"].values()}
    offset = observation.get("time offset") or 0.0
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    events = observation["events"]
    for number, event in enumerate(events, 1):
        if misfit(event[:4], [str | float]) or len(event) < 4 or isinstance(event[0], str):
            raise UserError(
                f"{where}, event {number}: expected seconds, subject, code, modifier, found {shown(event)}; {ADVICE}"
            )
    for event in sorted(events, key=lambda event: event[0]):
        seconds, of_subject, code, modifier = event[0] - offset, *map(str, event[1:4])
        if of_subject != subject or known.leaves_out(code):
            continue
        if code not in kinds:
            raise UserError(
                f"{where}: {shown(code)} is not in the ethogram, so it is unknown whether it is a state; add it there"
            )
        if kinds[code].startswith("Point"):
            if known.has(code):
                raise UserError(
                    f"{where}: {shown(code)} at {seconds:g} s is a point event, without duration; make it a state event in "
                    "the ethogram, with a start and a stop"
                )
            notes.append(f"{where}: point event {shown(code)} at {seconds:g} s, left out")
            continue
        times[code, modifier].append(seconds)
    for (code, _), of_state in times.items():
        if len(of_state) % 2:
            raise UserError(
                f"{where}: {shown(code)} is started and stopped {len(of_state)} times together ({listed([f'{t:g} s' for t in sorted(of_state)])}); "
                "each start needs its stop"
            )
        for start, end in list(pairwise(sorted(of_state)))[::2]:
            # before the first file and after the last one nothing is cut here
            first, last = max(start, span[0] or -math.inf), min(end, span[1])
            if first < last or (start == end == first):
                if (first, last) != (start, end):
                    notes.append(
                        f"{where}: {shown(code)} ({start:g} to {end:g} s) runs across two files, cut where they join"
                    )
                yield PhaseInterval(f"{where}, {code}", first - span[0], last - span[0], code)


def boris_text(
    videos: Sequence[Prelabelled], phases: Sequence[str], colours: Sequence[str], links: Mapping[str, str], date: str
) -> str:
    """A project with an observation a video. Phases exclude each other; a doubtful one has a comment at its start.

    `links`: the place of each video from the project; `date` an ISO time.
    """
    behaviours = {
        str(index): {
            "type": "State event",
            "key": KEYS[index] if index < len(KEYS) else "",
            "code": name,
            "description": "",
            "color": colours[index],
            "category": "",
            "modifiers": {},
            # a list with commas: a name that has one cannot be in it
            "excluded": ",".join(other for other in phases if other != name and "," not in other),
            "coding map": "",
        }
        for index, name in enumerate(phases)
    }
    project = {
        "time_format": "hh:mm:ss",
        "project_date": date,
        "project_name": "phases",
        "project_description": "",
        "project_format_version": FORMAT_VERSION,
        "subjects_conf": {},
        "behaviors_conf": behaviours,
        "observations": {video.name: _written(video, links[video.name], date) for video in videos},
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    return json.dumps(project, indent=1, ensure_ascii=False) + "\n"


def _written(video: Prelabelled, link: str, date: str) -> dict[str, Any]:
    """An observation; every event has its frame, and a start comes after the stop of the phase before it."""
    events = []
    for segment in video.segments:
        start, end = (round(seconds, 3) for seconds in video.seconds(segment))
        comment = f"look here: {segment.doubt}" if segment.doubt else ""
        events.append([start, "", segment.phase, "", comment, segment.start])
        events.append([end, "", segment.phase, "", "", segment.end])
    return {
        "file": {player: [link] if player == "1" else [] for player in PLAYERS},
        "type": "MEDIA",
        "date": date,
        "description": "",
        "time offset": 0.0,
        "events": events,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {link: round(float(video.edges[-1]), 3)},
            "fps": {link: round(video.fps, 3)},
            "hasVideo": {link: True},
            "hasAudio": {link: False},
            "offset": {"1": 0.0},
        },
    }

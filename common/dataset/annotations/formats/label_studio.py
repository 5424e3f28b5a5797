"""Label Studio's timelines: JSON with regions in whole frames, counted from 1 with both ends in, on a grid of one rate.

Facts of the format by HumanSignal/label-studio (`docs/source/tags/timelinelabels.md`, `Video.js`) and by running 1.23. Frame
n stands at (n - 1) / rate. The rate is not in a result, so it is written into `data.fps`, and asked for where it is absent.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from common.base.entries import VIDEO_SUFFIXES
from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, shown
from common.dataset.annotations.annotated import Annotated, KnownPhases, media_name
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.annotations.tiling import nearest_edges
from common.dataset.importing.label_tables import PhaseInterval

FROM_NAME, TO_NAME, KIND = "phase", "video", "timelinelabels"
MOST_SECONDS_A_FRAME, MOST_RATE = 3600, 10_000  # a rate beyond these is none
RATE_KEYS = ("fps", "frame_rate", "framerate", "framerate_fps")
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
ADVICE = "export the project again from Label Studio as JSON"
RESULT = {"type?": str, "from_name?": str, "value?": dict}  # a relation of regions has no value
SHAPE = [
    {
        "data": dict,
        "annotations?": [{"result": [RESULT], "was_cancelled?": bool, "lead_time?": float}],
        "predictions?": list,  # in an export their numbers
    }
]
RANGES = {"ranges": [{"start": int, "end": int}], "timelinelabels": [str]}
Place = tuple[int, int, str, str]
"""Start and end as they stand there, phase, and words for messages."""


def uploaded_spellings(medium: str) -> list[str]:
    """Names that a medium may have here: an upload puts eight hexadecimal digits before its name."""
    name = media_name(medium)
    match = UPLOADED.fullmatch(name)
    return [name, *([match[1]] if match else [])]


def read_label_studio(
    path: Path, known: KnownPhases, *, fps: float | None = None, predictions: bool = False
) -> Iterator[Annotated]:
    """The videos and annotators of an export (JSON or JSON-MIN) or of a file to import.

    `fps` counts where the file has no rate; with `predictions` tasks that nobody has annotated give their prediction.
    Raises `UserError` for what is neither.
    """
    tasks = read_json(path, ADVICE)
    if isinstance(tasks, dict):  # as a storage has it: a file for each task, or for each annotation with its task
        tasks = [tasks if "data" in tasks else {**(tasks.get("task") or {}), "annotations": [tasks]}]
    if not tasks:
        raise UserError(f"{path}: has no task; {ADVICE}")
    if isinstance(tasks, list) and tasks and all(isinstance(task, dict) and "data" not in task for task in tasks):
        tasks = [_from_min(task) for task in tasks]
    if wrong := misfit(tasks, SHAPE):
        raise UserError(f"{path}: not an export of Label Studio ({wrong}); {ADVICE}")
    for number, task in enumerate(tasks, 1):
        where = f"{path}, task {task.get('id', number)}"
        media = _media(task["data"], task.get("file_upload"))
        given = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
        made = [one for one in task.get("predictions") or [] if not misfit(one, {"result": [RESULT]})]
        if not given and predictions:
            given = made[:1]
        if not given:
            reason = f"{where}: nobody has annotated it" + (
                "; --predictions takes what was predicted as it is" if made else "; finish it, and export again"
            )
            yield Annotated(path, where, {media: 0.0}, partial(_failing, UserError(reason)))
        for one in given:
            rate, notes = _rate(task["data"]) or fps, []
            read = partial(_intervals, where, one["result"], known, rate, notes)
            annotator = _person(one.get("completed_by"))
            work = one.get("lead_time")
            yield Annotated(
                path, where, {media: 0.0}, read, annotator, rate, is_in_frames=True, work_seconds=work, notes=notes
            )


def _failing(reason: UserError) -> Iterator[PhaseInterval]:
    raise reason


def _from_min(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task of a JSON-MIN export as the full one has it: lists of regions become results."""
    results = [
        {"type": KIND, "from_name": key, "value": region}
        for key, value in task.items()
        if isinstance(value, list)
        for region in value
        if isinstance(region, dict) and "ranges" in region
    ]
    annotation = {"result": results, "completed_by": task.get("annotator")}
    if not misfit(task, {"lead_time": float}):
        annotation["lead_time"] = task["lead_time"]
    data = {key: value for key, value in task.items() if not isinstance(value, list)}
    return {"data": data, "id": task.get("id"), "annotations": [annotation]}


def _media(data: Mapping[str, Any], uploaded: Any) -> str:
    """The video of a task: what `video` says, else the first text that ends as videos do, or the file that was uploaded."""
    texts = [value for value in (data.get(TO_NAME), *data.values(), uploaded) if isinstance(value, str)]
    return next(
        (text for text in texts if text.lower().endswith(VIDEO_SUFFIXES)), next(iter(texts), "a task without video")
    )


def _rate(data: Mapping[str, Any]) -> float | None:
    for key, value in data.items():
        if key.casefold() in RATE_KEYS and isinstance(value, str | int | float) and not isinstance(value, bool):
            number, _, divisor = str(value).replace(",", ".").partition("/")  # 30000/1001
            try:
                rate = float(number) / float(divisor or 1)
            except (ValueError, ZeroDivisionError):
                continue
            if MOST_SECONDS_A_FRAME**-1 <= rate <= MOST_RATE:
                return rate
    return None


def _person(value: Any) -> str:
    """Who annotated, as the export names them: a number, or more about them."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)


def _intervals(
    where: str, results: Sequence[Mapping[str, Any]], known: KnownPhases, rate: float | None, notes: list[str]
) -> Iterator[PhaseInterval]:
    # of several timelines, as for tools, those count that have a phase
    of_phases = {
        result.get("from_name")
        for result in results
        if any(map(known.has, (result.get("value") or {}).get("timelinelabels") or []))
    }
    places = list(_places(where, results, of_phases, notes))
    if rate is None:
        raise UserError(
            f"{where}: has no frame rate, by which its frames are counted; add --fps with that of the labelling "
            'configuration (24 where it says none), or put "fps" into the data of the tasks'
        )
    for start, end, phase, words in _half_open(sorted(places), where, notes):
        yield PhaseInterval(words, start / rate, end / rate, phase)


def _places(
    where: str, results: Sequence[Mapping[str, Any]], of_phases: Collection[str | None], notes: list[str]
) -> Iterator[Place]:
    for number, result in enumerate(results, 1):
        words, value = f"{where}, region {result.get('id', number)}", result.get("value") or {}
        kind = result.get("type") or KIND
        if kind != KIND or (of_phases and result.get("from_name") not in of_phases):
            notes.append(f"{words}: {shown(kind if kind != KIND else result.get('from_name'))}, left out")
            continue
        if not value.get("timelinelabels"):
            value = value | {"timelinelabels": [""]}
        if wrong := misfit(value, RANGES):
            raise UserError(f"{words}: expected ranges of whole frames and their label ({wrong}); {ADVICE}")
        if len(value["timelinelabels"]) > 1:
            raise UserError(f"{words}: has several labels ({listed(value['timelinelabels'])}); a moment has one phase")
        for frames in value["ranges"]:
            start, end = frames["start"], frames["end"]
            if end < start:
                raise UserError(
                    f"{words}: ends at frame {end}, before it starts at frame {start}; swap or correct them"
                )
            yield start, end, value["timelinelabels"][0], words


def _half_open(places: Sequence[Place], where: str, notes: list[str]) -> Iterator[Place]:
    """Regions as frames from 0, the end not in; what was written by another rule is told by evidence, and noted.

    Neighbours that share one frame, as some scripts write them, leave it to the later one.
    """
    if places and places[0][0] <= 0:
        inner = list(pairwise(places))
        is_half_open = all(one[1] == other[0] for one, other in inner)
        if places[0][0] < 0 or not (is_half_open or all(one[1] + 1 == other[0] for one, other in inner)):
            raise UserError(f"{where}: a region starts at frame {places[0][0]}; Label Studio counts from 1; {ADVICE}")
        notes.append(f"{where}: frames are 0-based{' and half-open' if is_half_open else ''} here, by its first region")
        yield from ((start, end + (not is_half_open), *rest) for start, end, *rest in places)
        return
    shared = 0
    for index, (start, end, *rest) in enumerate(places):
        is_shared = index + 1 < len(places) and places[index + 1][0] == end > start
        shared += is_shared
        yield (start - 1, end - is_shared, *rest)
    if shared:
        notes.append(f"{where}: {shared} shared frames between neighbours; the later phase has them")


def label_studio_text(videos: Sequence[Prelabelled], links: Mapping[str, str], model_version: str) -> str:
    """Tasks with predictions; each region and each video has its mean probability as the score.

    `links`: the address of each video as Label Studio serves it.
    """
    tasks = []
    for video in videos:
        bounds = grid_bounds(video)
        result = [
            {
                "id": f"r{index}",
                "from_name": FROM_NAME,
                "to_name": TO_NAME,
                "type": KIND,
                "score": round(segment.confidence, 4),
                "value": {"ranges": [{"start": start + 1, "end": end}], "timelinelabels": [segment.phase]},
            }
            for index, (segment, (start, end)) in enumerate(zip(video.segments, bounds, strict=True))
            if start < end
        ]
        lengths = [segment.end - segment.start for segment in video.segments]
        score = float(np.average([segment.confidence for segment in video.segments], weights=lengths))
        prediction = {"model_version": model_version, "score": round(score, 4), "result": result}
        tasks.append({"data": {"video": links[video.name], "fps": video.fps}, "predictions": [prediction]})
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def grid_bounds(video: Prelabelled) -> list[tuple[int, int]]:
    """Start and end of each segment on the grid of the video's mean rate, from 0, the end not in."""
    marks = [video.seconds(segment) for segment in video.segments]
    origin = float(video.edges[0])
    return [tuple(round((mark - origin) * video.fps) for mark in pair) for pair in marks]


def worst_shift(video: Prelabelled) -> tuple[int, float]:
    """Boundaries that come back as another frame, and the furthest in seconds: at variable rates the grid is not the frames'."""
    sent = np.array([segment.start for segment in video.segments])
    back = nearest_edges(video.edges, np.array([start for start, _ in grid_bounds(video)]) / video.fps)
    moved = sent != back
    furthest = np.abs(video.edges[sent] - video.edges[back]).max(initial=0.0)
    return int(moved.sum()), float(furthest)


def configuration_text(phases: Sequence[str], colours: Sequence[str]) -> str:
    """The labelling interface that fits the tasks."""
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>"
        for name, colour in zip(phases, colours, strict=True)
    ]
    video = f'  <Video name="{TO_NAME}" value="$video" frameRate="$fps" timelineHeight="120"/>'
    head = f'  <TimelineLabels name="{FROM_NAME}" toName="{TO_NAME}">'
    return "\n".join(["<View>", head, *labels, "  </TimelineLabels>", video, "</View>", ""])

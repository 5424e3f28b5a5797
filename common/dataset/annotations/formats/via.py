"""VIA 3 projects: JSON with one list of segments for all videos, whose phases are options of an attribute.

Facts of the format by ox-vgg/via, `via-3.x.y/CodeDoc.md` and `src/js/_via_data.js`. VIA's own tables hold numbers of options
in place of names, so the project alone is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.base.files import misfit, read_json
from common.base.runtime import UserError, listed, shown
from common.dataset.annotations.annotated import Annotated, KnownPhases
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.importing.label_tables import PhaseInterval

TEXT, CHECKBOX, SELECT = 1, 2, 4  # kinds of attributes
VIDEO = 4  # kind of a file
BY_PATH = 3  # where a file is: a path, taken from the page of VIA
IN_TIME = "FILE1_Z2_XY0"  # an attribute of stretches of one file
NAME, DOUBT_NAME = "phase", "look here"
ADVICE = "save the project again in VIA"
SHAPE = {
    "project": dict,
    "attribute": {str: {"aname": str, "options?": {str: str}}},
    "file": {str: {"fname?": str, "src?": str}},
    "metadata": {str: {"vid": str | int, "z": [float], "xy": list, "av": {str: str | float | bool | None}}},
    "view": {str: {"fid_list": [str | int]}},
}


def read_via(path: Path, known: KnownPhases) -> Iterator[Annotated]:
    """The videos of a project; each attribute that holds phases is an annotator.

    Raises `UserError` for what is no project, and where no attribute has a phase.
    """
    project = read_json(path, ADVICE)
    if wrong := misfit(project, SHAPE):
        raise UserError(f"{path}: not a project of VIA 3 ({wrong}); {ADVICE}")
    if not project["metadata"]:
        raise UserError(f"{path}: has no segment; annotate a video in VIA first, or leave it out")
    attributes = _of_phases(project, known)
    if not attributes:
        names = listed([attribute["aname"] for attribute in project["attribute"].values()])
        raise UserError(
            f"{path}: no attribute has a known phase; its attributes are {names or 'none'}; known phases: "
            f"{listed(known.names)} (--mapping names others)"
        )
    for name, entry in project["metadata"].items():
        if str(entry["vid"]) not in project["view"]:
            raise UserError(
                f"{path}, annotation {name}: of view {entry['vid']}, and no such video is at hand: the project has the views "
                f"{listed(list(project['view'])) or 'none'}; {ADVICE}"
            )
    views = dict.fromkeys(str(entry["vid"]) for entry in project["metadata"].values())
    for view in views:
        entries = [entry for entry in project["metadata"].values() if str(entry["vid"]) == view]
        used = [number for number in attributes if any(_value(entry, number) != "" for entry in entries)]
        for number in used or attributes[:1]:
            name = project["attribute"][number]["aname"]
            notes: list[str] = []
            read = partial(_intervals, path, project, view, number, notes)
            yield Annotated(path, f"{path}, view {view}", _media(project, view), read, annotator=name, notes=notes)


def _of_phases(project: Mapping[str, Any], known: KnownPhases) -> list[str]:
    """The ids of the attributes among whose options or texts there is a phase."""
    texts = {
        number: list((attribute.get("options") or {}).values()) for number, attribute in project["attribute"].items()
    }
    for entry in project["metadata"].values():
        for number, value in entry["av"].items():
            if number in texts and not project["attribute"][number].get("options"):
                texts[number].append(value)
    return [number for number, found in texts.items() if any(map(known.has, found))]


def _media(project: Mapping[str, Any], view: str) -> dict[str, float]:
    """The file of a view, by its name and by its source; what has none is named as the view itself."""
    numbers = project["view"][view]["fid_list"]
    files = [project["file"].get(str(number), {}) for number in numbers[:1]]
    names = [name for one in files for name in (one.get("fname"), one.get("src")) if name]
    return dict.fromkeys(names or [f"view {view}"], 0.0)


def _value(entry: Mapping[str, Any], attribute: str) -> str | int:
    """What an annotation says of an attribute; empty for nothing."""
    value = entry["av"].get(attribute)
    return "" if value is None else value


def _intervals(
    path: Path, project: Mapping[str, Any], view: str, attribute: str, notes: list[str]
) -> Iterator[PhaseInterval]:
    options = project["attribute"][attribute].get("options") or {}
    for name, entry in project["metadata"].items():
        if str(entry["vid"]) != view:
            continue
        where, times, value = f"{path}, annotation {name}", entry["z"], _value(entry, attribute)
        if entry["xy"]:
            notes.append(f"{where}: a drawn region, left out")
            continue
        if value == "" and any(_value(entry, other) != "" for other in entry["av"]):
            continue  # of another attribute
        if not times:
            raise UserError(
                f"{where}: has no time: it is a label of the whole file; mark the stretch in VIA's timeline"
            )
        if len(times) > 2:
            raise UserError(f"{where}: expected a start and an end, found {shown(times)}; {ADVICE}")
        chosen = str(value)
        if project["attribute"][attribute].get("type") == CHECKBOX:
            chosen = chosen.strip(",")
            if "," in chosen:
                names = listed([options.get(option, option) for option in chosen.split(",")])
                raise UserError(f"{where}: has several phases ({names}); a moment has one phase")
        yield PhaseInterval(where, times[0], times[-1], options.get(chosen, chosen))


def via_text(
    videos: Sequence[Prelabelled], phases: Sequence[str], links: Mapping[str, str], created_milliseconds: int
) -> str:
    """A project of all `videos`: a row of the timeline for each phase, and where to look as a second attribute.

    `links`: the place of each video from the page of VIA, which belongs into the folder of the project.
    """
    import json

    numbers = {video.name: str(number) for number, video in enumerate(videos, 1)}
    options = {name: str(index) for index, name in enumerate(phases)}
    metadata = {}
    for video in videos:
        for index, segment in enumerate(video.segments):
            values = {"1": options[segment.phase]} | ({"2": segment.doubt} if segment.doubt else {})
            times = [round(seconds, 3) for seconds in video.seconds(segment)]
            view = numbers[video.name]
            metadata[f"{view}_{index:08d}"] = {"vid": view, "flg": 0, "z": times, "xy": [], "av": values}
    project = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "phases",
            "data_format_version": "3.1.1",
            "creator": "",
            "created": created_milliseconds,
            "vid_list": list(numbers.values()),
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": False,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": str(len(phases)),
            },
        },
        "attribute": {
            "1": _attribute(NAME, SELECT, {number: name for name, number in options.items()}),
            "2": _attribute(DOUBT_NAME, TEXT, {}),
        },
        "file": {
            number: {"fid": number, "fname": video.file_name, "type": VIDEO, "loc": BY_PATH, "src": links[video.name]}
            for video, number in zip(videos, numbers.values(), strict=True)
        },
        "metadata": metadata,
        "view": {number: {"fid_list": [number]} for number in numbers.values()},
    }
    return json.dumps(project, ensure_ascii=False) + "\n"


def _attribute(name: str, kind: int, options: Mapping[str, str]) -> dict[str, Any]:
    return {
        "aname": name,
        "anchor_id": IN_TIME,
        "type": kind,
        "desc": "",
        "options": dict(options),
        "default_option_id": "",
    }

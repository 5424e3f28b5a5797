"""Cholec80 (Twinanda et al., 80 cholecystectomies): a phase for every frame at 25 a second, by name; tools of every 25th."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.base.runtime import UserError
from common.dataset.importing.label_tables import numbered_labels, table_rows, whole_number
from common.dataset.importing.release import Entry, Phases, Reading, Release
from common.dataset.importing.task_release import TaskContent, TaskRelease, presence_content, read_present

PHASES = Phases(
    (
        "Preparation",
        "CalotTriangleDissection",
        "ClippingCutting",
        "GallbladderDissection",
        "GallbladderPackaging",
        "CleaningCoagulation",
        "GallbladderRetraction",
    )
)

TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")


def _read(reading: Reading) -> Iterator[Entry]:
    """`phase_annotations/video01-phase.txt`: tab, `Frame Phase`, from 0. Tool files and `-timestamp.txt` are passed over."""
    labels = {
        path.stem.removesuffix("-phase"): path
        for path in reading.require("phase_annotations/*-phase.txt", "**/*-phase.txt")
    }
    media = {path.stem: path for path in reading.find_media("videos/video*", "*/videos/video*", "video*")}
    for name, path, video in reading.pair(labels, media, "phase_annotations/<video>-phase.txt"):
        read = partial(numbered_labels, path, reading.phases.named, columns=("Frame", "Phase"))
        yield Entry(name, read, path, video)


def _read_tools(reading: Reading) -> TaskContent:
    """`tool_annotations/video01-tool.txt`: tab, `Frame` (0, 25, ...) and a column of 0 and 1 for each tool."""
    files = {
        path.stem.removesuffix("-tool"): path
        for path in reading.require("tool_annotations/*-tool.txt", "**/*-tool.txt")
    }
    media = {path.stem: path for path in reading.find_media("videos/video*", "*/videos/video*", "video*")}
    labels, videos = {}, {}
    for name, path, video in reading.pair(files, media, "tool_annotations/<video>-tool.txt"):
        with reading.naming_problems():
            if reading.with_videos and video is None:
                raise UserError(f"{path}: labels of {name}, but no video; --videos DIR names another folder")
            labels[name] = _tools_of_frames(path)
            videos[name] = video
    content = presence_content(TOOLS, labels)
    content.links = {f"videos/{name}{video.suffix}": video for name, video in videos.items() if video}
    return content


def _tools_of_frames(path: Path) -> dict[int, list[int]]:
    """Which tools each labelled frame has. Raises `UserError` naming file and line."""
    frames: dict[int, list[int]] = {}
    for where, row in table_rows(path, ("Frame", *TOOLS), "\t"):
        frame = whole_number(row, "Frame", where)
        if frame in frames:
            raise UserError(f"{where}: frame {frame} again; expected each frame once")
        frames[frame] = [read_present(row[tool], tool, where) for tool in TOOLS]
    if not frames:
        raise UserError(f"{path}: no label in it; expected a row for every 25th frame")
    return frames


RELEASES = (
    Release(
        title="Cholec80",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="CAMMA, Strasbourg (Twinanda et al., IEEE TMI 2017)",
        ask="form on camma.unistra.fr",
        num_videos=80,
        hours=51,
        tried="miniature; form by code of others",
        kept_every=25,
        notes=("ids are a convention: the files hold names, and some code exchanges 4 and 6",),
    ),
)

TASK_RELEASES = (
    TaskRelease(
        title="Cholec80-tools",
        task="multilabel",
        read=_read_tools,
        licence="CC BY-NC-SA 4.0",
        source="CAMMA, Strasbourg (Twinanda et al., IEEE TMI 2017)",
        ask="form on camma.unistra.fr",
        num_videos=80,
        tried="miniature; form by code of others",
        features_of="Cholec80",
        aliases=("Cholec80 tools",),
        public_set="cholec80",
        notes=("a row every 25th frame: features of one frame a second serve them",),
    ),
)

"""The formats of annotation files: which one a file has, by its content, its reader, and what is written in it."""

import datetime
import gzip
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from common.base import paths
from common.base.entries import visible
from common.base.files import parse_json, read_text
from common.base.runtime import UserError
from common.dataset.annotations.annotated import Annotated, KnownPhases, media_name
from common.dataset.annotations.formats.boris import boris_text, is_gzip, read_boris
from common.dataset.annotations.formats.boris_tables import is_boris_table, read_boris_table
from common.dataset.annotations.formats.elan import elan_colours_text, elan_text, read_elan
from common.dataset.annotations.formats.interval_table import (
    interval_table_text,
    is_interval_table,
    read_interval_table,
)
from common.dataset.annotations.formats.label_studio import (
    configuration_text,
    label_studio_text,
    read_label_studio,
    uploaded_spellings,
)
from common.dataset.annotations.formats.via import read_via, via_text
from common.dataset.annotations.formats.webvtt import read_webvtt, webvtt_text
from common.dataset.annotations.prelabelled import Prelabelled

FORMATS = ("elan", "boris", "via", "labelstudio", "csv", "vtt")
SUFFIXES = {
    ".eaf": "elan", ".boris": "boris", ".vtt": "vtt", ".csv": "csv", ".tsv": "csv", ".json": None, ".xml": None,
    ".txt": None, ".gz": None,
}  # fmt: skip
# what is written: a file a video, or one for all
ELAN_PREFERENCES = ".pfsx"
FILE_SUFFIXES = {"elan": ".eaf", "csv": ".csv", "vtt": ".vtt"}
PROJECTS = {"boris": "phases.boris", "via": "phases_via.json", "labelstudio": "phases_labelstudio.json"}
LABEL_STUDIO_CONFIGURATION = "phases_labelstudio.xml"


def annotation_format(path: Path) -> str | None:
    """The format of a file by its content, else by its suffix; None for what is no annotation.

    Raises `UserError` for a file that is no text, and for damaged JSON.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return None
    if is_gzip(path):
        return "boris" if _begins_packed(path) else None
    text = read_text(path).lstrip()
    if text.startswith("<"):
        return "elan" if "<ANNOTATION_DOCUMENT" in text or suffix == ".eaf" else None
    if text.startswith("WEBVTT"):
        return "vtt"
    if text.startswith("{"):
        if re.search(r'"(?:behaviors_conf|observations)"\s*:', text):
            return "boris"
        if re.search(r'"attribute"\s*:', text) and re.search(r'"metadata"\s*:', text):
            return "via"
        if re.search(r'"_via_(?:settings|img_metadata)"\s*:', text):
            raise UserError(f"{path}: a project of VIA 2, which marks images and has no times; VIA 3 has, for videos")
        if re.search(r'"(?:annotations|predictions|task)"\s*:', text) and re.search(r'"result"\s*:', text):
            return "labelstudio"
    if re.match(r"\[\s*\{" if suffix == ".txt" else r"\[", text):
        return "labelstudio" if suffix in (".json", ".txt") else SUFFIXES[suffix]
    if suffix == ".json":  # half of a project is no other file
        parse_json(text, str(path), "copy it again, or move it away")
    if suffix in (".csv", ".tsv", ".txt") and is_boris_table(text):
        return "boris"
    if suffix == ".txt" and is_interval_table(text):
        return "csv"
    return SUFFIXES[suffix]


def _begins_packed(path: Path) -> bool:
    try:
        with gzip.open(path) as stream:
            return stream.read(1) in (b"{", b"\xef", b" ", b"\n")
    except (OSError, EOFError, gzip.zlib.error) as error:
        raise UserError(f"{path}: not readable as a packed file ({error}); copy it again") from error


def read_annotations(
    path: Path, known: KnownPhases, format_name: str, *, fps: float | None = None, predictions: bool = False
) -> Iterator[Annotated]:
    """What a file says of each video and annotator. Raises `UserError` for a file that is not of the format.

    `fps` and `predictions` are for Label Studio, see `read_label_studio`.
    """
    readers: dict[str, Callable[[], Iterator[Annotated]]] = {
        "elan": lambda: read_elan(path, known),
        "boris": lambda: _read_boris(path, known),
        "via": lambda: read_via(path, known),
        "labelstudio": lambda: read_label_studio(path, known, fps=fps, predictions=predictions),
        "csv": lambda: read_interval_table(path),
        "vtt": lambda: read_webvtt(path),
    }
    yield from readers[format_name]()


def _read_boris(path: Path, known: KnownPhases) -> Iterator[Annotated]:
    is_table = not is_gzip(path) and not read_text(path).lstrip().startswith("{")
    yield from (read_boris_table if is_table else read_boris)(path, known)


def spellings_of(medium: str, format_name: str) -> Sequence[str]:
    """Names of videos that a medium may mean, the likelier first: links may have `%20` for a blank, or mean it."""
    if format_name == "labelstudio":
        return uploaded_spellings(medium)
    return [media_name(medium), media_name(unquote(medium))]


def annotation_files(place: Path) -> list[Path]:
    """The file itself, or the files of a folder that may be annotations; not those that `common.prelabel` adds for itself.

    Raises `UserError` for nothing at all.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"{place}: no such file or folder")
    own = {paths.todo_list(place), paths.prelabel_record(place)}
    found = [path for path in visible(place) if path.is_file() and path not in own and path.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"{place}: no annotation files here; expected {', '.join(SUFFIXES)}")
    return found


def annotation_names(format_name: str, videos: Sequence[str]) -> list[str]:
    """The names of the files that `annotation_texts` makes for these videos."""
    if format_name in FILE_SUFFIXES:
        suffixes = [FILE_SUFFIXES[format_name], *([ELAN_PREFERENCES] if format_name == "elan" else [])]
        return [f"{video}{suffix}" for video in videos for suffix in suffixes]
    return [PROJECTS[format_name], *([LABEL_STUDIO_CONFIGURATION] if format_name == "labelstudio" else [])]


def annotation_texts(
    format_name: str,
    videos: Sequence[Prelabelled],
    phases: Sequence[str],
    colours: Sequence[str],
    places: Mapping[str, str],
    *,
    folder_name: str,
    model: str,
    now: datetime.datetime,
) -> dict[str, str]:
    """Files by name for a person to correct the segments of `videos`.

    `places`: the path of each video from the folder of the files; `folder_name` that of the videos, which Label Studio
    serves; `model` made the predictions.
    """
    links = {name: quote(place) for name, place in places.items()}
    if format_name in FILE_SUFFIXES:
        texts: dict[str, Callable[[Prelabelled], str]] = {
            "elan": lambda video: elan_text(video, phases, places[video.name], now.isoformat()),
            "csv": interval_table_text,
            "vtt": lambda video: webvtt_text(video, phases, colours),
        }
        files = {f"{video.name}{FILE_SUFFIXES[format_name]}": texts[format_name](video) for video in videos}
        if format_name == "elan":
            files |= {f"{video.name}{ELAN_PREFERENCES}": elan_colours_text(phases, colours) for video in videos}
        return files
    if format_name == "boris":
        date = now.replace(tzinfo=None).isoformat()
        return {PROJECTS["boris"]: boris_text(videos, phases, colours, places, date)}
    if format_name == "via":
        return {PROJECTS["via"]: via_text(videos, phases, links, int(1000 * now.timestamp()))}
    served = {video.name: f"/data/local-files/?d={quote(f'{folder_name}/{video.file_name}')}" for video in videos}
    return {
        PROJECTS["labelstudio"]: label_studio_text(videos, served, model),
        LABEL_STUDIO_CONFIGURATION: configuration_text(phases, colours),
    }

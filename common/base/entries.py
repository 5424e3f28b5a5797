"""Entries of a folder: which are files, videos or label files, of which video, and why another is left out.

A video is a file with a suffix of videos, or a folder of numbered images. It is called as its file or folder without
that suffix, in Unicode's composed form (NFC), whichever form the disk has: what is read from a list is composed too
(`nfc`), so that names meet. Hidden entries (a leading dot: `._clip.mp4` of macOS, `.DS_Store`) are nobody's files.
"""

import functools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.base.runtime import UserError, describe_os_error, listed, printable

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".ts"),
    # what camcorders, theatre recorders and broadcast equipment write: transport and program streams, MXF, DV
    *(".mts", ".m2ts", ".m2t", ".tp", ".trp", ".tod", ".mod", ".vob", ".vro", ".evo", ".mpe", ".m2p", ".mxf", ".gxf"),
    *(".dv", ".dif", ".asf", ".dvr-ms", ".wtv", ".dav"),
    # streams without a container
    *(".h261", ".h263", ".h264", ".264", ".26l", ".avc", ".h265", ".265", ".hevc", ".h266", ".266", ".vvc", ".obu"),
    *(".ivf", ".m1v", ".m2v", ".mp2v", ".mpv", ".mp4v", ".mjpeg", ".mjpg", ".y4m"),
    # phones, the web, archives
    *(".3gp", ".3gpp", ".3g2", ".flv", ".f4v", ".qt", ".mj2", ".mk3d", ".ogv", ".ogm", ".rm", ".rmvb", ".divx"),
    *(".xvid", ".nut"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS_IN_WORDS = (  # for whoever finds none
    f"files with {listed(VIDEO_SUFFIXES)}, or folders of numbered images ({', '.join(IMAGE_SUFFIXES)})"
)
LABEL_SUFFIX = ".txt"
CHALLENGE_HEADER = "### Frame level recognition: ###"  # line 1 of the one form of a label file
NO_VIDEO, NO_FRAMES, NO_LABELS = (
    "no suffix of videos",
    "folders, but not of numbered images",
    f"no {LABEL_SUFFIX} files",
)
NO_RIGHTS = "no right to look into it"
LEFT_OUT_BY_KIND = frozenset({NO_VIDEO, NO_FRAMES, NO_LABELS, NO_RIGHTS})  # not by name
FORBIDDEN_CHARACTERS = '/\\:*?"<>|'
LONGEST_NAME = 120  # of a folder: a path of them stays below what systems allow
FOLDER_NAME = re.compile(r"[\w.@+=-]+")
# Windows opens a device for these, with any suffix behind them
DEVICE_NAMES = frozenset({"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}) | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}


def nfc(name: str) -> str:
    """A name in Unicode's composed form: macOS stores é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def same_name(name: str) -> str:
    """The key under which two names are one: disks of macOS and Windows do not tell them apart."""
    return nfc(nfc(name).casefold())


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Entries of `folder` that match `pattern` (see `Path.glob`), sorted; none hidden, nor below a hidden folder."""
    depth = len(folder.parts)
    return sorted(path for path in folder.glob(pattern) if not any(map(_is_hidden, path.parts[depth:])))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def on_disk(path: Path) -> Path:
    """`path` as its folder spells it, where that differs in how an accent is composed; `path` itself where it is new."""
    if path.name.isascii() or os.path.lexists(path):
        return path
    wanted = nfc(path.name)
    return next((entry for entry in visible(path.parent) if nfc(entry.name) == wanted), path)


def video_name_of(path: Path) -> str:
    """The name of a video by its file, or by its folder of images: without suffix, composed."""
    is_named_like_a_file = path.suffix.lower() in VIDEO_SUFFIXES or not os.path.isdir(path)
    return nfc(path.stem if is_named_like_a_file else path.name)


def video_named(text: str) -> str:
    """The name of a video as a list has it: the last part of a path, without a suffix of labels or videos, composed."""
    name = re.split(r"[/\\\\]", text.strip())[-1]
    stem, suffix = os.path.splitext(name)
    return nfc(stem if suffix.lower() in (LABEL_SUFFIX, *VIDEO_SUFFIXES) else name)


@functools.cache  # a command lists a folder many times
def reason_against(name: str) -> str | None:
    """Why a video may not have this name: some system cannot store it, or a list cannot hold it. None: it may."""
    bad = next((char for char in name if char in FORBIDDEN_CHARACTERS), None)
    if any("\ud800" <= char <= "\udfff" for char in name):  # how Python holds bytes that are no text
        return "the name is no valid text; rename it"
    # line and paragraph separators (Zl, Zp) end a line of a list as control characters do
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name):
        return "a control character in the name; rename it"
    if bad:
        return f"a {bad} in the name; rename it"
    if not name or _is_hidden(name) or ".." in name:
        return "a leading dot or two dots in a row in the name; rename it"
    if name[0].isspace():  # which every list of videos and every table would lose
        return "a blank at the beginning of the name; rename it"
    if name[-1] == "." or name[-1].isspace():
        return "a dot or a blank at the end of the name; rename it"
    if name.partition(".")[0].rstrip().upper() in DEVICE_NAMES:
        return "the name of a device on Windows; rename it"
    return None


def reason_against_folder(name: str) -> str | None:
    """Why a run, a variant, a model or a data set may not have this name, which folders take; None: it may."""
    if len(name) > LONGEST_NAME:
        return f"expected at most {LONGEST_NAME} characters"
    if not FOLDER_NAME.fullmatch(name):
        return "expected letters, digits and . _ - @ + = only"
    return reason_against(name)


@dataclass(frozen=True)
class Listing:
    """Files of a folder by video, sorted, and the names of what is left out by reason; `noun` says what each is.

    Several files of one video are a mistake, which `one_each` refuses and an audit reports.
    """

    folder: Path
    noun: str
    files: dict[str, list[Path]]
    left_out: dict[str, list[str]]

    @property
    def first(self) -> dict[str, Path]:
        """The first file of each video."""
        return {name: paths[0] for name, paths in self.files.items()}

    def one_each(self) -> dict[str, Path]:
        """The file of each video; what is left out is named in a warning, once.

        Raises `UserError` for two files of one video.
        """
        for name, paths in self.files.items():
            if len(paths) > 1:
                first, second = (printable(str(path.relative_to(self.folder))) for path in paths[:2])
                raise UserError(
                    f"two {self.noun}s are called {name!r}: {first} and {second} in {self.folder}; rename one or move it "
                    "away (capitals and the encoding of accents do not tell names apart on every disk)"
                )
        if self.left_out:
            what = "; ".join(f"{listed(names)} ({reason})" for reason, names in self.left_out.items())
            warn_once(f"{self.folder}: {sum(map(len, self.left_out.values()))} left out: {what}")
        return self.first


@functools.cache
def warn_once(message: str) -> None:
    """A command lists a folder many times: its message comes again only when the folder has changed."""
    log.warning("%s", message)


def list_videos(folder: Path, *, below: bool = False) -> Listing:
    """Videos in `folder`, with `below` also in folders below it, which are part of the name then (`2019/case_12`).

    Nothing is opened: a link to nothing or a pipe with a suffix of videos is listed, and named by who reads it.
    """

    def reason(path: Path) -> str | None:
        if os.path.isdir(path):
            if is_frame_folder(path):
                return None
            return NO_FRAMES if os.access(path, os.R_OK | os.X_OK) else NO_RIGHTS
        return None if path.suffix.lower() in VIDEO_SUFFIXES else NO_VIDEO

    entries = _files_below(folder) if below else _entries(folder)
    return _listing(folder, "video", ((path, video_name_of(path), reason(path)) for path in entries))


def list_labels(folder: Path) -> Listing:
    """Label files (`<video>.txt`) directly in `folder`."""

    def reason(path: Path) -> str | None:
        return NO_LABELS if path.suffix.lower() != LABEL_SUFFIX or os.path.isdir(path) else None

    return _listing(folder, "label file", ((path, nfc(path.stem), reason(path)) for path in _entries(folder)))


def _entries(folder: Path) -> list[Path]:
    """Entries that are not hidden, sorted; none of a folder that is not there."""
    if not folder.is_dir():
        return []
    # by name: to compare whole paths takes most of the time where there are thousands
    return sorted((path for path in folder.iterdir() if not _is_hidden(path.name)), key=lambda path: path.name)


def _files_below(folder: Path) -> Iterator[Path]:
    """Files and folders of images at any depth; links to folders are not followed, since they can lead round."""
    for path in _entries(folder):
        is_inner = os.path.isdir(path) and not path.is_symlink() and os.access(path, os.R_OK | os.X_OK)
        if is_inner and not is_frame_folder(path):
            yield from _files_below(path)
        else:
            yield path


def _listing(folder: Path, noun: str, entries: Iterable[tuple[Path, str, str | None]]) -> Listing:
    """Sort `(path, name of its video, reason against it)` into files by video and what is left out."""
    named: list[tuple[str, Path]] = []
    left_out: dict[str, list[str]] = {}
    depth = len(folder.parts)
    for path, name, reason in entries:
        if reason := reason or reason_against(name):
            left_out.setdefault(reason, []).append(printable(path.relative_to(folder).as_posix()))
        else:
            named.append((nfc("/".join((*path.parent.parts[depth:], name))), path))
    files: dict[str, list[Path]] = {}
    first_of: dict[str, str] = {}
    for name, path in sorted(named):
        files.setdefault(first_of.setdefault(same_name(name), name), []).append(path)
    return Listing(folder, noun, files, dict(sorted(left_out.items())))


def is_readable_file(path: Path) -> bool:
    """Whether a path is a file that may be read; never raises, unlike `Path.is_file` in a folder without rights."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def is_frame_folder(path: Path) -> bool:
    """Whether a path is a folder of numbered images, which is read as a video."""
    try:
        with os.scandir(path) as entries:
            return any(_frame_number(Path(entry.name)) is not None for entry in entries if _is_image(entry.name))
    except OSError:  # a file, or nothing, or not to be read: whoever opens it says so
        return False


def frame_files(folder: Path) -> list[Path]:
    """Images of a folder in the order of their numbers, which end the name: `7.jpg`, `frame_000007.png`.

    Raises `UserError` for a folder without images, an image without a number and two images of one number.
    """
    try:
        images = [path for path in _entries(folder) if _is_image(path.name)]
    except OSError as error:
        raise UserError(f"{folder}: the images cannot be listed: {describe_os_error(error)}") from error
    numbered: dict[int, Path] = {}
    for path in images:
        number = _frame_number(path)
        if number is None:
            raise UserError(
                f"{folder}: expected images whose names end with their number (000001{path.suffix}), found "
                f"{printable(path.name)}; number it, or move it away"
            )
        if number in numbered:
            raise UserError(
                f"{folder}: expected one image a number, found {printable(numbered[number].name)} and "
                f"{printable(path.name)}; move one of them away"
            )
        numbered[number] = path
    if not numbered:
        raise UserError(f"{folder}: expected numbered images ({', '.join(IMAGE_SUFFIXES)}), found none")
    return [numbered[number] for number in sorted(numbered)]


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _frame_number(image: Path) -> int | None:
    """The number at the end of an image's name; None where there is none."""
    digits = re.search(r"(\d+)\)?$", image.stem)  # Windows numbers files as `frame (7).jpg`
    return int(digits[1]) if digits else None

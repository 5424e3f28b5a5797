"""What is imported of a release: its videos with labels under the names of `mapping.txt`, and the lists cut to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.base.entries import nfc, reason_against, same_name
from common.base.runtime import UserError, listed, naming, progress, shown
from common.dataset.importing.lists import SplitList, cut_list
from common.dataset.importing.release import Entry, Labels, Reading, mapping_name
from common.dataset.phases import UNLABELLED

MOST_MISSING = 0.25  # of a video's images, without its being a problem


@dataclass(frozen=True, eq=False)
class ImportedVideo:
    """A video of the data set: its labels, names of `mapping.txt` or `unlabelled`, and what is linked."""

    entry: Entry
    labels: Sequence[str]
    images: Sequence[Path] | None = None
    """The images to link, one a label, where `media` is not linked as a whole."""


@dataclass(frozen=True)
class Imported:
    """A release that was read: videos by name, phases in the order of their ids, rates, lists."""

    reading: Reading
    videos: dict[str, ImportedVideo]
    label_every: int | None
    lists: list[SplitList] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The lines of `mapping.txt`."""
        return tuple(map(mapping_name, self.reading.phases.names))

    @property
    def has_unlabelled(self) -> bool:
        return any(UNLABELLED in video.labels for video in self.videos.values())


def read_imported(reading: Reading, *, native_rate: bool = False) -> Imported:
    """Read all entries of a release; one with something wrong is left out and becomes a problem of the reading.

    Raises `UserError` where nothing is left.
    """
    release = reading.release
    every = None if native_rate else release.kept_every
    mapped = {phase: mapping_name(phase) for phase in reading.phases.names}
    videos: dict[str, ImportedVideo] = {}
    seen: dict[str, Path] = {}
    for entry in progress(release.read(reading), description=release.title, unit="video"):
        if not mapped or set(mapped) != set(reading.phases.names):  # the reader has found them in the release's files
            mapped = {phase: mapping_name(phase) for phase in reading.phases.names}
        try:
            name = nfc(entry.name)
            if reason := reason_against(name):
                raise UserError(f"{entry.source}: a video {shown(name)}, which no file may be called: {reason}")
            if same_name(name) in seen:
                raise UserError(f"{entry.source}: labels of {name}, as has {seen[same_name(name)]}; keep one of them")
            seen[same_name(name)] = entry.source
            # the videos of steps are those of the phases; images that are here say which labels the phases were left with
            is_wanted = reading.with_videos and reading.level == "phases"
            if is_wanted and entry.media is None and entry.images is None:
                raise UserError(f"{entry.source}: labels of {name}, but no video; --videos DIR names another folder")
            labels, images = _with_images(entry, entry.labels(), reading)
        except (UserError, OSError) as error:
            reading.problems.append(naming(entry.source, error) if isinstance(error, OSError) else str(error))
            continue
        kept = [UNLABELLED if phase is None else mapped[phase] for phase in labels[:: every or 1]]
        videos[name] = ImportedVideo(replace(entry, name=name), kept, images)
    if not videos:
        raise UserError("\n  ".join([f"{reading.folder}: no video could be imported:", *reading.problems]))
    return Imported(reading, dict(sorted(videos.items())), every or release.label_every)


def _with_images(entry: Entry, labels: Labels, reading: Reading) -> tuple[Labels, Sequence[Path] | None]:
    """Labels and images that are both there: an image that is missing takes its label with it, and is named.

    Single ones lack in releases themselves; many are a problem of this copy.
    """
    if not labels:
        raise UserError(f"{entry.source}: no label of {entry.name}; expected one at least")
    if entry.images is None or not reading.with_videos:
        return labels, None
    if len(entry.images) != len(labels):
        raise UserError(f"{entry.source}: {len(labels)} labels of {entry.name}, but {len(entry.images)} images named")
    is_there = [path.is_file() for path in entry.images]
    missing = [path.name for path, there in zip(entry.images, is_there, strict=True) if not there]
    if len(missing) == len(labels):
        raise UserError(
            f"{entry.source}: none of the {len(labels)} images of {entry.name} is there ({missing[0]}, ...)"
        )
    if missing:
        said = reading.problems if len(missing) > MOST_MISSING * len(labels) else reading.notes
        said.append(f"{entry.source}: {entry.name} without {listed(missing)}; their labels are left out")
    kept = [(label, path) for label, path, there in zip(labels, entry.images, is_there, strict=True) if there]
    return [label for label, _ in kept], [path for _, path in kept]


def cut_lists(lists: Iterable[SplitList], videos: Mapping[str, ImportedVideo], reading: Reading) -> list[SplitList]:
    """Lists with the videos that were imported (`lists.cut_list`).

    A name that no video has may be that of a patient, and stands for all videos of theirs.
    """
    of_patients: dict[str, list[str]] = {}
    for name, video in videos.items():
        of_patients.setdefault(nfc(video.entry.patient or ""), []).append(name)

    def meant(name: str) -> list[str]:
        return [name] if name in videos else of_patients.get(name, [])

    return [cut for one in lists if (cut := cut_list(one, reading, meant)) is not None]

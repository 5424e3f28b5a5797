"""The data set that an importer writes: links to what the release has, labels, phases, description, lists, record.

What an earlier import wrote is written again; a file that somebody else made or changed stays, and is named.
"""

import csv
import filecmp
import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.entries import visible
from common.base.files import atomic_path, link_file, misfit, read_json, read_text, sha256_of_file, write_json
from common.base.runtime import UserError
from common.dataset.importing.imported import Imported, ImportedVideo
from common.dataset.importing.lists import SplitList
from common.dataset.importing.release import Reading
from common.dataset.phases import UNLABELLED
from common.dataset.split_lists import PARTS

RECORD_SHAPE = {"videos": dict, "written": {str: str}}
FEATURES = "I3D"  # the network whose features the MS-TCN authors published


def output_dataset(text: str) -> paths.Dataset:
    """The data set to write, which may be of an earlier import.

    Raises `UserError` where that would overwrite the drawn sample or write through a link.
    """
    root = paths.repository_root()
    dataset = paths.Dataset((root / "data" if len(Path(text).parts) == 1 else root) / text)
    if dataset.is_synthetic and not dataset.import_record.is_file():
        raise UserError(f"{dataset.root}: holds the synthetic sample set; choose another --output")
    for folder in (dataset.videos, dataset.ground_truth, dataset.ground_truth_val):
        if folder.is_symlink():  # links made in it would be made in the release
            raise UserError(f"{folder}: is itself a link; remove it and run this again, which makes a folder of links")
    return dataset


def link_in_place(target: Path, source: Path) -> None:
    """Make `target` a link to `source`; a link to elsewhere is replaced, and said so.

    An equal file counts as the copy of an earlier run on a system without links. Raises `UserError` for another file in the
    place of the link.
    """
    if os.path.realpath(target) == os.path.realpath(source):
        return
    if target.is_symlink():
        print(f"note: {target}: pointed to {os.readlink(target)}, now to {source}")
        target.unlink()
    if not target.exists():
        link_file(source, target)
    elif not _is_copy(source, target):
        raise UserError(f"{target}: a real file is in the way of the link to {source}; move it away")


def _is_copy(source: Path, target: Path) -> bool:
    if source.is_dir() and target.is_dir():
        return not filecmp.dircmp(source, target).left_only
    return source.is_file() and target.is_file() and filecmp.cmp(source, target, shallow=False)


def remove_stale_links(folder: Path, wanted: Collection[Path], release: Collection[Path]) -> Iterator[Path]:
    """Remove links in `folder` that are not wanted and lead into the release or nowhere; yield what else is not wanted."""
    for path in sorted(set(visible(folder)) - set(wanted)):
        source = Path(os.path.realpath(path))
        if path.is_symlink() and (not source.exists() or any(map(source.is_relative_to, release))):
            print(f"note: {path}: link removed, {source} is {'left out' if source.exists() else 'gone'}")
            path.unlink()
        elif remove_folder_of_links(path, release):
            print(f"note: {path}: links removed, its images are left out or gone")
        else:
            yield path


def remove_folder_of_links(folder: Path, release: Collection[Path]) -> bool:
    """Remove a folder that holds nothing but links into the release or to nowhere; whether there was one."""
    entries = list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    targets = [Path(os.path.realpath(path)) for path in entries if path.is_symlink()]
    ours = [target for target in targets if not target.exists() or any(map(target.is_relative_to, release))]
    if not entries or len(ours) != len(entries):
        return False
    for path in entries:
        path.unlink()
    folder.rmdir()
    return True


def write_imported(
    dataset: paths.Dataset, imported: Imported, *, official: str | None, features_of: str | None
) -> None:
    """Write a data set: links first, the record last. What is in the way becomes a problem of the reading.

    Raises `UserError` when the folder holds a data set with other phases.
    """
    former = former_import(dataset, dataset.mapping, _mapping_text(imported))
    texts = _texts(dataset, imported, official, features_of)
    written = write_files_of_import(dataset, texts, former, imported.reading.problems)
    if features_of is None:
        _link_videos(dataset, imported)
    videos = {
        name: {"frames": len(video.labels), "labelled_frames": len(video.labels) - video.labels.count(UNLABELLED)}
        for name, video in imported.videos.items()
    }
    release = imported.reading.release
    origin = {"release": release.title, "level": imported.reading.level, "licence": release.licence}
    write_json(dataset.import_record, {"format": 1, **origin, "videos": videos, "written": written})


def former_import(dataset: paths.Dataset, central: Path, text: str) -> dict[str, str]:
    """What an earlier import has written here, each file's hash.

    Raises `UserError` where no import has, and yet the `central` file is there with another text: another data set.
    """
    record: dict[str, Any] = {}
    if dataset.import_record.is_file():
        record = read_json(dataset.import_record, "remove it, and what the import has written")
        if wrong := misfit(record, RECORD_SHAPE):
            raise UserError(
                f"{dataset.import_record}: not the record of an import by this command ({wrong}); choose another --output"
            )
    elif central.is_file() and read_text(central) != text:
        raise UserError(f"{central}: another data set is here already; choose another --output or remove it")
    return record.get("written", {})


def write_files_of_import(
    dataset: paths.Dataset,
    contents: Mapping[Path, str | Callable[[], bytes]],
    former: Mapping[str, str],
    problems: list[str],
) -> dict[str, str]:
    """Write files, each text or what returns its bytes, and remove what an earlier import wrote besides; returns their hashes.

    A file that no import wrote stays, and is a problem; so is one whose bytes cannot be had.
    """
    written: dict[str, str] = {}
    for path, content in contents.items():
        relative = path.relative_to(dataset.root).as_posix()
        try:
            data = content.encode() if isinstance(content, str) else content()
        except UserError as error:
            problems.append(str(error))
            continue
        digest = hashlib.sha256(data).hexdigest()
        there = sha256_of_file(path) if path.is_file() else None
        if there not in (None, digest, former.get(relative)):
            problems.append(
                f"{path}: differs from what the release gives, and no import wrote it; move it away and run this again"
            )
            continue
        if there != digest:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        written[relative] = digest
    for relative in sorted(former.keys() - {path.relative_to(dataset.root).as_posix() for path in contents}):
        path = dataset.root / relative
        if path.is_file() and sha256_of_file(path) == former[relative]:
            print(f"note: {path}: written by an earlier import, removed")
            path.unlink()
    return written


def _mapping_text(imported: Imported) -> str:
    return "".join(f"{index} {name}\n" for index, name in enumerate(imported.names))


def _texts(
    dataset: paths.Dataset, imported: Imported, official: str | None, features_of: str | None
) -> dict[Path, str]:
    """Every text file of the data set with its content."""
    texts = {dataset.mapping: _mapping_text(imported)}
    texts |= synthetic_mark(dataset, imported.reading.folder)
    texts[dataset.description] = yaml_text(_description(imported, features_of))
    for name, video in imported.videos.items():
        folder = dataset.ground_truth_val if video.entry.is_validation else dataset.ground_truth
        texts[folder / f"{name}.txt"] = "\n".join([*video.labels, ""])
    for path, column in ((dataset.patients, "patient"), (dataset.groups, "group")):
        values = {name: getattr(video.entry, column) for name, video in imported.videos.items()}
        if any(values.values()):
            rows = [(name, value) for name, value in values.items() if value]
            content = io.StringIO()
            csv.writer(content, lineterminator="\n").writerows([("video", column), *rows])
            texts[path] = content.getvalue()
    texts |= texts_of_lists(dataset, imported.lists, official)
    return texts


def synthetic_mark(dataset: paths.Dataset, release: Path) -> dict[Path, str]:
    """Of a made release (data/make_releases.py) its record of that: what is made of it is synthetic too."""
    drawn = paths.Dataset(release).sample_record
    if not drawn.is_file():
        return {}
    read_json(drawn, "make the release again")
    return {dataset.sample_record: read_text(drawn)}


def texts_of_lists(dataset: paths.Dataset, lists: Sequence[SplitList], official: str | None) -> dict[Path, str]:
    """Every bundle of lists, and the record of where they are from."""
    texts = {
        dataset.bundle(part, number, one.name): "".join(f"{video}.txt\n" for video in split[part])
        for one in lists
        for number, split in enumerate(one.splits or [], 1)
        for part in PARTS
        if split.get(part)
    }
    if lists:
        standings = {one.name: {"standing": one.standing, "source": one.source} for one in lists}
        there = official if official in standings else None
        texts[dataset.split_lists] = yaml_text({"official": there, "lists": standings})
    return texts


def _description(imported: Imported, features_of: str | None) -> dict[str, Any]:
    """The keys of `dataset.yaml` that this release needs."""
    release, phases = imported.reading.release, imported.reading.phases.names
    of_level = imported.reading.level == "phases"
    renamed = {name: phase for name, phase in zip(imported.names, phases, strict=True) if name != phase}
    by_phase = dict(zip(phases, imported.names, strict=True))
    ignored = [by_phase[phase] for phase in release.ignored if of_level and phase in by_phase]
    keys = {
        "label_fps": release.label_fps,
        "label_every": imported.label_every,
        "frames_fps": release.frames_fps if features_of is None else None,
        "feature_fps": release.feature_fps,
        "ignored": [*ignored, *([UNLABELLED] if imported.has_unlabelled else [])],
        "release_names": renamed,
        "features_of": features_of,
        "ids": {name: video.entry.public_id or release.public_id(name) for name, video in imported.videos.items()},
        "source": release.source,
        "licence": release.licence,
    }
    background = by_phase.get(release.background)
    return {"background": background} | {key: value for key, value in keys.items() if value not in (None, [], {})}


def yaml_text(content: Mapping[str, Any]) -> str:
    """A mapping as YAML, its keys in the order that they have."""
    import yaml

    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)


def _link_videos(dataset: paths.Dataset, imported: Imported) -> None:
    """Link every video, folder of images or file of features; what is in the way is a problem."""
    reading = imported.reading
    wanted = {
        target: source
        for name, video in imported.videos.items()
        for target, source in _links(dataset, name, video, reading.release.feature_fps)
    }
    place_links(reading, wanted, {dataset.videos})


def place_links(reading: Reading, wanted: Mapping[Path, Path], places: Collection[Path]) -> None:
    """Make every link, and remove those in their folders and in `places` that lead into the release and are wanted no more."""
    release = {folder.resolve() for folder in (reading.folder, reading.videos_folder) if folder}
    folders = {target.parent for target in wanted} | set(places)
    keep = wanted.keys() | folders
    # an earlier import may have linked a folder of images as a whole, through which nothing must be written
    for folder in sorted(filter(Path.is_symlink, folders - set(places))):
        print(f"note: {folder}: pointed to {os.readlink(folder)}, now a folder of links")
        folder.unlink()
    for target, source in wanted.items():
        if source.is_dir():  # or image by image
            remove_folder_of_links(target, release)
    for folder in sorted(folders):
        for path in remove_stale_links(folder, keep, release):
            print(f"note: {path}: not of this release, kept")
    for target, source in wanted.items():
        with reading.naming_problems():
            link_in_place(target, source)


def _links(
    dataset: paths.Dataset, name: str, video: ImportedVideo, feature_fps: float | None
) -> Iterator[tuple[Path, Path]]:
    """Targets and sources of the links of one video."""
    if video.images is not None:
        # by number, whatever else the name holds: images of several videos may lie in one folder
        yield from ((dataset.videos / name / path.name, path) for path in video.images)
    elif video.entry.media is None:
        return
    elif feature_fps is not None:
        yield dataset.features(FEATURES, "release") / f"{name}.npy", video.entry.media
    elif video.entry.media.is_dir():
        yield dataset.videos / name, video.entry.media
    else:
        yield dataset.videos / f"{name}{video.entry.media.suffix}", video.entry.media

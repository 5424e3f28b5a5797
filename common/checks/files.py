"""Files of a data set: videos without labels, labels without videos, unusable names, copies under other names."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import LEFT_OUT_BY_KIND, is_frame_folder, is_readable_file, list_labels, list_videos
from common.base.files import cached_fingerprint
from common.base.runtime import UserError, counted, listed, progress
from common.checks.findings import Finding
from common.dataset.description import features_owner, read_description

KIND, COPIES_KIND = "files", "copies"


def owner_of(dataset: paths.Dataset) -> paths.Dataset:
    """The data set whose videos and features this one uses; itself where `dataset.yaml` cannot be used."""
    try:
        return features_owner(dataset)
    except UserError:  # `description_findings` says so
        return dataset


def video_files(dataset: paths.Dataset) -> dict[Path, str]:
    """Every video with its name, also two of one name, which `paths.find_videos` refuses."""
    return {path: name for name, same in list_videos(owner_of(dataset).videos).files.items() for path in same}


def description_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """What is wrong with `dataset.yaml`."""
    try:
        read_description(dataset)
    except UserError as error:
        yield Finding("error", KIND, str(error), "commands stop at this; data/README.md has the keys")


def listing_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """Names used twice, names that not every system can store, and what else is left out of the data set's folders."""
    for listing in (
        list_videos(owner_of(dataset).videos),
        list_labels(dataset.ground_truth),
        list_labels(dataset.ground_truth_val),
    ):
        for video, same in listing.files.items():
            if len(same) > 1:
                names = ", ".join(path.name for path in same)
                message = f"{video}: {counted(len(same), listing.noun)} have this name: {names} in {listing.folder}"
                advice = "commands refuse this: keep the one that belongs to it, rename or move away the others"
                yield Finding("error", KIND, message, advice, video=video)
        for reason, names in listing.left_out.items():
            message = f"{listing.folder}: left out: {listed(names)} ({reason})"
            if reason in LEFT_OUT_BY_KIND:
                advice = "nothing to do, unless one of them is meant to be a video or a label file"
                yield Finding("note", KIND, message, advice)
            else:
                yield Finding("warning", KIND, message, "rename it, its video and its labels alike")


def file_findings(
    dataset: paths.Dataset, videos: Mapping[str, Path], labelled: Mapping[str, Path]
) -> Iterator[Finding]:
    """Videos without labels and labels without videos; a data set of features alone may have no videos at all."""
    for video, path in videos.items():
        if not (is_readable_file(path) or is_frame_folder(path)):
            message = f"{video}: {path} is a link to nothing, no file, or not to be read"
            yield Finding(
                "error",
                KIND,
                message,
                "put the video back where the link leads, or get the right to read it",
                video=video,
            )
        if video not in labelled:
            message = f"{video}: {path} has no labels"
            advice = f"add its labels to {dataset.ground_truth} to train or score with it"
            yield Finding("note", KIND, message, advice, video=video)
    for video in without_video(labelled, videos):
        message = f"{video}: {labelled[video]} has no video in {dataset.videos}"
        yield Finding("error", KIND, message, "add the video or remove the labels", video=video)


def without_video(labelled: Iterable[str], videos: Collection[str]) -> list[str]:
    """Those of `labelled` that have no video; none where a data set has no videos at all, only features."""
    return [video for video in labelled if videos and video not in videos]


def copy_findings(dataset: paths.Dataset, labels: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Names in both parts, videos with the same content, and identical labels `(T,)` of two videos."""
    folders = {"groundTruth": dataset.ground_truth, "groundTruth_val": dataset.ground_truth_val}
    parts = {part: list_labels(folder).first for part, folder in folders.items()}
    for video in sorted(parts["groundTruth"].keys() & parts["groundTruth_val"].keys()):
        message = f"{video}: is in groundTruth/ and in groundTruth_val/, so --split val scores what it trained on"
        yield Finding("error", COPIES_KIND, message, "remove one of the two label files", video=video)
    part_of = {video: part for part, files in parts.items() for video in files}
    name_of = video_files(dataset)
    same_videos = _same_content([path for path in name_of if is_readable_file(path)])
    for group in same_videos:
        names = [f"{path.name} ({part_of.get(name_of[path], 'unlabelled')})" for path in group]
        message = f"the same video under {len(group)} names: {listed(names)}"
        advice = "keep one and remove the others with their labels: a copy in another fold is a leak"
        yield Finding("error", COPIES_KIND, message, advice, video=name_of[group[0]])
    # a copied video explains that its labels are the same: these are not named again
    copied = {frozenset(name_of[path] for path in group) for group in same_videos}
    groups: dict[bytes, list[str]] = {}
    for video, ids in labels.items():
        groups.setdefault(ids.tobytes(), []).append(video)
    for names in groups.values():
        if len(names) > 1 and not any(set(names) <= known for known in copied):
            advice = "find out whose labels these are; two operations never agree in every frame"
            message = f"the same labels, frame by frame, for {len(names)} videos: {listed(names)}"
            yield Finding("error", COPIES_KIND, message, advice, video=names[0])


def _same_content(videos: Sequence[Path]) -> list[list[Path]]:
    """Groups of files with one content; only files that share their size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in videos:
        by_size.setdefault(path.stat().st_size, []).append(path)
    candidates = [path for group in by_size.values() if len(group) > 1 for path in group]
    by_content: dict[str, list[Path]] = {}
    for path in progress(candidates, description="fingerprints", unit="video"):
        by_content.setdefault(cached_fingerprint(path), []).append(path)
    return [group for group in by_content.values() if len(group) > 1]

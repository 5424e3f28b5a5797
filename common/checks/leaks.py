"""Videos that pretraining has seen and that are scored: named by content, under whatever name each set knows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.base import paths
from common.base.entries import is_readable_file, list_labels, nfc
from common.base.files import cached_fingerprint
from common.base.runtime import UserError, counted, listed, progress
from common.checks.files import video_files
from common.checks.findings import Finding
from common.checks.folds import checked_folds
from common.dataset import manifest as manifests
from common.dataset.description import read_description
from common.dataset.manifest import Manifest
from common.dataset.seen import PublishedLeak, published_leaks

KIND = "leaks"


@dataclass(frozen=True)
class Leak:
    """Scored videos that a stage of pretraining has seen; `where` is `test fold 2` or `the validation part`."""

    manifest: Manifest
    where: str
    videos: tuple[str, ...]

    def __str__(self) -> str:
        count = counted(len(self.videos), "video")
        return f"{self.manifest.title} saw {count} of {self.where}: {listed(list(self.videos))}"


def leaked_videos(dataset: paths.Dataset, manifest: Manifest) -> list[str]:
    """Labelled videos of a data set whose content is in a manifest, sorted.

    A video whose file is not on this machine is known by its name, if the manifest's corpus is this data set.
    """
    labelled = list_labels(dataset.ground_truth).first.keys() | list_labels(dataset.ground_truth_val).first.keys()
    there = {path: name for path, name in video_files(dataset).items() if name in labelled and is_readable_file(path)}
    # only files whose size is in the manifest can be in it: the others are not read
    sizes = {video.size_bytes for video in manifest.videos}
    seen = {video.fingerprint for video in manifest.videos}
    suspects = [path for path in there if path.stat().st_size in sizes]
    same = {
        there[path]
        for path in progress(suspects, description="fingerprints", unit="video")
        if cached_fingerprint(path) in seen
    }
    absent = labelled - set(there.values())
    names = {nfc(video.name) for video in manifest.videos if video.corpus.lower() == dataset.name.lower()}
    return sorted(same | (absent & names))


def leaks_of_record(dataset: paths.Dataset, record: Mapping[str, Any]) -> list[Leak]:
    """Videos that a run was scored on (`run.json`) and that pretraining of its features has seen.

    Raises `UserError` for a damaged or missing manifest.
    """
    identity = record["features"]["identity"] or {}
    split, scored = record["split"], {nfc(video) for video in record["videos"]}
    where = "the validation part" if split == "val" else f"test fold {split}"
    leaks = []
    for manifest in manifests.manifests_of_weights(identity.get("weights")):
        videos = tuple(video for video in leaked_videos(dataset, manifest) if video in scored)
        leaks += [Leak(manifest, where, videos)] if videos else []
    return leaks


def published_leaks_of_record(dataset: paths.Dataset, record: Mapping[str, Any]) -> list[PublishedLeak]:
    """What the published weights of a run have seen of the videos that it was scored on.

    Nothing where the data set has no `ids`, or where the run's weights are others than its model folder knows.
    """
    from common.encoders.config import read_encoder_config

    source = ((record["features"]["identity"] or {}).get("weights") or {}).get("source")
    if not source or not (ids := read_description(dataset).ids):
        return []
    try:
        config = read_encoder_config(paths.model(record["config"]["model"]).config).with_weights(source)
    except UserError:  # a model folder that is not on this machine
        return []
    if config.weights != source:
        return []
    return published_leaks(ids, [nfc(video) for video in record["videos"]], config.seen, config.seen_source)


def leaks_of_dataset(dataset: paths.Dataset, manifest: Manifest, folds: list[list[str]]) -> Iterator[Leak]:
    """Videos that one stage has seen of each test fold, of the validation part, and of labelled videos in neither."""
    leaked = leaked_videos(dataset, manifest)
    validation = list_labels(dataset.ground_truth_val).first.keys() - list_labels(dataset.ground_truth).first.keys()
    parts = {f"test fold {number}": set(fold) for number, fold in enumerate(folds, 1)}
    parts["the validation part"] = set(validation)
    parts["the labelled videos"] = set(leaked).difference(*parts.values())
    for where, members in parts.items():
        videos = tuple(video for video in leaked if video in members)
        if videos:
            yield Leak(manifest, where, videos)


def leak_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """Labelled videos that pretraining on this machine has seen, and weights that do not say what they have seen."""
    for folder in manifests.without_manifest():
        message = f"{folder}: weights without a {paths.MANIFEST}"
        yield Finding("warning", KIND, message, "which videos they were trained on is unknown: make them again")
    there = manifests.all_manifests()
    try:
        folds = checked_folds(dataset) if there else []
    except UserError:  # `fold_findings` says so
        folds = []
    for path in there:
        try:
            for leak in leaks_of_dataset(dataset, manifests.read_manifest(path), folds):
                advice = "pretrain without these videos, or do not report this fold with weights of that pretraining"
                yield Finding("error", KIND, str(leak), advice, video=leak.videos[0])
        except (UserError, OSError) as error:
            advice = "without it the videos that these weights were trained on are unknown"
            yield Finding("error", KIND, str(error), advice)

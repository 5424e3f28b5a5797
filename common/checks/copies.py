"""Copies: one video under two names, one name in both parts, labels of one video used for another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.paths import label_paths
from common.base.runtime import progress
from common.base.wording import listed
from common.checks.findings import Finding
from common.dataset.manifest import cached_fingerprint

KIND = "copies"


def copy_findings(
    dataset: paths.Dataset, videos: Sequence[Path], labels: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Videos with the same content, names in both parts, and identical labels of two videos."""
    parts = {"groundTruth": label_paths(dataset.ground_truth), "groundTruth_val": label_paths(dataset.ground_truth_val)}
    for video in sorted(parts["groundTruth"].keys() & parts["groundTruth_val"].keys()):
        message = f"{video}: is in groundTruth/ and in groundTruth_val/, so --split val scores what it trained on"
        yield Finding("error", KIND, message, "remove one of the two label files", video=video)
    part_of = {video: part for part, files in parts.items() for video in files}
    same_videos = _same_content(videos)
    for group in same_videos:
        names = [f"{path.name} ({part_of.get(path.stem, 'unlabelled')})" for path in group]
        advice = "keep one and remove the others with their labels: a copy in another fold is a leak"
        yield Finding(
            "error", KIND, f"the same video under {len(group)} names: {listed(names)}", advice, video=group[0].stem
        )
    copied = {frozenset(path.stem for path in group) for group in same_videos}
    groups: dict[bytes, list[str]] = {}
    for video, ids in labels.items():
        groups.setdefault(ids.tobytes(), []).append(video)
    for names in groups.values():
        if len(names) > 1 and not any(set(names) <= known for known in copied):
            advice = "find out whose labels these are; two operations never agree in every frame"
            message = f"the same labels, frame by frame, for {len(names)} videos: {listed(names)}"
            yield Finding("error", KIND, message, advice, video=names[0])


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

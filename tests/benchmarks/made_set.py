"""Made data sets of any size: labels, and where asked for videos and features, each file tiny and none like another.

They are synthetic: random segments for labels, one drawn clip for every video, random numbers for features.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.children import num_cores, side_by_side
from common.base.files import video_fingerprint, write_json, write_text
from common.dataset.kfold import make_folds, write_folds
from common.dataset.phases import PhaseMapping, read_mapping
from common.features.files import FeatureWriter
from common.video.timeline import Timeline

FPS = 25.0
PREFIXES = ("BL", "BN", "SD")
ENCODER = "ColorHistogram"
CLIP_FRAMES = 8
PART_VIDEOS = 250  # that a process writes at a time; fewer are there before further processes are


def make_dataset(
    root: Path, num_videos: int, num_frames: int, *, videos: bool = False, feature_dim: int = 0, folds: int = 0
) -> paths.Dataset:
    """A data set at `root` of so many videos with labels `(num_frames,)`; features of `ENCODER` where they have a dimension.

    Videos hold `CLIP_FRAMES` frames, which is how many labels they need, except where nobody compares the two.
    """
    dataset = paths.Dataset(root)
    dataset.ground_truth.mkdir(parents=True)
    shutil.copy(paths.default_mapping(), dataset.mapping)
    write_json(dataset.sample_record, {"made_by": "tests/benchmarks/made_set.py"})
    mapping = read_mapping(dataset.mapping)
    names = [f"{PREFIXES[index % len(PREFIXES)]}_{index:05}" for index in range(num_videos)]
    clip = drawn_clip(dataset) if videos else None
    parts = [range(start, min(start + PART_VIDEOS, num_videos)) for start in range(0, num_videos, PART_VIDEOS)]
    shared = (dataset, names, mapping, clip, num_frames, feature_dim)
    with side_by_side(write_part, parts, shared, num_processes=num_cores()) as written:
        for done in written:
            done()
    if folds:
        write_folds(dataset, make_folds(names, folds), seed=42, stratify="prefix", patients={})
    return dataset


def segments(seed: int, num_frames: int, num_classes: int) -> np.ndarray:
    """Phases `(num_frames,)` in segments of at most 200 frames, of a made video."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 200, max(2, num_frames))
    return np.repeat(random.integers(0, num_classes, len(lengths)), lengths)[:num_frames]


def write_labels(path: Path, phases: np.ndarray, mapping: PhaseMapping) -> None:
    """A label file, one phase name a line."""
    write_text(path, "".join(f"{mapping.names[phase]}\n" for phase in phases))


def write_part(
    shared: tuple[paths.Dataset, Sequence[str], PhaseMapping, bytes | None, int, int], part: Sequence[int]
) -> None:
    """Labels of the videos of these numbers; videos where there is a clip, and features where they have a dimension."""
    dataset, names, mapping, clip, num_frames, feature_dim = shared
    for index in part:
        name = names[index]
        write_labels(dataset.ground_truth / f"{name}.txt", segments(index, num_frames, mapping.num_classes), mapping)
        if clip:  # with a box behind it that makes each file another, in size and content
            box = struct.pack(">I4sI", 12 + index, b"free", index) + bytes(index)
            (dataset.videos / f"{name}.mp4").write_bytes(clip + box)
        if feature_dim:
            write_features(dataset, name, index, (num_frames, feature_dim))


def drawn_clip(dataset: paths.Dataset) -> bytes:
    """A drawn clip of a few frames; the folder for videos is there after it."""
    from tests.conftest import write_clip  # here: who makes no videos needs no decoder

    picture = np.full((32, 32, 3), 90, np.uint8)
    path = write_clip(dataset.videos / "clip.mp4", [picture] * CLIP_FRAMES, fps=FPS)
    content = path.read_bytes()
    path.unlink()
    return content


def write_features(dataset: paths.Dataset, name: str, seed: int, shape: tuple[int, int]) -> None:
    """Random features `shape` `(T, feature_dim)` of a video with the sidecar that an extraction writes."""
    num_frames, feature_dim = shape
    timeline = Timeline(np.arange(num_frames) / FPS, np.arange(num_frames))
    video = dataset.videos / f"{name}.mp4"
    sidecar = {
        "encoder": ENCODER, "weights": {"source": "none", "file": None, "sha256": None}, "pooling": "made", "window": None,
        "preprocessing": {}, "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav", "synthetic": True,
        "timeline": timeline.to_json(), "num_parameters": 0, "precision": "fp32",
    }  # fmt: skip
    if video.is_file():
        sidecar |= {"video_bytes": video.stat().st_size, "fingerprint": video_fingerprint(video)}
    with FeatureWriter(dataset.features(ENCODER) / f"{name}.npy", feature_dim, "float32") as writer:
        writer.append(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
        writer.finish(sidecar)


def write_long_video(path: Path, num_frames: int) -> Path:
    """A video of so many drawn frames, a few of them again and again."""
    from tests.conftest import write_clip

    pictures = [np.full((64, 64, 3), 20 * place, np.uint8) for place in range(8)]
    return write_clip(
        path, (pictures[index % 8] for index in range(num_frames)), fps=FPS, options={"preset": "ultrafast"}
    )

"""Fixtures for the whole suite: reference data, a workspace of one's own, small videos made on the spot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Test tensors are small: on them two threads mostly wait for each other (4 times slower on a busy machine). Set before
# torch is imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what a test's commands remember of files is no business of the user who runs it
os.environ.setdefault("SICS155_CACHE", str(Path(tempfile.gettempdir()) / "sics155-tests-cache"))

# drawn inputs are the same in every run, and a test that writes files may take its time over each
settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("suite")

CHECKOUT = Path(__file__).resolve().parents[1]
CLIP_SIZE = (48, 64)  # height, width
LOSSLESS = {"libx264": {"qp": "0", "preset": "ultrafast"}, "libvpx-vp9": {"lossless": "1"}}


# the files that take longest, below tests/; the two that start a cluster are apart
LONGEST_FIRST = (
    "slurm/test_pretrain.py",
    "common/features/test_extract.py",
    "common/features/test_rewritten_recordings.py",
    "test_house.py",
    "test_compute_results.py",
    "slurm/test_cluster.py",
    "test_docs_run.py",
    "test_artefacts.py",
    "faults/test_kills.py",
    "faults/test_two_writers.py",
    "faults/test_disk.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, or one of two processes waits for them at the end while the other idles.

    With `--dist loadfile` this needs `--no-loadscope-reorder`: the files of most tests would come first.
    """
    places = {CHECKOUT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this repository."""
    return CHECKOUT


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder that `REFERENCE_DATA` names (default `../shared`, from the root); the test is skipped without it."""
    folder = (CHECKOUT / os.environ.get("REFERENCE_DATA", "../shared")).resolve()
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference data in {folder}")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own, set as `SICS155_ROOT`: an empty `data/`, and every model folder with its config only."""
    root = tmp_path / "workspace"
    (root / "data").mkdir(parents=True)
    for config in sorted((CHECKOUT / "models").glob("*/config.yaml")):
        (root / "models" / config.parent.name).mkdir(parents=True)
        shutil.copy(config, root / "models" / config.parent.name)
    monkeypatch.setenv("SICS155_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def solid() -> Callable[..., list[np.ndarray]]:
    """`solid((r, g, b), num_frames, size=(48, 64))`: frames of one colour."""

    def frames(colour: Sequence[int], num_frames: int, size: tuple[int, int] = CLIP_SIZE) -> list[np.ndarray]:
        return [np.full((*size, 3), colour, dtype=np.uint8)] * num_frames

    return frames


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """`make_clip(path, frames, ...)`: see `write_clip`."""
    return write_clip


def write_clip(
    path: Path,
    frames: Iterable,
    *,
    fps: float = 25,
    seconds: Sequence[float] | None = None,
    matrix: int | None = None,
    color_range: int | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video (H.264 unless `codec` says otherwise) at `path` (.mp4: the same bytes at every call; .mkv) and return `path`.

    `frames` are `(H, W, 3)` uint8 arrays with even sides, or `av.VideoFrame`s in yuv420p, which are stored as they are.
    `seconds`: one presentation time a frame (default: constant `fps`). `matrix`, `color_range`: tags of the stream and
    of the conversion (ITU-T H.273 numbers and 1 limited / 2 full; default: untagged). Lossless unless `options` say
    otherwise.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = None
        for index, frame in enumerate(frames):
            if not isinstance(frame, av.VideoFrame):
                rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                frame = rgb.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=color_range)
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                stream.options = LOSSLESS.get(codec, {}) if options is None else options
                context = stream.codec_context
                context.thread_count = 1
                context.time_base = Fraction(1, 90_000)
                if matrix is not None:
                    context.colorspace = matrix
                if color_range is not None:
                    context.color_range = color_range
            frame.time_base = Fraction(1, 90_000)
            frame.pts = round((index / fps if seconds is None else seconds[index]) * 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path

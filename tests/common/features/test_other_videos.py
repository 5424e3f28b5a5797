"""Other people's videos through an extraction: right vectors at right times, or a note that says why there are none.

One extraction takes all of them together, so that every bad one is a chance to stop the others. That the frames are
the right ones is tested where they are decoded (`tests/common/video`).
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from common.base import paths
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.video.decode import decode
from common.video.preprocess import resize
from tests.common import odd_videos
from tests.common.features.extracting import MODEL, Extracted, extract_all, times_and_indices
from tests.common.odd_videos import FPS, ODD


@pytest.fixture(scope="module")
def encoder():
    """The encoder of the extraction."""
    result = build_encoder(read_encoder_config(paths.model(MODEL).config))
    result.prepare(torch.device("cpu"), "fp32")
    return result


def encoded_alone(encoder, path: Path) -> np.ndarray:
    """Vectors `(T, feature_dim)` of each decoded frame by itself."""
    frames = [torch.from_numpy(frame.image)[None] for frame in decode(path)]
    return np.concatenate([encoder.encode(resize(frame, encoder.preprocessing)).numpy() for frame in frames])


# --- made videos of every kind --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_paths(tmp_path_factory) -> dict[str, Path]:
    """A video of every kind, by a name that a file can have."""
    made = {}
    for name, odd in ODD.items():
        folder = tmp_path_factory.mktemp("odd")
        made[name.replace(" ", "_")] = odd.make(folder)
    return made


@pytest.fixture(scope="module")
def odd_extracted(tmp_path_factory, odd_paths) -> Extracted:
    """All of them, and four that are no videos, extracted together."""
    folder = tmp_path_factory.mktemp("bad")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "empty.mkv").write_bytes(b"")
    bad = {
        "a_gone": folder / "gone.mp4",
        "b_pipe": folder / "pipe.mp4",
        "c_empty": folder / "empty.mkv",
        "d_damaged": odd_videos.overwritten(odd_paths["mp4"], folder / "damaged.mp4", length=6000),
    }
    return extract_all(tmp_path_factory.mktemp("root"), bad | odd_paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_a_video_of_any_kind_has_a_vector_for_each_of_its_frames_at_its_time(odd_extracted, odd_paths, encoder, name):
    odd, name = ODD[name], name.replace(" ", "_")
    file = odd_extracted.features(name)
    seconds, sampled = times_and_indices(file)
    assert np.array_equal(file.array.T, encoded_alone(encoder, odd_paths[name]))
    assert sampled == list(range(len(odd.numbers)))
    assert np.diff(seconds) == pytest.approx(np.full(len(odd.numbers) - 1, 1 / FPS), abs=2e-3)
    assert set(file.sidecar["decoding"]["times_mended"]) == odd.mended


@pytest.mark.slow  # makes and extracts a video of every kind
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a_gone", "a link to .*gone.mp4, which is not there"),
        ("b_pipe", "not a regular file"),
        ("c_empty", "Invalid data"),
        ("d_damaged", r"60 frames promised, \d+ decoded"),
    ],
)
def test_one_that_is_no_whole_video_is_noted_and_stops_no_other(odd_extracted, name, reason):
    note = odd_extracted.note(name)
    assert name in note["video"]
    assert re.search(reason, note["reason"])
    assert name in odd_extracted.summary.failed[name]
    assert len(odd_extracted.summary.done) == len(ODD)


# --- the cases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Right:
    """What is right for a case: its frames, their distance in seconds, the times that are mended, by kind."""

    num_frames: int
    period: float = 1 / FPS
    mended: dict[str, int] = field(default_factory=dict)


STEP_BACK = {"step back": 1}
CASES = {
    "base.mp4": Right(60),
    "camera.mts": Right(50),
    "frames": Right(19),
    "h264_bframes.avi": Right(60),
    "h264_interlaced.mp4": Right(30, 2 / FPS),
    "hflip.mp4": Right(60),
    "joined.ts": Right(100, mended=STEP_BACK),
    "mjpeg_then_h264.mov": Right(60),
    "plain.ts": Right(50),
    "raw_blue.avi": Right(25),
    "raw_red.avi": Right(25),
    "sizechange.ts": Right(100, mended=STEP_BACK),
    "xvid_bframes.avi": Right(60),
}
SAMPLED_FPS = 5


@pytest.fixture(scope="module")
def case_paths(reference_data) -> dict[str, Path]:
    """Every entry of the folders of cases, by its stem."""
    entries = [path for folder in ("video", "damaged") for path in (reference_data / "cases" / folder).glob("*")]
    if not entries:
        pytest.skip(f"no cases in {reference_data}")
    return {path.stem: path for path in sorted(entries) if path.name != "redblue"}


@pytest.fixture(scope="module")
def cases_extracted(tmp_path_factory, case_paths) -> Extracted:
    """The cases, extracted together."""
    return extract_all(tmp_path_factory.mktemp("root"), case_paths)


@pytest.fixture(scope="module")
def cases_sampled(tmp_path_factory, case_paths) -> Extracted:
    """The cases with `--fps`."""
    return extract_all(tmp_path_factory.mktemp("root"), case_paths, fps=SAMPLED_FPS)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_case_has_a_vector_for_each_of_its_frames_at_its_time(cases_extracted, case_paths, encoder, case):
    right, name = CASES[case], Path(case).stem
    file = cases_extracted.features(name)
    seconds, sampled = times_and_indices(file)
    assert file.array.shape[1] == right.num_frames
    assert np.array_equal(file.array.T, encoded_alone(encoder, case_paths[name]))
    assert sampled == list(range(right.num_frames))
    assert np.diff(seconds) == pytest.approx(np.full(right.num_frames - 1, right.period), abs=2e-3)
    assert file.sidecar["decoding"]["times_mended"] == right.mended


@pytest.mark.parametrize("case", CASES)
def test_sampling_by_time_spreads_over_all_frames_of_a_case(cases_extracted, cases_sampled, case):
    right, name = CASES[case], Path(case).stem
    if case == "frames":  # nothing says how many images a second there are
        assert f"--fps {SAMPLED_FPS}" in cases_sampled.note(name)["reason"]
        return
    every, some = cases_extracted.features(name), cases_sampled.features(name)
    times, sampled = times_and_indices(some)
    expected = int(right.num_frames * right.period * SAMPLED_FPS)
    assert len(times) == right.num_frames
    assert len(sampled) == some.array.shape[1] == expected
    assert np.diff(sampled) == pytest.approx(np.full(expected - 1, 1 / SAMPLED_FPS / right.period), abs=0.5)
    assert np.array_equal(some.array, every.array[:, sampled])


def test_every_other_case_is_noted_with_its_name_and_stops_no_other(cases_extracted, case_paths):
    known = {Path(case).stem for case in CASES}
    assert set(cases_extracted.summary.done) == known
    damaged = case_paths.keys() - known
    assert set(cases_extracted.summary.failed) == damaged
    for name in damaged:
        assert case_paths[name].name in cases_extracted.note(name)["video"]
        assert case_paths[name].name in cases_extracted.summary.failed[name]
    assert re.search(r"60 frames promised, \d+ decoded", cases_extracted.note("corrupt_mid")["reason"])

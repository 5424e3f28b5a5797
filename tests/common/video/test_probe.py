"""What headers promise: frames, also where they contradict themselves, and rates."""

import numpy as np
import pytest

from common.video.probe import VideoInfo, estimate_frames, probe


def noise(num_frames: int, size=(48, 64)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(num_frames)]


def test_probe_reads_the_header(make_clip, tmp_path):
    info = probe(make_clip(tmp_path / "clip.mp4", noise(10, size=(48, 80)), fps=30))
    assert (info.codec, info.width, info.height, info.fps, info.header_frames) == ("h264", 80, 48, 30, 10)


# --- frames ----------------------------------------------------------------------------------------------------------


def info(header_frames, seconds, fps) -> VideoInfo:
    return VideoInfo("h264", 64, 48, fps, header_frames, seconds)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (info(250, 10.0, 25.0), 250),
        (info(250, None, None), 250),
        (info(None, 10.0, 25.0), 250),
        (info(180, 10.0, 25.0), 180),  # a varying rate
        (info(100_000, 10.0, 25.0), None),
        (info(3, 10.0, 25.0), None),
        (info(None, None, 25.0), None),
    ],
)
def test_a_header_counts_where_it_does_not_contradict_itself(header, expected):
    assert header.promised_frames == expected


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])  # Matroska has a duration, no count
def test_frames_are_read_from_headers(make_clip, solid, tmp_path, suffix):
    videos = {str(n): make_clip(tmp_path / f"{n}.{suffix}", solid((9, 9, 9), n)) for n in (10, 40)}
    assert estimate_frames(videos) == {"10": 10, "40": 40}


def test_a_video_without_a_readable_header_counts_by_its_size(make_clip, solid, tmp_path):
    videos = {
        name: make_clip(tmp_path / f"{name}.mp4", solid((9, 9, 9), 20)) for name in ("a", "b", "damaged", "empty")
    }
    size = videos["a"].stat().st_size
    videos["damaged"].write_bytes(b"\0" * 3 * size)
    videos["empty"].write_bytes(b"")
    assert estimate_frames(videos) == {"a": 20, "b": 20, "damaged": 60, "empty": 1}


def test_without_any_readable_header_larger_files_still_count_more(tmp_path):
    videos = {name: tmp_path / f"{name}.mp4" for name in ("large", "small")}
    videos["large"].write_bytes(b"\0" * 400_000)
    videos["small"].write_bytes(b"\0" * 40_000)
    estimated = estimate_frames(videos)
    assert estimated["large"] == 10 * estimated["small"]


def test_a_link_that_leads_nowhere_counts_as_one_frame(make_clip, solid, tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    videos = {"a": make_clip(tmp_path / "a.mp4", solid((9, 9, 9), 20)), "gone": tmp_path / "gone.mp4"}
    assert estimate_frames(videos) == {"a": 20, "gone": 1}


# --- bytes -----------------------------------------------------------------------------------------------------------

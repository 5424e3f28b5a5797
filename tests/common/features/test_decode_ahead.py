"""Decoding ahead: chunks of a thread and of processes are the same frames, and one bad video costs only itself."""

import os
import signal

import numpy as np
import pytest
import torch

from common.features.decode_ahead import DecodePlan, chunks, decode_in_processes, decode_in_thread
from common.video.preprocess import Preprocessing
from common.video.probe import VideoError

RULE = Preprocessing(size=16)


@pytest.fixture
def videos(tmp_path, make_clip):
    random = np.random.default_rng(0)
    for index, count in enumerate((23, 8, 14)):
        images = random.integers(0, 255, (count, 1, 1, 3), dtype=np.uint8).repeat(32, 1).repeat(48, 2)
        make_clip(tmp_path / f"v{index}.mp4", list(images))
    return {f"v{index}": tmp_path / f"v{index}.mp4" for index in range(3)}


def plan(**changes):
    return DecodePlan(**({"decoder": "pyav", "fps": None, "chunk_frames": 5, "rule": RULE} | changes))


def collect(events):
    """Frames and seconds by video, and the errors."""
    frames, seconds, ended = {}, {}, {}
    for name, event in events:
        if event is None or isinstance(event, VideoError):
            ended[name] = event
        else:
            frames.setdefault(name, []).append(event.frames.clone())
            seconds.setdefault(name, []).extend(event.seconds)
    return {name: torch.cat(parts) for name, parts in frames.items()}, seconds, ended


def test_chunks_have_the_size_asked_for_and_a_smaller_last_one(videos):
    sizes = [len(chunk.frames) for chunk in chunks(videos["v0"], plan())]
    assert sizes == [5, 5, 5, 5, 3]


def test_frames_are_resized_or_left_as_decoded(videos):
    assert next(chunks(videos["v0"], plan())).frames.shape == (5, 3, 16, 16)
    assert next(chunks(videos["v0"], plan(rule=None))).frames.shape == (5, 32, 48, 3)


def test_sampling_reports_the_times_of_all_frames_and_the_chosen_indices(videos):
    parts = list(chunks(videos["v0"], plan(fps=5)))  # of 25: each fifth frame
    assert [index for part in parts for index in part.sampled] == [0, 5, 10, 15, 20]
    assert len([time for part in parts for time in part.seconds]) == 23


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_give_the_same_frames_as_the_thread(videos, num_processes):
    frames, seconds, ended = collect(decode_in_thread(videos, plan()))
    others, other_seconds, other_ended = collect(decode_in_processes(videos, plan(), num_processes))
    assert ended == other_ended == dict.fromkeys(videos)
    assert seconds == other_seconds
    assert all(torch.equal(frames[name], others[name]) for name in videos)


@pytest.mark.slow
def test_a_bad_video_ends_with_its_error_and_the_others_are_whole(videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = {"bad": tmp_path / "bad.mp4"} | videos
    for events in (decode_in_thread(videos, plan()), decode_in_processes(videos, plan(), 2)):
        frames, _, ended = collect(events)
        assert sorted(frames) == ["v0", "v1", "v2"]
        assert "bad.mp4" in str(ended["bad"])
        assert ended["bad"].frames_given == 0


def children() -> set[int]:
    """Process ids of this process's children, other tests' among them."""
    return {child.pid for child in torch.multiprocessing.active_children()}


@pytest.mark.slow
def test_a_killed_decoder_process_costs_its_video_only(videos):
    others = children()
    events = decode_in_processes(videos, plan(chunk_frames=1), 1)
    next(events)
    (child,) = children() - others
    os.kill(child, signal.SIGKILL)
    ended = {}
    for name, event in events:
        if event is None or isinstance(event, VideoError):
            ended[name] = event
    assert "the decoder process died, exit code -9" in str(ended["v0"])
    assert ended["v1"] is None
    assert ended["v2"] is None


@pytest.mark.slow
def test_leaving_early_ends_the_decoder_processes(videos):
    others = children()
    events = decode_in_processes(videos, plan(chunk_frames=1), 2)
    next(events)
    assert len(children() - others) == 2
    events.close()
    assert children() <= others

"""Decoding ahead: chunks of a thread and of processes are the same frames, and one bad video costs only itself."""

import os
import signal

import numpy as np
import pytest
import torch

from common.features import decode_ahead
from common.features.decode_ahead import Chunk, DecodePlan, chunks, decode_in_processes, decode_in_thread
from common.video.preprocess import Preprocessing, resize
from tests.common.odd_videos import ODD

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
        if not isinstance(event, Chunk):
            ended[name] = event
        else:
            frames.setdefault(name, []).append(event.frames.clone())
            seconds.setdefault(name, []).extend(event.seconds)
    return {name: torch.cat(parts) for name, parts in frames.items()}, seconds, ended


def test_chunks_have_the_size_asked_for_and_a_smaller_last_one(videos):
    *parts, record = chunks(videos["v0"], plan())
    assert [len(part.frames) for part in parts] == [5, 5, 5, 5, 3]
    assert (record.promised, record.decoded, record.errors) == (23, 23, 0)


def test_frames_are_resized_or_left_as_decoded(videos):
    assert next(chunks(videos["v0"], plan())).frames.shape == (5, 3, 16, 16)
    assert next(chunks(videos["v0"], plan(rule=None))).frames.shape == (5, 32, 48, 3)


def test_sampling_reports_the_times_of_all_frames_and_the_chosen_indices(videos):
    *parts, _ = chunks(videos["v0"], plan(fps=5))  # of 25: each fifth frame
    assert [index for part in parts for index in part.sampled] == [0, 5, 10, 15, 20]
    assert len([time for part in parts for time in part.seconds]) == 23


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_give_the_same_frames_as_the_thread(videos, num_processes):
    frames, seconds, ended = collect(decode_in_thread(videos.items(), plan()))
    others, other_seconds, other_ended = collect(decode_in_processes(videos.items(), plan(), num_processes))
    assert ended == other_ended
    assert {name: record.decoded for name, record in ended.items()} == {"v0": 23, "v1": 8, "v2": 14}
    assert seconds == other_seconds
    assert all(torch.equal(frames[name], others[name]) for name in videos)


def test_a_bad_video_ends_with_its_error_and_the_others_are_whole(videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = {"bad": tmp_path / "bad.mp4"} | videos
    for events in (decode_in_thread(videos.items(), plan()), decode_in_processes(videos.items(), plan(), 2)):
        frames, _, ended = collect(events)
        assert sorted(frames) == ["v0", "v1", "v2"]
        assert "bad.mp4" in str(ended["bad"])
        assert ended["bad"].frames_given == 0


def children() -> set[int]:
    """Process ids of this process's children, other tests' among them."""
    return {child.pid for child in torch.multiprocessing.active_children()}


@pytest.fixture
def with_a_long_one(videos, tmp_path, make_clip, solid):
    """As `videos`, and before them one that is far longer than what is decoded ahead."""
    return {"long": make_clip(tmp_path / "long.mp4", solid((90, 20, 60), 600))} | videos


def test_a_killed_decoder_process_costs_its_video_only(with_a_long_one):
    others = children()
    events = decode_in_processes(with_a_long_one.items(), plan(chunk_frames=1), 1)
    next(events)
    (child,) = children() - others
    os.kill(child, signal.SIGKILL)
    ended = {name: event for name, event in events if not isinstance(event, Chunk)}
    assert "the decoder process died, exit code -9" in str(ended["long"])
    assert [ended[name].decoded for name in ("v0", "v1", "v2")] == [23, 8, 14]


def test_leaving_early_ends_the_decoder_processes(with_a_long_one):
    others = children()
    events = decode_in_processes(with_a_long_one.items(), plan(chunk_frames=1), 2)
    next(events)
    assert len(children() - others) == 2
    events.close()
    assert children() <= others


def test_a_video_that_vanishes_ends_with_an_error_of_its_own(videos, tmp_path):
    videos = {"gone": tmp_path / "gone.mp4"} | videos
    for events in (decode_in_thread(videos.items(), plan()), decode_in_processes(videos.items(), plan(), 2)):
        frames, _, ended = collect(events)
        assert sorted(frames) == ["v0", "v1", "v2"]
        assert str(ended["gone"]).startswith(f"{tmp_path}/gone.mp4: cannot be decoded after 0 frames (No such file")


def test_a_picture_that_changes_its_size_begins_a_new_chunk(tmp_path):
    path = ODD["size change"].make(tmp_path)
    *parts, _ = chunks(path, plan(rule=None, chunk_frames=20))
    assert [tuple(part.frames.shape[:3]) for part in parts] == [
        (20, 96, 160), (10, 96, 160), (20, 72, 128), (10, 72, 128),
    ]  # fmt: skip
    *resized, _ = chunks(path, plan(chunk_frames=20))
    ours = torch.cat([resize(part.frames, RULE) for part in parts])  # as a GPU does
    assert torch.equal(ours, torch.cat([part.frames for part in resized]))
    times = [[time for part in given for time in part.seconds] for given in (parts, resized)]
    assert times[0] == times[1]


def test_a_chunk_is_bounded_in_bytes(videos, monkeypatch):
    monkeypatch.setattr(decode_ahead, "CHUNK_BYTES", 3 * 32 * 48 * 3)
    *parts, _ = chunks(videos["v0"], plan(rule=None, chunk_frames=256))
    assert [len(part.frames) for part in parts] == [3] * 7 + [2]

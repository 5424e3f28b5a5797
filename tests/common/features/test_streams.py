"""Feature streams against brute force: windows around every frame, strides, tokens; independent of how frames arrive."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.features.streams import (
    Batcher,
    FrameStream,
    SpacedTokenStream,
    TokenStream,
    Window,
    WindowStream,
    blend_weights,
    choose_batch_size,
)


def frames(count):
    """Frames whose first pixel is their index."""
    result = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    result[:, 0, 0, 0] = torch.arange(count)
    return result


def indices_of(clips):
    """Stands for a network: a clip's vector is its frames' indices."""
    return clips[:, :, 0, 0, 0].float()


def tokens_of(clips):
    """Stands for a network with tubelets of 2: a token is the mean index of its two frames, and a constant."""
    indices = indices_of(clips)
    means = (indices[:, 0::2] + indices[:, 1::2]) / 2
    return torch.stack([means, torch.ones_like(means)], dim=2)


def run(stream, count, chunk, seconds=None, wanted=None):
    """Rows of a video of `count` frames, 25 a second where no `seconds` are given, all wanted where no `wanted`."""
    seconds = [index / 25 for index in range(count)] if seconds is None else list(seconds)
    wanted = [True] * count if wanted is None else list(wanted)
    parts = []
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        parts.append(stream.push(frames(count)[part], seconds[part], wanted[part]))
    parts.append(stream.finish())
    return np.concatenate([part for part in parts if len(part)])


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_one_row_a_frame_in_order(chunk):
    stream = FrameStream(Batcher(lambda batch: batch[:, 0, 0, :1].float(), 4))
    assert run(stream, 11, chunk)[:, 0].tolist() == list(range(11))


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("clip_len", [1, 4, 5, 16])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_window_has_its_frame_at_the_middle_and_edges_are_repeated(clip_len, count, chunk):
    rows = run(WindowStream(Batcher(indices_of, 3), Window(clip_len), 1), count, chunk)
    expected = [[min(max(t - clip_len // 2 + k, 0), count - 1) for k in range(clip_len)] for t in range(count)]
    assert rows.tolist() == expected


@pytest.mark.parametrize("stride", [2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 9, 22])
def test_strided_windows_are_interpolated_and_the_last_frame_is_evaluated(stride, count):
    every = run(WindowStream(Batcher(indices_of, 2), Window(6), 1), count, 4)
    strided = run(WindowStream(Batcher(indices_of, 2), Window(6), stride), count, 4)
    evaluated = sorted({*range(0, count, stride), count - 1})
    for column in range(6):
        assert strided[:, column] == pytest.approx(np.interp(range(count), evaluated, every[evaluated, column]))


def test_windows_keep_no_more_frames_than_a_window_and_a_chunk():
    stream = WindowStream(Batcher(indices_of, 1), Window(8), 2)
    for part in frames(200).split(10):
        stream.push(part, part[:, 0, 0, 0] / 25.0, [True] * 10)
        assert len(stream.frames) <= 8 + 10


@pytest.mark.parametrize("chunk", [1, 7, 60])
@pytest.mark.parametrize("count", [8, 9, 12, 13, 31, 60])
def test_tokens_are_blended_over_the_overlap_as_by_brute_force(count, chunk):
    clip_len = 8
    rows = run(TokenStream(Batcher(tokens_of, 2), clip_len, 2), count, chunk)
    starts = list(range(0, count - clip_len + 1, 4))
    if starts[-1] + clip_len < count:
        starts.append(count - clip_len)
    sums, totals = np.zeros(count), np.zeros(count)
    for start in starts:
        for position, weight in enumerate(blend_weights(clip_len)):
            tubelet_start = start + position // 2 * 2
            sums[start + position] += weight * (tubelet_start + 0.5)
            totals[start + position] += weight
    assert rows[:, 0] == pytest.approx(sums / totals)
    assert rows[:, 1] == pytest.approx(1)


def test_tokens_of_a_video_shorter_than_a_clip():
    rows = run(TokenStream(Batcher(tokens_of, 2), 8, 2), 3, 2)
    # frames 0 and 1 share a tubelet; frame 2 stands with its own copy
    assert rows[:, 0].tolist() == [0.5, 0.5, 2.0]


def test_a_token_serves_as_many_frames_as_its_tubelet_has():
    """Clips of 4 frames that are one tubelet: every frame has the mean of its clip."""
    stream = TokenStream(Batcher(lambda clips: indices_of(clips).mean(dim=1)[:, None, None], 2), 4, 4)
    assert run(stream, 8, 3)[:, 0].tolist() == [1.5] * 4 + [5.5] * 4


def test_token_memory_stays_within_two_clips():
    stream = TokenStream(Batcher(tokens_of, 1), 8, 2)
    for part in frames(200).split(5):
        stream.push(part)
        assert len(stream.frames) <= 2 * 8 + 5
        assert len(stream.sums) <= 2 * 8


def test_batches_do_not_depend_on_how_frames_arrive():
    for chunk in (1, 4, 9, 64):
        sizes = []

        def network(batch, sizes=sizes):
            sizes.append(len(batch))
            return indices_of(batch)

        run(WindowStream(Batcher(network, 5), Window(4), 1), 23, chunk)
        assert sizes == [5, 5, 5, 5, 3]


def test_windows_of_neighbours_by_hand():
    seconds = np.arange(10) / 25
    assert Window(4).indices(0, seconds).tolist() == [0, 0, 0, 1]
    assert Window(4).indices(5, seconds).tolist() == [3, 4, 5, 6]
    assert Window(4).indices(9, seconds).tolist() == [7, 8, 9, 9]
    assert Window(4, anchor="end").indices(5, seconds).tolist() == [2, 3, 4, 5]


def test_out_of_memory_halves_the_batch_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def network(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("full")
        return batch[:, 0, 0, :1].float()

    batcher = Batcher(network, 8)
    assert run(FrameStream(batcher), 21, 10)[:, 0].tolist() == list(range(21))
    assert batcher.batch_size == 2


def test_out_of_memory_with_a_single_frame_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def network(batch):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match="out of memory with a batch of 1"):
        run(FrameStream(Batcher(network, 4)), 4, 4)


def test_batch_size_is_fixed_on_a_cpu():
    cpu = torch.device("cpu")
    assert choose_batch_size(None, (3, 224, 224), cpu) == 16
    assert choose_batch_size(None, (16, 3, 224, 224), cpu) == 1


def test_batch_size_on_a_gpu_fits_its_free_memory(monkeypatch):
    used = iter([1000, 1100])  # a second item costs 100
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(used))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000, 20_000))
    # 0.6 * 10000 / 100 = 60 -> 32
    assert choose_batch_size(lambda items: items, (3, 8, 8), torch.device("cuda")) == 32


# --- windows of frames that lie apart in time -----------------------------------------------------------------------


def numbered(count):
    """As `frames`, for more of them than a byte counts."""
    result = torch.zeros(count, 3, 1, 1, dtype=torch.uint8)
    result[:, 0, 0, 0], result[:, 1, 0, 0] = torch.arange(count) % 256, torch.arange(count) // 256
    return result


def numbers_of(clips):
    return clips[:, :, 0, 0, 0].float() + 256 * clips[:, :, 1, 0, 0].float()


def run_numbered(stream, seconds, *, chunk=32, wanted=None):
    images, wanted = numbered(len(seconds)), [True] * len(seconds) if wanted is None else list(wanted)
    parts = []
    for start in range(0, len(seconds), chunk):
        part = slice(start, start + chunk)
        parts.append(stream.push(images[part], list(seconds[part]), wanted[part]))
    parts.append(stream.finish())
    return np.concatenate([part for part in parts if len(part)])


def uneven(seed, count=120):
    """Rising times of a variable rate, with pauses."""
    draws = np.random.default_rng(seed)
    return np.cumsum(draws.choice([0.02, 0.04, 0.1, 1.3], count, p=[0.3, 0.5, 0.15, 0.05]))


def brute_force(window, seconds, frame):
    """Every point of the grid held against every frame."""
    found = []
    for index in range(window.clip_len):
        away = np.abs(seconds - (seconds[frame] + (index - window.position) * window.spacing))
        found.append(int(np.flatnonzero(away <= away.min() + 1e-9)[0]))
    return found


def test_windows_of_the_reference(reference_data):
    """Ten windows worked out elsewhere; each by the rule alone, and as the stream gives it."""
    cases = json.loads((reference_data / "golden/spacing_cases.json").read_text())["cases"]
    assert len(cases) == 10
    for case in cases:
        count = case["num_frames"]
        rate = Fraction(case["video"].split(" fps")[0]) if "fps" in case["video"] else None
        seconds = np.array(case["seconds"] if rate is None else [float(index / rate) for index in range(count)])
        window = Window(case["clip_len"], case["clip_spacing"], case["anchor"])
        assert window.indices(case["frame"], seconds).tolist() == case["indices"], case["note"]
        rows = run_numbered(WindowStream(Batcher(numbers_of, 4), window), seconds)
        assert rows[case["frame"]].tolist() == case["indices"], case["note"]


@pytest.mark.parametrize("anchor", ["centre", "end"])
@pytest.mark.parametrize("spacing", [0.04, 0.25, 1.0, 40.0])
@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_spaced_windows_as_by_brute_force(anchor, spacing, chunk):
    seconds, window = uneven(3), Window(6, spacing, anchor)
    rows = run_numbered(WindowStream(Batcher(numbers_of, 5), window), seconds, chunk=chunk)
    assert rows.tolist() == [brute_force(window, seconds, frame) for frame in range(len(seconds))]


# times of frames, length, spacing, anchor, the frame, and the frames that its window has, by hand
OWN_WINDOWS = {
    # 0.3 and 0.5 are as near to 0.4, 0.1 and 0.3 to 0.2, 0.7 and 0.5 to 0.6: the earlier
    "ties on both sides": ([0.1, 0.3, 0.4, 0.5, 0.7], 5, 0.2, "centre", 2, [0, 0, 2, 3, 4]),
    "a tie but for rounding": ([0.0, 0.1, 0.2, 0.30000000000000004], 3, 0.15, "centre", 1, [0, 1, 2]),
    "longer than the video": ([0.0, 0.04, 0.08], 8, 1.0, "centre", 1, [0, 0, 0, 0, 1, 2, 2, 2]),
    "longer than the video, at its end": ([0.0, 0.04, 0.08], 6, 1.0, "end", 2, [0, 0, 0, 0, 0, 2]),
    "less apart than frames are": ([0.0, 0.04, 0.08, 0.12], 6, 0.01, "centre", 2, [1, 1, 2, 2, 2, 2]),
    "less apart than frames are, at the end": ([0.0, 0.04, 0.08, 0.12], 6, 0.015, "end", 3, [1, 1, 2, 2, 3, 3]),
    "over a pause": ([0.0, 0.04, 5.0, 5.04, 5.08], 5, 1.0, "end", 3, [1, 1, 2, 2, 3]),
    "in a pause nothing is nearer": ([0.0, 0.04, 9.0], 4, 2.0, "centre", 1, [0, 0, 1, 1]),
    "a video that begins late": ([7.0, 7.5, 8.0], 4, 0.5, "end", 1, [0, 0, 0, 1]),
    "of a single frame": ([3.2], 4, 0.25, "centre", 0, [0, 0, 0, 0]),
    "a single frame long": ([0.0, 0.5, 0.9], 1, 4.0, "centre", 1, [1]),
}


@pytest.mark.parametrize("name", OWN_WINDOWS)
def test_windows_by_hand_by_rule_and_out_of_the_stream(name):
    seconds, clip_len, spacing, anchor, frame, expected = OWN_WINDOWS[name]
    window, seconds = Window(clip_len, spacing, anchor), np.array(seconds)
    assert window.indices(frame, seconds).tolist() == expected
    assert brute_force(window, seconds, frame) == expected
    for chunk in (1, 2, len(seconds)):
        assert (
            run_numbered(WindowStream(Batcher(numbers_of, 2), window), seconds, chunk=chunk)[frame].tolist() == expected
        )


@pytest.mark.parametrize("spacing", [None, 0.04, 0.3])
def test_of_a_still_picture_windows_and_tokens_are_the_same(spacing):
    """Where every frame is alike it does not matter which of them a feature is made of."""
    seconds, still = uneven(8), torch.full((120, 3, 2, 2), 7, dtype=torch.uint8)
    tokens = TokenStream(Batcher(tokens_of, 3), 8, 2)
    if spacing is not None:
        tokens = SpacedTokenStream(Batcher(tokens_of, 3), 8, 2, spacing)
    windows = WindowStream(Batcher(lambda clips: tokens_of(clips).mean(dim=1), 3), Window(8, spacing))
    found = []
    for stream in (windows, tokens):
        parts = [stream.push(still, list(seconds), [True] * len(seconds)), stream.finish()]
        found.append(np.concatenate([part for part in parts if len(part)]))
    assert found[0].shape == found[1].shape == (120, 2)
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("anchor", ["centre", "end"])
@pytest.mark.parametrize("stride", [1, 3])
def test_the_window_does_not_depend_on_which_frames_are_wanted(anchor, stride):
    """Every fifth frame is asked for; the frames between are in its window all the same."""
    seconds, window = uneven(4), Window(4, 0.3, anchor)
    every = run_numbered(WindowStream(Batcher(numbers_of, 2), window), seconds)[::5]
    wanted = [index % 5 == 0 for index in range(len(seconds))]
    rows = run_numbered(WindowStream(Batcher(numbers_of, 2), window, stride), seconds, chunk=9, wanted=wanted)
    evaluated = sorted({*range(0, len(every), stride), len(every) - 1})
    assert len(rows) == len(every)
    assert rows[evaluated].tolist() == every[evaluated].tolist()


@pytest.mark.parametrize("spacing", [None, 0.1, 0.7])
@pytest.mark.parametrize("stride", [1, 4])
def test_what_ends_with_its_frame_is_unchanged_by_later_frames(spacing, stride):
    seconds, window = uneven(5), Window(5, spacing, "end")
    whole = run_numbered(WindowStream(Batcher(numbers_of, 1), window, stride), seconds)
    for count in range(1, len(seconds), 13):
        part = run_numbered(WindowStream(Batcher(numbers_of, 1), window, stride), seconds[:count])
        same = count if stride == 1 else (count - 1) // stride * stride + 1  # the last frame of all is always evaluated
        assert part[:same].tolist() == whole[:same].tolist()
    assert (whole.max(axis=1) <= np.arange(len(seconds))).all()


def test_between_windows_that_end_with_their_frame_the_last_value_is_held():
    rows = run(WindowStream(Batcher(indices_of, 1), Window(2, anchor="end"), 3), 8, 3)
    assert rows[:, 1].tolist() == [0, 0, 0, 3, 3, 3, 6, 7]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_spacing_of_a_constant_rate_gives_neighbours(count):
    seconds = np.arange(count) / 25
    for anchor in ("centre", "end"):
        apart, near = Window(8, 1 / 25, anchor), Window(8, None, anchor)
        streams = [WindowStream(Batcher(numbers_of, 2), window, 3) for window in (apart, near)]
        assert run_numbered(streams[0], seconds).tolist() == run_numbered(streams[1], seconds).tolist()
    tokens = [SpacedTokenStream(Batcher(tokens_of, 2), 8, 2, 1 / 25), TokenStream(Batcher(tokens_of, 2), 8, 2)]
    assert run(tokens[0], count, 5).tolist() == run(tokens[1], count, 5).tolist()


@pytest.mark.parametrize("chunk", [1, 11, 200])
@pytest.mark.parametrize("spacing", [0.05, 0.25, 3.0])
def test_spaced_tokens_are_those_of_the_grid(chunk, spacing):
    """The grid's frames by brute force through the stream of neighbours; each frame then takes its nearest point."""
    seconds = uneven(6)
    grid = seconds[0] + spacing * np.arange(int((seconds[-1] - seconds[0]) / spacing) + 2)
    near = np.abs(seconds[:, None] - grid)
    point_of = [int(np.flatnonzero(row <= row.min() + 1e-9)[0]) for row in near]
    points = range(max(point_of) + 1)
    frame_of = [int(np.flatnonzero(near[:, point] <= near[:, point].min() + 1e-9)[0]) for point in points]
    expected = TokenStream(Batcher(tokens_of, 3), 8, 2)
    rows = [expected.push(frames(len(seconds))[frame_of]), expected.finish()]
    rows = np.concatenate([part for part in rows if len(part)])[point_of]
    found = run(SpacedTokenStream(Batcher(tokens_of, 3), 8, 2, spacing), len(seconds), chunk, seconds)
    assert found.tolist() == rows.tolist()
    wanted = [index % 7 == 2 for index in range(len(seconds))]
    some = run(SpacedTokenStream(Batcher(tokens_of, 3), 8, 2, spacing), len(seconds), chunk, seconds, wanted)
    assert some.tolist() == rows[wanted].tolist()


@pytest.mark.parametrize(("clip_len", "spacing", "anchor"), [(64, 0.25, "centre"), (16, 4.0, "end")])
def test_a_long_video_holds_the_frames_of_one_span(clip_len, spacing, anchor):
    """Two hours at 25 frames a second, a vector a second."""
    stream = WindowStream(Batcher(numbers_of, 1), Window(clip_len, spacing, anchor), 2)
    most, chunk = 0, numbered(32)
    for start in range(0, 2 * 3600 * 25, 32):
        seconds = [index / 25 for index in range(start, start + 32)]
        stream.push(chunk, seconds, [index % 25 == 0 for index in range(start, start + 32)])
        most = max(most, len(stream.frames))
    assert most <= (clip_len - 1) * spacing * 25 + 32 + 25

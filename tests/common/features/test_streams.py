"""Feature streams against brute force: windows around every frame, strides, tokens; independent of how frames arrive."""

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.features.streams import (
    Batcher,
    FrameStream,
    TokenStream,
    WindowStream,
    blend_weights,
    choose_batch_size,
    window_indices,
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


def run(stream, count, chunk):
    parts = [stream.push(part) for part in frames(count).split(chunk)] + [stream.finish()]
    return np.concatenate([part for part in parts if len(part)])


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_one_row_a_frame_in_order(chunk):
    stream = FrameStream(Batcher(lambda batch: batch[:, 0, 0, :1].float(), 4))
    assert run(stream, 11, chunk)[:, 0].tolist() == list(range(11))


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("clip_len", [1, 4, 5, 16])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_window_has_its_frame_at_the_middle_and_edges_are_repeated(clip_len, count, chunk):
    rows = run(WindowStream(Batcher(indices_of, 3), clip_len, 1), count, chunk)
    expected = [[min(max(t - clip_len // 2 + k, 0), count - 1) for k in range(clip_len)] for t in range(count)]
    assert rows.tolist() == expected


@pytest.mark.parametrize("stride", [2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 9, 22])
def test_strided_windows_are_interpolated_and_the_last_frame_is_evaluated(stride, count):
    every = run(WindowStream(Batcher(indices_of, 2), 6, 1), count, 4)
    strided = run(WindowStream(Batcher(indices_of, 2), 6, stride), count, 4)
    evaluated = sorted({*range(0, count, stride), count - 1})
    for column in range(6):
        assert strided[:, column] == pytest.approx(np.interp(range(count), evaluated, every[evaluated, column]))


def test_windows_keep_no_more_frames_than_a_window_and_a_chunk():
    stream = WindowStream(Batcher(indices_of, 1), 8, 2)
    for part in frames(200).split(10):
        stream.push(part)
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

        run(WindowStream(Batcher(network, 5), 4, 1), 23, chunk)
        assert sizes == [5, 5, 5, 5, 3]


def test_window_indices_by_hand():
    assert window_indices(0, 4, 10).tolist() == [0, 0, 0, 1]
    assert window_indices(5, 4, 10).tolist() == [3, 4, 5, 6]
    assert window_indices(9, 4, 10).tolist() == [7, 8, 9, 9]


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

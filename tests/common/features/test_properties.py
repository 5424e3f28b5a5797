"""Feature streams of drawn videos against their definitions, however the frames arrive.

Times are whole 64ths of a second, so that what is equally near is so in every computation.
"""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.features.streams import Batcher, SpacedTokenStream, TokenStream, Window, WindowStream, blend_weights

TICKS_A_SECOND = 64
TUBELET = 2
spacings = st.sampled_from([None, 1 / 32, 1 / 8, 1 / 2, 2.0])
rising_times = st.lists(st.integers(1, 24), min_size=1, max_size=24).map(
    lambda steps: np.cumsum(steps) / TICKS_A_SECOND
)


def numbered_frames(count):
    """Frames whose first pixel is their number."""
    result = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    result[:, 0, 0, 0] = torch.arange(count)
    return result


def clip_numbers(clips):
    """Stands for a network: the vector of a clip is the numbers of its frames."""
    return clips[:, :, 0, 0, 0].float()


def tubelet_means(clips):
    """Stands for a network with features over time: a token is the mean number of its tubelet."""
    return clip_numbers(clips).unflatten(1, (-1, TUBELET)).mean(dim=2)[..., None]


def rows_of(stream, seconds, wanted, sizes):
    """All rows of a video that arrives in chunks of these sizes, over and over."""
    frames, parts, start, turn = numbered_frames(len(seconds)), [], 0, 0
    while start < len(seconds):
        part = slice(start, start + sizes[turn % len(sizes)])
        parts.append(stream.push(frames[part], seconds[part].tolist(), wanted[part]))
        start, turn = part.stop, turn + 1
    parts.append(stream.finish())
    return np.concatenate([part for part in parts if len(part)] or [np.empty((0, 0))])


def nearest_by_definition(seconds, point):
    """Of all times the nearest; of two equally near the earlier."""
    return min(range(len(seconds)), key=lambda place: (abs(seconds[place] - point), place))


def window_by_definition(window, frame, seconds):
    """The frames of a window, one after the other."""
    middle = window.clip_len // 2 if window.anchor == "centre" else window.clip_len - 1
    if window.spacing is None:
        return [min(max(frame + step - middle, 0), len(seconds) - 1) for step in range(window.clip_len)]
    points = (seconds[frame] + (step - middle) * window.spacing for step in range(window.clip_len))
    return [nearest_by_definition(seconds, point) for point in points]


def blended_by_definition(count, clip_len):
    """Tokens of half-overlapping clips, blended: the row of each of `count` frames."""
    hop = max(TUBELET, clip_len // 2 // TUBELET * TUBELET)
    starts = list(range(0, max(count - clip_len, 0) + 1, hop)) if count >= clip_len else [0]
    if starts[-1] + clip_len < count:
        starts.append(count - clip_len)
    sums, totals = np.zeros(count), np.zeros(count)
    for start in starts:
        numbers = np.minimum(np.arange(start, start + clip_len), count - 1)
        tokens = np.repeat(numbers.reshape(-1, TUBELET).mean(axis=1), TUBELET)
        for position, weight in enumerate(blend_weights(clip_len)):
            if start + position < count:
                sums[start + position] += weight * tokens[position]
                totals[start + position] += weight
    return sums / totals


@given(
    rising_times,
    st.integers(1, 7),
    spacings,
    st.sampled_from(["centre", "end"]),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.data(),
)
def test_windows_are_those_of_the_whole_video(seconds, clip_len, spacing, anchor, stride, sizes, data):
    window = Window(clip_len, spacing, anchor)
    count = len(seconds)
    wanted = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    batcher = Batcher(clip_numbers, data.draw(st.integers(1, 3)))
    rows = rows_of(WindowStream(batcher, window, stride), seconds, wanted, sizes)
    frames = [frame for frame in range(count) if wanted[frame]]
    evaluated = sorted({*range(0, len(frames), stride), *([len(frames) - 1] if frames else [])})
    clips = {row: np.array(window_by_definition(window, frames[row], seconds), dtype=float) for row in evaluated}
    assert len(rows) == len(frames)
    for row, found in enumerate(rows):
        before = max(each for each in evaluated if each <= row)
        after = min(each for each in evaluated if each >= row)
        share = (row - before) / (after - before) if after > before and anchor == "centre" else 0.0
        np.testing.assert_allclose(found, clips[before] + share * (clips[after] - clips[before]), atol=1e-4)


@given(st.integers(1, 40), st.sampled_from([2, 4, 6, 8]), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_tokens_are_blended_over_all_clips_that_see_a_frame(count, clip_len, sizes):
    stream = TokenStream(Batcher(tubelet_means, 2), clip_len, TUBELET)
    rows = rows_of(stream, np.arange(count) / 25, [True] * count, sizes)
    np.testing.assert_allclose(rows[:, 0], blended_by_definition(count, clip_len), rtol=1e-5, atol=1e-5)


@given(
    rising_times,
    st.sampled_from([2, 4, 6]),
    st.sampled_from([1 / 16, 1 / 4, 1.0]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.data(),
)
def test_spaced_tokens_are_those_of_the_frames_nearest_to_a_grid(seconds, clip_len, spacing, sizes, data):
    count = len(seconds)
    wanted = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    stream = SpacedTokenStream(Batcher(tubelet_means, 2), clip_len, TUBELET, spacing)
    rows = rows_of(stream, seconds, wanted, sizes)
    # the grid runs to the point nearest to the last frame, which may lie behind it; of two equally near the earlier
    grid = seconds[0] + np.arange(int((seconds[-1] - seconds[0]) / spacing) + 2) * spacing
    point_of = [nearest_by_definition(grid, time) for time in seconds]
    sampled = [nearest_by_definition(seconds, point) for point in grid]
    last = max([place for place, point in enumerate(grid) if point <= seconds[-1]] + [point_of[-1]])
    whole = TokenStream(Batcher(tubelet_means, 2), clip_len, TUBELET)
    chosen = numbered_frames(count)[sampled[: last + 1]]
    expected = np.concatenate([part for part in (whole.push(chosen), whole.finish()) if len(part)])
    frames = [frame for frame in range(count) if wanted[frame]]
    assert len(rows) == len(frames)
    if frames:
        np.testing.assert_allclose(rows, expected[[point_of[frame] for frame in frames]], rtol=1e-5, atol=1e-5)

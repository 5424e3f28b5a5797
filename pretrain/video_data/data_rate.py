"""Does the data keep up with the GPU? A short probe before a training, and what it says in the plan."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

PROBE_SAMPLES, PROBE_SECONDS = 16, 3.0
USUAL_SHARE = 0.35
"""Of a GPU's peak, what well-fed trainings of vision transformers reach: the yardstick of docs/clusters.md."""


class Samples(Protocol):
    """What is probed: `pretrain.ssl_dataset.VideoSamples`."""

    samples_per_seek: int

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """The samples with these numbers."""


class ReadingSpeed(NamedTuple):
    """One core's wall-clock `seconds` for a sample, views included, over `num_samples` of them."""

    seconds: float
    num_samples: int


def probe_reading(samples: Samples, *, most_seconds: float = PROBE_SECONDS) -> ReadingSpeed:
    """Read some of the first samples, in one thread, for about `most_seconds`; the first are a warm-up where time allows.

    Raises `UserError` where samples cannot be read, as the training would.
    """
    num_threads, together = torch.get_num_threads(), samples.samples_per_seek
    torch.set_num_threads(1)
    try:
        spent, count = 0.0, 0
        for first in range(0, PROBE_SAMPLES + together, together):
            started = time.perf_counter()
            samples.__getitems__(range(first, first + together))
            seconds = time.perf_counter() - started
            if first == 0 and seconds < most_seconds / 4:  # libraries and views are loaded with it
                continue
            spent, count = spent + seconds, count + together
            if spent > most_seconds:
                break
    finally:
        torch.set_num_threads(num_threads)  # a training records it
    return ReadingSpeed(spent / count, count)


def describe_data(
    speed: ReadingSpeed, *, num_workers: int, num_cores: int, wanted: float | None, is_packed: bool, unit: str
) -> str:
    """What the data gives to a GPU, against the `wanted` samples a second that it takes (None: not known), in words.

    `num_cores` are those for this GPU; `unit` is `images` or `clips`.
    """
    readers = max(1, min(num_workers, num_cores))
    given = readers / speed.seconds
    by = (
        f"{readers} of {num_workers} processes, as there are cores" if readers < num_workers else f"{readers} processes"
    )
    by = "this process, in turn with the training" if num_workers == 0 else by
    measured = (
        f"{speed.seconds * 1e3:.0f} ms of a core for each of {speed.num_samples} {unit}; {given:.0f} a second by {by}"
    )
    if wanted is None:
        return f"{measured}; what the device takes is not known"
    takes = f"the GPU takes about {wanted:.0f} at {USUAL_SHARE:.0%} of its peak"
    if given >= wanted:
        return f"{measured}; {takes}: the data keeps up"
    needed = math.ceil(wanted * speed.seconds)
    advice = f"--num_workers {needed} on as many cores"
    if not is_packed:
        advice = f"pack the videos (pack_videos.py), or {advice}, or --samples_per_seek"
    return f"{measured}; {takes}: the data is {wanted / given:.1f} times too slow; {advice}"

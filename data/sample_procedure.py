"""The course of a drawn operation: which phases come, in which order, for how long; the same for one seed."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PREFIXES = ("BL", "BN", "SD")  # of video names; folds are stratified by them
PREFIX_CYCLE = ("BL", "BN", "SD", "BL", "BN", "SD", "BL", "BN", "SD", "BL")
FPS = 5  # of a drawn video: what an encoder is to look at decides how long `make demo` takes
SHORTEST = 3  # frames of a phase
FEWEST_FRAMES, MOST_FRAMES = 18 * FPS, 32 * FPS  # of a video


class Step(NamedTuple):
    """A phase at its place in the procedure."""

    phase: str
    typical_seconds: float
    chances: tuple[float, float, float]
    """That it occurs in a video of each of `PREFIXES`."""
    split_chance: float
    """That it comes in two parts."""


PROCEDURE = (
    Step("background", 1.2, (1.0, 1.0, 1.0), 0.0),
    Step("peritomy", 1.6, (0.9, 0.8, 1.0), 0.1),
    Step("cautery", 1.1, (0.9, 0.5, 0.7), 0.3),
    Step("scleral_groove", 0.9, (1.0, 0.9, 0.8), 0.0),
    Step("incision", 0.7, (0.5, 0.7, 0.4), 0.0),
    Step("tunnel", 2.2, (1.0, 1.0, 1.0), 0.3),
    Step("sideport", 0.6, (0.8, 0.9, 0.9), 0.0),
    Step("AB_injection_and_wash", 1.4, (0.6, 0.9, 0.7), 0.1),
    Step("OVD_injection", 0.9, (1.0, 0.9, 1.0), 0.1),
    Step("capsulorrhexis", 2.8, (1.0, 1.0, 1.0), 0.3),
    Step("main_incision_entry", 0.8, (1.0, 0.9, 1.0), 0.1),
    Step("OVD_injection", 0.7, (0.3, 0.2, 0.5), 0.0),
    Step("hydroprocedure", 1.0, (0.9, 0.8, 0.9), 0.0),
    Step("nucleus_prolapse", 1.4, (0.9, 0.8, 0.9), 0.1),
    Step("nucleus_delivery", 1.0, (1.0, 1.0, 1.0), 0.0),
    Step("cortical_wash", 3.4, (1.0, 1.0, 1.0), 0.4),
    Step("OVD_IOL_insertion", 2.0, (1.0, 1.0, 1.0), 0.0),
    Step("OVD_wash", 1.7, (0.9, 1.0, 0.9), 0.2),
    Step("stromal_hydration", 0.9, (0.7, 0.6, 0.9), 0.1),
    Step("tunnel_suture", 1.6, (0.3, 0.4, 0.8), 0.0),
    Step("background", 1.0, (1.0, 1.0, 1.0), 0.0),
)


def video_names(num_videos: int) -> list[str]:
    """`num_videos` names for groundTruth, then one a prefix for groundTruth_val, numbered within their prefix."""
    counts: Counter[str] = Counter()
    names = []
    for prefix in [PREFIX_CYCLE[index % len(PREFIX_CYCLE)] for index in range(num_videos)] + list(PREFIXES):
        counts[prefix] += 1
        names.append(f"{prefix}_{counts[prefix]:04d}")
    return names


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """A random stream of its own for each purpose in each video, the same on every run."""
    return np.random.default_rng([seed, zlib.crc32(f"{name}/{purpose}".encode())])


@dataclass(frozen=True)
class Segment:
    """A run of frames of one phase."""

    phase: str
    length: int  # frames


def make_schedule(name: str, seed: int) -> list[Segment]:
    """The phases of video `name` in order, FEWEST_FRAMES to MOST_FRAMES in all."""
    rng = generator(seed, name, "schedule")
    while True:
        schedule = _draw_schedule(name, rng)
        if FEWEST_FRAMES <= sum(segment.length for segment in schedule) <= MOST_FRAMES:
            return schedule


def _draw_schedule(name: str, rng: np.random.Generator) -> list[Segment]:
    column = PREFIXES.index(name[:2])
    steps = [step for step in PROCEDURE if rng.random() < step.chances[column]]
    if rng.random() < 0.3:  # some surgeons make the sideport first
        early = [step for step in steps if step.phase == "sideport"]
        steps = steps[:2] + early + [step for step in steps[2:] if step not in early]
    schedule: list[Segment] = []
    for phase, typical_seconds, _, split_chance in steps:
        # lengths are skewed as those of real phases are: mostly short, some very long
        length = max(SHORTEST, round(FPS * typical_seconds * rng.lognormal(-0.25, 0.5)))
        idle = max(SHORTEST, round(FPS * 0.5 * rng.lognormal(0, 0.4)))
        if len(schedule) > 1 and phase != "background" and rng.random() < 0.12:
            schedule.append(Segment("background", idle))
        if length >= 1.4 * FPS and rng.random() < split_chance:
            between = "OVD_injection" if phase == "capsulorrhexis" else "background"
            first = int(rng.integers(SHORTEST, length - SHORTEST + 1))
            schedule += [Segment(phase, first), Segment(between, idle), Segment(phase, length - first)]
        else:
            schedule.append(Segment(phase, length))
    return schedule


def labels_of(schedule: list[Segment]) -> list[str]:
    """One phase name a frame."""
    return [segment.phase for segment in schedule for _ in range(segment.length)]

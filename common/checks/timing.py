"""Frames and frame rates: labels against what decodes, videos against each other, features against their files.

Sidecars of features hold what was decoded. A video without features is probed: its header may be wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.base.runtime import listed, progress
from common.base.wording import place, seconds_of
from common.checks.features import ExtractedVideo
from common.checks.findings import Finding
from common.dataset.phases import LENGTH_TOLERANCE, allowed_difference, length_ratio
from common.video.label_grid import LabelGrid
from common.video.probe import VideoError, VideoInfo, probe
from common.video.timeline import is_plausible_fps

LENGTH_KIND, RATE_KIND, VIDEO_KIND = "lengths", "frame rates", "videos"
RATE_TOLERANCE = 0.01  # of the rate: 29.97 and 30 are alike
LARGEST_GAP = 5.0  # usual frame durations, after which frames were lost


@dataclass(frozen=True)
class Timing:
    """Frames and rate of a video, None where unknown; `source` says where they are from."""

    num_frames: int | None
    fps: float | None
    source: str
    decoded: bool
    from_elsewhere: bool = False  # features without a sidecar, which may stand for every n-th frame


def collect_timings(
    videos: Mapping[str, Path], extracted: Mapping[str, list[ExtractedVideo]], findings: list[Finding]
) -> dict[str, list[Timing]]:
    """Frames and rate of each video: one entry per count that its features hold, else one by its header."""
    headers = {}
    to_probe = [video for video in videos if not any(entry.fps for entry in extracted.get(video, []))]
    for video in progress(to_probe, description="headers", unit="video"):
        try:
            headers[video] = probe(videos[video])
        except VideoError as error:
            message = f"{video}: {videos[video]} cannot be read as a video ({error.reason})"
            findings.append(Finding("error", VIDEO_KIND, message, error.advice, video=video))
            continue
        findings += _header_findings(video, headers[video])
    # as many frames as decode, where features tell; else what the header promises
    timings = {
        video: [Timing(info.promised_frames, info.fps, "its header", decoded=False)] for video, info in headers.items()
    }
    for video, entries in extracted.items():
        header_fps = headers[video].fps if video in headers else None
        folders: dict[int, list[ExtractedVideo]] = {}
        for entry in entries:
            folders.setdefault(entry.num_frames, []).append(entry)
        timings[video] = [
            Timing(
                count,
                same[0].fps or header_fps,
                listed([entry.folder for entry in same]),
                decoded=True,
                from_elsewhere=all(entry.identity is None for entry in same),
            )
            for count, same in folders.items()
        ]
    return timings


def _header_findings(video: str, info: VideoInfo) -> Iterator[Finding]:
    """What a header says that no camera does, and what is in the file beside the video that is read."""
    if info.stated_fps is not None and not is_plausible_fps(info.stated_fps):
        message = (
            f"{video}: its header states {info.stated_fps:g} frames a second, which is the clock's rate or garbage"
        )
        advice = "frames are counted and timed when features are extracted; nothing is computed from this rate"
        yield Finding("warning", VIDEO_KIND, message, advice, video=video)
    if info.other_streams:
        message = f"{video}: stream {info.stream} is read, not {listed(list(info.other_streams))}"
        advice = "check that this is the one that was labelled"
        yield Finding("warning", VIDEO_KIND, message, advice, video=video)
    if not info.has_presentation_times:
        message = f"{video}: its container does not say when frames are shown; they are timed in order of decoding"
        yield Finding("note", VIDEO_KIND, message, "nothing to do, or wrap it again as MP4 or Matroska", video=video)


def length_findings(
    labels: Mapping[str, np.ndarray],
    timings: Mapping[str, list[Timing]],
    grid: LabelGrid,
    *,
    from_elsewhere: bool = True,
) -> Iterator[Finding]:
    """Labels that are more or fewer than their video has frames to carry one, by the `grid` of the labels.

    Those of features `from_elsewhere` where asked for.
    """
    for video, ids in labels.items():
        known = [
            each for each in timings.get(video, []) if each.num_frames and (from_elsewhere or not each.from_elsewhere)
        ]
        if len(known) > 1:
            counts = "; ".join(f"{timing.num_frames} in {timing.source}" for timing in known)
            advice = "extract the wrong one again, with the same decoder as the other"
            message = f"{video}: features disagree on the decoded frames: {counts}"
            yield Finding("warning", LENGTH_KIND, message, advice, video=video)
        for timing in known:
            # features from elsewhere stand for labels, whatever these stand for
            is_plain = grid.is_every_frame or timing.from_elsewhere
            reached = timing.num_frames if is_plain else grid.count(timing.num_frames, timing.fps)
            if reached not in (None, len(ids)):
                what = "" if is_plain else f" at {grid}"
                counted = replace(timing, num_frames=reached, fps=timing.fps if is_plain else grid.rate(timing.fps))
                yield from _length_finding(video, len(ids), counted, what)


def _length_finding(video: str, num_labels: int, timing: Timing, grid: str) -> Iterator[Finding]:
    """`timing` counts what a label can stand for: frames, or those on the `grid`, in words."""
    difference, allowed = abs(num_labels - timing.num_frames), allowed_difference(timing.num_frames)
    if difference <= LENGTH_TOLERANCE and not timing.decoded:  # within what headers are wrong by
        return
    ratio = length_ratio(num_labels, timing.num_frames)
    rate = f" at {timing.fps:.3f} fps" if timing.fps else ""
    what = f"frames to label{grid}" if grid else "decoded frames" if timing.decoded else "frames"
    start = min(num_labels, timing.num_frames)
    message = (
        f"{video}: {num_labels} labels, {timing.num_frames} {what}{rate} by {timing.source}; they part at "
        f"{place(start, timing.fps)}" + (f"; {ratio[1]}" if ratio else "")
    )
    if difference <= allowed and timing.decoded:
        severity, advice = "note", f"training trims up to {allowed} frames of this video at the end; nothing to do"
    elif timing.from_elsewhere and ratio and num_labels > timing.num_frames:
        severity, advice = (
            "warning",
            f"if these features are of every n-th frame, train with --feature_stride {ratio[0]}",
        )
    elif timing.decoded:
        severity = "error"
        advice = f"label {'every decoded frame' if not grid else 'as dataset.yaml says'}; training refuses this video"
    else:
        severity, advice = "warning", "headers can be wrong: extract features, which counts the frames, and audit again"
    seconds = seconds_of(start, timing.fps)
    yield Finding(severity, LENGTH_KIND, message, advice, video=video, frame=start, seconds=seconds)


def rate_findings(timings: Mapping[str, list[Timing]]) -> Iterator[Finding]:
    """Videos whose frame rate is not the one that more than half of the videos have."""
    rates = {video: found[0].fps for video, found in timings.items() if found[0].fps}
    if not rates:
        return
    # the rate that most others are alike to; of 29.97 and 30, which are alike, the more frequent one
    every = np.array(list(rates.values()))
    usual = max(Counter(rates.values()).items(), key=lambda item: (_alike(item[0], every), item[1]))[0]
    alike = _alike(usual, every)
    if 2 * alike <= len(rates):
        counts = Counter(round(fps, 2) for fps in rates.values())
        shown = [f"{count} with {fps:.2f}" for fps, count in sorted(counts.items())]
        advice = "give --fps to extract_features.py, so that a feature lasts as long in every video"
        yield Finding("note", RATE_KIND, f"the videos have no common frame rate: {listed(shown)} fps", advice)
        return
    for video, fps in rates.items():
        if abs(fps - usual) > RATE_TOLERANCE * usual:
            message = f"{video}: {fps:.3f} fps by {timings[video][0].source}, {alike} others have {usual:.3f}"
            advice = "is this another recording or a re-encoded copy? Check that its labels were made for this file"
            yield Finding("warning", RATE_KIND, message, advice, video=video)


def _alike(fps: float, rates: np.ndarray) -> int:
    # in one step for all: where every video has a rate of its own, each is compared with each
    return int(np.count_nonzero(np.abs(rates - fps) <= RATE_TOLERANCE * fps))


def variable_rates(extracted: Mapping[str, list[ExtractedVideo]]) -> Iterator[Finding]:
    """Videos whose decoded frames do not come at a constant rate, with the longest gap."""
    for video, entries in extracted.items():
        uneven = next((entry.uneven for entry in entries if entry.uneven), None)
        if uneven is None:
            continue
        where = f"after frame {uneven.frame} ({uneven.start:.2f} s) the next comes {uneven.step:.3f} s later"
        what = "frames are missing" if uneven.step > LARGEST_GAP * uneven.usual else "variable frame rate"
        message = f"{video}: {what}: {where}, usual are {uneven.usual:.3f} s"
        advice = "check that the labels were made for this file frame by frame, not by a constant rate"
        yield Finding(
            "warning", RATE_KIND, message, advice, video=video, frame=uneven.frame, seconds=round(uneven.start, 3)
        )

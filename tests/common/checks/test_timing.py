"""Lengths and frame rates: labels against frames, videos against each other."""

from dataclasses import replace

import numpy as np
import pytest

from common.checks import timing
from common.checks.features import UnevenStep, uneven_step
from common.features.files import FeatureWriter
from common.video.timeline import Timeline
from tests.common.cohort import FPS, NAMES, VALIDATION, WAY


def test_labels_that_are_not_as_many_as_decoded_frames(cohort):
    count = len(cohort.labels("BL_01"))
    cohort.add_features("BL_01", frames=count - 17)
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("error", "lengths", "BL_01", count - 17)
    assert f"{count} labels, {count - 17} decoded frames at 25.000 fps by features/Made" in finding.message


@pytest.mark.parametrize(
    ("difference", "severity"), [(-1, "note"), (1, "note"), (-2, "error"), (2, "error"), (16, "error")]
)
def test_what_training_trims_is_a_note(cohort, difference, severity):
    """One frame of a video of about 100."""
    assert len(cohort.labels("BL_01")) < 200
    cohort.add_features("BL_01", frames=len(cohort.labels("BL_01")) + difference)
    assert cohort.audit() == [(severity, "lengths", "BL_01")]


def test_a_longer_video_may_differ_by_one_percent_and_sixteen_frames_at_most(cohort):
    for video, num_frames, difference in (
        ("BL_01", 900, 9),
        ("BL_03", 900, 10),
        ("BL_05", 5000, 16),
        ("BL_07", 5000, 17),
    ):
        cohort.video(video).unlink()  # whose header has another count
        cohort.write(video, ["background"] * 10 + ["cut"] * (num_frames - 10))
        cohort.add_features(video, frames=num_frames + difference)
    found = {f.video: f.severity for f in cohort.findings() if f.kind == "lengths"}
    assert found == {"BL_01": "note", "BL_03": "error", "BL_05": "note", "BL_07": "error"}


def test_features_from_elsewhere_at_every_nth_frame_get_their_flag(cohort):
    cohort.add_features("BL_01", frames=-(-len(cohort.labels("BL_01")) // 4), sidecar=False)
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("warning", "lengths")
    assert "1 label every 4 frames?" not in finding.message
    assert "--feature_stride 4" in finding.advice
    cohort.dataset.description.write_text("feature_fps: 6.25\n")
    assert cohort.findings() == []


def test_features_without_a_sidecar_are_a_frame_a_vector(cohort):
    cohort.add_features("BL_01", frames=len(cohort.labels("BL_01")) + 40, sidecar=False)
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "lengths")
    assert "at 25.000 fps" in finding.message  # by the header


def test_sampled_features_count_decoded_frames(cohort):
    count = len(cohort.labels("BL_01"))
    sampled = Timeline(np.arange(count) / FPS, np.arange(0, count, 5))
    path = cohort.dataset.features("Made") / "BL_01.npy"
    with FeatureWriter(path, 2, "float32") as writer:
        writer.append(np.zeros((len(sampled.sampled), 2), np.float32))
        writer.finish(WAY | {"timeline": sampled.to_json()})
    assert cohort.findings() == []


def test_folders_that_disagree_on_the_decoded_frames(cohort):
    count = len(cohort.labels("BL_01"))
    for encoder, frames in (("A", count), ("B", count), ("C", count - 30)):
        cohort.add_features("BL_01", encoder=encoder, frames=frames)
    disagreement, error = cohort.findings()
    assert f"{count} in features/A, features/B; {count - 30} in features/C" in disagreement.message
    assert (error.severity, error.kind) == ("error", "lengths")


@pytest.mark.parametrize(("more", "expected"), [(16, []), (17, [("warning", "lengths", "BL_01")])])
def test_a_header_is_only_a_hint(cohort, more, expected):
    cohort.write("BL_01", cohort.labels("BL_01") + ["background"] * more)
    assert cohort.audit() == expected


def test_a_container_without_a_count_is_judged_by_its_duration(cohort, make_clip):
    cohort.video("BL_01").unlink()
    picture = np.zeros((16, 16, 3), np.uint8)
    make_clip(cohort.dataset.videos / "BL_01.mkv", [picture] * (len(cohort.labels("BL_01")) + 50), fps=FPS)
    assert cohort.audit() == [("warning", "lengths", "BL_01")]


def test_labels_at_a_fraction_of_the_rate_are_recognised(cohort):
    labels = cohort.labels("BL_01")
    cohort.add_features("BL_01", frames=len(labels) * 5)
    assert "1 label every 5 frames?" in cohort.only().message


def test_a_video_with_another_rate_than_the_rest(cohort, make_clip):
    make_clip(cohort.video("BL_01"), [np.zeros((16, 16, 3), np.uint8)] * len(cohort.labels("BL_01")), fps=30)
    finding = cohort.only(min_seconds=0.1)
    assert (finding.severity, finding.kind, finding.video) == ("warning", "frame rates", "BL_01")
    assert "30.000 fps by its header, 25 others have 25.000" in finding.message


def test_no_common_rate_is_one_note(cohort):
    for number, video in enumerate(NAMES + VALIDATION):
        count = len(cohort.labels(video))
        cohort.add_features(video, seconds=np.arange(count) / (20 + 5 * (number % 3)))
    finding = cohort.only(min_seconds=0.1)
    assert (finding.severity, finding.kind, finding.video) == ("note", "frame rates", None)
    assert "9 with 20.00, 9 with 25.00, 8 with 30.00 fps" in finding.message


def test_lost_frames_are_named_by_their_place(cohort):
    seconds = np.arange(len(cohort.labels("BL_01"))) / FPS
    seconds[31:] += 0.4
    cohort.add_features("BL_01", seconds=seconds)
    (finding,) = [finding for finding in cohort.findings() if "frames are missing" in finding.message]
    assert (finding.severity, finding.kind, finding.frame, finding.seconds) == ("warning", "frame rates", 30, 1.2)
    assert "after frame 30 (1.20 s) the next comes 0.440 s later, usual are 0.040 s" in finding.message


def test_a_variable_rate_is_a_warning(cohort):
    count = len(cohort.labels("BL_01"))
    cohort.add_features("BL_01", seconds=np.cumsum(np.where(np.arange(count) % 2, 0.02, 0.06)))
    assert "variable frame rate" in cohort.only().message


def test_jitter_is_no_variable_rate(cohort):
    count = len(cohort.labels("BL_01"))
    cohort.add_features("BL_01", seconds=np.cumsum(np.where(np.arange(count) % 2, 0.035, 0.045)))
    assert cohort.findings() == []


def test_a_file_that_is_no_video_does_not_stop_the_others(cohort):
    cohort.video("BL_01").write_bytes(b"not a video")
    cohort.video("SD_02").unlink()
    assert cohort.audit() == [("error", "videos", "BL_01"), ("error", "files", "SD_02")]


def test_a_header_with_an_implausible_rate_or_several_videos_is_named(cohort, monkeypatch):
    real = timing.probe

    def odd(path):
        changes = {
            "BL_01": {"fps": None, "stated_fps": 90_000.0},
            "BL_03": {"other_streams": ("stream 1 (h264, 9 x 9)",)},
        }
        return replace(real(path), **changes.get(path.stem, {}))

    monkeypatch.setattr(timing, "probe", odd)
    found = {finding.video: finding.message for finding in cohort.findings() if finding.kind == "videos"}
    assert found.keys() == {"BL_01", "BL_03"}
    assert "states 90000 frames a second" in found["BL_01"]
    assert "stream 0 is read, not stream 1" in found["BL_03"]


def test_rates_that_are_all_different_are_alike_within_a_percent():
    """24.9, 25.0, 25.1 and 25.2 are alike to 25.0 or 25.1; of a rate that each video has once the first such one is usual."""
    rates = {"a": 24.9, "b": 25.0, "c": 25.1, "d": 25.2, "e": 30.0}
    timings = {video: [timing.Timing(10, fps, "its header", decoded=False)] for video, fps in rates.items()}
    (finding,) = timing.rate_findings(timings)
    assert (finding.video, finding.message) == ("e", "e: 30.000 fps by its header, 4 others have 25.000")


def test_of_uneven_times_the_longest_step_is_kept():
    assert uneven_step(np.array([0.0, 0.04, 0.08, 0.2, 0.24])) == UnevenStep(
        2, 0.08, pytest.approx(0.12), pytest.approx(0.04)
    )
    assert uneven_step(np.array([0.0, 0.04, 0.079, 0.121])) is None  # what clocks are off by
    assert uneven_step(np.array([0.0, 9.0])) is None

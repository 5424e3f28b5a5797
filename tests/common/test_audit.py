"""The auditor: a clean cohort gives no finding, and each fault put into it gives its own, and no other."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from common import audit
from common.audit import main
from common.base import paths
from common.base.runtime import UserError
from common.checks.dataset import audit_dataset
from common.checks.orders import MIN_OTHERS
from common.dataset.kfold import make_folds, read_folds, write_folds
from common.dataset.manifest import video_fingerprint
from common.dataset.phases import CHALLENGE_HEADER
from common.features.files import FeatureWriter, sidecar_path
from common.video.timeline import Timeline

PHASES = ("background", "cut", "open", "inject", "remove", "wash", "close")
NUM_VIDEOS, FPS = 24, 25
NAMES = [f"{'BL' if n % 2 else 'SD'}_{n:02}" for n in range(NUM_VIDEOS)]
VALIDATION = ["BL_90", "SD_91"]
WAY = {
    "encoder": "Made", "weights": {"source": "none", "file": None, "sha256": None}, "pooling": "made", "window": None,
    "preprocessing": {}, "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav",
}  # fmt: skip


def course(number: int) -> list[str]:
    """A video's phases in order: `inject` and `remove` in either order, `wash` at times, `close` again at times."""
    middle = ["remove", "inject"] if number % 3 == 0 else ["inject", "remove"]
    wash = ["wash"] if number % 2 else []
    again = ["open", "close"] if number % 5 == 0 else []
    return ["background", "cut", "open", *middle, *wash, "close", *again, "background"]


def labels_of(number: int) -> list[str]:
    """One phase name a frame, every phase 10 to 14 frames (0.4 to 0.56 s) long."""
    lengths = np.random.default_rng(number).integers(10, 15, 20)
    return [phase for phase, length in zip(course(number), lengths, strict=False) for _ in range(length)]


@dataclass(frozen=True)
class Cohort:
    """A data set to put faults into."""

    dataset: paths.Dataset

    def label_file(self, video: str) -> Path:
        folder = self.dataset.ground_truth_val if video in VALIDATION else self.dataset.ground_truth
        return folder / f"{video}.txt"

    def labels(self, video: str) -> list[str]:
        return self.label_file(video).read_text().split()

    def write(self, video: str, labels: list[str]) -> None:
        self.label_file(video).write_text("".join(f"{name}\n" for name in labels))

    def reorder(self, video: str, phases: str) -> list[int]:
        """Other phases in the same video, all of one length; returns the frames at which they start."""
        names = phases.split()
        length, rest = divmod(len(self.labels(video)), len(names))
        self.write(video, [name for name in names for _ in range(length)] + names[-1:] * rest)
        return [length * number for number in range(len(names))]

    def video(self, name: str) -> Path:
        return self.dataset.videos / f"{name}.mp4"

    def add_features(
        self,
        video: str,
        *,
        encoder: str = "Made",
        frames: int | None = None,
        seconds=None,
        sidecar: bool = True,
        **changes,
    ) -> Path:
        """Features of a video as an extraction leaves them: by default a vector for every label."""
        count = len(self.labels(video)) if frames is None else frames
        times = np.arange(count) / FPS if seconds is None else np.asarray(seconds)
        path = self.dataset.features(encoder) / f"{video}.npy"
        timeline = Timeline(times, np.arange(len(times))).to_json()
        with FeatureWriter(path, 2, "float32") as writer:
            writer.append(np.zeros((len(times), 2), np.float32))
            writer.finish(WAY | {"timeline": timeline} | changes)
        if not sidecar:
            sidecar_path(path).unlink()
        return path

    def audit(self, **options) -> list[tuple[str, str, str | None]]:
        """`(severity, kind, video)` of every finding."""
        return [(finding.severity, finding.kind, finding.video) for finding in self.findings(**options)]

    def findings(self, **options):
        return audit_dataset(self.dataset, **options).findings

    def only(self, **options):
        """The one finding that there must be."""
        findings = self.findings(**options)
        assert len(findings) == 1, findings
        return findings[0]


@pytest.fixture(scope="session")
def clean_files(tmp_path_factory, make_clip) -> Path:
    """A sound data set: 24 videos and 2 for validation, each of its own colour, with labels and patients."""
    cohort = Cohort(paths.Dataset(tmp_path_factory.mktemp("clean") / "set"))
    dataset = cohort.dataset
    dataset.ground_truth.mkdir(parents=True)
    dataset.ground_truth_val.mkdir()
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    for number, video in enumerate(NAMES + VALIDATION):
        cohort.write(video, labels_of(number))
        picture = np.full((16, 16, 3), (9 * number, 255 - 9 * number, 40), np.uint8)
        make_clip(cohort.video(video), [picture] * len(labels_of(number)), fps=FPS)
    patients = {video: f"p{number // 2}" for number, video in enumerate(NAMES)} | {VALIDATION[0]: "p90"}
    rows = "".join(f"{video},{patient}\n" for video, patient in patients.items())
    dataset.patients.write_text(f"video,patient\n{rows}")
    return dataset.root


@pytest.fixture
def cohort(workspace, clean_files) -> Cohort:
    """A copy of the sound data set, without folds and features."""
    root = workspace / "data" / "set"
    shutil.copytree(clean_files, root)
    return Cohort(paths.Dataset(root))


def make_and_write_folds(cohort, num_folds=3, patients=None):
    """Folds that keep the patients of `patients.csv`, or other ones, together."""
    patients = patients_of(cohort) if patients is None else patients
    folds = make_folds(NAMES, num_folds, patients=patients)
    write_folds(cohort.dataset, folds, seed=42, stratify="prefix", patients=patients)
    return folds


def patients_of(cohort):
    return dict(line.split(",") for line in cohort.dataset.patients.read_text().split()[1:])


# --- no false alarms -----------------------------------------------------------------------------------------------


def test_a_clean_data_set_gives_no_finding(cohort, capsys):
    assert main([str(cohort.dataset.root), "--strict"]) == 0
    printed = capsys.readouterr().out
    assert printed == "set: 26 label files, 26 videos, 0 feature folders: 0 errors, 0 warnings, 0 notes\n"


def test_a_clean_data_set_with_folds_features_and_honest_pretraining_gives_no_finding(cohort):
    make_and_write_folds(cohort)
    for encoder in ("Made", "Other@fp16"):
        for video in NAMES + VALIDATION:
            size = cohort.video(video).stat().st_size
            cohort.add_features(video, encoder=encoder, video_bytes=size, encoder_name=encoder)
    entry = {"corpus": "other", "name": "BL_01", "size_bytes": 1, "fingerprint": "0" * 64}
    write_manifest(paths.pretrained_backbone("dinov3"), [entry])
    assert cohort.findings() == []


def test_a_data_set_of_features_alone_gives_no_finding(made):
    """What other releases hold: no videos at all."""
    assert audit_dataset(made.dataset, min_seconds=0.1).findings == []


def test_labels_in_the_challenges_form_give_no_finding(cohort):
    text = f"{CHALLENGE_HEADER}\n{' '.join(cohort.labels('BL_01'))}\n"
    cohort.label_file("BL_01").write_text(text)
    assert cohort.findings() == []


# --- labels --------------------------------------------------------------------------------------------------------


def test_every_unknown_name_is_named_with_its_line_and_the_nearest_known(cohort):
    labels = cohort.labels("BL_01")
    labels[4], labels[5], labels[20] = "backgruond", "backgruond", "Wsh"
    cohort.write("BL_01", labels)
    first, second = cohort.findings()
    assert (first.severity, first.kind, first.video, first.line, first.frame) == ("error", "labels", "BL_01", 5, 4)
    assert "BL_01.txt, line 5 (frame 4): unknown phase 'backgruond', 2 times" in first.message
    assert "'background'" in first.advice
    assert "line 21 (frame 20): unknown phase 'Wsh', once" in second.message
    assert "'wash'" in second.advice


def test_an_unknown_name_in_the_challenges_form_has_its_frame(cohort):
    names = cohort.labels("BL_01")
    names[7] = "zzz"
    cohort.label_file("BL_01").write_text(f"{CHALLENGE_HEADER}\n{' '.join(names)}\n")
    finding = cohort.only()
    assert (finding.line, finding.frame) == (2, 7)
    assert finding.advice == f"known names: {', '.join(PHASES)}"


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b" \n\n", "is empty"), (b"\xff\xfe\x00", "UTF-8")])
def test_an_empty_or_binary_file_does_not_stop_the_others(cohort, content, what):
    cohort.label_file("BL_01").write_bytes(content)
    cohort.write("SD_02", ["cat", *cohort.labels("SD_02")[1:]])
    first, second = cohort.findings()
    assert (first.severity, first.kind, first.video) == ("error", "labels", "BL_01")
    assert what in first.message
    assert "unknown phase 'cat'" in second.message


@pytest.mark.parametrize("content", [None, "0 background\n0 cut\n", "0 background\n2 cut\n"])
def test_without_a_mapping_the_other_checks_go_on(cohort, content):
    cohort.dataset.mapping.unlink()
    if content:
        cohort.dataset.mapping.write_text(content)
    cohort.video("BL_01").unlink()
    assert cohort.audit() == [("error", "labels", None), ("error", "files", "BL_01")]
    assert cohort.findings()[0].message.count("mapping.txt") == 1


def test_a_data_set_without_labels_is_an_error(workspace):
    (workspace / "data" / "empty").mkdir()
    (workspace / "data" / "empty" / "mapping.txt").write_text("0 background\n")
    finding = Cohort(paths.dataset("empty")).only()
    assert (finding.severity, finding.kind) == ("error", "labels")
    assert "no label files" in finding.message


# --- short phases --------------------------------------------------------------------------------------------------


def test_a_phase_of_a_few_frames_is_named_with_its_time(cohort):
    labels = cohort.labels("BL_01")
    labels[3:5] = ["close"] * 2
    cohort.write("BL_01", labels)
    findings = [finding for finding in cohort.findings() if finding.kind == "short phases"]
    assert [(f.severity, f.video, f.frame, f.seconds) for f in findings] == [("warning", "BL_01", 0, 0.0)]
    assert (
        "shorter than 0.4 s: background at frame 0 (0:00.0) for 3 frames (0.12 s), close at frame 3"
        in findings[0].message
    )


def test_the_shortest_duration_can_be_chosen(cohort):
    assert cohort.audit(min_seconds=0.4) == []
    assert {kind for _, kind, _ in cohort.audit(min_seconds=0.41)} == {"short phases"}


def test_without_a_frame_rate_only_single_frames_are_short(cohort):
    shutil.rmtree(cohort.dataset.videos)
    labels = cohort.labels("BL_01")
    cohort.write("BL_01", [*labels[:-12], "close", *labels[-11:]])
    cohort.write("BL_03", [*cohort.labels("BL_03"), "close", "close"])
    (finding,) = [finding for finding in cohort.findings() if finding.kind == "short phases"]
    assert (finding.video, finding.seconds) == ("BL_01", None)
    assert "of a single frame: " in finding.message


def test_a_given_frame_rate_counts_where_none_is_known(cohort):
    shutil.rmtree(cohort.dataset.videos)
    cohort.write("BL_03", [*cohort.labels("BL_03"), *["close"] * 9])
    short = [finding for finding in cohort.findings(fps=25) if finding.kind == "short phases"]
    assert [finding.video for finding in short] == ["BL_03"]
    assert not [finding for finding in cohort.findings() if finding.kind == "short phases"]


# --- orders --------------------------------------------------------------------------------------------------------


def test_a_phase_before_one_that_it_follows_everywhere_else(cohort):
    starts = cohort.reorder("BL_01", "background close cut open inject remove background")
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("warning", "order", "BL_01", starts[1])
    assert finding.seconds == starts[1] / FPS
    place = f"frame {starts[1]} (0:{starts[1] / FPS:04.1f})"
    assert finding.message == f"BL_01, {place}: close before cut, inject, remove: only here, 25 others have it after"


def test_a_phase_after_one_that_it_precedes_everywhere_else(cohort):
    starts = cohort.reorder("BL_01", "background cut open inject remove close cut background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("warning", "BL_01", starts[6])
    assert "cut after open, inject, remove, close: only here, 25 others have it before" in finding.message


def test_a_swap_of_two_phases_is_one_finding(cohort):
    cohort.reorder("BL_01", "background open cut inject remove close background")
    assert "open before cut: only here, 25 others have it after" in cohort.only().message


def test_two_misplaced_phases_are_two_findings(cohort):
    cohort.reorder("BL_01", "background close open inject remove cut background")
    found = {re.search(r": (\w+) (before|after)", finding.message).groups() for finding in cohort.findings()}
    assert found == {("close", "before"), ("cut", "after")}


def test_only_videos_with_both_phases_are_counted(cohort):
    """12 of the 26 videos have a `wash`, too few to say what is usual."""
    cohort.reorder("BL_01", "background cut wash open inject remove close background")
    assert cohort.findings() == []


def test_what_two_videos_have_is_a_habit(cohort):
    for video in ("BL_01", "SD_02"):
        cohort.reorder(video, "background close cut open inject remove background")
    assert cohort.findings() == []


def test_a_small_cohort_says_nothing_of_orders(cohort):
    for video in NAMES[18:]:
        cohort.label_file(video).unlink()
        cohort.video(video).unlink()
    assert len(NAMES[:18]) + len(VALIDATION) == MIN_OTHERS
    cohort.reorder("BL_01", "background close cut open background inject remove background")
    assert cohort.findings() == []


def test_background_in_the_middle_where_no_other_video_has_it(cohort):
    starts = cohort.reorder("BL_01", "background cut background open inject remove close background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("warning", "BL_01", starts[2])
    assert "background between phases: only here, 25 others have it at the ends only" in finding.message


def test_background_in_the_middle_of_two_videos_is_usual(cohort):
    for video in ("BL_01", "BL_03"):
        cohort.reorder(video, "background cut background open inject remove close background")
    assert cohort.findings() == []


def test_a_transition_that_one_video_alone_has_is_a_note(cohort):
    """After `close` comes `open` or the end; no two phases have an order here that `inject` breaks."""
    for video in ("SD_00", "BL_05"):
        cohort.reorder(video, "background cut open remove close open inject background")
    starts = cohort.reorder("BL_15", "background cut open remove close inject open close background")
    finding = cohort.only(min_seconds=0.1)
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("note", "order", "BL_15", starts[5])
    assert "close is followed by inject: only here, in none of 25 others" in finding.message


def test_a_phase_after_which_much_can_come_gives_no_note(cohort):
    """Of two followers of `close` that one video each has, neither is a surprise."""
    for video in ("SD_00", "BL_05"):
        cohort.reorder(video, "background cut open remove close open inject background")
    cohort.reorder("BL_15", "background cut open remove close inject open close background")
    cohort.reorder("SD_10", "background cut open inject close remove open close background")
    assert not [finding for finding in cohort.findings() if "close is followed by" in finding.message]


def test_a_video_that_starts_in_the_middle_is_a_note(cohort):
    cohort.reorder("BL_01", "open inject remove close background")
    finding = cohort.only()
    assert (finding.severity, finding.video, finding.frame) == ("note", "BL_01", 0)
    assert "the start is followed by open: only here, in none of 25 others" in finding.message


def test_a_cohort_without_background_is_compared_too(cohort):
    cohort.dataset.mapping.write_text(cohort.dataset.mapping.read_text().replace("background", "rest"))
    for video in NAMES + VALIDATION:
        cohort.write(video, [name.replace("background", "rest") for name in cohort.labels(video)])
    assert cohort.findings() == []
    cohort.reorder("BL_01", "rest open cut inject remove close rest")
    assert "open before cut: only here" in cohort.only().message


def test_a_phase_left_out_gives_no_finding(cohort):
    cohort.reorder("BL_01", "background cut inject remove close background")
    assert cohort.findings() == []


# --- lengths and rates ---------------------------------------------------------------------------------------------


def test_labels_that_are_not_as_many_as_decoded_frames(cohort):
    count = len(cohort.labels("BL_01"))
    cohort.add_features("BL_01", frames=count - 17)
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video, finding.frame) == ("error", "lengths", "BL_01", count - 17)
    assert f"{count} labels, {count - 17} decoded frames at 25.000 fps by features/Made" in finding.message


@pytest.mark.parametrize("difference", [-16, -1, 1, 16])
def test_what_training_trims_is_a_note(cohort, difference):
    cohort.add_features("BL_01", frames=len(cohort.labels("BL_01")) + difference)
    assert cohort.audit() == [("note", "lengths", "BL_01")]


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


# --- features ------------------------------------------------------------------------------------------------------


def test_features_made_in_another_way_than_their_neighbours(cohort):
    for video in NAMES[:5]:
        cohort.add_features(video)
    cohort.add_features(NAMES[5], pooling="cls")
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("error", "features", NAMES[5])
    assert "features/Made was made in another way than most: pooling: 'cls' here, 'made' in 5 others" in finding.message


def test_the_same_weights_in_another_place_are_the_same_way(cohort):
    for number, video in enumerate(NAMES[:3]):
        cohort.add_features(video, weights={"source": f"/disk{number}/w.pt", "file": "w.pt", "sha256": "ab"})
    assert cohort.findings() == []


def test_a_damaged_feature_file_does_not_stop_the_others(cohort):
    cohort.add_features("BL_01").write_bytes(b"\x93NUMPY")
    cohort.add_features("BL_03", frames=5)
    assert cohort.audit() == [("error", "features", "BL_01"), ("error", "lengths", "BL_03")]


def test_features_of_a_video_that_was_replaced(cohort):
    cohort.add_features("BL_01", video_bytes=cohort.video("BL_01").stat().st_size + 1)
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("warning", "features", "BL_01")
    assert "was replaced" in finding.advice


# --- files and copies ----------------------------------------------------------------------------------------------


def test_labels_without_a_video_and_a_video_without_labels(cohort):
    cohort.video("BL_01").unlink()
    cohort.label_file("SD_02").unlink()
    assert sorted(cohort.audit()) == [("error", "files", "BL_01"), ("note", "files", "SD_02")]


def test_a_link_to_nothing(cohort):
    cohort.video("BL_01").unlink()
    cohort.video("BL_01").symlink_to("gone.mp4")
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("error", "files", "BL_01")


def test_two_videos_of_one_name(cohort, make_clip):
    count = len(cohort.labels("BL_01"))
    make_clip(cohort.dataset.videos / "BL_01.mkv", [np.zeros((16, 16, 3), np.uint8)] * count, fps=FPS)
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "files")
    assert "2 videos have this name: BL_01.mkv, BL_01.mp4" in finding.message


def test_one_video_under_two_names_and_in_both_parts(cohort):
    shutil.copy(cohort.video("BL_90"), cohort.video("BL_01"))
    labels = cohort.labels("BL_90")
    cohort.write("BL_01", [*labels[2:], *labels[-2:]])
    finding = cohort.only(min_seconds=0.1)
    assert (finding.severity, finding.kind) == ("error", "copies")
    assert "2 names: BL_01.mp4 (groundTruth), BL_90.mp4 (groundTruth_val)" in finding.message


def test_two_links_to_one_video_are_a_copy_with_one_finding_for_both(cohort):
    cohort.video("BL_01").unlink()
    cohort.video("BL_01").symlink_to(cohort.video("SD_02"))
    cohort.write("BL_01", cohort.labels("SD_02"))
    assert cohort.audit() == [("error", "copies", "BL_01")]


def test_a_name_in_both_parts(cohort):
    shutil.copy(cohort.label_file("BL_01"), cohort.dataset.ground_truth_val)
    cohort.dataset.patients.write_text("video,patient\nBL_01,p1\n")  # not a patient of two videos
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("error", "copies", "BL_01")
    assert "groundTruth_val/" in finding.message


def test_the_same_labels_for_two_videos_in_whatever_form(cohort):
    names = " ".join(cohort.labels("SD_02"))
    cohort.label_file("BL_01").write_text(f"{CHALLENGE_HEADER}\n{names}\n")
    (finding,) = [finding for finding in cohort.findings() if finding.kind == "copies"]
    assert finding.severity == "error"
    assert "for 2 videos: BL_01, SD_02" in finding.message


# --- folds ---------------------------------------------------------------------------------------------------------


def test_a_patient_in_two_folds(cohort):
    folds = make_and_write_folds(cohort, patients={})  # made before patients were known
    cohort.dataset.patients.write_text(f"video,patient\n{folds[0][0]},p1\n{folds[2][0]},p1\n{folds[1][0]},p2\n")
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "folds")
    assert f"patient p1 is in 2 test folds (fold 1: {folds[0][0]}; fold 3: {folds[2][0]})" in finding.message


def test_a_patient_in_training_and_validation(cohort):
    cohort.dataset.patients.write_text("video,patient\nBL_01,p1\nBL_90,p1\nBL_03,p2\nSD_91,p3\n")
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "folds")
    assert "patient p1 is in groundTruth/ (BL_01) and groundTruth_val/ (BL_90)" in finding.message


def test_folds_of_other_videos_are_found_and_the_rest_goes_on(cohort):
    make_and_write_folds(cohort)
    cohort.dataset.bundle("test", 1).write_text("BL_01.txt\nXX_1.txt\n")
    cohort.write("SD_91", ["cat", *cohort.labels("SD_91")[1:]])
    assert cohort.audit() == [("error", "labels", "SD_91"), ("error", "folds", None)]


def test_folds_that_were_changed_by_hand(cohort):
    folds = make_and_write_folds(cohort)
    record = json.loads(cohort.dataset.folds_record.read_text())
    cohort.dataset.folds_record.write_text(json.dumps(record | {"hash": "0"}))
    assert read_folds(cohort.dataset) == folds
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("warning", "folds")
    assert "its hash is not theirs" in finding.message


def test_a_missing_or_foreign_folds_record(cohort):
    make_and_write_folds(cohort)
    cohort.dataset.folds_record.write_text("{}")
    assert cohort.audit() == [("error", "folds", None)]
    cohort.dataset.folds_record.unlink()
    assert cohort.audit() == [("note", "folds", None)]


def test_label_files_of_a_fold_that_are_not_those_of_the_fold(cohort):
    folds = make_and_write_folds(cohort)
    folder = cohort.dataset.ground_truth_split(2)
    stray, changed = folds[1][:2]
    (folder / f"{stray}.txt").unlink()
    (folder / f"{changed}.txt").unlink()
    (folder / f"{changed}.txt").write_text("background\n")
    missing, old = cohort.findings()
    assert f"does not hold test fold 2: {stray}" in missing.message
    assert (old.severity, old.video) == ("warning", changed)
    assert "is an old copy of" in old.message


def test_patients_that_cannot_be_read_are_a_finding(cohort):
    cohort.dataset.patients.write_text("name;who\nBL_01;p1\n")
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "folds")
    assert "video,patient" in finding.advice


# --- leaks ---------------------------------------------------------------------------------------------------------


def write_manifest(folder: Path, videos: list[dict]) -> Path:
    folder.mkdir(parents=True)
    record = {"format": 1, "stage": "ssl", "model": folder.name, "videos": videos, "based_on": []}
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder / "manifest.json"


def test_pretraining_on_test_videos_is_an_error_with_the_fold(cohort):
    folds = make_and_write_folds(cohort)
    paths_seen = [cohort.video(name) for name in (folds[1][0], folds[1][3], "BL_90")]
    videos = [
        {"corpus": "c", "name": str(n), "size_bytes": path.stat().st_size, "fingerprint": video_fingerprint(path)}
        for n, path in enumerate(paths_seen)
    ]
    write_manifest(paths.pretrained_backbone("vjepa2-vitl"), videos)
    first, second = cohort.findings()
    assert (first.severity, first.kind, first.video) == ("error", "leaks", folds[1][0])
    title = "self-supervised pretraining (ssl/vjepa2-vitl) saw"
    assert first.message == f"{title} 2 videos of test fold 2: {folds[1][0]}, {folds[1][3]}"
    assert second.message == f"{title} 1 video of the validation part: BL_90"


def test_a_damaged_manifest_does_not_stop_the_others(cohort):
    write_manifest(paths.pretrained_backbone("a"), []).write_text("{")
    path = cohort.video("BL_01")
    entry = {"corpus": "c", "name": "n", "size_bytes": path.stat().st_size, "fingerprint": video_fingerprint(path)}
    write_manifest(paths.pretrained_backbone("b"), [entry])
    damaged, leak = cohort.findings()
    assert damaged.severity == "error"
    assert "ssl/a/manifest.json: not a readable JSON file" in damaged.message
    assert "of the labelled videos: BL_01" in leak.message


def test_weights_without_a_manifest_are_a_warning(cohort):
    paths.pretrained_adapter("vjepa2-l").mkdir(parents=True)
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("warning", "leaks")
    assert "best_lora" in finding.message


# --- the command ---------------------------------------------------------------------------------------------------


def test_exit_codes(cohort):
    root = str(cohort.dataset.root)
    cohort.label_file("SD_02").unlink()  # a note
    assert [main([root]), main([root, "--strict"])] == [0, 0]
    cohort.add_features("BL_01", video_bytes=1)  # a warning
    assert [main([root]), main([root, "--strict"])] == [0, 1]
    cohort.video("BL_03").unlink()  # an error
    assert [main([root]), main([root, "--strict"])] == [1, 1]


def test_findings_are_printed_by_kind_the_worst_first(cohort, capsys):
    cohort.label_file("SD_02").unlink()
    cohort.add_features("BL_01", video_bytes=1)
    cohort.write("SD_04", ["cat", *cohort.labels("SD_04")[1:]])
    cohort.video("BL_03").unlink()
    assert main(["set"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if re.match(r"[a-z ]+$", line)] == ["files", "labels", "features"]
    assert [line.split()[0] for line in printed if line.startswith("  ") and "->" not in line[:14]] == [
        "error", "note", "error", "warning",
    ]  # fmt: skip
    assert all(after.startswith(" " * 11 + "-> ") for line, after in pairwise(printed) if line[:3] == "  e")
    assert printed[-1] == "set: 25 label files, 25 videos, 1 feature folder: 2 errors, 1 warning, 1 note"


def test_the_json_record_holds_what_is_printed(cohort, tmp_path, capsys):
    cohort.label_file("SD_02").unlink()
    labels = cohort.labels("BL_01")
    cohort.write("BL_01", [*labels[:6], "opne", *labels[7:]])
    assert main(["set", "--json", str(tmp_path / "audit.json")]) == 1
    record = json.loads((tmp_path / "audit.json").read_text())
    printed = capsys.readouterr().out
    assert {key: record[key] for key in ("format", "dataset", "synthetic", "counts", "looked_at")} == {
        "format": 1,
        "dataset": "set",
        "synthetic": False,
        "counts": {"error": 1, "warning": 0, "note": 1},
        "looked_at": {"label_files": 25, "videos": 26, "feature_folders": 0},
    }
    assert all(finding["message"] in printed and finding["advice"] in printed for finding in record["findings"])
    error, note = record["findings"]
    assert error == {
        "severity": "error", "kind": "labels", "message": error["message"], "video": "BL_01",
        "advice": "write 'open', the nearest known name", "line": 7, "frame": 6, "seconds": None,
    }  # fmt: skip
    assert (note["kind"], note["video"], note["line"]) == ("files", "SD_02", None)


def test_a_synthetic_set_is_called_so(cohort, capsys):
    (cohort.dataset.root / "sample.json").write_text("{}")
    assert main(["set"]) == 0
    assert capsys.readouterr().out.startswith("set (synthetic): ")


@pytest.mark.parametrize("options", [["--min_seconds", "0"], ["--fps", "-1"], ["--fps", "nan"]])
def test_options_must_be_positive(cohort, options):
    with pytest.raises(UserError, match=f"{options[0]} must be greater than 0"):
        main(["set", *options])


def test_an_unknown_data_set_is_an_error(workspace):
    with pytest.raises(UserError, match="no data set 'nowhere'"):
        main(["nowhere"])


def test_nothing_is_changed(cohort):
    make_and_write_folds(cohort)
    cohort.add_features("BL_01", frames=5)
    before = {path: path.stat().st_mtime_ns for path in cohort.dataset.root.rglob("*")}
    cohort.findings()
    assert {path: path.stat().st_mtime_ns for path in cohort.dataset.root.rglob("*")} == before


def test_it_starts_without_torch():
    code = f"import sys, {audit.__name__}, common.checks.leaks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""Files without their partner, names used twice, copies under other names."""

import shutil

import numpy as np

from common.dataset.label_forms import CHALLENGE_HEADER
from tests.common.cohort import FPS


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

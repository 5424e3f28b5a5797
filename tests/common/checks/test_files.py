"""Files without their partner, names used twice, copies under other names."""

import shutil
import unicodedata

import numpy as np

from common.base.entries import CHALLENGE_HEADER
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


# --- names and what is left out -----------------------------------------------------------------------------------


def test_two_label_files_of_one_video(cohort):
    shutil.copy(cohort.label_file("BL_01"), cohort.label_file("BL_01").with_name("bl_01.TXT"))
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("error", "files", "BL_01")
    assert "2 label files have this name: BL_01.txt, bl_01.TXT" in finding.message


def test_a_name_that_is_left_out_is_to_be_changed(cohort):
    cohort.video("BL_01").rename(cohort.video("nul"))
    cohort.label_file("BL_01").rename(cohort.label_file("nul"))
    found = {(finding.severity, finding.message): finding.advice for finding in cohort.findings()}
    for folder, name in ((cohort.dataset.videos, "nul.mp4"), (cohort.dataset.ground_truth, "nul.txt")):
        advice = found["warning", f"{folder}: left out: {name} (the name of a device on Windows; rename it)"]
        assert "its video and its labels alike" in advice


def test_what_else_is_left_out_is_a_note(cohort):
    (cohort.dataset.videos / "readme.md").touch()
    (cohort.dataset.ground_truth / "old").mkdir()
    notes = [(finding.severity, finding.message.partition("left out: ")[2]) for finding in cohort.findings()]
    assert notes == [("note", "readme.md (no suffix of videos)"), ("note", "old (no .txt files)")]


def test_hidden_files_are_nobodys(cohort):
    for folder in (cohort.dataset.videos, cohort.dataset.ground_truth, cohort.dataset.root):
        for name in ("._BL_01.mp4", "._BL_01.txt", ".DS_Store"):
            (folder / name).write_bytes(b"\x00\x05\x16\x07")
    assert cohort.audit() == []


def test_names_meet_however_their_accents_are_encoded(cohort):
    composed, decomposed = (unicodedata.normalize(form, "BL_é") for form in ("NFC", "NFD"))
    cohort.video("BL_01").rename(cohort.video(decomposed))
    cohort.label_file("BL_01").rename(cohort.label_file(composed))
    cohort.dataset.patients.unlink()
    assert cohort.audit() == []


def test_a_description_that_cannot_be_used(cohort):
    cohort.dataset.description.write_text("label_fps: fast\n")
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("error", "files")
    assert "dataset.yaml, label_fps: expected float, found 'fast'" in finding.message

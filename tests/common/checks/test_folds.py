"""Folds: patients in two of them, other videos, files changed by hand."""

import json
import shutil

from common.checks.folds import patient_findings, piece_findings
from common.dataset.kfold import read_folds
from tests.common.cohort import make_and_write_folds


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


def test_folds_of_somebody_else_may_stay(cohort):
    """Lists that fit the data set, with no record and no folders of labels: nothing is wrong with them."""
    make_and_write_folds(cohort)
    cohort.dataset.folds_record.unlink()
    for number in (1, 2, 3):
        shutil.rmtree(cohort.dataset.ground_truth_split(number))
    finding = cohort.only()
    assert finding.severity == "note"
    assert finding.advice.startswith("leave them, or ")


def test_a_phase_without_a_training_frame_is_named(cohort):
    folds = make_and_write_folds(cohort)
    for fold in folds:
        for video in fold:  # `wash` stays in the second fold alone, and nobody has `cut`
            names = [{"cut": "open"}.get(name, name) for name in cohort.labels(video)]
            cohort.write(video, names if fold is folds[1] else ["open" if name == "wash" else name for name in names])
    found = {(f.severity, f.message) for f in cohort.findings() if f.kind == "folds"}
    assert found == {
        ("note", "no video has a frame of cut"),
        ("warning", "fold 2: no training frame of wash: all are in its test videos"),
    }


def test_patients_are_looked_at_for_the_splits_that_are_asked_for(cohort):
    folds = make_and_write_folds(cohort, patients={})
    cohort.dataset.patients.write_text(
        f"video,patient\n{folds[0][0]},p1\n{folds[2][0]},p1\n{folds[1][0]},p2\nBL_90,p2\n"
    )
    by_split = {
        split: [f.message for f in patient_findings(cohort.dataset, {split})] for split in ("1", "2", "3", "val")
    }
    assert [len(messages) for messages in by_split.values()] == [1, 0, 1, 1]
    assert "groundTruth_val/ (BL_90)" in by_split["val"][0]


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


def test_labels_that_are_gone_are_named_and_the_rest_goes_on(cohort):
    folds = make_and_write_folds(cohort)
    label_file = cohort.dataset.ground_truth / f"{folds[0][0]}.txt"
    label_file.unlink()
    label_file.symlink_to("nowhere")
    assert ("error", "labels", folds[0][0]) in cohort.audit()


def test_pieces_of_one_recording_are_named_until_they_are_stated(cohort):
    for number in range(3):
        (cohort.dataset.ground_truth / f"case4_{number}.txt").write_text("cut\n")
    videos = ["case4_0", "case4_1", "BL_01"]
    (finding,) = piece_findings(cohort.dataset, videos)
    assert (finding.severity, finding.kind) == ("warning", "folds")
    assert "2 videos look like pieces of 1 recording (case4)" in finding.message
    cohort.dataset.patients.write_text("video,patient\ncase4_0,p4\ncase4_1,p4\n")
    assert list(piece_findings(cohort.dataset, videos)) == []

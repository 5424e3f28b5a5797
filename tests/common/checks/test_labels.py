"""Labels: unknown names, files that cannot be read, phases too short to be meant."""

import shutil

import numpy as np
import pytest

from common.base import paths
from common.base.entries import CHALLENGE_HEADER
from common.checks.labels import short_phases
from common.dataset.phases import PhaseMapping
from tests.common.cohort import PHASES, Cohort


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
    assert finding.advice == f"known: {', '.join(PHASES)}"


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


def test_another_form_of_labels_is_named_with_its_line_and_the_rest_goes_on(cohort):
    names = cohort.labels("BL_01")
    names[10] = ""
    cohort.write("BL_01", names)
    cohort.label_file("SD_02").write_text("VideoID;FrameNo;Phase\n269;0;1\n")
    first, second = cohort.findings()
    assert (first.severity, first.kind, first.video, first.line) == ("error", "labels", "BL_01", 11)
    assert "BL_01.txt, line 11: a blank line" in first.message
    assert (second.video, second.line) == ("SD_02", 1)
    assert "pretrain/cataract101/import_annotations.py" in second.advice


def test_a_data_set_without_labels_is_an_error(workspace):
    (workspace / "data" / "empty").mkdir()
    (workspace / "data" / "empty" / "mapping.txt").write_text("0 background\n")
    finding = Cohort(paths.dataset("empty")).only()
    assert (finding.severity, finding.kind) == ("error", "labels")
    assert "no label files" in finding.message


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


def test_where_a_frame_lasts_longer_a_single_one_is_no_slip():
    """Labels once a second: a phase of one label lasts a second. At 25 a second it is 0.04 s."""
    ids, mapping = {"case": np.array([0, 0, 1, 0, 0])}, PhaseMapping(("close", "open"))
    assert list(short_phases(ids, {"case": 1.0}, mapping, 0.4)) == []
    (finding,) = short_phases(ids, {"case": 25.0}, mapping, 0.04)
    assert finding.message == "case: of a single frame: open at frame 2 (0:00.1) for 1 frame (0.04 s)"


def test_a_given_frame_rate_counts_where_none_is_known(cohort):
    shutil.rmtree(cohort.dataset.videos)
    cohort.write("BL_03", [*cohort.labels("BL_03"), *["close"] * 9])
    short = [finding for finding in cohort.findings(fps=25) if finding.kind == "short phases"]
    assert [finding.video for finding in short] == ["BL_03"]
    assert not [finding for finding in cohort.findings() if finding.kind == "short phases"]

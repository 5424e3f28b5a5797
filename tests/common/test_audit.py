"""The auditor's command: what it prints and writes, and its exit codes."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from common import audit
from common.audit import main
from common.base.entries import list_labels
from common.base.runtime import UserError
from common.checks import folds
from common.checks.dataset import audit_dataset
from common.dataset.kfold import make_folds, write_folds
from tests.common.cohort import NAMES


def test_a_clean_data_set_gives_no_finding(cohort, capsys):
    assert main([str(cohort.dataset.root), "--strict"]) == 0
    printed = capsys.readouterr().out
    assert printed == "set: 26 label files, 26 videos, 0 feature folders: 0 errors, 0 warnings, 0 notes\n"


def test_a_data_set_of_another_task_is_for_its_command(cohort):
    cohort.dataset.description.write_text("task: segmentation\n")
    with pytest.raises(UserError, match=r"task: expected none \(phases\), found segmentation, .*common\.segment"):
        main([str(cohort.dataset.root)])


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
        "advice": "nearest known name: 'open'", "line": 7, "frame": 6, "seconds": None,
    }  # fmt: skip
    assert (note["kind"], note["video"], note["line"]) == ("files", "SD_02", None)


def test_more_folds_list_no_folder_of_labels_again(cohort, monkeypatch):
    """Work is counted, not timed: with thousands of videos an audit is mostly the listing of folders."""
    listed = Counter()
    monkeypatch.setattr(folds, "list_labels", lambda folder: listed.update([folder.name]) or list_labels(folder))
    by_number = {}
    for num_folds in (2, 6):
        write_folds(cohort.dataset, make_folds(list(NAMES), num_folds), seed=42, stratify="none", patients={})
        listed.clear()
        audit_dataset(cohort.dataset)
        by_number[num_folds] = dict(listed)
    copies = {f"groundTruth_split_{number}": by_number[2]["groundTruth_split_1"] for number in range(3, 7)}
    assert by_number[6] == by_number[2] | copies


def test_findings_alike_are_summed_up(cohort, capsys, tmp_path):
    """A table of thousands of rows, a folder of files that all lack one thing: five lines and a count."""
    for video in cohort.dataset.videos.glob("BL_*.mp4"):
        cohort.label_file(video.stem).unlink()
    cohort.label_file("SD_02").write_text("Frame\tPhase\n" + "".join(f"{n}\tcut\n" for n in range(5000)))
    cohort.write("SD_04", [f"name{n}" for n in range(5000)])
    main(["set", "--json", str(tmp_path / "audit.json")])
    short = capsys.readouterr().out
    assert short.count("has no labels") == 5
    assert "  note     and 8 more of this kind (--all" in short
    assert "SD_04.txt: 4995 more unknown phases" in short
    assert short.count("SD_02.txt") == 1
    assert len(short.splitlines()) < 50
    main(["set", "--all"])
    assert capsys.readouterr().out.count("has no labels") == 13
    findings = json.loads((tmp_path / "audit.json").read_text())["findings"]
    assert sum("has no labels" in finding["message"] for finding in findings) == 13


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


def test_it_starts_without_torch():
    code = f"import sys, {audit.__name__}, common.checks.leaks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

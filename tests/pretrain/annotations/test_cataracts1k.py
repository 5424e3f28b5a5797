"""The Cataracts-1K importer, on cases made here: columns as in the release, content invented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import pytest

from common.base.files import sha256_of_file
from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.phases import read_labels, read_mapping
from pretrain.annotations.cataracts1k import Case, EndRule, find_end_rule, is_case_file, label_frames
from pretrain.annotations.cataracts1k import read_case as read_case_with
from pretrain.annotations.phase_classes import read_phase_classes
from pretrain.cataracts1k.import_annotations import main

FPS = 25
HEADER = "caseId,comment,frame,endFrame,sec,endSec\n"
# unlabelled 0-4, incision 5-9, idle 10-11, rhexis 12-19, and in a video of 30 frames unlabelled 20-29
ROWS = [("Incision", 5, 10), ("Capsulorhexis", 12, 20)]
EXCLUSIVE, INCLUSIVE = EndRule(0, 1), EndRule(1, 0)


def write_case(
    folder: Path, case: str, rows: Sequence[tuple[str, int, int]], *, fps: float = FPS, end_shift: int = 0
) -> Path:
    """A CSV file of one case; `end_shift` frames are added to the ends where they become seconds."""
    path = folder / f"case_{case}" / f"case_{case}_annotations_phases.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{case},{name},{start},{end},{start / fps},{(end + end_shift) / fps}\n" for name, start, end in rows]
    path.write_text(HEADER + "".join(lines))
    return path


def read_case(path: Path) -> Case:
    return read_case_with(path, read_phase_classes())


def runs(labels: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, len(list(group))) for name, group in groupby(labels)]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    write_case(folder, "7", ROWS)
    write_case(folder, "12", [("Viscoelastic", 0, 4), ("Lens positioning", 4, 9)])
    (folder / "other.csv").write_text("caseId,frames\n7,30\n")
    return folder


@pytest.fixture
def films(tmp_path: Path, make_clip, solid) -> Path:
    """The videos of both cases, and one that nobody annotated."""
    folder = tmp_path / "films"
    for name, length in (("case_7", 30), ("12", 9), ("case_40", 5)):
        make_clip(folder / f"{name}.mp4", solid((90, 20, 20), length), fps=FPS)
    return folder


@pytest.fixture
def dataset(workspace: Path) -> Dataset:
    return Dataset(workspace / "data" / "Cataracts-1K")


@pytest.fixture
def run(release: Path, dataset: Dataset, capsys) -> Callable[..., tuple[int, str]]:
    """`run(*arguments)`: exit code and standard output of an import of the made release."""

    def command(*arguments: str | Path) -> tuple[int, str]:
        return main([str(release), *map(str, arguments)]), capsys.readouterr().out

    return command


def names(dataset: Dataset, video: str) -> list[str]:
    return (dataset.ground_truth / f"{video}.txt").read_text().split()


# --- the import -----------------------------------------------------------------------------------------------------


def test_between_phases_is_idle_and_outside_them_unlabelled(run, dataset, films):
    code, output = run("--videos", films)
    assert code == 0
    expected = [("unlabelled", 5), ("Incision", 5), ("idle", 2), ("Capsulorhexis", 8), ("unlabelled", 10)]
    assert runs(names(dataset, "case_7")) == expected
    assert runs(names(dataset, "case_12")) == [("Viscoelastic", 4), ("Lens_positioning", 5)]
    assert "2 annotated videos, 3 linked, 39 frames" in output
    assert "endFrame is the first frame after a phase (0 rows show the former, 1 the latter)" in output
    assert "videos without annotations: 1" in output
    assert "note: 2 annotated cases; the published release has 56" in output


def test_without_videos_a_case_ends_with_its_last_phase(run, dataset):
    assert run("--annotations_only")[0] == 0
    assert runs(names(dataset, "case_7"))[-1] == ("Capsulorhexis", 8)
    assert not dataset.videos.exists()


def test_the_data_set_is_an_ordinary_one(run, dataset, films):
    run("--videos", films)
    mapping = read_mapping(dataset.mapping)
    assert mapping.names[:3] == ("unlabelled", "idle", "Incision")
    assert mapping.num_classes == 14
    assert read_labels(dataset.ground_truth / "case_7.txt", mapping)[[0, 5, 10, 12]].tolist() == [0, 2, 1, 4]
    linked = {path.name: path.resolve() for path in dataset.videos.iterdir()}
    assert linked == {
        "case_7.mp4": films / "case_7.mp4",
        "case_12.mp4": films / "12.mp4",
        "case_40.mp4": films / "case_40.mp4",
    }


def test_manifest(run, release, dataset, films):
    run("--videos", films)
    manifest = json.loads((dataset.root / "manifest.json").read_text())
    assert manifest["release"] == "Cataracts-1K"
    assert manifest["end_frame"] == "exclusive"
    assert manifest["unannotated_videos"] == ["case_40"]
    assert manifest["videos"]["case_7"] == {"frames": 30, "fps": 25.0, "labelled_frames": 15, "stratum": ""}
    source = "case_7/case_7_annotations_phases.csv"
    assert manifest["source_sha256"][source] == sha256_of_file(release / source)
    assert len(manifest["source_sha256"]) == 2


def test_inclusive_ends_hold_for_every_case(run, release, dataset):
    """Case 12 leaves no frame between its phases if the ends belong to them; that decides case 7 too."""
    write_case(release, "12", [("Viscoelastic", 0, 3), ("Lens positioning", 4, 8)])
    _, output = run("--annotations_only")
    assert "endFrame is the last frame of a phase (1 rows show the former, 0 the latter)" in output
    assert runs(names(dataset, "case_12")) == [("Viscoelastic", 4), ("Lens_positioning", 5)]
    assert runs(names(dataset, "case_7")) == [("unlabelled", 5), ("Incision", 6), ("idle", 1), ("Capsulorhexis", 9)]


def test_cases_with_errors_are_left_out_and_the_rest_imported(run, release, dataset, films, make_clip, solid):
    bad = write_case(release, "8", [("Incison", 5, 10)])
    alone = write_case(release, "9", ROWS)
    slow = write_case(release, "40", ROWS, fps=50)
    (films / "case_50.mp4").write_bytes(b"no video")
    write_case(release, "50", ROWS)
    long = write_case(release, "60", [("Incision", 5, 47)])
    make_clip(films / "60.mp4", solid((90, 20, 20), 30), fps=FPS)
    code, output = run("--videos", films)
    assert code == 1
    assert f"problem: {bad}, line 2: unknown phase 'Incison' of Cataracts-1K; nearest known phase: 'Incision'" in output
    assert f"problem: {alone}: no video file of case_9; --videos DIR" in output
    assert f"problem: {slow}: annotated at 50.00 frames a second, but the video has 25.00" in output
    assert f"problem: {films / 'case_50.mp4'}: cannot be decoded" in output
    assert f"problem: {long}, line 2: frames 5 to 47 are beyond the video of 30 frames" in output
    assert output.count("problem:") == 5
    assert sorted(path.stem for path in dataset.ground_truth.iterdir()) == ["case_12", "case_7"]


def test_labels_of_a_case_that_fails_now_are_removed(run, release, dataset):
    run("--annotations_only")
    write_case(release, "7", [("Incison", 5, 10)])
    code, output = run("--annotations_only")
    assert code == 1
    assert "note: case_7: imported before, now left out; its labels are removed" in output
    assert [path.stem for path in dataset.ground_truth.iterdir()] == ["case_12"]


def test_nothing_to_import_is_an_error(run, release, dataset, tmp_path):
    for path in release.rglob("case_*.csv"):
        path.write_text(HEADER)
    with pytest.raises(
        UserError, match=r"no case could be imported:\n .*csv: no phase in it; expected a row for each\n .*csv"
    ):
        run("--annotations_only")
    with pytest.raises(
        UserError, match=r"films: no CSV file with the columns caseId,comment,frame,endFrame,sec,endSec"
    ):
        main([str(tmp_path / "films")])
    assert not dataset.root.exists()


def test_two_files_of_a_case(run, release):
    write_case(release / "again", "007", ROWS)
    with pytest.raises(
        UserError, match=r"two files of case_7: .*again.* and .*case_7_annotations_phases.csv; keep one"
    ):
        run("--annotations_only")


def test_overlaps_are_noted(run, release):
    write_case(release, "7", [("Incision", 0, 20), ("Viscoelastic", 5, 10)])
    code, output = run("--annotations_only")
    assert code == 0
    assert "case_7_annotations_phases.csv: 5 frames in more than one row; the phase that starts later holds" in output


def test_both_ways_to_start_it(release, workspace, checkout):
    environment = os.environ | {"SICS155_ROOT": str(workspace)}
    script = checkout / "pretrain" / "cataracts1k" / "import_annotations.py"
    for command in ([str(script)], ["-m", "pretrain.cataracts1k.import_annotations"]):
        done = subprocess.run(
            [sys.executable, *command, release, "--annotations_only"],
            env=environment,
            cwd=release,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


# --- what endFrame means --------------------------------------------------------------------------------------------


def rule_of(tmp_path: Path, rows: Sequence[tuple[str, int, int]], **how) -> EndRule:
    return find_end_rule([read_case(write_case(tmp_path, "1", rows, **how))])


def test_phases_that_touch_show_what_the_end_means(tmp_path):
    touching = [("Incision", 0, 100), ("Viscoelastic", 100, 180), ("Capsulorhexis", 180, 300)]
    assert rule_of(tmp_path, touching) == EndRule(inclusive_rows=0, exclusive_rows=2)
    next_frame = [(name, start, end - 1) for name, start, end in touching]
    assert rule_of(tmp_path, next_frame) == EndRule(inclusive_rows=2, exclusive_rows=0)


def test_seconds_show_inclusive_ends_only_where_they_are_exact(tmp_path):
    apart = [("Incision", 10, 100), ("Viscoelastic", 150, 180), ("Capsulorhexis", 200, 300)]
    assert rule_of(tmp_path, apart, end_shift=1) == EndRule(inclusive_rows=3, exclusive_rows=0)
    assert rule_of(tmp_path, apart) == EndRule(0, 0)
    path = write_case(tmp_path, "1", [])
    path.write_text(HEADER + "1,Incision,260,499,10,20\n1,Viscoelastic,740,1010,30,40\n")  # whole seconds
    assert find_end_rule([read_case(path)]) == EndRule(0, 0)


def test_the_majority_decides_and_no_evidence_means_exclusive():
    assert EndRule(inclusive_rows=3, exclusive_rows=2).inclusive
    assert not EndRule(inclusive_rows=2, exclusive_rows=2).inclusive
    assert not EndRule(0, 0).inclusive


# --- labels of one case ---------------------------------------------------------------------------------------------


def labels_of(tmp_path: Path, rows, rule: EndRule = EXCLUSIVE, num_frames: int | None = None) -> tuple[list[int], int]:
    labels, shared = label_frames(read_case(write_case(tmp_path, "1", rows)), rule, num_frames)
    return labels.tolist(), shared


def test_rows_may_stand_in_any_order(tmp_path):
    assert labels_of(tmp_path, ROWS[::-1]) == labels_of(tmp_path, ROWS)


def test_a_short_phase_inside_a_long_one_is_kept_and_the_long_one_goes_on(tmp_path):
    incision, viscoelastic = 2, 3
    expected = [incision] * 3 + [viscoelastic] * 2 + [incision] * 5
    assert labels_of(tmp_path, [("Incision", 0, 10), ("Viscoelastic", 3, 5)]) == (expected, 2)
    same_start = [viscoelastic] * 4 + [incision] * 6
    assert labels_of(tmp_path, [("Viscoelastic", 0, 4), ("Incision", 0, 10)]) == (same_start, 4)


def test_of_two_phases_that_overlap_the_later_holds_the_shared_frames(tmp_path):
    expected = [2] * 6 + [3] * 6
    assert labels_of(tmp_path, [("Incision", 0, 8), ("Viscoelastic", 6, 12)]) == (expected, 2)


def test_ends_a_little_beyond_the_video_are_cut(tmp_path):
    assert labels_of(tmp_path, [("Incision", 0, 26)], num_frames=10) == ([2] * 10, 0)
    assert labels_of(tmp_path, [("Incision", 0, 25)], INCLUSIVE, num_frames=10) == ([2] * 10, 0)
    with pytest.raises(UserError, match=r"line 2: frames 0 to 27 are beyond the video of 10 frames"):
        labels_of(tmp_path, [("Incision", 0, 27)], num_frames=10)
    with pytest.raises(UserError, match=r"line 3: frames 10 to 12 are beyond"):
        labels_of(tmp_path, [("Incision", 0, 5), ("Viscoelastic", 10, 12)], num_frames=10)


def test_frame_rate_comes_from_all_rows(tmp_path):
    path = write_case(tmp_path, "1", [])
    path.write_text(HEADER + "1,Incision,0,599,0,10\n1,Viscoelastic,1200,1798,20,30\n")  # 59.94 with rounded seconds
    assert read_case(path).fps == pytest.approx(59.94, rel=2e-3)


def test_semicolons_quotes_and_a_byte_order_mark_are_read(tmp_path):
    path = write_case(tmp_path, "1", [])
    text = HEADER + '1,"Irrigation/Aspiration",5,10,0.2,0.4\n'
    path.write_text(text, encoding="utf-8-sig")
    comma = read_case(path).rows[0]
    path.write_text(text.replace(",", ";"))
    assert is_case_file(path)
    assert read_case(path).rows[0] == comma
    assert (comma.start, comma.end, comma.end_seconds) == (5, 10, 0.4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,Incision,x,10,0.2,0.4", r"line 3: frame must be a number from 0, found 'x'"),
        ("1,Incision,5,-1,0.2,0.4", r"line 3: endFrame must be a number from 0, found '-1'"),
        ("1,Incision,5.5,10,0.2,0.4", r"line 3: frame must be a whole number, found '5.5'"),
        ("1,Incision,5,10,0.2,nan", r"line 3: endSec must be a number from 0, found 'nan'"),
        ("1,Incision,5,10,0.2", r"line 3: no value for endSec"),
        ("1,Incision,10,5,0.4,0.2", r"line 3: endFrame 5 is before frame 10"),
        ("1,Stitching,5,10,0.2,0.4", r"line 3: unknown phase 'Stitching' of Cataracts-1K"),
        ("2,Incision,5,10,0.2,0.4", r"line 3: case 2 in a file of another case"),
        ("1,Incision,50,100,5,4", r"line 3: frames and seconds do not agree with the file's 2\d\.\d\d frames a second"),
    ],
)
def test_wrong_rows_are_named_by_file_and_line(tmp_path, row, message):
    path = write_case(tmp_path, "1", [("Viscoelastic", 1000, 2000)])
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(UserError, match=r"case_1_annotations_phases.csv, " + message):
        read_case(path)


def test_a_case_without_seconds_has_no_frame_rate(tmp_path):
    path = write_case(tmp_path, "1", [])
    path.write_text(HEADER + "1,Incision,5,10,0,0\n")
    with pytest.raises(UserError, match=r"frames or seconds are all 0"):
        read_case(path)


def test_a_file_that_lacks_columns(tmp_path):
    path = tmp_path / "case.csv"
    path.write_text("caseId,comment,frame,endFrame,sec\n")
    assert is_case_file(path)
    with pytest.raises(UserError, match=r"case.csv, line 1: expected the columns .*,endSec, found 'caseId,comment"):
        read_case(path)

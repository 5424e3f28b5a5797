"""From a trained head to files of annotation tools, and from these back to labels of a data set."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.base import paths
from common.base.runtime import UserError
from common.dataset.annotations.known_formats import FORMATS
from common.dataset.description import read_phases
from common.dataset.phases import read_labels
from common.features.files import open_features
from common.prelabel import main
from common.video.decode import Decoding
from tests.common.test_predict_video import NEW_PHASES, PHASES, built, coloured

__all__ = ["built"]  # a fixture

SECOND = np.repeat([1, 0, 2], [25, 10, 30])
PREDICTED = {"case_7": NEW_PHASES, "case_8": SECOND}
VARIABLE_GAPS = np.where(np.arange(len(SECOND)) % 5 == 4, 0.2, 0.04)


@pytest.fixture(scope="module")
def seen_once(built, tmp_path_factory, make_clip):
    """A root with a trained head, and a folder of two videos that it has made the features of; one has a variable rate."""
    root = tmp_path_factory.mktemp("seen")
    shutil.copytree(built, root / "root")
    make_clip(root / "theatre" / "case_7.mp4", coloured(NEW_PHASES))
    times = np.concatenate(([0], np.cumsum(VARIABLE_GAPS)[:-1]))
    make_clip(root / "theatre" / "case_8.mp4", coloured(SECOND), seconds=times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root / "root"))
        assert prelabel(root / "theatre", "csv", "--output", root / "first") == 0
    return root


@pytest.fixture
def theatre(seen_once, tmp_path, monkeypatch):
    """The folder of videos and the root, copied; the current folder is beside."""
    for name in ("root", "theatre"):
        shutil.copytree(seen_once / name, tmp_path / name)
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "theatre"


@pytest.fixture
def bring_back(checkout, monkeypatch):
    """The import command: `bring_back(*words)` into the data set `mine`, unless --output says another."""
    monkeypatch.syspath_prepend(str(checkout / "data"))
    script = checkout / "data" / "import_dataset.py"
    spec = importlib.util.spec_from_file_location("import_dataset_of_annotations", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words):
        words = [str(word) for word in words]
        return module.main(["annotations", *words, *([] if "--output" in words else ["--output", "mine"])])

    yield run
    for name in ("import_annotations", "label_target"):
        sys.modules.pop(name, None)


def prelabel(folder, kind, *words):
    head = ["--model", "ColorHistogram", "--dataset", "clips", "--device", "cpu"]
    return main([str(folder), "--format", kind, *head, *map(str, words)])


def seconds_of(video):
    return [frame.seconds for frame in Decoding(video)]


def labels_of(video, name="mine", mapping=PHASES):
    return read_labels(paths.dataset(name).ground_truth / f"{video}.txt", mapping)


def todo_rows(folder):
    with paths.todo_list(folder).open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_handed_out_comes_back_to_the_frame(kind, theatre, bring_back, capsys, caplog, tmp_path):
    assert prelabel(theatre, kind) == 0
    untouched = ["--predictions"] if kind == "labelstudio" else []  # which nobody has annotated
    assert bring_back(tmp_path / f"theatre_{kind}", *untouched) == 0
    for name, phases in PREDICTED.items():
        if kind != "labelstudio" or name == "case_7":  # its grid has one rate
            assert labels_of(name).tolist() == phases.tolist()
        assert (paths.dataset("mine").videos / f"{name}.mp4").samefile(theatre / f"{name}.mp4")
    printed = capsys.readouterr().out
    assert "came back unchanged: case_7, case_8" in printed
    assert "the head's own words: case_7, case_8. Where nobody has looked" in caplog.text
    assert "problems" not in printed


def test_the_labels_are_learned_from_at_once(theatre, bring_back, tmp_path):
    """Import into the data set of the head, whose mapping and labels are there."""
    prelabel(theatre, "elan")
    assert bring_back(tmp_path / "theatre_elan", "--output", "clips") == 0
    assert sorted(paths.label_paths(paths.dataset("clips").ground_truth)) == [
        "BL_0",
        "BL_1",
        "BL_2",
        "case_7",
        "case_8",
    ]
    assert sorted(paths.find_videos(paths.dataset("clips").videos))[-2:] == ["case_7", "case_8"]


def test_what_waits_is_listed_and_marked_when_it_is_done(theatre, bring_back, tmp_path):
    prelabel(theatre, "csv")
    folder = tmp_path / "theatre_csv"
    rows = todo_rows(folder)
    assert [int(row["doubtful"]) for row in rows] == sorted((int(row["doubtful"]) for row in rows), reverse=True)
    assert {row["done"] for row in rows} == {"no"}
    (folder / "case_8.csv").unlink()
    bring_back(folder)
    assert {row["video"]: row["done"] for row in todo_rows(folder)} == {"case_7": "yes", "case_8": "no"}


def test_nothing_is_written_over(theatre, tmp_path):
    prelabel(theatre, "elan")
    before = {path.name: path.read_bytes() for path in (tmp_path / "theatre_elan").iterdir()}
    with pytest.raises(UserError, match=r"theatre_elan: has case_7.eaf.* already.*nothing is overwritten"):
        prelabel(theatre, "elan")
    with pytest.raises(UserError, match=r"has todo\.csv, prelabel.json already"):
        prelabel(theatre, "via", "--output", tmp_path / "theatre_elan")
    assert {path.name: path.read_bytes() for path in (tmp_path / "theatre_elan").iterdir()} == before


def test_a_failed_write_leaves_nothing(theatre, tmp_path, monkeypatch):
    from common.base import files

    written = []

    def full(path, text):
        written.append(path)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        prelabel(theatre, "elan")
    assert [path.name for path in (tmp_path / "theatre_elan").iterdir() if not path.name.startswith(".")] == []


def test_flicker_is_merged_on_request(theatre, tmp_path):
    prelabel(theatre, "csv", "--min_seconds", "0.7", "--output", tmp_path / "merged")
    lines = (tmp_path / "merged" / "case_7.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2] for line in lines] == ["background", "suture"]  # of 0.8, 1.2 and 0.56 s
    assert lines[-1].split(",")[1] == "2.560"


def test_links_are_relative_and_lead_through_no_home_folder(theatre, tmp_path, monkeypatch):
    prelabel(theatre, "boris")
    project = json.loads((tmp_path / "theatre_boris" / "phases.boris").read_text())
    assert project["observations"]["case_7"]["file"]["1"] == ["../theatre/case_7.mp4"]
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "anna"))
    for name in ("home/anna/films", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(theatre / "case_7.mp4", tmp_path / "home" / "anna" / "films")
    prelabel(tmp_path / "home" / "anna" / "films", "boris", "--output", tmp_path / "elsewhere" / "out")
    for path in (tmp_path / "elsewhere" / "out").iterdir():
        assert "anna" not in path.read_text()


@pytest.mark.parametrize(
    ("codec", "suffix", "is_playable"),
    [("libx264", ".mp4", True), ("libx264", ".mkv", False), ("libvpx-vp9", ".mp4", False)],
)
def test_a_video_that_browsers_do_not_play_is_named_with_the_line_that_helps(
    codec, suffix, is_playable, theatre, make_clip, caplog
):
    shutil.rmtree(theatre)
    make_clip(theatre / f"it's{suffix}", coloured(SECOND), codec=codec, options={})
    with caplog.at_level(logging.WARNING):
        prelabel(theatre, "csv")
    lines = [record.getMessage() for record in caplog.records if "  ffmpeg -i" in record.getMessage()]
    assert bool(lines) != is_playable
    if lines:
        assert "'./it'\"'\"'s.mp4'" in lines[0]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")
def test_the_line_that_helps_keeps_every_frame_and_its_time(theatre, make_clip, caplog, tmp_path):
    shutil.rmtree(theatre)
    times = np.cumsum(np.random.default_rng(0).integers(15, 90, 60)) / 1000  # near no grid of one rate
    source = make_clip(theatre / "%d $a.mkv", coloured(SECOND[:60]), seconds=times - times[0])
    images = theatre / "50% of it"
    images.mkdir()
    for number in range(98, 103):
        Image.new("RGB", (33, 32), (number, 0, 0)).save(images / f"frame_{number}.png")
    (theatre / "dataset.yaml").write_text("frames_fps: 5\n")
    with caplog.at_level(logging.WARNING):
        prelabel(theatre, "csv")
    lines = [record.getMessage().split("\n")[1] for record in caplog.records if "  ffmpeg " in record.getMessage()]
    assert len(lines) == 2
    for line in lines:
        subprocess.run([*shlex.split(line), "-loglevel", "error"], check=True, cwd=tmp_path)
    assert seconds_of(tmp_path / "%d $a.mp4") == pytest.approx(seconds_of(source), abs=1e-4)
    assert seconds_of(tmp_path / "50% of it.mp4") == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_what_the_person_changed_is_counted(theatre, bring_back, tmp_path, capsys):
    prelabel(theatre, "csv")
    table = tmp_path / "theatre_csv" / "case_7.csv"
    rows = table.read_text().splitlines()
    first, second, third = (row.split(",") for row in rows[1:])
    first[1] = second[0] = "0.600"  # moved by five frames
    third[2] = "background"  # relabelled
    table.write_text("\n".join([rows[0], *(",".join(row) for row in (first, second, third)), ""]))
    assert bring_back(tmp_path / "theatre_csv") == 0
    assert labels_of("case_7").tolist() == np.repeat([0, 2, 0], [15, 35, 14]).tolist()
    lines = capsys.readouterr().out.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("corrected") and "insert" in line)
    names, counts = lines[head].split()[-4:], lines[head + 2].split()
    assert counts[0] == "case_7"
    assert dict(zip(names, counts[-4:], strict=True)) == {"delete": "0", "insert": "0", "relabel": "1", "move": "1"}
    assert "came back unchanged: case_8" in lines


def test_labels_that_differ_are_replaced_by_force_alone(theatre, bring_back, tmp_path, capsys):
    prelabel(theatre, "csv")
    folder = tmp_path / "theatre_csv"
    assert bring_back(folder) == 0
    assert bring_back(folder) == 0
    assert "as before" in capsys.readouterr().out
    (folder / "case_7.csv").write_text("start,end,phase\n0,9,wash\n")
    assert bring_back(folder) == 1
    assert "labels of case_7 are there, and differ from the annotation; --force" in capsys.readouterr().out
    assert labels_of("case_7").tolist() == NEW_PHASES.tolist()
    assert bring_back(folder, "--force") == 0
    assert set(labels_of("case_7")) == {1}


def test_one_bad_file_does_not_stop_the_others(theatre, bring_back, tmp_path, capsys):
    prelabel(theatre, "csv")
    (tmp_path / "theatre_csv" / "case_7.csv").write_text("start,end,phase\n0,9,wsah\n")
    assert bring_back(tmp_path / "theatre_csv") == 1
    assert "case_7.csv, line 2: unknown phase 'wsah'; nearest known phase: 'wash'" in capsys.readouterr().out
    assert labels_of("case_8").tolist() == SECOND.tolist()


def test_anyones_own_annotation_needs_no_prelabel(theatre, bring_back, tmp_path):
    """Times by decoding the video, phases by a mapping of one's own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mapping.txt").write_text("0 rest\n1 work\n")
    (tmp_path / "own" / "case_8.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.480\nwork\n\n00:01.560 --> 00:09.000\nrest\n"
    )
    assert bring_back(tmp_path / "own", "--videos", theatre) == 0
    names = (paths.dataset("mine").ground_truth / "case_8.txt").read_text().split()
    times = np.concatenate(([0], np.cumsum(VARIABLE_GAPS)[:-1]))
    boundary = int(np.abs(times - 1.52).argmin())  # the middle of the gap
    assert names == ["work"] * boundary + ["rest"] * (65 - boundary)


def test_gaps_need_a_phase_where_there_is_no_background(theatre, bring_back, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mapping.txt").write_text("0 rest\n1 work\n")
    (tmp_path / "own" / "case_7.csv").write_text("start,end,phase\n0,1,work\n2,9,work\n")
    assert bring_back(tmp_path / "own", "--videos", theatre) == 1
    assert "case_7: frames 25 to 50 have no phase" in capsys.readouterr().out
    assert bring_back(tmp_path / "own", "--videos", theatre, "--gaps", "ignore") == 0
    mapping = read_phases(paths.dataset("mine"))
    assert mapping.ignored == ("unlabelled",)
    assert (labels_of("case_7", mapping=mapping) == -100).sum() == 25
    assert bring_back(tmp_path / "own", "--videos", theatre, "--gaps", "rest", "--output", "other") == 0
    assert labels_of("case_7", "other", read_phases(paths.dataset("other"))).tolist() == [1] * 25 + [0] * 25 + [1] * 14
    with pytest.raises(UserError, match="--gaps rset: expected ignore, or a phase: rest, work"):
        bring_back(tmp_path / "own", "--videos", theatre, "--gaps", "rset")


def test_of_two_annotators_one_is_chosen_or_their_agreement_is_printed(theatre, bring_back, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    rows = "case_7,0,1,wash,anna\ncase_7,1,2.56,suture,anna\ncase_7,0,1.28,wash,ben\ncase_7,1.28,2.56,suture,ben\n"
    (tmp_path / "own" / "all.csv").write_text(f"video,start,end,phase,rater\n{rows}")
    shutil.copy(tmp_path / "root" / "data" / "clips" / "mapping.txt", tmp_path / "own")
    assert bring_back(tmp_path / "own", "--videos", theatre) == 1
    printed = capsys.readouterr().out
    assert "annotated 2 times, by anna, ben; choose one with --annotator" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("anna and ben"))
    assert line.split()[3:] == ["89.1", "%", "0.781", "0.28", "s"]  # 57 of 64 frames; 28 ms x 10 apart
    assert bring_back(tmp_path / "own", "--videos", theatre, "--annotator", "ben") == 0
    assert (labels_of("case_7") == 1).sum() == 32


def test_an_annotator_with_an_overlap_is_compared_and_one_who_labelled_twice_is_told_apart(
    theatre, bring_back, tmp_path, capsys
):
    (tmp_path / "own").mkdir()
    rows = "case_7,0,1.6,wash,ben\ncase_7,0.96,2.56,suture,ben\ncase_7,0,1.28,wash,anna\ncase_7,1.28,2.56,suture,anna\n"
    (tmp_path / "own" / "all.csv").write_text(f"video,start,end,phase,rater\n{rows}")
    shutil.copy(tmp_path / "root" / "data" / "clips" / "mapping.txt", tmp_path / "own")
    assert bring_back(tmp_path / "own", "--videos", theatre) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("ben and anna"))
    assert line.split()[3:5] == ["100.0", "%"]  # the overlap's middle is where anna has the boundary
    assert bring_back(tmp_path / "own", "--videos", theatre, "--annotator", "ben") == 1
    assert "overlap from 0.960 to 1.600 s" in capsys.readouterr().out

    region = {"value": {"ranges": [{"start": 1, "end": 64}], "timelinelabels": ["wash"]}}
    annotations = [{"completed_by": 5, "result": [region]}] * 2
    (tmp_path / "own" / "all.csv").unlink()
    (tmp_path / "own" / "export.json").write_text(json.dumps([{"data": {"video": "case_7.mp4", "fps": 25}, "annotations": annotations}]))  # fmt: skip
    assert bring_back(tmp_path / "own", "--videos", theatre) == 1
    assert "by export #1, export #2" in capsys.readouterr().out
    assert bring_back(tmp_path / "own", "--videos", theatre, "--annotator", "export #2") == 0
    assert (labels_of("case_7") == 1).all()


def test_a_list_of_what_waits_that_is_damaged_keeps_no_label_back(theatre, bring_back, tmp_path, capsys):
    prelabel(theatre, "csv")
    paths.todo_list(tmp_path / "theatre_csv").write_text('video,done\n"case_7,no\n')
    assert bring_back(tmp_path / "theatre_csv") == 1
    printed = capsys.readouterr().out
    assert "labels of 2 videos" in printed
    assert "todo.csv: what is done was not noted" in printed


def test_nothing_is_snapped_where_that_is_asked_for(theatre, bring_back, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mapping.txt").write_text("0 background\n1 work\n")
    (tmp_path / "own" / "case_7.csv").write_text("start,end,phase\n0,1,work\n1.12,2.56,work\n")
    assert bring_back(tmp_path / "own", "--videos", theatre, "--snap", "0") == 0
    assert np.flatnonzero(labels_of("case_7", mapping=read_phases(paths.dataset("mine"))) == 0).tolist() == [25, 26, 27]
    for value in ("-1", "nan", "inf"):
        with pytest.raises(UserError, match="--snap must be at least 0"):
            bring_back(tmp_path / "own", "--videos", theatre, "--snap", value)


def test_labels_of_a_rate_of_their_own_are_those_of_their_frames(theatre, bring_back, tmp_path):
    prelabel(theatre, "csv")
    target = paths.Dataset(tmp_path / "root" / "data" / "sparse")
    target.root.mkdir()
    shutil.copy(tmp_path / "root" / "data" / "clips" / "mapping.txt", target.mapping)
    target.description.write_text("label_every: 10\n")
    assert bring_back(tmp_path / "theatre_csv", "--output", "sparse") == 0
    assert labels_of("case_7", "sparse").tolist() == NEW_PHASES[::10].tolist()


def test_another_video_of_the_same_name_is_not_labelled(theatre, bring_back, tmp_path, make_clip, capsys):
    prelabel(theatre, "csv")
    target = paths.Dataset(tmp_path / "root" / "data" / "mine")
    make_clip(target.videos / "case_7.mp4", coloured(SECOND))
    assert bring_back(tmp_path / "theatre_csv") == 1
    assert "another video than" in capsys.readouterr().out
    assert not (target.ground_truth / "case_7.txt").exists()


def test_features_that_were_made_for_the_prediction_are_not_made_again(theatre, bring_back):
    prelabel(theatre, "csv")
    own = paths.dataset("clips").features("ColorHistogram")
    before = {path: path.read_bytes() for path in own.iterdir()}
    assert bring_back(f"{theatre}_csv", "--output", "clips") == 0
    for video in ("case_7", "case_8"):
        open_features(own / f"{video}.npy").verify()
    assert {path: path.read_bytes() for path in before} == before  # those of other videos
    assert bring_back(f"{theatre}_csv", "--output", "mine") == 0  # no data set of the head
    assert not (paths.dataset("mine").root / "features").exists()


def test_a_damaged_record_is_named(theatre, bring_back, tmp_path):
    prelabel(theatre, "csv")
    record = paths.prelabel_record(tmp_path / "theatre_csv")
    content = json.loads(record.read_text())
    for damage in ({"videos": 3}, {"videos": {"case_7": {"segments": []}}}, {"phases": None}):
        record.write_text(json.dumps(content | damage))
        with pytest.raises(UserError, match=r"prelabel.json: not a record"):
            bring_back(tmp_path / "theatre_csv")
    assert os.listdir(tmp_path / "root" / "data") == ["clips"]

"""The Cataract-101 importer: on a small made release, and on the real tables where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.base.files import sha256_of_file
from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.phases import read_labels, read_mapping
from pretrain.annotations.cataract101 import read_release
from pretrain.annotations.phase_classes import read_phase_classes
from pretrain.cataract101.import_annotations import main

PHASES = """Phase;Meaning
1;Incision
2;Viscous agent injection
3;Rhexis
4;Hydrodissection
5;Phacoemulsificiation
6;Irrigation and aspiration
7;Capsule polishing
8;Lens implant setting-up
9;Viscous agent removal
10;Tonifying and antibiotics
"""
VIDEOS = "VideoID;Frames;FPS;Surgeon;Experience\n7;12;25;4;1\n12;6;25;3;2\n"
# 7: unlabelled 0-1, incision 2-4, rhexis 5-9 (two rows), incision 10-11; 12: no head, viscous agent 0-5
ANNOTATIONS = "VideoID;FrameNo;Phase\n7;2;1\n7;5;3\n7;8;3\n7;10;1\n12;0;2\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    for name, text in (("phases.csv", PHASES), ("videos.csv", VIDEOS), ("annotations.csv", ANNOTATIONS)):
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def dataset(workspace: Path) -> Dataset:
    return Dataset(workspace / "data" / "Cataract-101")


@pytest.fixture
def run(release: Path, dataset: Dataset, capsys) -> Callable[..., tuple[int, str]]:
    """`run(*arguments)`: exit code and standard output of an import of the made release."""

    def command(*arguments: str | Path) -> tuple[int, str]:
        return main([str(release), *map(str, arguments)]), capsys.readouterr().out

    return command


@pytest.fixture
def films(release: Path, make_clip, solid) -> Path:
    """Both videos, as the release may name them, two folders down."""
    make_clip(release / "a" / "videos" / "case_7.mp4", solid((90, 20, 20), 12))
    make_clip(release / "a" / "videos" / "0012.mp4", solid((20, 90, 20), 6))
    return release / "a" / "videos"


def names(dataset: Dataset, video: str) -> list[str]:
    return (dataset.ground_truth / f"{video}.txt").read_text().split()


def test_a_phase_runs_to_the_next_row_and_the_last_to_the_end(run, dataset):
    assert run("--annotations_only")[0] == 0
    rhexis = ["unlabelled"] * 2 + ["Incision"] * 3 + ["Rhexis"] * 5 + ["Incision"] * 2
    assert names(dataset, "case_7") == rhexis
    assert names(dataset, "case_12") == ["Viscous_agent_injection"] * 6
    assert len(list(dataset.ground_truth.iterdir())) == 2
    assert not dataset.videos.exists()


def test_the_data_set_is_an_ordinary_one(run, dataset):
    run("--annotations_only")
    mapping = read_mapping(dataset.mapping)
    assert mapping.names[:3] == ("unlabelled", "Incision", "Viscous_agent_injection")
    assert mapping.num_classes == 11
    assert read_labels(dataset.ground_truth / "case_12.txt", mapping).tolist() == [2] * 6


def test_manifest(run, release, dataset):
    run("--annotations_only")
    manifest = json.loads((dataset.root / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["release"] == "Cataract-101"
    assert manifest["licence"] == "CC BY-NC 4.0"
    assert manifest["source_sha256"]["videos.csv"] == sha256_of_file(release / "videos.csv")
    assert manifest["videos"] == {
        "case_7": {"frames": 12, "fps": 25.0, "labelled_frames": 10, "stratum": "surgeon 4"},
        "case_12": {"frames": 6, "fps": 25.0, "labelled_frames": 6, "stratum": "surgeon 3"},
    }


def test_summary(run):
    _, output = run("--annotations_only")
    assert "2 annotated videos, 0 linked, 18 frames" in output
    rows = {line.split()[1]: line.split()[2:] for line in output.splitlines() if line.strip()[:1].isdigit()}
    assert rows["unlabelled"] == ["1", "2", "11.11"]
    assert rows["Rhexis"] == ["1", "5", "27.78"]
    assert rows["Hydrodissection"] == ["0", "0", "0.00"]
    assert "unlabelled head: 1 videos; a phase in consecutive rows, merged: 1 videos" in output
    assert "2 videos, 5 rows, 18 frames (the published release has 101 videos, 1,266 rows, 1,263,116 frames)" in output


def test_videos_are_linked_under_the_data_sets_names(run, dataset, films):
    code, output = run()
    assert code == 0
    assert sorted(path.name for path in dataset.videos.iterdir()) == ["case_12.mp4", "case_7.mp4"]
    assert all(path.is_symlink() for path in dataset.videos.iterdir())
    assert (dataset.videos / "case_12.mp4").resolve() == films / "0012.mp4"
    assert "(headers are often wrong): none" in output
    assert run() == (0, output)


def test_videos_elsewhere_and_moved(run, dataset, films, tmp_path):
    run()
    moved = films.rename(tmp_path / "moved")
    code, output = run("--videos", moved)
    assert code == 0
    assert output.count("link removed") == 2
    assert (dataset.videos / "case_7.mp4").resolve() == moved / "case_7.mp4"


def test_headers_that_disagree(run, films, make_clip, solid):
    make_clip(films / "case_7.mp4", solid((90, 20, 20), 10))
    code, output = run()
    assert code == 0
    assert "(headers are often wrong): case_7 10 (12 labels)" in output
    make_clip(films / "case_7.mp4", solid((90, 20, 20), 12), fps=30)
    code, output = run()
    assert code == 1
    assert f"problem: {films / 'case_7.mp4'}: 30.00 frames a second, but the labels were made at 25" in output
    (films / "case_7.mp4").write_bytes(b"no video")
    code, output = run()
    assert code == 1
    assert f"problem: {films / 'case_7.mp4'}: not readable as a video" in output


def test_missing_and_double_videos(run, release, dataset, films, tmp_path):
    (films / "0012.mp4").rename(films / "case_13.mp4")
    with pytest.raises(UserError, match=r"1 of 2 videos are missing: case_12; --videos DIR .* --annotations_only"):
        run()
    (films / "7.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"two videos of case_7: .*7.mp4 and .*case_7.mp4"):
        run()
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        run("--videos", tmp_path / "nowhere")
    assert not dataset.root.exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "annotations.csv",
            "VideoID;FrameNo;Phase\n7;5;1\n7;2;3\n",
            r"annotations.csv, line 3: frame 2 after frame 5 of video 7",
        ),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;5;1\n7;5;3\n", r"line 3: frame 5 after frame 5 of video 7"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;12;1\n", r"line 2: frame 12 is beyond video 7 of 12 frames"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;2;11\n", r"line 2: unknown phase 11; .* 1 to 10"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;2;0\n", r"line 2: unknown phase 0"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n8;2;1\n", r"line 2: video 8 is not in videos.csv"),
        (
            "annotations.csv",
            "VideoID;FrameNo;Phase\n7;two;1\n",
            r"line 2: FrameNo must be a number from 0, found 'two'",
        ),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;-2;1\n", r"line 2: FrameNo must be a number from 0, found '-2'"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;2.5;1\n", r"line 2: FrameNo must be a whole number, found '2.5'"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;2\n", r"line 2: no value for Phase"),
        ("annotations.csv", "VideoID;FrameNo;Phase\n7;2;1\n", r"annotations.csv: no row for case_12, which videos.csv"),
        (
            "annotations.csv",
            "VideoID,FrameNo,Phase\n",
            r"line 1: expected the columns VideoID;FrameNo;Phase, found 'VideoID,",
        ),
        ("annotations.csv", "", r"line 1: expected the columns VideoID;FrameNo;Phase, found ''"),
        ("videos.csv", VIDEOS + "007;12;25;4;1\n", r"videos.csv, line 4: video 007 is there twice"),
        ("videos.csv", VIDEOS.replace("7;12", "7;0"), r"videos.csv, line 2: Frames and FPS must be above 0, found 0"),
        ("phases.csv", PHASES.replace("3;Rhexis", "3;Rexis"), r"phases.csv, line 4: unknown phase 'Rexis' .*'Rhexis'"),
        (
            "phases.csv",
            PHASES.replace("3;Rhexis", "4;Rhexis"),
            r"phases.csv, line 4: 'Rhexis' has the number 4, expected 3",
        ),
    ],
)
def test_wrong_rows_are_named_by_file_and_line(run, release, dataset, file, text, message):
    (release / file).write_text(text)
    with pytest.raises(UserError, match=message):
        run("--annotations_only")
    assert not dataset.root.exists()


def test_missing_and_binary_tables(run, release):
    (release / "videos.csv").write_bytes(b"VideoID;Frames;FPS;Surgeon\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"videos.csv, line 2: no text in UTF-8"):
        run("--annotations_only")
    (release / "videos.csv").unlink()
    with pytest.raises(UserError, match=r"videos.csv: no such file; expected a table with the columns VideoID;Frames"):
        run("--annotations_only")


def test_other_data_sets_are_not_overwritten(run, dataset, tmp_path, films):
    dataset.root.mkdir(parents=True)
    dataset.mapping.write_text("0 background\n")
    with pytest.raises(UserError, match="another data set is here already"):
        run("--annotations_only")
    dataset.mapping.unlink()
    (tmp_path / "real").mkdir()
    dataset.videos.symlink_to(tmp_path / "real")
    with pytest.raises(UserError, match="videos: is itself a link"):
        run()
    dataset.videos.unlink()
    (dataset.root / "sample.json").write_text("{}")
    with pytest.raises(UserError, match="synthetic sample set"):
        run()
    assert run("--output", "Other")[0] == 0
    assert (dataset.root.parent / "Other" / "manifest.json").is_file()


def test_a_real_file_in_the_way_leaves_no_manifest(run, dataset, films):
    run()
    target = dataset.videos / "case_7.mp4"
    target.unlink()
    target.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"case_7.mp4: a real file is in the way"):
        run()
    assert target.read_bytes() == b"mine"
    assert not (dataset.root / "manifest.json").exists()


def test_systems_without_links_keep_their_copies(run, dataset, films, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert run()[0] == 0
    assert not (dataset.videos / "case_7.mp4").is_symlink()
    assert run()[0] == 0


def test_both_ways_to_start_it(release, workspace, checkout):
    environment = os.environ | {"SICS155_ROOT": str(workspace)}
    script = checkout / "pretrain" / "cataract101" / "import_annotations.py"
    for command in ([str(script)], ["-m", "pretrain.cataract101.import_annotations"]):
        done = subprocess.run(
            [sys.executable, *command, release, "--annotations_only"],
            env=environment,
            cwd=release,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    (release / "annotations.csv").unlink()
    done = subprocess.run([sys.executable, script, release], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {release / 'annotations.csv'}: no such file")


# --- the release itself ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_tables(reference_data: Path) -> Path:
    return reference_data / "data" / "cataract101"


def test_the_real_release_in_numbers(real_tables):
    annotated, starts = read_release(real_tables, read_phase_classes().mapping("Cataract-101"))
    labels = np.concatenate([video.labels for video in annotated.values()])
    assert (len(annotated), sum(map(len, starts.values())), len(labels)) == (101, 1266, 1_263_116)
    assert np.bincount(labels).tolist() == [
        29_237, 59_152, 77_744, 119_026, 83_636, 379_206, 158_166, 51_379, 70_244, 153_111, 82_215,
    ]  # fmt: skip
    assert sum(video.labels[0] == 0 for video in annotated.values()) == 97
    assert all(
        (np.flatnonzero(video.labels == 0) < rows[0][0]).all()
        for video, rows in zip(annotated.values(), starts.values(), strict=True)
    )
    assert {video.fps for video in annotated.values()} == {25.0}
    assert len({video.stratum for video in annotated.values()}) == 4


def test_the_real_release_imports_whole(real_tables, dataset, capsys):
    assert main([str(real_tables), "--annotations_only"]) == 0
    output = capsys.readouterr().out
    assert "unlabelled head: 97 videos; a phase in consecutive rows, merged: 78 videos" in output
    assert "101 videos, 1,266 rows, 1,263,116 frames (as published)" in output
    assert len(list(dataset.ground_truth.iterdir())) == 101
    first = names(dataset, "case_269")
    assert (len(first), first[67], first[68], first[-1]) == (
        14734,
        "unlabelled",
        "Incision",
        "Tonifying_and_antibiotics",
    )

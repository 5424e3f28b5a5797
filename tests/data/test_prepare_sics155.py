"""`data/prepare_sics155.py` on a small release made here: names and layout as in the real one, content invented."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from common.base.files import link_file
from common.base.paths import Dataset, find_videos, label_paths
from common.base.runtime import UserError
from common.dataset.kfold import read_folds
from common.dataset.patients import read_patients

TRAIN = {"BL_0001": 10, "BL_0002": 20, "BN_0001": 30, "SD_0001": 61}  # video: labels, the first 5 are background
VAL = {"BL_0003": 8, "SD_0002": 12}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepare(checkout: Path) -> ModuleType:
    return load(checkout / "data" / "prepare_sics155.py")


def write_labels(path: Path, length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("background\n" * 5 + "tunnel\n" * (length - 5))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of 4 + 2 videos; the videos are files of a few bytes that do not decode."""
    root = tmp_path / "release"
    for part, videos in {"SICS_155_train/train": TRAIN, "SICS_155_validation/val": VAL}.items():
        for video, length in videos.items():
            write_labels(root / part / "groundTruth" / f"{video}.txt", length)
            (root / part / "videos").mkdir(exist_ok=True)
            (root / part / "videos" / f"{video}.mp4").write_bytes(video.encode())
    return root


@pytest.fixture
def train(release: Path) -> Path:
    return release / "SICS_155_train" / "train"


@pytest.fixture
def val(release: Path) -> Path:
    return release / "SICS_155_validation" / "val"


@pytest.fixture
def dataset(workspace: Path) -> Dataset:
    return Dataset(workspace / "data" / "SICS155")


@pytest.fixture
def run(prepare: ModuleType, release: Path, dataset: Dataset, capsys) -> Callable[..., tuple[int, str]]:
    """`run(*arguments)`: exit code and standard output of a run on the release, without opening the videos."""

    def command(*arguments: str | Path, probe: bool = False) -> tuple[int, str]:
        code = prepare.main([str(release), *map(str, arguments), *([] if probe else ["--no_probe"])])
        return code, capsys.readouterr().out

    return command


def state(dataset: Dataset) -> dict[str, tuple]:
    paths = [path for path in dataset.root.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.is_symlink() and os.readlink(path))
        for path in paths
    }


def row(output: str, start: str) -> list[str]:
    """The words of the one output line that begins with `start`."""
    [line] = [line for line in output.splitlines() if line.split()[: len(start.split())] == start.split()]
    return line.split()[len(start.split()) :]


def linked(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []


def test_links_not_copies(run, release, train, val, dataset, checkout):
    code, _ = run()
    assert code == 0
    assert linked(dataset.videos) == sorted(f"{video}.mp4" for video in TRAIN | VAL)
    assert linked(dataset.ground_truth) == sorted(f"{video}.txt" for video in TRAIN)
    assert linked(dataset.ground_truth_val) == sorted(f"{video}.txt" for video in VAL)
    made = [path for path in dataset.root.rglob("*") if not path.is_dir()]
    assert all(path.is_symlink() for path in made)
    assert (dataset.videos / "BL_0001.mp4").resolve() == (train / "videos" / "BL_0001.mp4").resolve()
    assert (dataset.videos / "SD_0002.mp4").resolve() == (val / "videos" / "SD_0002.mp4").resolve()
    assert (dataset.ground_truth / "BN_0001.txt").resolve() == (train / "groundTruth" / "BN_0001.txt").resolve()
    assert dataset.mapping.resolve() == checkout / "mapping.txt"


def test_summary(run, val):
    (val / "videos" / "SD_0002.mp4").rename(val / "videos" / "other.mp4")
    (val / "groundTruth" / "SD_0002.txt").rename(val / "groundTruth" / "other.txt")
    code, output = run()
    assert code == 0
    assert row(output, "BL BN") == ["SD", "none", "videos", "frames", "min", "median", "max"]
    assert row(output, "train") == ["2", "1", "1", "0", "4", "121", "10", "25", "61"]
    assert row(output, "val") == ["1", "0", "0", "1", "2", "20", "8", "10", "12"]
    assert row(output, "0 background") == ["16.5", "50.0"]
    assert row(output, "5 tunnel") == ["83.5", "50.0"]
    assert row(output, "18 tunnel_suture") == ["0.0", "0.0"]
    assert "problems" not in output


def test_second_run_changes_nothing(run, train, dataset):
    (train / "train_annotations.csv").write_text("file,who\n" + "".join(f"{video}.mp4,{video}x\n" for video in TRAIN))
    _, first_output = run("--patient_column", "who")
    first = state(dataset)
    _, second_output = run("--patient_column", "who")
    assert state(dataset) == first
    assert second_output == first_output


def test_release_defaults_to_the_root(prepare, release, workspace, dataset):
    for folder in release.iterdir():
        folder.rename(workspace / folder.name)
    assert prepare.main(["--no_probe"]) == 0
    assert len(linked(dataset.videos)) == 6


def test_part_folders_output_and_mapping_by_option(run, train, tmp_path, workspace):
    train.rename(tmp_path / "elsewhere")
    mapping = tmp_path / "names.txt"
    mapping.write_text("0 background\n1 tunnel\n")
    code, output = run("--train", tmp_path / "elsewhere", "--output", "data/other", "--mapping", mapping)
    other = Dataset(workspace / "data" / "other")
    assert code == 0
    assert other.mapping.resolve() == mapping.resolve()
    assert len(linked(other.videos)) == 6
    assert row(output, "1 tunnel") == ["83.5", "50.0"]


def test_validation_part_may_be_absent(run, release, dataset):
    (release / "SICS_155_validation").rename(release / "unused")
    code, output = run()
    assert code == 0
    assert f"no validation part: {release / 'SICS_155_validation' / 'val'}" in output
    assert linked(dataset.ground_truth_val) == []
    assert row(output, "0 background") == ["16.5"]


def test_absent_folders_are_an_error(run, prepare, release, tmp_path, dataset):
    with pytest.raises(UserError, match=r"nothing: no such folder; .* --val DIR"):
        run("--val", tmp_path / "nothing")
    with pytest.raises(UserError, match=r"SICS_155_train/train: no such folder; .*holds SICS_155_train/"):
        prepare.main([str(tmp_path)])
    assert not dataset.root.exists()


def test_training_part_without_labels_is_an_error(run, train, dataset):
    (train / "groundTruth").rename(train / "labels")
    with pytest.raises(UserError, match="groundTruth: no label files"):
        run()
    assert not dataset.root.exists()


def test_every_problem_is_listed_and_the_rest_linked(run, train, val, dataset):
    write_labels(train / "groundTruth" / "BL_0009.txt", 9)
    (train / "groundTruth" / "BL_0001.txt").write_text("background\ntunel\nnonsense\n")
    (train / "groundTruth" / "BL_0002.txt").write_text("")
    (val / "groundTruth" / "BL_0003.txt").write_bytes(b"\xff\xfe\n")
    (val / "videos" / "SD_0009.mp4").write_bytes(b"x")
    write_labels(val / "groundTruth" / "BN_0001.txt", 7)
    (val / "videos" / "BN_0001.mp4").write_bytes(b"another video of this name")
    code, output = run()
    problems = output.split("problems (6):")[1]
    assert code == 1
    assert f"{train / 'groundTruth' / 'BL_0001.txt'}, line 2: unknown phase 'tunel'; nearest known name: 'tunnel'" in (
        problems
    )
    assert f"{train / 'groundTruth' / 'BL_0002.txt'}: the label file is empty" in problems
    assert f"{val / 'groundTruth' / 'BL_0003.txt'}, line 1: text in UTF-16" in problems
    assert f"train: ground truth without a video in {train / 'videos'}: BL_0009\n" in problems
    assert f"val: video without labels in {val / 'groundTruth'}: SD_0009\n" in problems
    assert "in both train and val, left out of val: BN_0001" in problems
    assert linked(dataset.ground_truth) == ["BN_0001.txt", "SD_0001.txt"]
    assert linked(dataset.ground_truth_val) == ["SD_0002.txt"]
    assert linked(dataset.videos) == ["BN_0001.mp4", "SD_0001.mp4", "SD_0002.mp4"]
    assert (dataset.videos / "BN_0001.mp4").read_bytes() == b"BN_0001"
    assert row(output, "train") == ["0", "1", "1", "2", "91", "30", "45.5", "61"]


def test_validation_part_without_labels_is_a_problem(run, val):
    (val / "groundTruth").rename(val / "labels")
    code, output = run()
    assert code == 1
    assert f"{val / 'groundTruth'}: no label files" in output
    assert row(output, "val") == ["0", "0", "0", "0", "0", "0", "0", "0"]


def test_real_file_in_the_way_stays(run, dataset):
    mine = dataset.ground_truth / "BL_0001.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    code, output = run()
    assert code == 1
    assert f"{mine}: a real file is in the way" in output
    assert not mine.is_symlink()
    assert mine.read_text() == "mine\n"
    assert (dataset.videos / "BL_0001.mp4").is_symlink()


def test_system_without_links_gets_copies_once(run, dataset, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert run()[0] == 0
    first = state(dataset)
    assert not (dataset.videos / "BL_0001.mp4").is_symlink()
    code, output = run()
    assert code == 0
    assert "in the way" not in output
    assert state(dataset) == first


def test_stale_links_go_and_other_files_stay(run, train, tmp_path, dataset):
    run()
    (train / "groundTruth" / "BL_0002.txt").unlink()
    elsewhere = tmp_path / "elsewhere.txt"
    write_labels(elsewhere, 9)
    link_file(elsewhere, dataset.ground_truth / "XX_0001.txt")
    write_labels(dataset.ground_truth / "XX_0002.txt", 9)
    code, output = run()
    assert code == 1
    gone = train / "groundTruth" / "BL_0002.txt"
    assert f"note: {dataset.ground_truth / 'BL_0002.txt'}: link removed, {gone} is gone" in output
    assert f"{dataset.videos / 'BL_0002.mp4'}: link removed" in output
    assert "video without labels" in output
    for stranger in ("XX_0001.txt", "XX_0002.txt"):
        assert f"{dataset.ground_truth / stranger}: not of this release, kept" in output
    remaining = ["BL_0001.txt", "BN_0001.txt", "SD_0001.txt", "XX_0001.txt", "XX_0002.txt"]
    assert linked(dataset.ground_truth) == remaining
    assert (train / "videos" / "BL_0002.mp4").is_file()


def test_moved_release_is_linked_again(run, release, prepare, dataset, capsys):
    run()
    moved = release.rename(release.with_name("moved"))
    assert prepare.main([str(moved), "--no_probe"]) == 0
    assert "now to" in capsys.readouterr().out
    target = dataset.videos / "BL_0001.mp4"
    assert target.resolve() == (moved / "SICS_155_train/train/videos/BL_0001.mp4").resolve()


def test_other_folders_are_refused(run, train, dataset):
    dataset.root.mkdir(parents=True)
    dataset.videos.symlink_to(train / "videos")
    with pytest.raises(UserError, match="videos: is itself a link"):
        run()
    dataset.videos.unlink()
    (dataset.root / "sample.json").write_text("{}")
    with pytest.raises(UserError, match="synthetic sample set"):
        run()
    assert len(linked(train / "videos")) == 4


def test_headers_are_a_hint_and_unreadable_videos_a_problem(run, train, val, make_clip, solid, dataset):
    for folder, videos in ((train, TRAIN), (val, VAL)):
        for video, length in videos.items():
            make_clip(folder / "videos" / f"{video}.mp4", solid((90, 20, 20), length))
    code, output = run(probe=True)
    assert code == 0
    assert "(headers are often wrong): none" in output
    write_labels(train / "groundTruth" / "BN_0001.txt", 28)
    code, output = run(probe=True)
    assert code == 0
    assert "(headers are often wrong): BN_0001 30 (28 labels)" in output
    (val / "videos" / "SD_0002.mp4").write_bytes(b"not a video")
    code, output = run(probe=True)
    assert code == 1
    assert f"{val / 'videos' / 'SD_0002.mp4'}: not readable as a video" in output


def patient_table(part: Path, text: str) -> None:
    (part / f"{part.name}_annotations.csv").write_text(text, encoding="utf-8")


def test_columns_are_shown_without_patient_column(run, train, dataset):
    patient_table(train, "a;Video name;who\n1;BL_0001;P1\n")
    code, output = run()
    assert code == 0
    assert "columns of train_annotations.csv (for --patient_column): a, Video name, who" in output
    assert not dataset.patients.exists()


@pytest.mark.parametrize(("delimiter", "suffix"), [(",", ""), (";", ".mp4"), ("\t", ".MP4"), (",", ".txt")])
def test_patients(run, train, val, dataset, delimiter, suffix):
    who = {"BL_0001": "P1", "BL_0002": "P2", "BN_0001": "P1", "SD_0001": "", "BL_0003": "P3"}
    for part, videos in ((train, TRAIN), (val, VAL)):
        # Two rows a video and a note with quotes: annotations list phases, and spreadsheets quote.
        rows = [f'{who.get(video, "")},"{n} s",{video}{suffix}' for video in videos for n in (1, 2)]
        patient_table(part, "\ufeff" + "\n".join(["who,start,file", *rows, ""]).replace(",", delimiter))
    code, output = run("--patient_column", "who")
    assert code == 0
    assert read_patients(dataset) == {video: patient for video, patient in who.items() if patient}
    assert "videos without a patient: SD_0001, SD_0002" in output


def test_validation_part_needs_no_table(run, train, dataset):
    patient_table(train, "file,who\n" + "".join(f"{video},P{n}\n" for n, video in enumerate(TRAIN)))
    code, output = run("--patient_column", "who")
    assert code == 0
    assert read_patients(dataset) == {video: f"P{n}" for n, video in enumerate(TRAIN)}
    assert "videos without a patient: BL_0003, SD_0002" in output


def rows_of(columns: str, row: str, *, skip: str = "") -> str:
    return f"{columns}\n" + "".join(row.format(video=video) + "\n" for video in TRAIN if video != skip)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, [], r"no column 'who' \(no such file; columns: none\)"),
        ("", [], r"no column 'who' \(columns: none\)"),
        (rows_of("file,patient", "{video},P"), [], r"no column 'who' \(columns: file, patient\)"),
        (rows_of("file,who", "{video},P"), ["--video_column", "name"], r"no column 'name' \(columns: file, who\)"),
        (rows_of("file,who", "{video},P", skip="BN_0001"), [], r"no column names every video .*\(columns: file, who\)"),
        (rows_of("a,b,who", "{video},{video}.mp4,P"), [], r"columns a and b each name .*--video_column"),
        (rows_of("file,who", "{video},P") + "BL_0001,Q\n", [], "'who' gives two patients for BL_0001"),
    ],
)
def test_patient_column_errors(run, train, dataset, text, options, message):
    if text is not None:
        patient_table(train, text)
    with pytest.raises(UserError, match=message):
        run("--patient_column", "who", *options)
    assert not dataset.root.exists()


def test_video_column_by_option(run, train, dataset):
    patient_table(train, rows_of("a,b,who", "{video},{video}.mp4,P", skip="BN_0001"))
    code, output = run("--patient_column", "who", "--video_column", "b")
    assert code == 0
    assert "BN_0001" not in read_patients(dataset)
    assert "videos without a patient: BL_0003, BN_0001, SD_0002" in output


def test_other_patients_file_stays(run, train, dataset):
    patient_table(train, rows_of("file,who", "{video},P"))
    dataset.root.mkdir(parents=True)
    dataset.patients.write_text("video,patient\nBL_0001,by hand\n")
    code, output = run("--patient_column", "who")
    assert code == 1
    assert f"{dataset.patients}: differs from what the column gives; delete it" in output
    assert "by hand" in dataset.patients.read_text()


def test_folds_keep_patients_together(run, train, dataset, checkout):
    for number in range(10, 22):
        write_labels(train / "groundTruth" / f"BL_{number:04}.txt", 9)
        (train / "videos" / f"BL_{number:04}.mp4").write_bytes(b"x")
    videos = sorted(path.stem for path in (train / "groundTruth").iterdir())
    patients = {video: f"P{index % 8}" for index, video in enumerate(videos)}
    patient_table(train, "who,file\n" + "".join(f"{patients[video]},{video}.mp4\n" for video in videos))
    assert run("--patient_column", "who")[0] == 0
    assert load(checkout / "generate_k_folds.py").main(["./data/SICS155", "3"]) == 0
    fold_of = {video: number for number, fold in enumerate(read_folds(dataset)) for video in fold}
    assert sorted(fold_of) == videos
    for patient in set(patients.values()):
        assert len({fold_of[video] for video in videos if patients[video] == patient}) == 1


def test_as_a_command(release, train, workspace, checkout):
    command = [sys.executable, checkout / "data" / "prepare_sics155.py", release, "--no_probe"]
    (train / "groundTruth" / "BL_0001.txt").write_text("backgrund\n")
    environment = os.environ | {"SICS155_ROOT": str(workspace)}
    done = subprocess.run(command, env=environment, cwd=release, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "line 1: unknown phase 'backgrund'; nearest known name: 'background'" in done.stdout
    done = subprocess.run([*command, "--val", "x"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: x: no such folder")


def test_names_of_a_release_are_those_of_its_disk_and_meet_composed(train, dataset, run):
    composed, decomposed = (unicodedata.normalize(form, "BL_é") for form in ("NFC", "NFD"))
    (train / "videos" / "BL_0001.mp4").rename(train / "videos" / f"{decomposed}.mp4")
    (train / "groundTruth" / "BL_0001.txt").rename(train / "groundTruth" / f"{composed}.TXT")
    for folder in ("videos", "groundTruth"):
        (train / folder / f"._{composed}.txt").write_bytes(b"\x00\x05\x16\x07")
    code, output = run()
    assert (code, "problems" in output) == (0, False)
    assert composed in label_paths(dataset.ground_truth)
    assert composed in find_videos(dataset.videos)

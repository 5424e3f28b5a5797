"""Data sets with labels at each rate, a list of splits of their own and labels that do not count: all commands in a row."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import compute_results
from common import evaluation, export_to_excel, kfold_summary, predict_video, run_k_folds, train
from common.base import paths
from common.base.runtime import UserError
from common.features.config import ExtractionConfig
from common.features.extract import extract
from tests.conftest import write_clip

PHASES = ("red", "green", "blue")
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "unlabelled": (90, 90, 90)}
VIDEOS = ("a", "b", "c", "d", "e", "f")
HEAD = ["--model", "ColorHistogram", "--device", "cpu", "--num_epochs", "25", "--num_layers_PG", "3", "--num_layers_R",
        "2", "--num_R", "1", "--num_f_maps", "8", "--lr", "2e-2", "--dataset", "rates"]  # fmt: skip
# of each rate: words of dataset.yaml, frames a second (None: images), decoded frames, the frame of each label
EVERY, SECOND, SIXTH = np.arange(48), np.arange(8) * 6, np.arange(8) * 6
RATES = {
    "a decoded frame": ("", 12, 48, EVERY),
    "an image": ("frames_fps: 1\n", None, 48, EVERY),
    "a second": ("label_fps: 2\n", 12, 47, SECOND),
    "every sixth": ("label_every: 6\n", 12, 43, SIXTH),
}


def course(number: int, num_frames: int) -> list[str]:
    """The phase of each frame: an unlabelled head, then three phases that change at other times in every video."""
    ends = (6, 18 + number % 3, 30 + number % 2, num_frames)
    starts = (0, *ends)
    names = ("unlabelled", *PHASES)
    return [name for name, start, end in zip(names, starts, ends, strict=False) for _ in range(start, end)]


@pytest.fixture(params=RATES)
def rates(request, workspace):
    """A data set with labels at one of the rates; its description, and the frame of each label."""
    words, fps, num_frames, frames = RATES[request.param]
    dataset = paths.Dataset(workspace / "data" / "rates")
    for folder in (dataset.videos, dataset.ground_truth, dataset.split_list("owners")):
        folder.mkdir(parents=True)
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    dataset.description.write_text(f"{words}ignored: [unlabelled]\nbackground: null\n")
    dataset.split_lists.write_text("official: owners\nlists: {owners: {standing: official, source: made for a test}}\n")
    for number, video in enumerate(VIDEOS):
        phases = course(number, num_frames)
        pictures = [np.full((16, 16, 3), COLOURS[phase], np.uint8) for phase in phases]
        if fps is None:
            (dataset.videos / video).mkdir()
            for index, picture in enumerate(pictures):
                Image.fromarray(picture).save(dataset.videos / video / f"{index}.png")
        else:
            write_clip(dataset.videos / f"{video}.mp4", pictures, fps=fps)
        labels = [phases[frame] for frame in frames]
        (dataset.ground_truth / f"{video}.txt").write_text("\n".join(labels) + "\n")
    for part, videos in {"train": "abc", "val": "d", "test": "ef"}.items():
        dataset.bundle(part, 1, "owners").write_text("".join(f"{video}.txt\n" for video in videos))
    return dataset, len(frames)


def counts(folder) -> dict[str, tuple[int, ...]]:
    """Rows of the predictions by video, as text and as probabilities."""
    rows = {path.stem: (len(path.read_text().split("\n")[1].split()),) for path in sorted(folder.glob("*.txt"))}
    return {name: (*of_text, *np.load(folder / f"{name}.npy").shape) for name, of_text in rows.items()}


@pytest.mark.slow
def test_from_extraction_to_report(rates, capsys, workspace):
    dataset, num_labels = rates
    model = paths.model("ColorHistogram")
    assert extract(model, ExtractionConfig(dataset="rates"), device="cpu").exit_code == 0
    features = np.load(dataset.features("ColorHistogram") / "a.npy")
    assert features.shape == (48, num_labels)

    assert run_k_folds.main([*HEAD, "--splits", "official"]) == 0
    results = model.split_results("rates", 1, "splits=owners")
    expected = dict.fromkeys("ef", (num_labels, num_labels, 3))
    assert counts(results) == expected
    record = json.loads((results / "run.json").read_text())
    assert (record["config"]["splits"], record["unreached_labels"]) == ("owners", {})
    printed = capsys.readouterr().out
    assert "100.00" in printed

    assert train.main([*HEAD, "--splits", "official", "--action", "predict", "--part", "val"]) == 0
    assert counts(results / "part_val") == {"d": (num_labels, num_labels, 3)}
    assert counts(results) == expected

    # scored from the folder alone, as others would: all right where labels count
    words = ["--splits", "official", "--json", str(workspace / "scores.json")]
    assert evaluation.main([str(dataset.ground_truth), str(results), *words]) == 0
    assert json.loads((workspace / "scores.json").read_text())["challenge"]["accuracy"] == 1.0
    assert evaluation.main([str(dataset.ground_truth), str(results / "part_val"), *words, "--part", "val"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("rates", ["a second"], indirect=True)
def test_reports_over_a_named_list(rates, capsys, workspace):
    assert extract(paths.model("ColorHistogram"), ExtractionConfig(dataset="rates"), device="cpu").exit_code == 0
    assert run_k_folds.main([*HEAD, "--splits", "official"]) == 0
    assert kfold_summary.main(["--dataset", "rates", "--model", "ColorHistogram", "--splits", "official"]) == 0
    assert compute_results.main(["--dataset", "rates", "--compare-kfold", "--splits", "official"]) == 0
    assert "100.00" in capsys.readouterr().out
    assert "list owners (official; made for a test)" in (workspace / "comparison_results" / "report.html").read_text()
    assert export_to_excel.main(["--dataset", "rates", "--model", "ColorHistogram", "--splits", "owners"]) == 0
    with pytest.raises(UserError, match="no such list of splits; there are: owners"):
        compute_results.main(["--dataset", "rates", "--split", "1", "--splits", "others"])


@pytest.mark.slow
def test_features_of_all_frames_give_the_same_head_and_new_videos_the_same_grid(rates, workspace, capsys):
    dataset, num_labels = rates
    model = paths.model("ColorHistogram")
    for variant, all_frames in ((None, False), ("all", True)):
        config = ExtractionConfig(dataset="rates", all_frames=all_frames, variant=variant)
        assert extract(model, config, device="cpu").exit_code == 0
        words = ["--variant", variant] if variant else []
        assert run_k_folds.main([*HEAD, *words, "--splits", "owners"]) == 0
    first, second = (model.split_results("rates", 1, run) for run in ("splits=owners", "splits=owners-all"))
    for video in "ef":
        assert (first / f"{video}.npy").read_bytes() == (second / f"{video}.npy").read_bytes()

    video = sorted(dataset.videos.iterdir())[4]
    head = ["--model", "ColorHistogram", "--dataset", "rates", "--run", "splits=owners", "--device", "cpu"]
    assert predict_video.main([str(video), *head, "--output", str(workspace / "new"), "--overlay"]) == 0
    assert np.array_equal(np.load(workspace / "new" / "e.npy"), np.load(first / "e.npy"))
    segments = (workspace / "new" / "e_segments.csv").read_text().splitlines()
    assert int(segments[-1].split(",")[2]) == RATES_FRAMES[num_labels, dataset.description.read_text()]


RATES_FRAMES = {
    (len(frames), f"{words}ignored: [unlabelled]\nbackground: null\n"): num_frames
    for words, _, num_frames, frames in RATES.values()
}


def test_without_an_official_list_the_others_are_named(rates, workspace):
    dataset, _ = rates
    dataset.split_lists.write_text("official: null\nlists: {owners: {standing: one paper's}}\n")
    command = [sys.executable, "-m", "common.run_k_folds", *HEAD, "--splits", "official"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    assert said.returncode == 1
    assert "no official list of splits; there are: owners (one paper's)" in said.stderr

"""Folders of earlier versions in `tests/artefacts/` are still read: features, heads, runs, Stages 1 and 2 of pretraining.

Each test copies a folder into a root of its own and runs the present commands on it, most of them with the words that
the folder's `commands.json` recorded. They are found by name as `python` finds them, and nothing else of the project is
imported: modules move, names and flags of commands stay.
`tests/make_artefacts.py` makes a folder of the present version.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openpyxl import load_workbook
from safetensors.numpy import load_file

FOLDERS = sorted(path for path in (Path(__file__).parent / "artefacts").iterdir() if path.is_dir())
DATASET, NUM_FOLDS = "mini", 2
# of one network on another CPU, whose sums have other last digits; what is trained there carries them on
SAME, TRAINED = 1e-4, 1e-2
LEAST_COSINE = 0.9999
MEASURE_OF_TIME = {"seconds", "samples_per_second", "data_share", "memory_gigabytes"}
PLACE_OF_A_MACHINE = re.compile(rb"/(tmp|work|root|home|Users|scratch|mnt|private)/|[A-Z]:\\\\Users")

# modules are commands here although other tests have imported them
pytestmark = pytest.mark.filterwarnings("ignore:.* found in sys.modules after import:RuntimeWarning")


@dataclass(frozen=True)
class Artefacts:
    """A folder of an earlier version as it was `recorded`, and its copy, the `root` that commands work in."""

    recorded: Path
    root: Path
    checkout: Path
    context: pytest.MonkeyPatch
    output: pytest.CaptureFixture[str]
    log: pytest.LogCaptureFixture

    @property
    def results(self) -> Path:
        """Runs on features of ColorHistogram, below the root."""
        return Path("models") / "ColorHistogram" / "results" / DATASET

    @property
    def features(self) -> Path:
        """Features of the scored data set, below the root."""
        return Path("data") / DATASET / "features"

    def words(self, name: str) -> list[str]:
        """A command that made the folder."""
        return json.loads((self.recorded / "commands.json").read_text(encoding="utf-8"))[name]

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command of this checkout in the copy, which must end with one of `codes`; returns all that it said.

        As `python ...` does, but in this process: otherwise most of the time would be that of importing torch.
        """
        with self.context.context() as changed, self.log.at_level(logging.INFO):
            changed.chdir(self.root)
            changed.setattr(sys, "argv", list(words))
            for name in [name for name in os.environ if name.startswith("SLURM")]:
                changed.delenv(name)  # a command of a cluster's job would do its share only
            code = self._start(*words)
        logging.captureWarnings(False)  # which every command turns on
        printed = self.output.readouterr()
        said = printed.out + printed.err + "\n".join(self.log.messages)
        self.log.clear()
        assert code in codes, said
        return said

    def _start(self, first: str, *words: str) -> int:
        """The exit code of a module after `-m`, or of a script by its path in the checkout."""
        try:
            if first == "-m":
                sys.argv[:] = words  # runpy puts the module's file in the place of its name
                runpy.run_module(words[0], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(self.checkout / first), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    def assert_same_predictions(self, found: Path, expected: Path, *, within: float = SAME) -> None:
        """Compare two folders of predictions: the phase of every frame, and the probabilities."""
        names = sorted(path.name for path in expected.glob("*.txt"))
        assert names
        assert sorted(path.name for path in found.glob("*.txt")) == names
        for name in names:
            assert (found / name).read_text() == (expected / name).read_text()
            ours, theirs = (np.load(folder / name.replace(".txt", ".npy")) for folder in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=within)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def artefacts(
    request: pytest.FixtureRequest,
    workspace: Path,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Artefacts:
    """Each version's folder, copied into a root of its own with the present `models/*/config.yaml`."""
    shutil.copytree(request.param, workspace, dirs_exist_ok=True)
    return Artefacts(request.param, workspace, checkout, monkeypatch, capsys, caplog)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def percent(values: list[float]) -> str:
    """One value, or mean and standard deviation of several, as tables show them."""
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"


def row_of(table: str, name: str) -> list[str]:
    """The cells of the first row called `name` in what a command printed."""
    line = next(line for line in table.splitlines() if line.startswith(f"{name}  "))
    return re.split(r" {2,}", line)


# --- the folders themselves -----------------------------------------------------------------------------------------


def test_there_is_a_folder_to_read():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_file_names_a_place_of_the_machine_that_made_it(folder):
    named = [name for name, content in contents(folder).items() if PLACE_OF_A_MACHINE.search(content)]
    assert named == []


# --- features -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "folder"), [("extract", "ColorHistogram"), ("extract_sampled", "ColorHistogram@sampled")]
)
def test_histograms_of_another_scale_are_refused_by_name(artefacts, command, folder):
    features = artefacts.root / artefacts.features / folder
    recorded = contents(features)
    said = artefacts.run(*artefacts.words(command), codes=(1,))
    assert "made in another way: preprocessing" in said
    assert "'feature_scale': 16.0" in said
    assert contents(features) == recorded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("extract_strided", "V-JEPA2-Tiny@strided"),
        ("extract_export", "V-JEPA2-Tiny@ssl"),
        ("extract_adapter", "V-JEPA2-Tiny"),
    ],
)
def test_finished_features_are_left_alone_and_lost_ones_made_alike(artefacts, command, folder):
    """Half of the files are lost: the rest must not be touched, and with the same weights the same comes out."""
    features = artefacts.root / artefacts.features / folder
    recorded = contents(features)
    lost = sorted(features.glob("*.npy"))[::2]
    for path in lost:
        path.unlink()
        path.with_suffix(".json").unlink()
    said = artefacts.run(*artefacts.words(command))
    assert f"{len(lost)} extracted, {len(recorded) // 2 - len(lost)} already there, 0 failed" in said
    found = contents(features)
    stems = {path.stem for path in lost}
    assert found.keys() == recorded.keys()
    assert all(found[name] == recorded[name] for name in recorded if Path(name).stem not in stems)
    for path in lost:
        ours, theirs = (np.load(root / artefacts.features / folder / path.name).astype(np.float64)
                        for root in (artefacts.root, artefacts.recorded))  # fmt: skip
        cosines = (ours * theirs).sum(axis=0) / np.linalg.norm(ours, axis=0) / np.linalg.norm(theirs, axis=0)
        assert cosines.min() > LEAST_COSINE


@pytest.mark.slow
def test_stage_3_finds_the_adapter_and_the_features_it_made(artefacts):
    """By the records in `best_lora/`, without any path on the command line."""
    before = contents(artefacts.root / artefacts.features)
    words = ("--model", "vjepa2-tiny", "--dataset", DATASET, "--device", "cpu")
    assert "0 extracted, 8 already there" in artefacts.run("pretrain/extract_ssl_features.py", *words)
    assert contents(artefacts.root / artefacts.features) == before


@pytest.mark.slow
def test_features_without_sidecars_are_trained_on(artefacts):
    """They are copies of others, so the head must become the one of the default run."""
    assert not list((artefacts.root / artefacts.features / "ColorHistogram@foreign").glob("*.json"))
    artefacts.run(*artefacts.words("run_k_folds"), "--variant", "foreign", "--only", "1")
    found, expected = artefacts.results / "foreign" / "split_1", artefacts.results / "split_1"
    artefacts.assert_same_predictions(artefacts.root / found, artefacts.recorded / expected, within=TRAINED)


# --- heads and runs -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_head_predicts_what_it_did(artefacts):
    split = artefacts.results / "split_1"
    shutil.rmtree(artefacts.root / split)
    words = (
        "--action",
        "predict",
        "--dataset",
        DATASET,
        "--model",
        "ColorHistogram",
        "--split",
        "1",
        "--device",
        "cpu",
    )
    artefacts.run("-m", "common.train", *words)
    artefacts.assert_same_predictions(artefacts.root / split, artefacts.recorded / split)


@pytest.mark.slow
def test_an_interrupted_head_ends_as_the_undisturbed_one(artefacts):
    undisturbed = artefacts.recorded / artefacts.results / "split_1"
    artefacts.run(*artefacts.words("run_k_folds"), "--run", "interrupted", "--only", "1")
    found = artefacts.root / artefacts.results / "interrupted" / "split_1"
    artefacts.assert_same_predictions(found, undisturbed)
    ours, theirs = (read_record(folder / "run.json")["history"] for folder in (found, undisturbed))
    assert [epoch["loss"] for epoch in ours] == pytest.approx([epoch["loss"] for epoch in theirs], abs=SAME)
    # no epoch takes as long twice: these were read, not trained again
    checkpoint = Path("models", "ColorHistogram", "checkpoints", DATASET, "interrupted", "split_1", "last.pt")
    before = torch.load(artefacts.recorded / checkpoint, weights_only=True)["history"]
    assert 0 < len(before) < len(ours)
    assert ours[: len(before)] == before


@pytest.mark.slow
def test_finished_folds_are_not_run_again(artefacts):
    for name in ("run_k_folds", "run_k_folds_second_seed"):
        before = contents(artefacts.root / "models")
        said = artefacts.run(*artefacts.words(name), "--no_floors")  # which that version did not write
        assert said.count("finished, not run again") == NUM_FOLDS
        assert contents(artefacts.root / "models") == before


@pytest.mark.slow
def test_a_run_is_reproduced_from_its_record(artefacts):
    """On another CPU not to the byte; the command's verdict would be that, so its files are compared."""
    split = artefacts.results / "split_2"
    words = ("--reproduce", str(split / "run.json"), "--device", "cpu", "--keep", "kept")
    said = artefacts.run("-m", "common.run_k_folds", *words, codes=(0, 1))
    assert re.search(
        r"^(Reproduced: all|Reproduced but for the last digits|Not reproduced: \d+ of)", said, re.MULTILINE
    )
    (kept,) = (artefacts.root / "kept").rglob("run.json")
    artefacts.assert_same_predictions(kept.parent, artefacts.recorded / split, within=TRAINED)


# --- reports --------------------------------------------------------------------------------------------------------


def measures(artefacts: Artefacts, model: str, run: str = "") -> dict[str, list[float]]:
    """What the records of a run say, by measure, a value for each fold."""
    folder = artefacts.recorded / "models" / model / "results" / DATASET / run
    folds = [
        read_record(folder / f"split_{fold}" / "run.json")["metrics"]["challenge"] for fold in range(1, NUM_FOLDS + 1)
    ]
    return {name: [fold[name] for fold in folds] for name in folds[0]}


@pytest.mark.slow
def test_a_comparison_shows_the_recorded_measures(artefacts):
    said = artefacts.run("compute_results.py", "--dataset", DATASET, "--compare-kfold", str(NUM_FOLDS))
    runs = {
        "ColorHistogram": measures(artefacts, "ColorHistogram"),
        "ColorHistogram (seed7)": measures(artefacts, "ColorHistogram", "seed7"),
        "V-JEPA2-Tiny": measures(artefacts, "V-JEPA2-Tiny"),
    }
    for name, values in runs.items():
        row, expected = row_of(said, name), list(map(percent, values.values()))
        assert any(row[first : first + len(expected)] == expected for first in range(len(row)))
    assert (artefacts.root / "comparison_results" / "report.html").is_file()


def test_a_summary_shows_the_recorded_measures(artefacts):
    words = ("--dataset", DATASET, "--model", "ColorHistogram", "--folds", str(NUM_FOLDS), "--verbose")
    said = artefacts.run("-m", "common.kfold_summary", *words)
    values = measures(artefacts, "ColorHistogram").values()
    for fold in range(NUM_FOLDS):
        assert row_of(said, str(fold + 1))[3:][: len(values)] == [percent([of_folds[fold]]) for of_folds in values]
    assert row_of(said, "mean")[1:][: len(values)] == list(
        map(percent, values)
    )  # what this version measures besides follows


def test_a_workbook_holds_the_recorded_measures(artefacts):
    artefacts.run("-m", "common.export_to_excel", "--dataset", DATASET, "--model", "ColorHistogram")
    workbook = load_workbook(artefacts.root / "models" / "ColorHistogram" / "results.xlsx", read_only=True)
    rows = list(workbook["folds"].iter_rows(values_only=True))
    for name, run in (("ColorHistogram", ""), ("ColorHistogram (seed7)", "seed7")):
        found = [row[4:] for row in rows if row[0] == name]  # after encoder, split, videos, frames
        expected = zip(*measures(artefacts, "ColorHistogram", run).values(), strict=True)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx([100 * value for value in theirs])


# --- pretraining ----------------------------------------------------------------------------------------------------


def assert_same_tensors(found: Path, expected: Path) -> None:
    ours, theirs = load_file(found), load_file(expected)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=SAME, err_msg=name)


@pytest.mark.slow
def test_stage_1_goes_on_from_the_middle_to_the_recorded_end(artefacts):
    folder = Path("pretrain", "checkpoints", "ssl", "vjepa2-tiny")
    found, recorded = artefacts.root / folder, artefacts.recorded / folder
    (found / "final.pt").unlink()
    shutil.rmtree(found / "export")
    # what V-JEPA 2 was trained with by default
    said = artefacts.run(*artefacts.words("pretrain"), "--lr_schedule", "linear", "--antialias")
    assert "step_000004.pt: resuming after step 4 of 8" in said
    assert "the numbers will differ" not in said
    ours, theirs = (
        [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()] for root in (found, recorded)
    )
    assert ours[:5] == theirs[:5]  # the start and the first steps, which were not trained again
    assert len(ours) == len(theirs)
    # crops lie elsewhere since packed pictures are cut like those that they were made of: another training of the same kind
    for our, their in zip(ours, theirs, strict=True):
        assert our.keys() == their.keys()
        if "loss" in their:  # none before the first step
            assert our["loss"] == pytest.approx(their["loss"], rel=0.01)
        for name in ("learning_rate", "weight_decay", "momentum", "samples", "seen/short", "predicted/long"):
            assert name not in their or our[name] == pytest.approx(their[name], abs=SAME, rel=SAME), name
    one, other = (load_file(root / "export" / "model.safetensors") for root in (found, recorded))
    assert one.keys() == other.keys()
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 0.01


@pytest.mark.slow
def test_stage_1_says_what_has_become_of_its_defaults(artefacts):
    folder = artefacts.root / "pretrain" / "checkpoints" / "ssl" / "vjepa2-tiny"
    (folder / "final.pt").unlink()
    shutil.rmtree(folder / "export")
    said = artefacts.run(*artefacts.words("pretrain"))
    expected = (
        "resuming with antialias False instead of True, lr_schedule cooldown instead of linear; the numbers will differ"
    )
    assert expected in said.replace("\n", " ")


@pytest.mark.slow
def test_stage_2_goes_on_from_the_middle_to_the_recorded_end(artefacts):
    checkpoints = Path("pretrain", "checkpoints")
    found = artefacts.root / checkpoints / "vjepa2-tiny-interrupted"
    undisturbed = artefacts.recorded / checkpoints / "vjepa2-tiny"
    said = artefacts.run(
        *artefacts.words("finetune_interrupted"), "--crop_scale", "1", "--colour", "0"
    )  # as it was then
    assert re.search(r"last\.pt: resuming after step \d+ of 12", said)
    assert "the numbers will differ" not in said
    ours, theirs = (list(csv.DictReader((root / "metrics.csv").open())) for root in (found, undisturbed))
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.keys() == their.keys()
        for name in our.keys() - MEASURE_OF_TIME:
            assert float(our[name]) == pytest.approx(float(their[name]), abs=SAME), name
    name = "adapter_model.safetensors"
    assert_same_tensors(found / "best_lora" / name, undisturbed / "best_lora" / name)

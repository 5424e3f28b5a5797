"""From made releases to one table: the steps of `make demo-benchmark` at their smallest, a planted leak."""

import importlib

import numpy as np
import pytest
import yaml

import compute_results
from common import run_k_folds
from common.base import paths
from common.base.files import write_text
from common.base.runtime import UserError
from common.dataset.description import read_phases
from common.dataset.split_lists import open_splits
from common.features.config import ExtractionConfig
from common.features.extract import extract

RELEASES = ("cataracts", "autolaparo", "pmlr50")
SETS = tuple(f"demo-{release}" for release in RELEASES)
MODELS = ("ColorHistogram", "Coarse")
HEAD = [
    "--num_epochs",
    "2",
    "--num_layers_PG",
    "3",
    "--num_layers_R",
    "3",
    "--num_R",
    "1",
    "--num_f_maps",
    "8",
    "--device",
    "cpu",
]
WORDS = ["--benchmark", *SETS, "--splits", "official", "--models", *MODELS]


@pytest.fixture(scope="module")
def demo(tmp_path_factory, checkout):
    """Three made releases of one training and one test video, imported, with heads on two kinds of colour histogram."""
    root = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root))
        patch.syspath_prepend(str(checkout / "data"))
        floor = (checkout / "models" / "ColorHistogram" / "config.yaml").read_text(encoding="utf-8")
        write_text(root / "models" / "ColorHistogram" / "config.yaml", floor)
        write_text(root / "models" / "Coarse" / "config.yaml", floor.replace("size: 112", "size: 16"))
        make, read = (importlib.import_module(name) for name in ("make_releases", "import_dataset"))
        assert make.main(["--num_videos", "1", "--output", str(root / "releases")]) == 0
        for release, name in zip(RELEASES, SETS, strict=True):
            assert read.main([release, str(root / "releases" / release), "--output", name]) == 0
            dataset = paths.dataset(name)
            if release == "autolaparo":
                description = dataset.description.read_text(encoding="utf-8")
                write_text(dataset.description, f"{description}ignored: [Washing]\n")
            for model in MODELS:
                assert extract(paths.model(model), ExtractionConfig(dataset=name), device="cpu").exit_code == 0
                words = ["--dataset", name, "--model", model, "--splits", "official", *HEAD]
                assert run_k_folds.main(words) == 0
            for video in open_splits(dataset, "official").videos("test", 1):
                labels = (dataset.ground_truth / f"{video}.txt").read_text().splitlines()
                write_text(root / "elsewhere" / name / f"{video}.txt", f"{labels[len(labels) // 2]}\n" * len(labels))
    return root


@pytest.fixture
def root(demo, monkeypatch):
    monkeypatch.setenv("SICS155_ROOT", str(demo))
    return demo


@pytest.mark.slow
def test_three_sets_of_different_rates_stand_in_one_table_that_a_bundle_holds(root, capsys):
    bundle = root / "bundle.zip"
    assert (
        compute_results.main([*WORDS, "--with_predictions", f"Middle={root / 'elsewhere'}", "--bundle", str(bundle)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "Middle (made elsewhere)" in printed
    assert "Synthetic data: drawn videos" in printed
    page = (paths.comparison_results() / "benchmark" / "report.html").read_text(encoding="utf-8")
    assert "3 encoders on 3 data sets (synthetic data)" in page
    # a label a frame, a second, an image: as many rows of a prediction as labels
    for name in SETS:
        dataset = paths.dataset(name)
        predictions = sorted(paths.model("Coarse").split_results(name, 1, "splits=official").glob("*.npy"))
        assert predictions
        for prediction in predictions:
            labels = (dataset.ground_truth / f"{prediction.stem}.txt").read_text().splitlines()
            assert np.load(prediction).shape == (len(labels), read_phases(dataset).num_classes)
    assert "Not scored" in printed  # the ignored phase of one set
    assert compute_results.main(["--verify", str(bundle)]) == 0
    assert "nothing differs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_planted_leak_is_red(root, capsys):
    """A config that says its weights have seen the test videos of one set."""
    config = root / "models" / "Coarse" / "config.yaml"
    before, description = config.read_text(encoding="utf-8"), paths.dataset("demo-autolaparo").description
    was = description.read_text(encoding="utf-8")
    tested = [
        line.removesuffix(".txt")
        for line in paths.dataset("demo-autolaparo").bundle("test", 1, "official").read_text().split()
    ]
    try:
        config.write_text(before + 'seen: {autolaparo: "1-21"}\nseen_source: planted by a test\n', encoding="utf-8")
        ids = {"ids": {video: f"autolaparo/{int(video)}" for video in tested}}
        description.write_text(yaml.safe_dump(yaml.safe_load(was) | ids), encoding="utf-8")
        compute_results.main(WORDS)
        printed = capsys.readouterr().out
        assert "(seen)" in printed
        page = (paths.comparison_results() / "benchmark" / "report.html").read_text(encoding="utf-8")
        assert 'class="leak"' in page
        assert "planted by a test" in page
    finally:
        config.write_text(before, encoding="utf-8")
        description.write_text(was, encoding="utf-8")


@pytest.mark.slow
def test_words_that_have_no_effect_or_no_folder(root, tmp_path):
    for words, message in (
        (["--benchmark", "--dataset", "demo-pmlr50"], "--dataset would have no effect with --benchmark"),
        (["--verify", "x.zip", "--bundle", "y.zip"], "--bundle would have no effect with --verify"),
        ([*WORDS, "--with_predictions", f"A={tmp_path}"], "has no folder of demo-cataracts"),
        (["--benchmark", "--splits", "none_such"], "no finished runs of --splits none_such"),
    ):
        with pytest.raises(UserError, match=message):
            compute_results.main(words)

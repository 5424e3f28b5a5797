"""Settings chosen inside the training part: blind to the test, recorded, resumed; what is kept aside."""

import json

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.head.checkpoint import load_checkpoint
from common.head.config import TrainConfig
from common.head.controls.choice import candidates, choose
from common.head.controls.inner import hold_out
from common.head.experiment import load_experiment
from common.reports.results import collect_all
from common.run_k_folds import main
from common.train import main as train_main
from tests.common.conftest import FOLD_WORDS

WORDS = [*FOLD_WORDS, "--head", "linear", "--no_floors"]


def records(made, run):
    folder = paths.model("ColorHistogram").results(made.dataset.name, run)
    return [json.loads((folder / f"split_{k}" / paths.RUN_RECORD).read_text()) for k in (1, 2)]


def test_a_fifth_is_kept_aside_with_whole_patients():
    videos = [f"BL_{k}" for k in range(15)] + [f"SD_{k}" for k in range(10)]
    aside = hold_out(videos, {}, seed=42)
    assert len(aside) == 5
    assert sum(name.startswith("BL") for name in aside) == 3
    assert aside == hold_out(videos, {}, seed=42) != hold_out(videos, {}, seed=7)
    patients = {name: f"p{int(name[3:]) // 4}" for name in videos if name.startswith("BL")}
    together = {patients.get(name, name) for name in hold_out(videos, patients, seed=42)}
    assert together.isdisjoint(
        {patients.get(name, name) for name in set(videos) - set(hold_out(videos, patients, seed=42))}
    )


def test_two_videos_at_least_and_something_is_left():
    assert len(hold_out(["a_1", "b_1", "c_1"], {}, seed=1)) == 2
    with pytest.raises(UserError, match=r"of 2 training videos \(a_1, b_1\) 2 cannot be kept aside"):
        hold_out(["a_1", "b_1"], {}, seed=1)
    with pytest.raises(UserError, match="whole patients"):
        hold_out(["a_1", "b_1", "c_1"], dict.fromkeys(["a_1", "b_1", "c_1"], "one"), seed=1)


def test_a_choice_is_made_for_each_fold_and_recorded(made):
    # features so small that a head learns nothing of them as they are: the scale is what must be chosen
    for path in sorted(made.features.glob("*.npy")):
        made.write_features(path.stem, np.load(path).T * 1e-4)
    main([*WORDS, "--num_epochs", "3", "--choose", "standardise", "lr"])
    for record in records(made, "head=linear-choose=lr+standardise"):
        assert record["choice"]["chosen"]["standardise"] == "train"
        assert len(record["choice"]["candidates"]) == 6
        assert record["config"]["choose"] == "lr+standardise"
        assert record["config"]["standardise"] == "none"  # what was asked for
        assert set(record["choice"]["held_out"]).isdisjoint(record["videos"])
        best = max(each["accuracy"] for each in record["choice"]["candidates"])
        assert {"accuracy": best} | record["choice"]["chosen"] in record["choice"]["candidates"]
    checkpoint = paths.model("ColorHistogram").checkpoint(made.dataset.name, 1, "head=linear-choose=lr+standardise")
    assert load_checkpoint(checkpoint).config["standardise"] == "train"
    assert not list(checkpoint.parents[2].glob("*aside*"))
    # retrained on all training videos
    assert records(made, "head=linear-choose=lr+standardise")[0]["num_train_videos"] == 3
    assert [result.name for result in collect_all(made.dataset, 2).results] == [
        "ColorHistogram (head=linear-choose=lr+standardise)"
    ]


def test_finished_folds_with_a_choice_are_not_run_again(made):
    words = [*WORDS, "--num_epochs", "1", "--choose", "standardise", "--decode", "viterbi"]
    main(words)
    folder = paths.model("ColorHistogram").results(made.dataset.name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob(paths.RUN_RECORD)}
    assert len(before) == 4
    main(words)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob(paths.RUN_RECORD)} == before


@pytest.mark.parametrize("run", ["head=linear-choose=lr", "head=linear-choose=lr-viterbi", "floor=linear"])
def test_runs_with_a_choice_and_floors_are_reproduced(made, run, capsys):
    words = [word for word in WORDS if word != "--no_floors"]
    main([*words, "--num_epochs", "2", "--choose", "lr", "--decode", "viterbi", "--only", "1"])
    record = paths.model("ColorHistogram").split_results(made.dataset.name, 1, run) / paths.RUN_RECORD
    assert main(["--reproduce", str(record), "--device", "cpu"]) == 0
    assert "Reproduced: all 6 prediction files are equal to the byte" in capsys.readouterr().out


def test_test_labels_change_no_choice(made):
    experiment = load_experiment(made.config(head="linear", num_epochs=2, choose="lr+standardise"))
    first = choose(experiment, "", device="cpu")
    random = np.random.default_rng(0)
    for path in experiment.test_labels.values():
        names = path.read_text().splitlines()
        path.write_text("\n".join(random.permutation(names)))
    again = choose(load_experiment(made.config(head="linear", num_epochs=2, choose="lr+standardise")), "", device="cpu")
    assert again == first


def test_what_was_asked_for_is_the_first_candidate(made):
    experiment = load_experiment(made.config(lr=0.01, standardise="train", choose="lr+standardise"))
    assert candidates(experiment)[0] == {"lr": 0.01, "standardise": "train"}


def test_pooling_is_chosen_among_variants_that_differ_in_it_alone(made):
    experiment = load_experiment(made.config(choose="pooling"))
    with pytest.raises(
        UserError, match=r"no features of ColorHistogram that differ in the pooling alone; extract some"
    ):
        candidates(experiment)
    for variant, changes in (("mean", {"pooling": "mean"}), ("other", {"pooling": "mean", "dtype": "float16"})):
        folder = made.dataset.features("ColorHistogram", variant)
        folder.mkdir()
        for path in made.features.glob("*.npy"):
            rows = np.load(path).T
            wide = np.concatenate([rows, rows], axis=1) if variant == "mean" else rows
            folder.joinpath(path.name).unlink(missing_ok=True)
            _write(made, folder, path.stem, wide, changes)
    assert candidates(experiment) == [{"variant": None}, {"variant": "mean"}]
    chosen = experiment.with_settings({"variant": "mean"})
    assert (chosen.config.features_dim, chosen.features.name) == (96, "ColorHistogram@mean")
    assert chosen.results == experiment.results


def _write(made, folder, name, rows, changes):
    """Features of a variant, by the fixture's writer."""
    made.write_features(name, rows, **changes)
    for suffix in (".npy", ".json"):
        made.features.joinpath(name + suffix).replace(folder / (name + suffix))
    made.write_features(name, rows[:, :48])


def test_training_alone_cannot_choose(made, tmp_path):
    config = tmp_path / "head.yaml"
    config.write_text("choose: lr\n")
    with pytest.raises(UserError, match=r"choose: lr is for common\.run_k_folds"):
        train_main(["--dataset", "made", "--model", "ColorHistogram", "--config", str(config)])


@pytest.mark.parametrize("value", ["lr+seed", "none+lr", ""])
def test_what_cannot_be_chosen_is_refused(value):
    with pytest.raises(UserError, match="choose: expected none, or some of lr, standardise, pooling joined by"):
        TrainConfig(choose=value)

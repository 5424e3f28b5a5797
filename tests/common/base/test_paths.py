"""File locations: from one root, wherever a command is started."""

from pathlib import Path

import pytest

from common.base import paths
from common.base.runtime import UserError


@pytest.fixture
def mini(workspace):
    """A data set `data/Mini` in the workspace."""
    folder = workspace / "data" / "Mini"
    folder.mkdir()
    (folder / "mapping.txt").write_text("0 a\n")
    return folder


def test_root_is_the_checkout_unless_the_environment_says_otherwise(checkout, monkeypatch):
    monkeypatch.delenv("SICS155_ROOT", raising=False)
    assert paths.repository_root() == checkout


def test_environment_names_another_root(workspace):
    assert paths.repository_root() == workspace
    assert paths.comparison_results() == workspace / "comparison_results"


def test_empty_environment_variable_means_the_checkout(checkout, monkeypatch):
    monkeypatch.setenv("SICS155_ROOT", "")
    assert paths.repository_root() == checkout


@pytest.mark.parametrize("name", ["Mini", "data/Mini", "./data/Mini", "data/Mini/"])
@pytest.mark.parametrize("start", [".", "models/Base", "data/Mini"])
def test_data_set_is_found_from_anywhere(workspace, mini, monkeypatch, name, start):
    monkeypatch.chdir(workspace / start)
    assert paths.dataset(name).root == mini


def test_data_set_is_found_by_absolute_path(workspace, tmp_path):
    folder = tmp_path / "scratch" / "Cases"
    folder.mkdir(parents=True)
    found = paths.dataset(str(folder))
    assert (found.root, found.name) == (folder, "Cases")


def test_bare_name_prefers_data_over_a_folder_of_the_root(workspace):
    for folder in ("models", "data/models"):
        (workspace / folder).mkdir(exist_ok=True)
    assert paths.dataset("models").root == workspace / "data" / "models"


def test_unknown_data_set_is_an_error_that_names_place_and_alternatives(workspace, mini):
    with pytest.raises(UserError) as error:
        paths.dataset("SICS155")
    assert str(workspace / "data" / "SICS155") in str(error.value)
    assert "present: Mini" in str(error.value)


def test_locations_of_a_data_set(workspace, mini):
    dataset = paths.dataset("Mini")
    assert dataset.videos == mini / "videos"
    assert dataset.ground_truth == mini / "groundTruth"
    assert dataset.ground_truth_val == mini / "groundTruth_val"
    assert dataset.mapping == mini / "mapping.txt"
    assert dataset.bundle("train", 2) == mini / "splits" / "train.split2.bundle"
    assert dataset.ground_truth_split(2) == mini / "groundTruth_split_2"
    assert dataset.features("Base") == mini / "features" / "Base"
    assert dataset.features("Base", "SSL") == mini / "features" / "Base@SSL"


def test_data_set_is_synthetic_when_the_sample_maker_says_so(mini, workspace):
    assert not paths.dataset("Mini").is_synthetic
    (mini / "sample.json").write_text("{}")
    assert paths.dataset("Mini").is_synthetic


def test_locations_of_a_model(workspace):
    model, root = paths.model("Base"), workspace / "models" / "Base"
    assert model.config == root / "config.yaml"
    assert model.split_results("SICS155", 2) == root / "results" / "SICS155" / "split_2"
    assert model.split_results("SICS155", 2, "seed7") == root / "results" / "SICS155" / "seed7" / "split_2"
    assert model.checkpoint("SICS155", "val").parent == root / "checkpoints" / "SICS155" / "split_val"
    assert model.workbook == root / "results.xlsx"


def test_runs_never_share_a_folder(workspace):
    model = paths.model("Base")
    places = {model.split_results("A", 1), model.split_results("A", 1, "x"), model.split_results("A", 1, "y")}
    places |= {model.unlabelled_results("A", "new", 1), model.split_results("A", 2), model.split_results("B", 1)}
    assert len(places) == 6


def test_models_are_the_folders_with_a_config(workspace):
    (workspace / "models" / "Notes").mkdir()
    known = [model.name for model in paths.all_models()]
    assert known == sorted(known)
    assert {"Base", "ColorHistogram", "EfficientNet-Lite0"} <= set(known)
    assert "Notes" not in known


@pytest.mark.parametrize("inside", ["", "results/SICS155"])
def test_model_is_the_folder_the_command_was_started_in(workspace, monkeypatch, inside):
    folder = workspace / "models" / "ColorHistogram" / inside
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    assert paths.model(None).name == "ColorHistogram"


def test_elsewhere_a_model_must_be_named(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    with pytest.raises(UserError, match="add --model with one of: Base, "):
        paths.model(None)


def test_unknown_model_lists_those_there_are(workspace):
    with pytest.raises(UserError, match=r"no model folder 'base' .* present: Base, "):
        paths.model("base")


def test_default_mapping_is_the_repositorys_own(workspace, checkout):
    assert paths.default_mapping() == checkout / "mapping.txt"


@pytest.mark.parametrize("folder", ["theatre one", "OP-Säle (2)", "a" * 300, "..", "nul:"])
def test_predictions_for_a_folder_of_any_name_have_a_place_of_their_own(folder):
    model = paths.Model(Path("models") / "Base")
    place = model.unlabelled_results("A", folder, 1)
    assert paths.require_name("data set", place.parent.name)
    assert place.parent.parent == model.results("A")
    assert place != model.unlabelled_results("A", f"{folder} ", 1)
    assert model.unlabelled_results("A", "theatre", 1).parent.name == "videos_theatre"


# --- which one is meant -------------------------------------------------------------------------------------------


def make_sets(workspace: Path, *names: str, drawn: bool = False) -> None:
    for name in names:
        folder = workspace / "data" / name
        folder.mkdir()
        (folder / "mapping.txt").write_text("0 a\n")
        if drawn:
            paths.Dataset(folder).sample_record.write_text("{}")


def test_without_a_name_the_studys_set_is_meant_else_the_only_one(workspace):
    assert paths.default_dataset() == "SICS155"  # also where there is none: errors then say how to get it
    make_sets(workspace, "sample", drawn=True)
    assert paths.default_dataset() == "sample"
    make_sets(workspace, "mine")
    assert paths.default_dataset() == "mine"
    make_sets(workspace, "yours")
    with pytest.raises(UserError, match="several data sets: mine, yours; name one, such as --dataset mine"):
        paths.default_dataset()
    make_sets(workspace, "SICS155")
    assert paths.default_dataset() == "SICS155"


def test_a_folder_of_a_data_set_and_a_name_nearly_right_are_told(workspace, mini):
    (mini / "videos").mkdir()
    with pytest.raises(UserError, match=r"videos: a folder of the data set Mini; name that"):
        paths.dataset("data/Mini/videos")
    with pytest.raises(UserError, match=r"did you mean 'Mini'\?"):
        paths.dataset("Mimi")

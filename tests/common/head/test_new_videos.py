"""New videos without labels: whose features they get, where those stay, and which head predicts."""

import shutil

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError
from common.extract_features import main as extract_main
from common.features.files import open_features
from common.head.checkpoint import load_checkpoint
from common.head.new_videos import find_head, open_head
from common.train import main

LENGTHS = {"BL_0": 37, "BL_1": 20, "BL_2": 12}  # frames
WORDS = ["--dataset", "clips", "--model", "ColorHistogram", "--device", "cpu", "--split", "val"]
HEAD = ["--num_layers_PG", "2", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "4", "--num_epochs", "1"]


def write_video(make_clip, path, seed, num_frames):
    """A video of coloured noise."""
    images = np.random.default_rng(seed).integers(0, 255, (num_frames, 48, 64, 3), dtype=np.uint8)
    return make_clip(path, list(images))


@pytest.fixture(scope="module")
def built(tmp_path_factory, checkout, make_clip):
    """A root with a data set of three videos, features at 12.5 frames a second, and a head of the validation split."""
    root = tmp_path_factory.mktemp("built")
    (root / "models" / "ColorHistogram").mkdir(parents=True)
    shutil.copy(checkout / "models" / "ColorHistogram" / "config.yaml", root / "models" / "ColorHistogram")
    dataset = paths.Dataset(root / "data" / "clips")
    for seed, (name, num_frames) in enumerate(LENGTHS.items()):
        write_video(make_clip, dataset.videos / f"{name}.mp4", seed, num_frames)
        for folder in (dataset.ground_truth, dataset.ground_truth_val):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text("background\n" * 3 + "wash\n" * (num_frames - 3))
    dataset.mapping.write_text("0 background\n1 wash\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root))
        assert extract_main(["--dataset", "clips", "--device", "cpu", "--fps", "12.5"], model="ColorHistogram") == 0
        assert main([*WORDS, *HEAD]) == 0
    return root


@pytest.fixture
def clips(built, tmp_path, monkeypatch):
    """The data set, in a copy of the root."""
    shutil.copytree(built, tmp_path / "root")
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    return paths.dataset("clips")


@pytest.fixture
def new(make_clip, tmp_path):
    """A folder with one new video of 31 frames."""
    write_video(make_clip, tmp_path / "theatre_2" / "case_7.mp4", 5, 31)
    return tmp_path / "theatre_2"


def predict(folder, *words):
    """Predict the videos of `folder`; returns the folder of the results."""
    assert main([*WORDS, *HEAD, "--action", "predict", "--videos", str(folder), *words]) == 0
    return results_of(folder)


def results_of(folder):
    return paths.model("ColorHistogram").unlabelled_results("clips", folder.name, "val")


def features_beside(folder):
    return paths.Dataset(results_of(folder).parent).features("ColorHistogram")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


EVERY_SECOND = ["--feature_stride", "2"]


def without_sidecars(clips):
    """Features as somebody else would have made them."""
    for path in clips.features("ColorHistogram").glob("*.json"):
        path.unlink()
    assert main([*WORDS, *HEAD, *EVERY_SECOND]) == 0


def test_there_is_one_row_a_frame_and_missing_features_are_made_beside_the_predictions(clips, new):
    before = contents(clips.features("ColorHistogram"))
    folder = predict(new)
    assert len((folder / "case_7.txt").read_text().splitlines()[1].split()) == 31
    assert np.load(folder / "case_7.npy").shape == (31, 2)
    made = open_features(features_beside(new) / "case_7.npy")
    assert made.identity() == open_features(clips.features("ColorHistogram") / "BL_0.npy").identity()
    assert made.sidecar["sampling"] == {"fps": 12.5}
    assert contents(clips.features("ColorHistogram")) == before


def test_features_of_an_earlier_call_are_used_again(clips, new, extracted):
    first = contents(predict(new))
    assert contents(predict(new)) == first
    assert extracted == ["case_7"]


def test_features_that_the_data_set_has_of_the_very_video_are_used(clips, new, extracted):
    folder = predict(clips.videos)
    assert sorted(path.stem for path in folder.glob("*.npy")) == sorted(LENGTHS)
    assert extracted == []


def test_another_video_of_the_same_name_neither_takes_nor_replaces_the_features(clips, make_clip, new, extracted):
    write_video(make_clip, new / "BL_0.mp4", 9, 23)
    before = contents(clips.features("ColorHistogram"))
    assert len(np.load(predict(new) / "BL_0.npy")) == 23
    assert extracted == ["BL_0", "case_7"]
    assert contents(clips.features("ColorHistogram")) == before


def test_features_made_in_another_way_are_neither_used_nor_replaced(clips, new):
    expected = contents(predict(new))
    words = ["--dataset", "clips", "--device", "cpu", "--videos", str(new)]
    extract_main([*words, "--fps", "5"], model="ColorHistogram")
    before = contents(clips.features("ColorHistogram"))
    shutil.rmtree(features_beside(new))
    assert contents(predict(new)) == expected
    assert contents(clips.features("ColorHistogram")) == before


def test_features_are_made_as_the_head_learned_though_the_data_sets_have_changed_since(clips, new):
    expected = contents(predict(new))
    extract_main(["--dataset", "clips", "--device", "cpu", "--force"], model="ColorHistogram")
    shutil.rmtree(features_beside(new))
    assert contents(predict(new)) == expected


def test_an_encoder_that_changed_since_training_is_named(clips, new):
    config = paths.model("ColorHistogram").config
    config.write_text(config.read_text().replace("size: 112", "size: 96"))
    with pytest.raises(UserError, match="makes other features here than the head learned from: preprocessing: "):
        predict(new)


def test_a_bad_video_is_named_and_the_others_are_predicted(clips, new, caplog):
    (new / "bad.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"1 of 2 videos failed; the others are in .*videos_theatre_2"):
        predict(new)
    assert [path.name for path in sorted(results_of(new).iterdir())] == ["case_7.npy", "case_7.txt"]
    assert f"bad: {new / 'bad.mp4'}: cannot be decoded" in caplog.text


def test_a_folder_without_videos_is_named(clips, tmp_path):
    with pytest.raises(UserError, match="no video files here"):
        predict(tmp_path / "root" / "data")


def test_a_bare_state_dict_takes_features_like_the_data_sets(clips, new, tmp_path):
    expected = contents(predict(new))
    state = load_checkpoint(paths.model("ColorHistogram").checkpoint("clips", "val")).model
    torch.save(state, tmp_path / "epoch-1.model")
    shutil.rmtree(features_beside(new))
    assert contents(predict(new, "--checkpoint", str(tmp_path / "epoch-1.model"))) == expected


# --- features from elsewhere --------------------------------------------------------------------------------------


def test_new_features_from_elsewhere_are_used_like_those_of_the_training(clips, new):
    without_sidecars(clips)
    features = clips.features("ColorHistogram") / "case_7.npy"
    shutil.copy(features.with_name("BL_1.npy"), features)
    num_features = open_features(features).array.shape[1]
    assert len(np.load(predict(new, *EVERY_SECOND) / "case_7.npy")) == 2 * num_features


def test_a_rate_of_features_from_elsewhere_is_refused_for_new_videos(clips):
    without_sidecars(clips)
    clips.description.write_text("feature_fps: 12.5\n")
    with pytest.raises(UserError, match=r"dataset\.yaml: feature_fps is not used for new videos"):
        predict(clips.videos)


def test_of_features_from_elsewhere_no_more_can_be_made(clips, new):
    without_sidecars(clips)
    with pytest.raises(UserError, match=r"features without sidecars, .* extract the features of .*theatre_2 yourself"):
        predict(new, *EVERY_SECOND)


def test_features_from_elsewhere_of_a_labelled_video_are_not_those_of_a_new_one(clips, make_clip, new):
    without_sidecars(clips)
    (new / "case_7.mp4").rename(new / "BL_0.mp4")
    with pytest.raises(UserError, match=r"BL_0\.mp4: called as a labelled video of clips, .* give it another name"):
        predict(new, *EVERY_SECOND)
    # 19 features of every second frame: of 37 frames or 38, which nothing says
    assert len(np.load(predict(clips.videos, *EVERY_SECOND) / "BL_0.npy")) == 38


# --- which head ---------------------------------------------------------------------------------------------------


@pytest.fixture
def heads(workspace):
    """Writes empty files in the places of checkpoints."""
    model = paths.model("ColorHistogram")

    def write(*places):
        for dataset, split, run_name in places:
            path = model.checkpoint(dataset, split, run_name)
            path.parent.mkdir(parents=True)
            path.touch()
        return model

    return write


def test_the_validation_split_is_preferred_then_the_first_fold(heads):
    model = heads(("clips", 10, None), ("clips", 2, None), ("clips", 1, "causal"))
    assert find_head(model, "clips") == model.checkpoint("clips", 2)
    assert find_head(model, "./data/clips", split="10") == model.checkpoint("clips", 10)
    assert find_head(model, "clips", run="causal") == model.checkpoint("clips", 1, "causal")
    heads(("clips", "val", None))
    assert find_head(model, "clips") == model.checkpoint("clips", "val")


def test_a_head_whose_training_has_not_ended_is_taken_by_name_alone(clips):
    path = paths.model("ColorHistogram").checkpoint("clips", "val")
    assert open_head(path).remarks == ()
    checkpoint = load_checkpoint(path)
    checkpoint.config["num_epochs"] = 3
    checkpoint.save(path)
    with pytest.raises(UserError, match=r"last.pt: 1 of 3 epochs: its training runs, or was stopped; .* --checkpoint "):
        open_head(path)
    assert open_head(path, is_named=True).remarks == ("head of 1 of 3 epochs: its training has not ended",)


def test_all_labelled_videos_teach_a_head_where_none_is_kept_for_validation(clips):
    shutil.rmtree(clips.ground_truth_val)
    assert main([*WORDS, *HEAD, "--run", "whole"]) == 0
    assert main([*WORDS, *HEAD, "--run", "ahead", "--lookahead", "0.5"]) == 0
    with pytest.raises(UserError, match=r"groundTruth_val: no such folder.*; put labels there, or predict new videos"):
        main([*WORDS, *HEAD, "--run", "whole", "--action", "predict"])


def test_an_absent_checkpoint_names_those_that_there_are(heads):
    model = heads(("clips", 1, None), ("clips", 1, "causal"))
    with pytest.raises(UserError, match="no such checkpoint; trained heads of ColorHistogram: ") as error:
        find_head(model, "other")
    assert str(model.checkpoint("other", "val")) in str(error.value)
    for run_name in (None, "causal"):
        assert str(model.checkpoint("clips", 1, run_name)) in str(error.value)
    with pytest.raises(UserError, match="trained heads of Base: none"):
        find_head(paths.model("Base"), "clips")

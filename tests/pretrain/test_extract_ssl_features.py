"""The command of Stage 3: the features of the CataractFT folder, of Stage 1 alone beside them, and of what is named."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common import extract_features as extraction
from common.base import paths
from common.base.runtime import UserError
from pretrain import extract_ssl_features
from tests.pretrain.finetuning import frames_of, options_of, training_of, write_dataset, write_export

FOLDERS = {"dinov3-tiny": "DinoV3-Tiny", "vjepa2-tiny": "V-JEPA2-Tiny"}


@pytest.fixture(scope="module")
def films(tmp_path_factory, make_clip):
    """A video to extract, in a folder of its own."""
    folder = tmp_path_factory.mktemp("films")
    make_clip(folder / "case_9.mp4", frames_of(9), fps=10)
    return folder


@pytest.fixture
def pretrained(workspace, films):
    """`pretrained(name)`: both stages of a tiny model, done; returns the data set `Target`, to be extracted."""
    made, target = write_dataset(workspace / "data" / "Made"), paths.Dataset(workspace / "data" / "Target")
    target.root.mkdir()
    target.videos.symlink_to(films)

    def build(name: str) -> paths.Dataset:
        export = write_export(name)
        options = replace(options_of(name, export), output=None, epochs=1)  # where the encoder's folder looks
        training_of(made, options, export).run()
        return target

    return build


def extract(*given: str) -> int:
    return extract_ssl_features.main([*given, "--dataset", "Target", "--device", "cpu"])


def files_of(folder) -> tuple[np.ndarray, dict]:
    """Features and sidecar of the one video; of the sidecar what does not depend on the moment."""
    sidecar = json.loads((folder / "case_9.json").read_text())
    changing = ("finished", "seconds", "commit", "dirty")
    return np.load(folder / "case_9.npy"), {key: value for key, value in sidecar.items() if key not in changing}


@pytest.mark.parametrize("name", FOLDERS)
def test_without_flags_it_is_the_extraction_of_the_encoders_own_folder(pretrained, name):
    target = pretrained(name)
    folder = target.features(FOLDERS[name])
    assert extract("--model", name) == 0
    features, sidecar = files_of(folder)
    assert features.shape == (48, 20)
    assert extraction.main(["--dataset", "Target", "--device", "cpu", "--force"], model=FOLDERS[name]) == 0
    expected, same = files_of(folder)
    np.testing.assert_array_equal(features, expected)
    assert sidecar == same
    assert sidecar["weights"]["adapter"]["source"] == str(paths.pretrained_adapter(name))
    if name == "vjepa2-tiny":  # the spacing that all stages have, whose clips are of 10 frames a second
        assert (sidecar["window"]["spacing"], sidecar["recipe"]) == (0.1, "weights")


def test_a_stage_1_checkpoint_alone_is_the_variant_without_lora(pretrained, workspace, monkeypatch):
    """As the study says it, from inside pretrain/, after features with LoRA: both are kept."""
    target = pretrained("dinov3-tiny")
    extract("--model", "dinov3-tiny")
    monkeypatch.chdir(workspace / "pretrain")
    assert extract("--model", "dinov3-tiny", "--checkpoint", "./checkpoints/ssl/dinov3-tiny/final.pt") == 0
    with_lora, _ = files_of(target.features("DinoV3-Tiny"))
    without, sidecar = files_of(target.features("DinoV3-Tiny", "ssl"))
    assert "adapter" not in sidecar["weights"]
    assert np.abs(with_lora - without).max() > 1e-3


@pytest.mark.parametrize("flag", ["--lora_path", "--checkpoint"])
def test_an_adapter_folder_by_either_flag(pretrained, tmp_path, flag):
    target = pretrained("dinov3-tiny")
    extract("--model", "dinov3-tiny")
    expected, _ = files_of(target.features("DinoV3-Tiny"))
    best = paths.pretrained_adapter("dinov3-tiny")
    assert extract("--model", "dinov3-tiny", flag, str(best), "--variant", "named") == 0
    features, sidecar = files_of(target.features("DinoV3-Tiny", "named"))
    np.testing.assert_array_equal(features, expected)
    assert sidecar["weights"]["adapter"]["source"] == str(best)


def test_an_adapter_and_the_new_place_of_its_base(pretrained, tmp_path):
    target = pretrained("dinov3-tiny")
    paths.pretrained_backbone("dinov3-tiny").rename(tmp_path / "moved")
    best = paths.pretrained_adapter("dinov3-tiny")
    with pytest.raises(UserError, match="give --ssl_checkpoint its new place"):
        extract("--model", "dinov3-tiny")
    given = ("--lora_path", str(best), "--ssl_checkpoint", str(tmp_path / "moved"))
    assert extract("--model", "dinov3-tiny", *given) == 0
    assert (target.features("DinoV3-Tiny") / "case_9.npy").is_file()


def test_an_adapter_on_another_base_is_refused(pretrained, tmp_path):
    pretrained("dinov3-tiny")
    other = write_export("dinov3-tiny", tmp_path / "other", seed=2)
    best = paths.pretrained_adapter("dinov3-tiny")
    with pytest.raises(UserError, match="was trained on"):
        extract("--model", "dinov3-tiny", "--lora_path", str(best), "--checkpoint", str(other))


def test_weights_that_are_not_there(workspace):
    (workspace / "data" / "Target" / "videos").mkdir(parents=True)
    for flag in ("--checkpoint", "--lora_path"):
        with pytest.raises(UserError, match=rf"{flag} nowhere: no such file or folder"):
            extract("--model", "dinov3-tiny", flag, "nowhere")
    with pytest.raises(UserError, match="--model is missing: there are dinov3-vitb16"):
        extract()


def test_the_options_of_an_extraction_reach_it(monkeypatch):
    given = {"checkpoint": None, "lora_path": None, "fps": 2.0, "variant": "slow", "shard": "2/3"}
    config = extract_ssl_features.extraction_config(given)
    assert (config.fps, config.variant, config.shard) == (2.0, "slow", "2/3")
    for name, value in {"ID": "1", "MIN": "0", "MAX": "3", "COUNT": "4"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert extract_ssl_features.extraction_config({"checkpoint": None, "lora_path": None}).shard == "2/4"

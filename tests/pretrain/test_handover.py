"""Stages find each other's outputs from wherever they are started."""

import pytest

from common.base import paths
from common.base.runtime import UserError
from pretrain.handover import encoder_folder, find_base, find_stage_output, stage_1_manifest
from pretrain.ssl_config import MODELS, find_model
from tests.pretrain.finetuning import write_export

STUDY = {
    "dinov3-b": "DinoV3-ViT-B16-CataractFT",
    "dinov3-l": "DinoV3-ViT-L16-CataractFT",
    "dinov3-7b": "DinoV3-ViT-7B16-CataractFT",
    "vjepa2-l": "V-JEPA2-ViT-L-CataractFT",
    "vjepa2-g": "V-JEPA2-ViT-g-CataractFT",
}


@pytest.mark.parametrize("model", [model for model in MODELS if model.family in ("dinov3", "vjepa2")], ids=str)
def test_every_model_that_takes_lora_has_its_encoder_folder(model):
    folder = encoder_folder(model)
    assert folder.name == STUDY.get(model.short, folder.name)
    assert folder.config.is_file()


def test_a_model_without_a_folder(workspace):
    with pytest.raises(UserError, match=r"one folder .* 'weights: pretrain:caformer-s18', found none"):
        encoder_folder(find_model("caformer-s18"))
    config = workspace / "models" / "DinoV3-Tiny" / "config.yaml"
    (workspace / "models" / "Copy").mkdir()
    (workspace / "models" / "Copy" / "config.yaml").write_text(config.read_text())
    with pytest.raises(UserError, match="found Copy, DinoV3-Tiny"):
        encoder_folder(find_model("dinov3-tiny"))


@pytest.mark.parametrize("start", ["pretrain", ".", "elsewhere"])
@pytest.mark.parametrize("given", ["./checkpoints/ssl/dinov3-tiny/final.pt", "pretrain/checkpoints/ssl/dinov3-tiny"])
def test_relative_paths_start_here_in_pretrain_or_at_the_root(workspace, monkeypatch, start, given):
    export = write_export("dinov3-tiny")
    (workspace / "elsewhere").mkdir()
    monkeypatch.chdir(workspace / start)
    assert find_stage_output(given) in (export, export / "final.pt")
    assert find_stage_output(str(export)) == export


def test_the_current_folder_comes_first(workspace, tmp_path, monkeypatch):
    write_export("dinov3-tiny")
    here = write_export("dinov3-tiny", tmp_path / "here" / "checkpoints" / "ssl" / "dinov3-tiny")
    monkeypatch.chdir(tmp_path / "here")
    assert find_stage_output("checkpoints/ssl/dinov3-tiny") == here


def test_what_is_not_there_is_said_with_the_places(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    with pytest.raises(UserError) as error:
        find_stage_output("nowhere/final.pt", "--checkpoint")
    assert "--checkpoint nowhere/final.pt: no such file or folder" in str(error.value)
    for place in (workspace / "nowhere" / "final.pt", workspace / "pretrain" / "nowhere" / "final.pt"):
        assert str(place) in str(error.value)


def test_a_state_in_the_middle_of_stage_1_is_not_mistaken_for_its_end(workspace):
    """The export beside it is of the end, or not there."""
    export = write_export("dinov3-tiny")
    (export / "step_000500.pt").write_bytes(b"state")
    with pytest.raises(UserError, match=r"step_000500\.pt: only final\.pt has an export beside it"):
        find_stage_output(str(export / "step_000500.pt"))


def test_the_base_is_the_models_own_stage_1_unless_another_is_named(workspace, tmp_path):
    model = find_model("dinov3-tiny")
    with pytest.raises(
        UserError, match=r"no Stage 1 output .*/ssl_pretrain_dinov3\.py --model dinov3-tiny, .*published"
    ):
        find_base(model, "stage1", None)
    own, other = write_export("dinov3-tiny"), write_export("dinov3-tiny", tmp_path / "other")
    assert find_base(model, "stage1", None) == own == paths.pretrained_backbone("dinov3-tiny")
    assert find_base(model, "stage1", str(other)) == other


def test_published_weights_on_request(workspace, tmp_path, monkeypatch):
    folder = write_export("dinov3-tiny", tmp_path / "hub") / "export"
    monkeypatch.setattr("common.encoders.weights.download.hub_folder", lambda name, config: folder)
    assert find_base(find_model("dinov3-b"), "published", None) == folder
    with pytest.raises(UserError, match="--base published together with --ssl_checkpoint"):
        find_base(find_model("dinov3-b"), "published", str(folder))
    with pytest.raises(UserError, match="no published weights of vjepa2-tiny, a network for trials"):
        find_base(find_model("vjepa2-tiny"), "published", None)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"is no transformers folder with a config\.json"):
        find_base(find_model("dinov3-b"), "published", None)


def test_the_manifest_of_stage_1_lies_in_or_above_its_export(tmp_path):
    folder = write_export("dinov3-tiny", tmp_path / "ssl")
    assert stage_1_manifest(folder / "export") == folder / "manifest.json"
    assert stage_1_manifest(folder) == folder / "manifest.json"
    (folder / "manifest.json").unlink()
    assert stage_1_manifest(folder / "export") is None

"""Exports of every family are read by the encoders of the study, with the features that the training had."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from common.base.files import read_json
from common.encoders.base import build_encoder
from common.encoders.config import TrainedWindow
from common.encoders.weights.adapters import find_export, trained_window
from common.encoders.weights.find import choose_weights
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoints.checkpoint import TrainingState, whole_model_state
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.export import export_backbone
from pretrain.engine.method import Method, Schedules
from pretrain.objectives.parameter_groups import backbone_groups
from pretrain.objectives.schedules import Constant
from pretrain.ssl_config import find_model


class Bare(Method):
    """A backbone and its teacher, which differ."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.student = nn.ModuleDict({"backbone": backbone})
        self.teacher = copy.deepcopy(self.student)
        with torch.no_grad():
            for parameter in self.teacher.parameters():
                parameter.mul_(1.1)

    def forward(self, batch, step):
        raise NotImplementedError

    def parameter_groups(self):
        return backbone_groups(self.student["backbone"])

    def schedules(self, total_steps):
        return Schedules(Constant(0.1), Constant(0.0), Constant(0.9))

    def features(self, batch):
        raise NotImplementedError

    def exported(self):
        return self.teacher["backbone"]


def export(name: str, root) -> tuple[Method, RunFolder]:
    backbone, source = start_backbone(find_model(name), "random")
    method, folder = Bare(backbone), RunFolder(root)
    state = TrainingState("bare", {"model": name, "clip_len": None, "fps": 5.0}, 5, 1, 1, source.to_json(), step=5)
    export_backbone(method, whole_model_state(method), state, folder)
    folder.final.touch()
    return method, folder


def encoder_of(name: str, folder: RunFolder):
    model = find_model(name)
    config = model.encoder_config()
    config = replace(
        config,
        preprocessing=replace(config.preprocessing, size=model.crop_size),
        clip_len=model.clip_len if model.clip_len > 1 else None,
        weights="pretrain:any",
        ssl_checkpoint=str(folder.final),
    )
    assert choose_weights(config).path == folder.export
    return build_encoder(config)


def pixels(name: str) -> torch.Tensor:
    model = find_model(name)
    shape = (2, model.clip_len, 3, 64, 64) if model.clip_len > 1 else (2, 3, 64, 64)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


EXPECTED = {
    "dinov3-tiny": lambda network, inputs: network(inputs).last_hidden_state[:, 0],
    "vjepa2-tiny": lambda network, inputs: network(inputs, skip_predictor=True).last_hidden_state.mean(1),
    "caformer-tiny": lambda network, inputs: network(inputs),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_encoder_gives_the_teacher_s_features(workspace, tmp_path, name):
    method, folder = export(name, tmp_path)
    encoder = encoder_of(name, folder)
    seen = []
    encoder.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found = encoder.encode(pixels(name))
    method.eval()
    with torch.no_grad():
        expected = EXPECTED[name](method.exported(), seen[0].contiguous())
        student = EXPECTED[name](method.student["backbone"], seen[0].contiguous())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, student, rtol=1e-2)


def test_a_video_mae_is_read_by_its_encoder(workspace, tmp_path):
    method, folder = export("videomae-tiny", tmp_path)
    network = encoder_of("videomae-tiny", folder).network.backbone
    expected = method.exported().videomae.state_dict()
    found = network.state_dict()
    assert len(found) > 30
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_the_export_is_found_beside_final_and_says_what_it_is(tmp_path):
    _, folder = export("vjepa2-tiny", tmp_path)
    found = find_export(str(folder.final))
    assert found.path == folder.export
    assert len(found.sha256) == 64
    assert sorted(path.name for path in folder.export.iterdir()) == [
        "config.json",
        "model.safetensors",
        "provenance.json",
    ]
    provenance = read_json(folder.export / "provenance.json")
    assert (provenance["model"], provenance["step"], provenance["manifest_sha256"]) == ("vjepa2-tiny", 5, None)
    assert provenance["window"] == {"clip_len": 8, "clip_spacing": 0.2}
    assert trained_window(found) == TrainedWindow(8, 0.2, folder.export / "provenance.json")


def test_an_export_draws_no_bar_and_leaves_those_of_downloads(tmp_path, capfd):
    export("dinov3-tiny", tmp_path)
    assert "Writing model shards" not in "".join(capfd.readouterr())
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_network_of_single_frames_has_no_window(tmp_path):
    _, folder = export("dinov3-tiny", tmp_path)
    assert read_json(folder.export / "provenance.json")["window"] is None
    assert trained_window(find_export(str(folder.final))) is None


def test_an_export_replaces_the_one_before(tmp_path):
    export("dinov3-tiny", tmp_path)
    (tmp_path / "export" / "stale").touch()
    export("dinov3-tiny", tmp_path)
    assert not (tmp_path / "export" / "stale").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_network_put_together_from_parts_is_exported(tmp_path):
    """As where a teacher is a part of the network that is exported."""
    backbone, source = start_backbone(find_model("dinov3-tiny"), "random")
    method = Bare(backbone)

    def assembled():
        whole = copy.deepcopy(backbone)
        whole.norm, whole.embeddings = method.teacher["backbone"].norm, method.teacher["backbone"].embeddings
        whole.model = method.teacher["backbone"].model
        return whole

    method.exported = assembled
    state = TrainingState("bare", {"model": "dinov3-tiny"}, 5, 1, 1, source.to_json())
    folder = export_backbone(method, whole_model_state(method), state, RunFolder(tmp_path))
    again, _ = start_backbone(find_model("dinov3-tiny"), str(folder))
    expected = method.teacher["backbone"].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_tensors_of_nobody_are_refused(tmp_path):
    backbone, source = start_backbone(find_model("dinov3-tiny"), "random")
    method = Bare(backbone)
    method.exported = lambda: copy.deepcopy(backbone)
    state = TrainingState("bare", {"model": "dinov3-tiny"}, 5, 1, 1, source.to_json())
    with pytest.raises(ValueError, match=r"the exported network's .* is no tensor of Bare"):
        export_backbone(method, whole_model_state(method), state, RunFolder(tmp_path))

"""I3D: the last stage's average, the published size, a classifier that is left out by name."""

from dataclasses import replace

import pytest
import torch
from pytorchvideo.models.hub import i3d_r50

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import i3d
from common.encoders.weights.load import WeightSource


@pytest.fixture
def config(checkout):
    full = read_encoder_config(checkout / "models" / "I3D" / "config.yaml")
    return replace(full, architecture="tiny", feature_dim=128, preprocessing=replace(full.preprocessing, size=64))


def test_features_are_the_mean_over_time_and_space_before_the_head(config):
    encoder = i3d.build(config, WeightSource("random"))
    clips = torch.randn(2, 16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = clips.permute(0, 2, 1, 3, 4)
        for block in encoder.network.blocks:
            states = block(states)
        assert torch.allclose(encoder.network(clips), states.flatten(2).mean(2), atol=1e-6)
    assert encoder.network(clips).shape == (2, 128)


def test_a_checkpoint_of_the_library_loads_with_its_classifier_left_out(config, tmp_path):
    whole = i3d_r50(pretrained=False, stem_dim_out=4).eval()
    torch.save(whole.state_dict(), tmp_path / "i3d.pth")
    encoder = i3d.build(config, WeightSource("local", tmp_path / "i3d.pth"))
    assert torch.equal(encoder.network.blocks[0].conv.weight, whole.blocks[0].conv.weight)


def test_a_checkpoint_with_other_extra_keys_is_refused(config, tmp_path):
    state = i3d_r50(pretrained=False, stem_dim_out=4).state_dict() | {"adapter.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "i3d.pth")
    with pytest.raises(UserError, match=r"1 unknown \(adapter.weight\)"):
        i3d.build(config, WeightSource("local", tmp_path / "i3d.pth"))


def test_full_size_parameter_count_with_its_classifier(checkout):
    config = read_encoder_config(checkout / "models" / "I3D" / "config.yaml")
    with torch.device("meta"):
        count = i3d.build(config, WeightSource("none")).num_parameters
    assert (count + 2048 * 400 + 400) / 1e6 == pytest.approx(28.0, abs=0.1)  # the study counts it with the classifier

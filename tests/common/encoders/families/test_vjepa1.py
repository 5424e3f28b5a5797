"""V-JEPA 1: the authors' features, positions out of the file, files that are V-JEPA 2's or of another grid."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.families import vjepa1
from common.encoders.families.vjepa1 import Sizes
from common.encoders.weights.find import find_weights

CASES = ("uniform_true", "uniform_false", "uniform_true_interpolated")
# a network whose patches are small: two layers on 4 frames of 32 x 32 pixels
SMALL = Sizes(width=32, layers=2, heads=2, size=32, num_frames=4)
# parameters of a block
BLOCK = {"norm1.weight": [48], "norm1.bias": [48], "attn.qkv.weight": [144, 48], "attn.qkv.bias": [144]}
BLOCK |= {"attn.proj.weight": [48, 48], "attn.proj.bias": [48], "norm2.weight": [48], "norm2.bias": [48]}
BLOCK |= {"mlp.fc1.weight": [192, 48], "mlp.fc1.bias": [192], "mlp.fc2.weight": [48, 192], "mlp.fc2.bias": [48]}


@pytest.fixture
def config(checkout):
    """V-JEPA 1's, at a small size."""
    full = read_encoder_config(checkout / "models" / "V-JEPA1-ViT-L" / "config.yaml")
    return replace(
        full, architecture="tiny", feature_dim=48, clip_len=8, preprocessing=replace(full.preprocessing, size=32)
    )


@pytest.fixture
def state(ruled_state) -> dict[str, torch.Tensor]:
    """A network of the small size under the authors' names."""
    keys = [
        ("pos_embed", [1, 16, 48]),
        ("patch_embed.proj.weight", [48, 3, 2, 16, 16]),
        ("patch_embed.proj.bias", [48]),
    ]
    keys += [(f"blocks.{layer}.{name}", shape) for layer in range(2) for name, shape in BLOCK.items()]
    return ruled_state([*keys, ("norm.weight", [48]), ("norm.bias", [48])])


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def run(encoder, clips):
    with torch.no_grad():
        return encoder.network(clips)


def as_published(state: dict[str, torch.Tensor], **networks: dict) -> dict:
    """The layout of a file of the authors: each network wrapped twice, an optimiser and numbers beside them."""
    wrapped = {f"module.backbone.{key}": value for key, value in state.items()}
    online = {key: value + 1 for key, value in wrapped.items()}
    predictor = {"module.backbone.mask_tokens.0": torch.zeros(1, 1, 24)}
    extra = {"opt": {"state": {0: {"exp_avg": torch.ones(2)}}}, "scaler": None, "epoch": 300, "loss": 0.4, "lr": 1e-4}
    return {"encoder": online, "predictor": predictor, "target_encoder": wrapped, **extra, **networks}


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_the_authors_code(case, reference_data, monkeypatch):
    """Positions of either kind come out of the file; another size interpolates them."""
    monkeypatch.setattr(vjepa1, "PATCH_SIZE", 8)
    facts = json.loads((reference_data / "golden" / "vjepa1_reference.json").read_text())["cases"][case]
    with np.load(reference_data / "golden" / "vjepa1_reference.npz") as arrays:
        found = {
            name.removeprefix(f"{case}/"): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith(f"{case}/")
        }
    network = vjepa1.VJEPA1Features(SMALL).eval()
    network.load_state_dict({name.removeprefix("state/"): value for name, value in found.items() if "state/" in name})
    clips = found["input"].transpose(1, 2)
    with torch.no_grad():
        assert torch.allclose(network.states(clips), found["output"], atol=1e-5)
        assert network(clips)[0, :5].tolist() == pytest.approx(facts["mean_feature_first5"], abs=1e-5)
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["num_parameters"]


def test_the_network_of_a_published_file_is_the_one_that_its_authors_evaluate(config, state, clips, tmp_path):
    torch.save(as_published(state), tmp_path / "vitl16.pth.tar")
    torch.save(state, tmp_path / "alone.pth")
    encoder = build_encoder(config, str(tmp_path / "vitl16.pth.tar"))
    assert encoder.weights.to_json()["network"] == "target_encoder"
    assert torch.equal(run(encoder, clips), run(build_encoder(config, str(tmp_path / "alone.pth")), clips))
    online = build_encoder(config, f"{tmp_path / 'vitl16.pth.tar'}::encoder")
    assert not torch.allclose(run(online, clips), run(encoder, clips))


def test_surgrec_keeps_its_network_under_encoder(checkout, config, state, clips, tmp_path):
    surgrec = read_encoder_config(checkout / "models" / "SurgRec-JEPA" / "config.yaml")
    settings = replace(config, network=surgrec.network, allowed_unexpected=surgrec.allowed_unexpected)
    published = as_published(state, encoder={f"module.backbone.{key}": value for key, value in state.items()})
    published["target_encoder"] = {key: value + 1 for key, value in published["target_encoder"].items()}
    torch.save(published, tmp_path / "surgrec_jepa.pt")
    torch.save(state, tmp_path / "alone.pth")
    taken = run(build_encoder(settings, str(tmp_path / "surgrec_jepa.pt")), clips)
    assert torch.equal(taken, run(build_encoder(config, str(tmp_path / "alone.pth")), clips))


def test_tokens_are_means_over_space_of_each_pair_of_frames(config, clips):
    network = build_encoder(config, "random").network
    with torch.no_grad():
        states, tokens = network.states(clips), network.tokens(clips)  # 4 times x 2 rows x 2 columns
    assert tokens.shape == (2, 4, 48)
    assert torch.allclose(tokens[:, 1], states[:, 4:8].mean(1), atol=1e-6)
    assert torch.allclose(tokens.mean(1), run(build_encoder(config, "random"), clips), atol=1e-6)


def test_positions_decide(config, state, clips, tmp_path):
    """They are part of the weights: with others the features differ."""
    torch.save(state, tmp_path / "a.pth")
    torch.save(state | {"pos_embed": state["pos_embed"].flip(1)}, tmp_path / "b.pth")
    features = [run(build_encoder(config, str(tmp_path / name)), clips) for name in ("a.pth", "b.pth")]
    assert not torch.allclose(*features)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_without_positions_is_v_jepa_2s(wrapped, config, state, tmp_path):
    del state["pos_embed"]
    torch.save(as_published(state) if wrapped else state, tmp_path / "vitl.pt")
    with pytest.raises(UserError, match=r"vitl\.pt: expected V-JEPA 1 weights .* found none: .* family vjepa2"):
        build_encoder(config, str(tmp_path / "vitl.pt"))


def test_positions_of_another_grid_are_refused(config, state, tmp_path):
    torch.save(state | {"pos_embed": torch.zeros(1, 36, 48)}, tmp_path / "vith16-384.pth.tar")
    with pytest.raises(UserError, match=r"pos_embed; the first has shape \(1, 36, 48\), expected \(1, 16, 48\)"):
        build_encoder(config, str(tmp_path / "vith16-384.pth.tar"))


def test_other_weights_are_named_as_such(config, tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match="these weights are not for this network"):
        vjepa1.build(config, find_weights(str(tmp_path / "resnet.pth")))


def test_odd_windows_and_uneven_sizes_are_refused(config):
    with pytest.raises(UserError, match=r"--clip_len 7: .* in pairs"):
        build_encoder(replace(config, clip_len=7), "random")
    with pytest.raises(UserError, match="size 100 is not a multiple of 16"):
        build_encoder(replace(config, preprocessing=replace(config.preprocessing, size=100)), "random")

"""V-JEPA 2: equal to the library's own model without predictor, tokens by tubelet, sizes checked."""

from dataclasses import replace

import pytest
import torch
from transformers import VJEPA2Model

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import vjepa2
from common.encoders.weights.load import WeightSource


@pytest.fixture
def config(checkout):
    full = read_encoder_config(checkout / "models" / "V-JEPA2-ViT-L" / "config.yaml")
    rule = replace(full.preprocessing, size=32)
    return replace(full, architecture="tiny", feature_dim=48, clip_len=8, preprocessing=rule)


@pytest.fixture
def encoder(config):
    return vjepa2.build(config, WeightSource("random"))


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_are_the_token_mean_of_the_librarys_model_without_predictor(encoder, clips):
    whole = VJEPA2Model(encoder.network.encoder.config).eval()
    whole.encoder.load_state_dict(encoder.network.encoder.state_dict())
    with torch.no_grad():
        expected = whole(clips, skip_predictor=True).last_hidden_state.mean(1)
        features = encoder.network(clips)
    assert torch.allclose(features, expected, atol=1e-6)


def test_tokens_are_means_over_space_of_each_pair_of_frames(encoder, clips):
    with torch.no_grad():
        states = encoder.network.encoder(clips).last_hidden_state  # 4 times x 2 rows x 2 columns
        tokens = encoder.network.tokens(clips)
    assert tokens.shape == (2, 4, 48)
    assert torch.allclose(tokens[:, 1], states[:, 4:8].mean(1), atol=1e-6)
    assert torch.allclose(tokens.mean(1), encoder.network(clips), atol=1e-6)


def test_a_folder_of_the_library_gives_the_architecture_and_the_weights(config, clips, tmp_path):
    hf_config = vjepa2.VJEPA2Config(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        crop_size=32,
        pred_hidden_size=24,
        pred_num_hidden_layers=1,
    )
    whole = VJEPA2Model(hf_config).eval()
    whole.save_pretrained(tmp_path)
    loaded = vjepa2.build(replace(config, feature_dim=24), WeightSource("local", tmp_path))
    with torch.no_grad():
        expected = whole(clips, skip_predictor=True).last_hidden_state.mean(1)
        assert torch.allclose(loaded.network(clips), expected, atol=1e-6)


def test_another_size_than_the_weights_is_refused(config, tmp_path):
    vjepa2.VJEPA2Config(crop_size=256, hidden_size=48).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="size 32, but these weights are for 256 x 256"):
        vjepa2.build(config, WeightSource("local", tmp_path))


def test_an_odd_window_is_refused(config):
    with pytest.raises(UserError, match=r"--clip_len 7: .* in pairs"):
        vjepa2.build(replace(config, clip_len=7), WeightSource("random"))


@pytest.mark.parametrize(("folder", "millions"), [("V-JEPA2-ViT-L", 303.9), ("V-JEPA2-ViT-g16-384", 1012.2)])
def test_full_size_parameter_counts_without_predictor(checkout, folder, millions):
    config = read_encoder_config(checkout / "models" / folder / "config.yaml")
    with torch.device("meta"):
        encoder = vjepa2.build(config, WeightSource("none"))
    assert encoder.num_parameters / 1e6 == pytest.approx(millions, abs=0.05)


def test_weights_of_another_width_are_refused(config, tmp_path):
    vjepa2.VJEPA2Config(crop_size=32, hidden_size=96).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="features of 96 values, but V-JEPA2 ViT-L has 48"):
        vjepa2.build(config, WeightSource("local", tmp_path))


def test_another_model_than_vjepa2_is_refused(config, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="expected V-JEPA 2 weights, found model_type 'bert'"):
        vjepa2.build(config, WeightSource("local", tmp_path))


def test_attention_never_holds_all_pairs_of_tokens(encoder):
    """8192 tokens a clip: the plain product would need gigabytes a layer."""
    assert encoder.network.encoder.config._attn_implementation == "sdpa"


def test_metas_own_checkpoint_gives_the_same_features(config, encoder, clips, tmp_path):
    """Under `encoder`, wrapped twice, queries, keys and values in one matrix."""
    state = encoder.network.state_dict()
    meta = {
        key.replace("encoder.embeddings.patch_embeddings.proj", "patch_embed.proj")
        .replace("encoder.layernorm", "norm")
        .replace("encoder.layer.", "blocks.")
        .replace("attention.proj", "attn.proj"): value
        for key, value in state.items()
        if not any(f"attention.{part}." in key for part in ("query", "key", "value"))
    }
    for layer in range(2):
        for kind in ("weight", "bias"):
            parts = [state[f"encoder.layer.{layer}.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            meta[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    wrapped = {f"module.backbone.{key}": value for key, value in meta.items()}
    torch.save({"encoder": wrapped, "predictor": {"w": torch.zeros(1)}, "epoch": 3}, tmp_path / "vitl.pt")
    loaded = vjepa2.build(config, WeightSource("local", tmp_path / "vitl.pt"))
    with torch.no_grad():
        assert torch.equal(loaded.network(clips), encoder.network(clips))

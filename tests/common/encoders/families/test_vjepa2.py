"""V-JEPA 2: equal to the library's own model without predictor, tokens by tubelet, sizes checked; 2.1: the authors' code."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import VJEPA2Model

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import vjepa2
from common.encoders.weights.find import find_weights
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


def under_metas_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network of this family as Meta's files have it: wrapped twice, queries, keys and values in one matrix."""
    meta = {}
    for key, value in state.items():
        name = key.replace("encoder.embeddings.patch_embeddings.proj", "patch_embed.proj")
        name = name.replace("encoder.layernorm", "norm").replace("encoder.layer.", "blocks.")
        if "attention.query." in key:
            parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            meta[name.replace("attention.query", "attn.qkv")] = torch.cat(parts)
        elif not any(f"attention.{part}." in key for part in ("key", "value")):
            meta[name.replace("attention.proj", "attn.proj")] = value
    return {f"module.backbone.{key}": value for key, value in meta.items()}


def as_published(networks: dict[str, dict[str, torch.Tensor]]) -> dict:
    """Meta's layout: networks side by side, a predictor and an optimiser."""
    predictor = {"module.backbone.predictor_embed.weight": torch.zeros(1)}
    return networks | {"predictor": predictor, "opt": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}


def test_metas_own_checkpoint_gives_the_same_features(config, encoder, clips, tmp_path):
    torch.save(as_published({"encoder": under_metas_names(encoder.network.state_dict())}), tmp_path / "vitl.pt")
    loaded = vjepa2.build(config, find_weights(str(tmp_path / "vitl.pt"), config))
    with torch.no_grad():
        assert torch.equal(loaded.network(clips), encoder.network(clips))


@pytest.mark.parametrize(
    ("folder", "network"),
    [("V-JEPA2-ViT-L", "target_encoder"), ("SurgMotion-L", "encoder"), ("SurgMotion-G", "encoder")],
)
def test_a_folder_names_the_network_that_its_authors_evaluate(folder, network, checkout, encoder, config, tmp_path):
    """Where the file has others too."""
    named = replace(config, network=read_encoder_config(checkout / "models" / folder / "config.yaml").network)
    right = under_metas_names(encoder.network.state_dict())
    wrong = {key: value + 1 for key, value in right.items()}
    torch.save(as_published({"encoder": wrong, "target_encoder": wrong} | {network: right}), tmp_path / "w.pt")
    source = find_weights(str(tmp_path / "w.pt"), named)
    loaded = vjepa2.build(named, source).network.state_dict()
    assert source.network == network
    assert all(torch.equal(value, loaded[key]) for key, value in encoder.network.state_dict().items())


@pytest.mark.parametrize("num_rows", [8 * 14 * 14, 8 * 24 * 24])
def test_positions_of_v_jepa_1_are_refused(num_rows, config, encoder, tmp_path):
    """The names are the same; V-JEPA 1 without its positions would give features that mean nothing."""
    state = under_metas_names(encoder.network.state_dict())
    state["module.backbone.pos_embed"] = torch.zeros(1, num_rows, 48)
    torch.save({"target_encoder": state}, tmp_path / "vitl16.pth.tar")
    with pytest.raises(UserError, match=rf"vitl16\.pth\.tar: .* pos_embed of {num_rows} rows, .* family vjepa1"):
        vjepa2.build(config, find_weights(str(tmp_path / "vitl16.pth.tar"), config))


@pytest.mark.parametrize("shape", [(1, 8192, 48), (1, 2048, 48), (48,)])
def test_other_positions_are_left_out_and_reported(shape, config, encoder, clips, tmp_path, caplog):
    state = under_metas_names(encoder.network.state_dict()) | {"module.backbone.pos_embed": torch.zeros(shape)}
    torch.save({"target_encoder": state}, tmp_path / "vitl.pt")
    with caplog.at_level(logging.INFO):
        loaded = vjepa2.build(config, find_weights(str(tmp_path / "vitl.pt"), config))
    assert "vitl.pt: left out pos_embed: the positions of V-JEPA 2 are rotary" in caplog.text
    with torch.no_grad():
        assert torch.equal(loaded.network(clips), encoder.network(clips))


# --- V-JEPA 2.1 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def config_2_1(config):
    return replace(config, architecture="tiny-2.1")


@pytest.fixture
def golden_2_1(reference_data) -> dict[str, torch.Tensor]:
    """What the authors' code answers at a small size: `state/<name>`, `input`, `output`."""
    with np.load(reference_data / "golden" / "vjepa21_reference.npz") as arrays:
        return {name.removeprefix("square/"): torch.from_numpy(arrays[name]) for name in arrays}


@pytest.mark.parametrize("network", ["ema_encoder", "target_encoder"])
def test_tokens_of_2_1_are_those_of_the_authors_code(network, config, golden_2_1, monkeypatch, tmp_path):
    """Out of a file of their layout, every tensor of it in its place."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 12, "num_attention_heads": 2}
    monkeypatch.setitem(vjepa2.ARCHITECTURES_2_1, "golden", sizes)
    rule = replace(config.preprocessing, size=64)
    config = replace(config, architecture="golden", network=network, clip_len=4, preprocessing=rule)
    state = {f"module.backbone.{key[6:]}": value for key, value in golden_2_1.items() if key.startswith("state/")}
    online = {key: value + 1 for key, value in state.items()}
    torch.save(as_published({"encoder": online, network: state}), tmp_path / "vjepa2_1.pt")
    encoder = vjepa2.build(config, find_weights(str(tmp_path / "vjepa2_1.pt"), config))
    with torch.no_grad():
        states = encoder.network.encoder(golden_2_1["input"].transpose(1, 2)).last_hidden_state
    assert torch.allclose(states, golden_2_1["output"], atol=1e-5)
    assert encoder.num_parameters == 450_432


def test_positions_of_2_1_by_hand(config_2_1):
    """Rows and columns reach from 0 to 15 whatever the size; neighbouring values share an angle."""
    attention = vjepa2.build(config_2_1, WeightSource("random")).network.encoder.layer[0].attention
    times, rows, columns = attention.get_position_ids(torch.zeros(1, 8, 48))  # 2 times x 2 rows x 2 columns
    assert times.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert rows.tolist() == [0, 0, 15, 15] * 2
    assert columns.tolist() == [0, 15] * 4
    turned = attention.apply_rotary_embeddings(torch.ones(1, 1, 8, 16), (times, rows, columns))[0, 0, 5]
    # heads of 16 values: 4 for each position, 4 that stay; angles 1 and 1/100 of the time, 0 of the row, 15 of the column
    for pair, angle in enumerate([1, 0.01, 0, 0, 15, 0.15, 0, 0]):
        cosine, sine = torch.tensor(angle).cos().item(), torch.tensor(angle).sin().item()
        assert turned[2 * pair : 2 * pair + 2].tolist() == pytest.approx([cosine - sine, cosine + sine], abs=1e-6)


def test_files_of_2_and_2_1_are_told_apart(config, config_2_1, encoder, tmp_path):
    torch.save({"target_encoder": under_metas_names(encoder.network.state_dict())}, tmp_path / "vitl.pt")
    with pytest.raises(
        UserError, match=r"vitl\.pt: these weights are not for this network: of the file's keys \d+ missing"
    ):
        vjepa2.build(config_2_1, find_weights(str(tmp_path / "vitl.pt"), config_2_1))
    newer = vjepa2.build(config_2_1, WeightSource("random")).network.state_dict()
    names = {"embeddings.video_modality": "video_mod_embed", "embeddings.image_modality": "img_mod_embed"}
    names |= {"embeddings.image_patch_embeddings": "patch_embed_img.proj", "norms_within": "norms_block"}
    renamed = {}
    for key, value in newer.items():
        key = key.replace("encoder.layernorm", "norms_block.3")
        for ours, theirs in names.items():
            key = key.replace(f"encoder.{ours}", theirs)
        renamed[key] = value
    torch.save({"ema_encoder": under_metas_names(renamed)}, tmp_path / "vjepa2_1.pt")
    with pytest.raises(UserError, match=r"unknown \(.*img_mod_embed, .*norms_block\.0\.bias"):
        vjepa2.build(config, find_weights(str(tmp_path / "vjepa2_1.pt"), config))
    loaded = vjepa2.build(config_2_1, find_weights(str(tmp_path / "vjepa2_1.pt"), config_2_1)).network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in newer.items())


@pytest.mark.parametrize(
    ("folder", "network"),
    [("B", "ema_encoder"), ("L", "ema_encoder"), ("g", "target_encoder"), ("gigantic", "target_encoder")],
)
def test_folders_of_2_1_name_the_network_that_meta_evaluates(folder, network, checkout):
    """As `src/hub/backbones.py` of `facebookresearch/vjepa2`."""
    config = read_encoder_config(checkout / "models" / f"V-JEPA2.1-ViT-{folder}" / "config.yaml")
    assert config.network == network

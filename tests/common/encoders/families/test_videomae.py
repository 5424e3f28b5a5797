"""Video MAE: the authors' features, positions of both kinds, files of pretraining and of transformers."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import VideoMAEForPreTraining

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import videomae
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import WeightSource

# what the authors' code answers first for the ruled parameters and input (`golden/README.md`)
FIRST_FEATURES = [0.325637, 1.535095, -0.758732, -1.882468, 0.023261, 0.503171]


@pytest.fixture
def config(checkout):
    """SurgVISTA's, at the size of the reference case."""
    full = read_encoder_config(checkout / "models" / "SurgVISTA-ViT-B" / "config.yaml")
    rule = replace(full.preprocessing, size=64)
    return replace(full, architecture="tiny", feature_dim=96, clip_len=8, preprocessing=rule)


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def run(encoder, clips):
    with torch.no_grad():
        return encoder.network(clips)


def test_features_are_those_of_the_authors_code(config, golden, ruled_input, tmp_path):
    torch.save({"model": golden.state("surgvista_tiny")}, tmp_path / "SurgVISTA.pth")
    encoder = videomae.build(config, find_weights(str(tmp_path / "SurgVISTA.pth")))
    clip = ruled_input((1, 3, 8, 64, 64)).transpose(1, 2)
    assert (run(encoder, clip) - torch.from_numpy(golden.features["surgvista_tiny"])).abs().max().item() < 1e-5


def authors_keys() -> list[tuple[str, list[int]]]:
    """The parameters of SurgVISTA's code at the small size, in its order."""
    keys = [("patch_embed.proj.weight", [96, 3, 2, 16, 16]), ("patch_embed.proj.bias", [96])]
    block = {"norm1.weight": [96], "norm1.bias": [96], "attn.q_bias": [96], "attn.v_bias": [96]}
    block |= {"attn.qkv.weight": [288, 96], "attn.proj.weight": [96, 96], "attn.proj.bias": [96]}
    block |= {"norm2.weight": [96], "norm2.bias": [96], "mlp.fc1.weight": [384, 96], "mlp.fc1.bias": [384]}
    block |= {"mlp.fc2.weight": [96, 384], "mlp.fc2.bias": [96]}
    keys += [(f"blocks.{layer}.{name}", shape) for layer in range(3) for name, shape in block.items()]
    return [*keys, ("fc_norm.weight", [96]), ("fc_norm.bias", [96]), ("head.weight", [7, 96]), ("head.bias", [7])]


def test_first_features_of_the_authors_code_without_the_reference_data(config, ruled_state, ruled_input, tmp_path):
    torch.save(ruled_state(authors_keys()), tmp_path / "SurgVISTA.pth")
    encoder = videomae.build(config, find_weights(str(tmp_path / "SurgVISTA.pth")))
    features = run(encoder, ruled_input((1, 3, 8, 64, 64)).transpose(1, 2))
    assert features[0, :6].tolist() == pytest.approx(FIRST_FEATURES, abs=1e-5)


@pytest.mark.slow
def test_every_key_of_the_full_checkpoint_has_its_place(checkout, golden, tmp_path):
    full = read_encoder_config(checkout / "models" / "SurgVISTA-ViT-B" / "config.yaml")
    zero = torch.zeros(1)
    state = {key: zero.expand(shape) for key, shape in golden.cases["surgvista_vit_b_keys"]}
    torch.save({"module": state}, tmp_path / "SurgVISTA.pth")
    encoder = videomae.build(full, find_weights(str(tmp_path / "SurgVISTA.pth")))
    assert all(not value.any() for value in encoder.network.state_dict().values())


def test_a_joint_bias_of_queries_keys_and_values_is_read(config, golden, clips, tmp_path):
    """As plain vision transformers have it; that of the keys changes nothing."""
    state = golden.state("surgvista_tiny")
    joint = {key: value for key, value in state.items() if not key.endswith(("q_bias", "v_bias"))}
    for layer in range(3):
        start = f"blocks.{layer}.attn"
        parts = (state[f"{start}.q_bias"], torch.randn(96), state[f"{start}.v_bias"])
        joint[f"{start}.qkv.bias"] = torch.cat(parts)
    torch.save(state, tmp_path / "apart.pth")
    torch.save(joint, tmp_path / "joint.pth")
    apart, read = (videomae.build(config, find_weights(str(tmp_path / f"{name}.pth"))) for name in ("apart", "joint"))
    assert torch.equal(run(apart, clips), run(read, clips))


def test_a_key_that_is_neither_used_nor_listed_is_an_error(config, golden, tmp_path):
    torch.save({"model": golden.state("surgvista_tiny") | {"adapter.weight": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"1 unknown \(adapter.weight\)"):
        videomae.build(config, find_weights(str(tmp_path / "w.pth")))


def test_tokens_are_means_over_space_of_each_pair_of_frames(config, clips):
    encoder = videomae.build(config, WeightSource("random"))
    with torch.no_grad():
        tokens = encoder.network.tokens(clips)
        states = encoder.network.backbone(clips).last_hidden_state  # 4 times x 4 rows x 4 columns
        expected = encoder.network.fc_norm(states[:, 16:32].mean(1))
    assert tokens.shape == (2, 4, 96)
    assert encoder.tubelet == 2
    assert torch.allclose(tokens[:, 1], expected, atol=1e-6)


def test_space_time_positions_by_hand():
    """Time 1, row 2, column 3 on a grid of 4: a quarter for the time, three eighths each for column and row."""
    position = videomae.space_time_positions(32, 4, 2)[0, 1 * 16 + 2 * 4 + 3]
    time, column, row = position.split([8, 12, 12])
    for part, value in ((time, 1), (column, 3), (row, 2)):
        half = len(part) // 2
        angles = value * 10000.0 ** (-torch.arange(half) / half)
        assert torch.allclose(part, torch.cat([angles.sin(), angles.cos()]), atol=1e-6)


def test_surgvista_counts_time_and_space_apart(config, clips):
    line = videomae.build(config, WeightSource("random"))
    apart = videomae.build(replace(config, architecture="tiny-surgvista"), WeightSource("random"))
    assert apart.network.backbone.embeddings.position_embeddings.shape == (1, 64, 96)
    assert not torch.allclose(run(line, clips), run(apart, clips))


def pretraining_state(golden) -> dict[str, torch.Tensor]:
    """A checkpoint as SurgVISTA's pretraining writes it: no norm of the mean, another norm, two decoders."""
    state = {key: value for key, value in golden.state("surgvista_tiny").items() if not key.startswith(("fc_", "head"))}
    extra = ("norm.weight", "mask_token_img", "down_vid.weight", "decoder_vid.head.bias", "pos_embed_img")
    return state | {key: torch.ones(1) for key in extra}


def test_a_pretraining_checkpoint_leaves_the_final_norm_plain(config, clips, golden, tmp_path):
    torch.save({"model": pretraining_state(golden)}, tmp_path / "w.pth")
    encoder = videomae.build(config, find_weights(str(tmp_path / "w.pth")))
    features = run(encoder, clips)
    assert torch.allclose(features.mean(1), torch.zeros(2), atol=1e-5)
    assert torch.allclose(features.var(1, unbiased=False), torch.ones(2), atol=1e-3)


def test_positions_in_a_checkpoint_overrule_the_architecture(config, clips, golden, tmp_path):
    positions = videomae.space_time_positions(96, 4, 4)
    torch.save({"model": pretraining_state(golden)}, tmp_path / "without.pth")
    torch.save({"model": pretraining_state(golden) | {"pos_embed": positions}}, tmp_path / "with.pth")
    overruled = videomae.build(config, find_weights(str(tmp_path / "with.pth")))
    apart = replace(config, architecture="tiny-surgvista")
    assert torch.equal(
        run(overruled, clips), run(videomae.build(apart, find_weights(str(tmp_path / "without.pth"))), clips)
    )
    with pytest.raises(UserError, match="positions for 64 tokens, not 32"):
        videomae.build(replace(config, clip_len=4), find_weights(str(tmp_path / "with.pth")))


def test_a_folder_of_transformers_gives_the_same_backbone(config, clips, tmp_path, checkout):
    recipe = read_encoder_config(checkout / "models" / "SurgRec-MAE" / "config.yaml")
    settings = replace(config, allowed_unexpected=recipe.allowed_unexpected)
    hf_config = videomae.build(config, WeightSource("random")).network.backbone.config
    hf_config.decoder_num_hidden_layers, hf_config.decoder_hidden_size = 1, 48
    whole = VideoMAEForPreTraining(hf_config).eval()
    whole.save_pretrained(tmp_path)
    loaded = videomae.build(settings, find_weights(str(tmp_path)))
    with torch.no_grad():
        states = whole.videomae(clips).last_hidden_state
        assert torch.allclose(loaded.network.backbone(clips).last_hidden_state, states, atol=1e-6)


def in_names_of(release: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's state as a release of transformers writes it: 5.23 as published files, 5.17 with biases of the keys."""
    state = {key: value for key, value in state.items() if not key.endswith(".key.bias")}
    if release == "5.17":
        weights = [key for key in state if key.endswith(".key.weight")]
        return state | {key.replace("weight", "bias"): torch.randn(len(state[key])) for key in weights}
    names = {".query.bias": ".q_bias", ".value.bias": ".v_bias"}
    for part, name in names.items():
        state = {key.replace(part, name): value for key, value in state.items()}
    return state


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_gives_the_same_features_whichever_transformers_wrote_it(config, clips, tmp_path, whole):
    """With biases of the keys, which no softmax heeds, or without; the encoder alone or within a network."""
    built = videomae.build(config, WeightSource("random")).network.backbone
    with torch.no_grad():
        for number, parameter in enumerate(built.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) / 10)
    start, features = "videomae." if whole else "", {}
    for release in ("5.17", "5.23"):
        built.config.save_pretrained(tmp_path / release)
        state = in_names_of(release, built.state_dict())
        assert any(key.endswith("attention.key.bias" if release == "5.17" else "attention.q_bias") for key in state)
        save_file({f"{start}{key}": value for key, value in state.items()}, tmp_path / release / "model.safetensors")
        loaded = videomae.build(config, find_weights(str(tmp_path / release))).network
        assert all(torch.equal(value, built.state_dict()[key]) for key, value in loaded.backbone.state_dict().items())
        features[release] = loaded.backbone(clips).last_hidden_state.detach()
        assert torch.allclose(features[release], built(clips).last_hidden_state, atol=1e-6)
    assert torch.equal(features["5.17"], features["5.23"])


def test_no_output_depends_on_biases_of_the_keys(config, clips):
    """The reason to leave them out: transformers' own network, where it has them, with random ones and without."""
    network = videomae.build(config, WeightSource("random")).network.backbone.eval()
    with torch.no_grad():
        without = network(clips).last_hidden_state
        for layer in network.encoder.layer:
            layer.attention.attention.key.bias = torch.nn.Parameter(torch.randn(96))
        assert torch.allclose(network(clips).last_hidden_state, without, atol=1e-5)


@pytest.mark.parametrize("architecture", ["tiny", "tiny-surgvista"])
@pytest.mark.parametrize("stored", [True, False])
def test_a_folder_that_says_how_it_counts_positions_overrules_the_architecture(
    config, tmp_path, checkout, architecture, stored
):
    """As exports of `pretrain/` do; one that does not is as the architecture says."""
    recipe = read_encoder_config(checkout / "models" / "SurgVISTA-ViT-B" / "config.yaml")
    settings = replace(config, architecture=architecture, allowed_unexpected=recipe.allowed_unexpected)
    hf_config = videomae.build(config, WeightSource("random")).network.backbone.config
    VideoMAEForPreTraining(hf_config).save_pretrained(tmp_path)

    def counts_apart() -> bool:
        embeddings = videomae.build(settings, find_weights(str(tmp_path))).network.backbone.embeddings
        return torch.equal(embeddings.position_embeddings, videomae.space_time_positions(96, 4, 4))

    assert counts_apart() == (architecture == "tiny-surgvista")
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"space_time_positions": stored}))
    assert counts_apart() == stored
    (tmp_path / "config.json").write_text(json.dumps(content | {"space_time_positions": "yes"}))
    with pytest.raises(UserError, match="space_time_positions: expected true or false, found 'yes'"):
        counts_apart()


def test_odd_windows_and_uneven_sizes_are_refused(config):
    with pytest.raises(UserError, match=r"--clip_len 7: .* in pairs"):
        videomae.build(replace(config, clip_len=7), WeightSource("random"))
    with pytest.raises(UserError, match="size 100 is not a multiple of 16"):
        videomae.build(replace(config, preprocessing=replace(config.preprocessing, size=100)), WeightSource("random"))
    with pytest.raises(UserError, match="architecture 'x' is unknown"):
        videomae.build(replace(config, architecture="x"), WeightSource("random"))


def test_surgrecs_file_of_pretraining_gives_the_same_backbone(config, clips, golden, tmp_path, checkout):
    """Video MAE's layout: an encoder with its own norm, a decoder and an optimiser beside it, under `model`."""
    recipe = read_encoder_config(checkout / "models" / "SurgRec-MAE" / "config.yaml")
    settings = replace(config, network=recipe.network, allowed_unexpected=recipe.allowed_unexpected)
    body = {key: value for key, value in pretraining_state(golden).items() if key.startswith(("patch_embed", "blocks"))}
    model = {f"encoder.{key}": value for key, value in body.items()} | {"encoder.norm.weight": torch.ones(96)}
    model |= {"encoder_to_decoder.weight": torch.ones(48, 96), "mask_token": torch.ones(1, 1, 48)}
    model |= {"decoder.blocks.0.norm1.weight": torch.ones(48), "decoder.head.bias": torch.ones(1536)}
    torch.save({"model": model, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, tmp_path / "surgrec_mae.pth")
    torch.save({"model": pretraining_state(golden)}, tmp_path / "other.pth")
    source = find_weights(str(tmp_path / "surgrec_mae.pth"), settings)
    assert source.network == "model"
    ours, other = videomae.build(settings, source), videomae.build(config, find_weights(str(tmp_path / "other.pth")))
    assert torch.equal(run(ours, clips), run(other, clips))


@pytest.mark.parametrize("with_norm", [True, False])
def test_files_of_video_mae_v2_have_all_names_under_model(config, clips, golden, tmp_path, checkout, with_norm):
    """As its repository writes them, fine-tuned or not: the authors' names, `model.` before each, in safetensors."""
    recipe = read_encoder_config(checkout / "models" / "VideoMAE2-ViT-B" / "config.yaml")
    settings = replace(config, allowed_missing=recipe.allowed_missing, allowed_unexpected=recipe.allowed_unexpected)
    state = golden.state("surgvista_tiny")
    if not with_norm:
        state = {key: value for key, value in state.items() if not key.startswith(("fc_norm", "head"))}
    save_file({f"model.{key}": value for key, value in state.items()}, tmp_path / "model.safetensors")
    torch.save({"model": state}, tmp_path / "plain.pth")
    ours = videomae.build(settings, find_weights(str(tmp_path / "model.safetensors"), settings))
    plain = videomae.build(config, find_weights(str(tmp_path / "plain.pth")))
    assert torch.equal(run(ours, clips), run(plain, clips))


def test_the_giants_patches_are_of_14_pixels(config):
    rule = replace(config.preprocessing, size=56)
    giant = replace(config, architecture="tiny-14", preprocessing=rule)
    encoder = videomae.build(giant, WeightSource("random"))
    clips = torch.randn(2, 8, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert run(encoder, clips).shape == (2, 96)
    with torch.no_grad():
        assert encoder.network.backbone(clips).last_hidden_state.shape == (2, 4 * 4 * 4, 96)
    assert encoder.network.backbone.encoder.layer[0].intermediate.dense.out_features == 160
    with pytest.raises(UserError, match="size 64 is not a multiple of 14"):
        videomae.build(replace(giant, preprocessing=config.preprocessing), WeightSource("random"))

"""DINOv3: two libraries with equal features, three sets of names, poolings, satellite statistics, refused sizes."""

from dataclasses import replace

import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import dinov3
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import WeightSource

WIDTHS = {"tiny": 48, "tiny_plus": 48, "tiny_7b": 64}


@pytest.fixture
def config(checkout):
    full = read_encoder_config(checkout / "models" / "DinoV3-ViT-B16" / "config.yaml")
    return replace(full, architecture="tiny", feature_dim=48, preprocessing=replace(full.preprocessing, size=64))


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def run(encoder, pixels):
    with torch.no_grad():
        return encoder.network(pixels)


def scatter(network: torch.nn.Module) -> None:
    """Random values where `randomise` leaves ones and zeros: norms, biases, layer scales."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=["tiny", "tiny_plus", "tiny_7b"])
def timm_file(request, config, tmp_path):
    """timm's network of an architecture with scattered weights, and the file of its weights."""
    settings = replace(config, architecture=request.param, feature_dim=WIDTHS[request.param], library="timm")
    encoder = dinov3.build(settings, WeightSource("random"))
    scatter(encoder.network)
    torch.save(encoder.network.backbone.state_dict(), tmp_path / "timm.pth")
    return settings, tmp_path / "timm.pth"


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_the_two_libraries_agree_on_the_same_weights_and_pooling(timm_file, pooling, pixels):
    settings, file = timm_file
    settings = replace(settings, pooling=pooling)
    by_timm = run(dinov3.build(settings, find_weights(str(file))), pixels)
    by_transformers = run(dinov3.build(replace(settings, library=None), find_weights(str(file))), pixels)
    assert by_timm.shape == (3, settings.feature_dim * (2 if pooling == "cls+mean" else 1))
    assert by_timm.std() > 0.1
    assert (by_timm - by_transformers).abs().max().item() < 1e-4


def as_metas(state: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """timm's state under the names of Meta's own files, with what only they hold."""
    renamed = {}
    for key, value in state.items():
        for new, old in dinov3.META_TO_TIMM.items():
            # the MLPs of the smaller models have the same names in both
            key = key.replace(old, new) if not new.startswith("mlp.w3") or "mlp.fc1_g" in "".join(state) else key
        if not key.endswith(("q_bias", "v_bias")):
            renamed[key] = value
    for layer in range(2):
        name = f"blocks.{layer}.attn"
        if f"{name}.q_bias" in state:
            parts = (state[f"{name}.q_bias"], torch.zeros(width), state[f"{name}.v_bias"])
            renamed[f"{name}.qkv.bias"] = torch.cat(parts)
        renamed[f"{name}.qkv.bias_mask"] = torch.ones(3 * width)
    return renamed | {"mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(4)}


@pytest.mark.parametrize("library", ["timm", None])
def test_metas_own_file_gives_the_same_features(timm_file, library, pixels, tmp_path):
    settings, file = timm_file
    metas = as_metas(torch.load(file, weights_only=True), settings.feature_dim)
    torch.save(metas, tmp_path / "meta.pth")
    settings = replace(settings, library=library)
    expected = run(dinov3.build(settings, find_weights(str(file))), pixels)
    assert torch.equal(run(dinov3.build(settings, find_weights(str(tmp_path / "meta.pth"))), pixels), expected)


def hf_model(**changes) -> DINOv3ViTModel:
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    model = DINOv3ViTModel(DINOv3ViTConfig(**(sizes | {"num_register_tokens": 2} | changes))).eval()
    scatter(model)
    return model


@pytest.mark.parametrize("shard_size", ["10GB", "50KB"], ids=["whole", "sharded"])
def test_a_folder_of_transformers_gives_the_architecture_and_the_weights(config, pixels, tmp_path, shard_size):
    """3 layers and 2 registers, unlike the config's architecture."""
    model = hf_model()
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "50KB")
    encoders = {
        name: dinov3.build(replace(config, pooling=name), find_weights(str(tmp_path))) for name in ("cls", "mean")
    }
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    assert torch.allclose(run(encoders["cls"], pixels), tokens[:, 0], atol=1e-6)
    assert torch.allclose(run(encoders["mean"], pixels), tokens[:, 3:].mean(1), atol=1e-6)
    assert not any(parameter.is_meta for parameter in encoders["cls"].network.parameters())


def test_half_precision_files_become_float32(config, pixels, tmp_path):
    hf_model().bfloat16().save_pretrained(tmp_path)
    encoder = dinov3.build(config, find_weights(str(tmp_path)))
    assert {parameter.dtype for parameter in encoder.network.parameters()} == {torch.float32}


def test_a_folder_of_another_size_is_refused(config, tmp_path):
    hf_model(hidden_size=96).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="features of 96 values, but DINOv3 ViT-B has 48"):
        dinov3.build(config, find_weights(str(tmp_path)))


def test_transformers_names_are_not_for_timms_network(config, tmp_path):
    hf_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="leave `library: timm` out"):
        dinov3.build(replace(config, library="timm"), find_weights(str(tmp_path)))


def test_a_trained_bias_is_never_dropped(config, tmp_path):
    """timm's plain network has no biases of queries and values: a file that has some is refused, not cut."""
    settings = replace(config, library="timm")
    state = dinov3.build(settings, WeightSource("random")).network.backbone.state_dict()
    meta = as_metas(state | {"blocks.0.attn.q_bias": torch.ones(48)}, 48)
    torch.save(meta, tmp_path / "meta.pth")
    table = dinov3.ARCHITECTURES
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(table, "tiny", ("vit_base_patch16_dinov3", *table["tiny"][1:]))
        with pytest.raises(UserError, match="1 unknown"):
            dinov3.build(settings, find_weights(str(tmp_path / "meta.pth")))


@pytest.mark.parametrize("name", ["hub:facebook/dinov3-vitl16-pretrain-sat493m", "/data/dinov3_SAT-493M"])
def test_satellite_weights_select_their_own_statistics(config, name):
    """Their names alone: no file is read here."""
    encoder = dinov3.build(config, WeightSource(name))
    assert encoder.preprocessing.mean == (0.430, 0.411, 0.296)
    assert encoder.preprocessing.std == (0.213, 0.156, 0.143)
    assert encoder.preprocessing.size == config.preprocessing.size


def test_other_weights_keep_the_configs_statistics(config):
    assert dinov3.build(config, WeightSource("random")).preprocessing == config.preprocessing


@pytest.mark.parametrize("size", [100, 225, 8])
def test_a_side_that_is_not_a_multiple_of_16_is_refused(config, size):
    rule = replace(config.preprocessing, size=size)
    with pytest.raises(UserError, match=f"size {size} is not a multiple of 16"):
        dinov3.build(replace(config, preprocessing=rule), WeightSource("random"))


def test_unknown_architecture_lists_the_known_ones(config):
    with pytest.raises(UserError, match="architecture 'vitx' is unknown; known: vits16, vitb16"):
        dinov3.build(replace(config, architecture="vitx"), WeightSource("random"))

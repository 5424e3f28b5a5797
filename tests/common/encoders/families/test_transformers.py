"""Networks of transformers: the same weights by timm, one rule for what is missing or beside, poolings, refused folders."""

import re
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import encoder_config
from common.video.preprocess import normalise

TINY = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION = TINY | {"image_size": 64, "patch_size": 16}


def scatter(network: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, as trained weights have them: norms, biases and scales of layers too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.3 if parameter.ndim == 1 else 0.05
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def saved(network, folder, **changes):
    """The encoder of a saved network."""
    scatter(network).save_pretrained(folder)
    return build_encoder(config_for(folder, **changes))


def config_for(folder, **changes):
    return encoder_config({"family": "transformers", "hf": str(folder)} | changes, "config.yaml")


# --- the same weights by timm -------------------------------------------------------------------------------------

LAYER = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
CLIP = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.position_embedding.weight": "pos_embed",
    "encoder.layers": "blocks",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
}
SIGLIP = CLIP | {
    "head.probe": "attn_pool.latent",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp": "attn_pool.mlp",
}
DINOV2 = {  # Meta's own names, which timm's function takes
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "layernorm": "norm",
}
CONVNEXT = {
    "model.": "",
    "stages.0.downsample_layers": "stem",
    "downsample_layers": "downsample",
    ".layers": ".blocks",
    "depthwise_conv": "conv_dw",
    "pointwise_conv1": "mlp.fc1",
    "pointwise_conv2": "mlp.fc2",
}


def for_timm(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """A state of transformers under timm's names: parts renamed, queries, keys and values joined."""
    renamed: dict[str, torch.Tensor] = {}
    joint: dict[str, list[torch.Tensor]] = {}
    for key, value in state.items():
        for old, new in (names | LAYER).items():
            key = key.replace(old, new)
        # by the releases of transformers: `self_attn.q_proj`, `attention.q_proj` or `attention.attention.query`
        key = re.sub(r"(self_attn|attention|attention\.attention)\.([qkv])(_proj|uery|ey|alue)\.", r"attn.qkv.\2.", key)
        if ".attn.qkv." in key:
            start, _, end = key.partition(".attn.qkv.")
            joint.setdefault(f"{start}.attn.qkv.{end[2:]}", [None] * 3)["qkv".index(end[0])] = value
        elif key.startswith("head.attention.in_proj_"):
            kind, queries = key.rpartition("_")[2], len(value) // 3
            renamed |= {f"attn_pool.q.{kind}": value[:queries], f"attn_pool.kv.{kind}": value[queries:]}
        else:
            renamed[key] = value
    return renamed | {key: torch.cat(parts) for key, parts in joint.items()}


def clip():
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes, image_size=224, patch_size=16))


def siglip():
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(image_size=224, patch_size=16))


def dinov2():
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 56, "patch_size": 14}
    return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes))


def convnext():
    return transformers.DINOv3ConvNextModel(transformers.DINOv3ConvNextConfig())


PAIRS = {
    "CLIP": (clip, CLIP, "vit_base_patch16_clip_quickgelu_224.openai", {"pooler": "cls"}),
    "SigLIP 2": (siglip, SIGLIP, "vit_base_patch16_siglip_224.v2_webli", {"pooler": "map", "mean": "mean"}),
    "DINOv2 with registers": (
        dinov2,
        DINOV2,
        "vit_small_patch14_reg4_dinov2.lvd142m",
        {"cls": "cls", "mean": "mean", "cls+mean": "cls+mean"},
    ),
    "DINOv3 ConvNeXt": (convnext, CONVNEXT, "convnext_tiny.dinov3_lvd1689m", {"pooler": "average"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_weights_by_timm_and_by_transformers_agree(pair, tmp_path, frames):
    make, names, architecture, poolings = PAIRS[pair]
    network = make()
    encoder = saved(network, tmp_path / "folder")
    state = for_timm(network.state_dict(), names)
    if "pos_embed" in state and state["pos_embed"].ndim == 2:
        state["pos_embed"] = state["pos_embed"][None]
    if "cls_token" in state and state["cls_token"].ndim == 1:
        state["cls_token"] = state["cls_token"][None, None]
    if pair == "DINOv3 ConvNeXt":
        state = {
            key.replace("layer_norm.", "head.norm." if key.startswith("layer_norm") else "norm."): value
            for key, value in state.items()
        }
    save_file({key: value.contiguous().clone() for key, value in state.items()}, tmp_path / "timm.safetensors")
    rule = encoder.preprocessing
    by_name = {"family": "timm", "timm": architecture, "weights": str(tmp_path / "timm.safetensors")}
    by_name["preprocessing"] = {"size": rule.size, "mean": list(rule.mean), "std": list(rule.std)}
    pixels = frames(2, rule.size)
    for here, there in poolings.items():
        ours = build_encoder(replace(encoder.config, pooling=here)).encode(pixels)
        theirs = build_encoder(encoder_config(by_name | {"pooling": there}, "timm")).encode(pixels)
        assert theirs.std() > 0.05
        assert (ours - theirs).abs().max().item() < 5e-4 * max(1.0, theirs.abs().max().item())


# --- folders ------------------------------------------------------------------------------------------------------


def test_the_part_that_sees_pictures_is_taken_out_of_a_network_of_pictures_and_words(tmp_path, frames):
    text = TINY | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION))
    encoder = saved(whole, tmp_path)
    own = encoder.network.backbone.state_dict()
    given = {key.removeprefix("vision_model."): value for key, value in whole.state_dict().items()}
    assert own
    assert all(torch.equal(value, given[key.removeprefix("vision_model.")]) for key, value in own.items())


def test_a_classifier_is_left_out_and_a_masked_autoencoder_sees_the_whole_picture(tmp_path, frames):
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    encoder = saved(network, tmp_path / "a")
    with torch.no_grad():
        tokens = network.vit(normalise(frames(2, 64), encoder.preprocessing)).last_hidden_state
    assert torch.allclose(encoder.encode(frames(2, 64)), tokens[:, 0], atol=1e-5)
    masked = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**VISION, decoder_num_attention_heads=2))
    encoder = saved(masked, tmp_path / "b", allowed_unexpected=["decoder"])
    assert torch.equal(encoder.encode(frames(2, 64)), encoder.encode(frames(2, 64)))


@pytest.mark.parametrize(
    "network",
    [
        lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)),
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**VISION)),
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)),
    ],
    ids=["ViT", "DINOv2", "CLIP"],
)
def test_the_file_of_a_folder_alone_gives_the_same_features(network, tmp_path, frames):
    """A release's file has its own names for the same tensors, wherever it lies."""
    encoder = saved(network(), tmp_path / "folder")
    file = (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "copy.safetensors")
    alone = build_encoder(encoder.config, str(file))
    assert torch.equal(alone.encode(frames(2, 64)), encoder.encode(frames(2, 64)))
    broken = load_file(file)
    del broken[next(key for key in broken if ".0." in key)]
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match=r"broken\.safetensors: these weights are not for .*1 missing"):
        build_encoder(encoder.config, str(tmp_path / "broken.safetensors"))


def test_what_a_network_lacks_or_does_not_have_is_refused_by_name(tmp_path):
    scatter(transformers.ViTModel(transformers.ViTConfig(**VISION))).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key in state if key.endswith("query.weight") or key.endswith("q_proj.weight"))
    broken = {name: value for name, value in state.items() if name != key} | {"neck.weight": torch.zeros(1)}
    save_file(broken, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not for ViTModel: 1 missing \(.*\), 1 unknown \(neck\.weight\)"):
        build_encoder(config_for(tmp_path))


def test_values_that_are_not_finite_are_refused(tmp_path):
    network = transformers.ViTModel(transformers.ViTConfig(**VISION))
    network.embeddings.cls_token.data[:] = float("nan")
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"not finite, NaN or infinite, in 1 tensor"):
        build_encoder(config_for(tmp_path))


def test_half_precision_files_become_float32(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**VISION)).bfloat16().save_pretrained(tmp_path)
    encoder = build_encoder(config_for(tmp_path))
    assert {parameter.dtype for parameter in encoder.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"model_type": "videomae"}', "expected a network that sees single pictures, found videomae"),
        ('{"model_type": "bert", "vocab_size": 50}', "bert gives no features of a picture"),
        ("{}", "expected a config.json whose model_type transformers knows, found None"),
        ("[1]", "expected a JSON object, found list"),
        ('{"model_type": ["vit"]}', "whose model_type transformers knows, found None"),
        ('{"model_type": "vit", "hidden_size": "wide"}', "does not describe a vit|gives no features"),
    ],
)
def test_folders_that_are_no_image_network_are_refused_in_a_sentence(tmp_path, content, complaint):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=complaint):
        config_for(tmp_path)


def test_a_folder_without_a_description_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a folder of transformers, with config\.json, found none"):
        config_for(tmp_path)

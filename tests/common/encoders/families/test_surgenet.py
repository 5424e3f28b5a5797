"""SurgeNet: the authors' features out of timm's networks, every key used or listed, the DINOv3 release's peculiarities."""

import itertools
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.families import surgenet
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import WeightSource

CASES = [
    ("SurgeNet-CAFormer-S18", "surgenet_caformer_s18", 23_237_936),
    ("SurgeNet-ConvNeXtV2-T", "surgenet_convnextv2_tiny", 27_866_496),
    ("SurgeNet-PVTv2-B2", "surgenet_pvt_v2_b2", 24_849_856),
]


@pytest.fixture
def config_of(checkout):
    return lambda folder: read_encoder_config(checkout / "models" / folder / "config.yaml")


@pytest.mark.parametrize(("folder", "case", "num_parameters"), CASES, ids=[case for _, case, _ in CASES])
def test_features_are_those_of_the_authors_code(folder, case, num_parameters, config_of, golden, ruled_input, tmp_path):
    torch.save(golden.state(case), tmp_path / "teacher.pth")
    encoder = surgenet.build(config_of(folder), find_weights(str(tmp_path / "teacher.pth")))
    with torch.no_grad():
        features = encoder.network(ruled_input((1, 3, 224, 224)))
    assert (features - torch.from_numpy(golden.features[case])).abs().max().item() < 1e-5
    assert encoder.num_parameters == num_parameters
    assert features.shape[1] == encoder.feature_dim


def convnext_keys() -> list[tuple[str, list[int]]]:
    """The parameters of the authors' ConvNeXt V2 tiny, in its order."""
    dims, depths = [96, 192, 384, 768], [3, 3, 9, 3]
    keys = [("downsample_layers.0.0.weight", [96, 3, 4, 4])]
    keys += [(f"downsample_layers.0.{name}", [96]) for name in ("0.bias", "1.weight", "1.bias")]
    for stage, (before, dim) in enumerate(itertools.pairwise(dims), 1):
        keys += [(f"downsample_layers.{stage}.0.{kind}", [before]) for kind in ("weight", "bias")]
        keys += [
            (f"downsample_layers.{stage}.1.weight", [dim, before, 2, 2]),
            (f"downsample_layers.{stage}.1.bias", [dim]),
        ]
    for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
        block = {"dwconv.weight": [dim, 1, 7, 7], "dwconv.bias": [dim], "norm.weight": [dim], "norm.bias": [dim]}
        block |= {"pwconv1.weight": [4 * dim, dim], "pwconv1.bias": [4 * dim]}
        block |= {"grn.gamma": [1, 1, 1, 4 * dim], "grn.beta": [1, 1, 1, 4 * dim]}
        block |= {"pwconv2.weight": [dim, 4 * dim], "pwconv2.bias": [dim]}
        keys += [(f"stages.{stage}.{i}.{name}", shape) for i in range(depth) for name, shape in block.items()]
    return [*keys, ("norm.weight", [768]), ("norm.bias", [768]), ("head.weight", [12, 768]), ("head.bias", [12])]


def test_first_features_of_the_authors_code_without_the_reference_data(config_of, ruled_state, ruled_input, tmp_path):
    torch.save(ruled_state(convnext_keys()), tmp_path / "teacher.pth")
    encoder = surgenet.build(config_of("SurgeNet-ConvNeXtV2-T"), find_weights(str(tmp_path / "teacher.pth")))
    with torch.no_grad():
        features = encoder.network(ruled_input((1, 3, 224, 224)))
    expected = [-0.871458, -1.248092, 0.813099, 1.122463, -0.741728, -1.141185]
    assert features[0, :6].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("folder", "case"), [(folder, case) for folder, case, _ in CASES])
def test_a_key_that_is_neither_used_nor_listed_is_an_error(folder, case, config_of, golden, tmp_path):
    state = golden.state(case)
    used = {key for key in state if not key.startswith("head.")}
    without = {key: value for key, value in state.items() if key != max(used)}
    torch.save(without, tmp_path / "teacher.pth")
    with pytest.raises(
        UserError, match=r"teacher\.pth: these weights are not for this network: of the file.s keys 1 missing"
    ):
        surgenet.build(config_of(folder), find_weights(str(tmp_path / "teacher.pth")))


def tiny(config, **changes):
    return replace(config, architecture=f"tiny_{config.architecture}", feature_dim=48, **changes)


def test_a_caformer_file_without_activation_parameters_is_one_with_relu(config_of, tmp_path):
    """The authors build SurgeNet's CAFormer with ReLU and ImageNet's with StarReLU, which has two parameters each."""
    config = tiny(config_of("SurgeNet-CAFormer-S18"))
    star = surgenet.build(config, WeightSource("random"))
    state = {key: value for key, value in star.network.state_dict().items() if ".act" not in key}
    torch.save(state, tmp_path / "relu.pth")
    relu = surgenet.build(config, find_weights(str(tmp_path / "relu.pth")))
    assert sum(isinstance(module, torch.nn.ReLU) for module in relu.network.modules()) == 2 + 4
    assert not any(".act" in key for key in relu.network.state_dict())
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(relu.network(pixels), star.network(pixels))


def vit_release(encoder) -> dict[str, torch.Tensor]:
    """The network's weights as the DINOv3 release has them: joint bias with a part for the keys, training's leftovers."""
    generator = torch.Generator().manual_seed(1)
    state = encoder.network.state_dict()
    release = {key: value for key, value in state.items() if not key.endswith(("q_bias", "v_bias"))}
    for layer in range(2):
        release[f"blocks.{layer}.attn.qkv.bias"] = torch.randn(3 * 48, generator=generator)
    return release | {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.ones(4)}


def test_the_dinov3_release_loads_whole_with_the_bias_of_its_keys(config_of, tmp_path):
    config = tiny(config_of("SurgeNet-DINOv3-ViT-B"))
    random = surgenet.build(config, WeightSource("random"))
    release = vit_release(random)
    torch.save(release, tmp_path / "vitb.pth")
    loaded = surgenet.build(config, find_weights(str(tmp_path / "vitb.pth"))).network
    assert getattr(loaded, "reg_token", None) is None
    attention = loaded.blocks[1].attn
    stored = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    assert torch.equal(stored, release["blocks.1.attn.qkv.bias"])


def test_the_dinov3_release_equals_transformers_with_a_bias_of_the_keys(config_of, tmp_path):
    """The construction of the authors' second loader (`SurgeNetDINO:segmentation_finetuning/models/vit.py`)."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = tiny(config_of("SurgeNet-DINOv3-ViT-B"))
    release = vit_release(surgenet.build(config, WeightSource("random")))
    torch.save(release, tmp_path / "vitb.pth")
    ours = surgenet.build(config, find_weights(str(tmp_path / "vitb.pth"))).network
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    theirs = DINOv3ViTModel(DINOv3ViTConfig(**sizes, key_bias=True, layer_norm_eps=1e-6)).eval()
    renamed = {"embeddings.mask_token": torch.zeros(1, 1, 48), "embeddings.register_tokens": torch.zeros(1, 0, 48)}
    names = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}
    names |= {"gamma_1": "layer_scale1.lambda1", "gamma_2": "layer_scale2.lambda1", "blocks.": "model.layer."}
    names |= {"patch_embed.proj": "embeddings.patch_embeddings", "cls_token": "embeddings.cls_token"}
    for key, value in release.items():
        for old, new in names.items():
            key = key.replace(old, new)
        if "attn.qkv" in key:
            for part, share in zip("qkv", value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.{part}_proj")] = share
        elif key not in ("mask_token", "rope_embed.periods"):
            renamed[key] = value
    theirs.load_state_dict(renamed)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(pixels), theirs(pixels).pooler_output, atol=1e-5)


# --- DINOv1 and DINOv2 --------------------------------------------------------------------------------------------


def dinov2_release(*, registers: bool, mask_token: bool = True) -> dict[str, torch.Tensor]:
    """A DINOv2 of two layers for 4 x 4 patches under its authors' names, made by timm's network and its own rule."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 10

    release = {"cls_token": random(1, 1, 48), "pos_embed": random(1, 1 + 16, 48)}
    release |= {"register_tokens": random(1, 4, 48)} if registers else {}
    release |= {"mask_token": random(1, 48)} if mask_token else {}
    release |= {"patch_embed.proj.weight": random(48, 3, 16, 16), "patch_embed.proj.bias": random(48)}
    for layer in range(2):
        shapes = {"norm1.weight": [48], "norm1.bias": [48], "attn.qkv.weight": [144, 48], "attn.qkv.bias": [144]}
        shapes |= {"attn.proj.weight": [48, 48], "attn.proj.bias": [48], "ls1.gamma": [48]}
        shapes |= {"norm2.weight": [48], "norm2.bias": [48], "mlp.fc1.weight": [192, 48], "mlp.fc1.bias": [192]}
        shapes |= {"mlp.fc2.weight": [48, 192], "mlp.fc2.bias": [48], "ls2.gamma": [48]}
        release |= {f"blocks.{layer}.{name}": random(*shape) for name, shape in shapes.items()}
    return release | {"norm.weight": random(48), "norm.bias": random(48)}


def by_transformers(release: dict[str, torch.Tensor], pixels: torch.Tensor, folder: Path) -> torch.Tensor:
    """CLS of the same release in transformers' DINOv2, with or without registers, read from a folder with published names."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    if "register_tokens" in release:
        network, config = Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)
    else:
        network, config = Dinov2Model, Dinov2Config(**sizes)
    names = {"blocks.": "encoder.layer.", "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1"}
    names |= {"ls2.gamma": "layer_scale2.lambda1", "patch_embed.proj": "embeddings.patch_embeddings.projection"}
    names |= {"cls_token": "embeddings.cls_token", "mask_token": "embeddings.mask_token"}
    names |= {"pos_embed": "embeddings.position_embeddings", "register_tokens": "embeddings.register_tokens"}
    renamed = {"embeddings.mask_token": torch.zeros(1, 48)}
    for key, value in release.items():
        for old, new in names.items():
            key = key.replace(old, new)
        key = f"layernorm.{key[5:]}" if key.startswith("norm.") else key
        if "attn.qkv" in key:
            for part, share in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = share.clone()
        else:
            renamed[key] = value
    config.save_pretrained(folder)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    theirs, told = network.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        return theirs.eval()(pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize("mask_token", [True, False])
@pytest.mark.parametrize("registers", [True, False])
def test_a_dinov2_has_the_registers_that_its_file_holds(registers, mask_token, config_of, tmp_path, caplog):
    """As transformers' own network of each kind, with the same weights."""
    config = config_of("SurgeNet-DINOv2-ViT-B")
    config = tiny(replace(config, preprocessing=replace(config.preprocessing, size=64)))
    release = dinov2_release(registers=registers, mask_token=mask_token)
    torch.save(release, tmp_path / "vitb.pth")
    with caplog.at_level(logging.INFO):
        network = surgenet.build(config, find_weights(str(tmp_path / "vitb.pth"), config)).network
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(pixels), by_transformers(release, pixels, tmp_path / "theirs"), atol=1e-5)
    assert (
        "vitb.pth: holds register tokens, which are used; the authors' script leaves them out" in caplog.text
    ) is registers


def test_a_dinov2_without_its_positions_is_refused(config_of, tmp_path):
    config = config_of("SurgeNet-DINOv2-ViT-B")
    config = tiny(replace(config, preprocessing=replace(config.preprocessing, size=64)))
    release = dinov2_release(registers=True)
    del release["pos_embed"]
    torch.save(release, tmp_path / "vitb.pth")
    with pytest.raises(UserError, match=r"vitb\.pth: these weights are not for this network"):
        surgenet.build(config, find_weights(str(tmp_path / "vitb.pth"), config))


def full_training(state: dict[str, torch.Tensor], *heads: str) -> dict:
    """A checkpoint of DINO: both networks wrapped, each with the heads of its training, an optimiser, numbers."""
    body = {f"backbone.{key}": value for key, value in state.items()}
    teacher = body | {
        f"{head}.{name}": torch.zeros(2) for head in heads for name in ("mlp.0.weight", "last_layer.weight_g")
    }
    student = {f"module.{key}": value + 1 for key, value in teacher.items()}
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": {"state": {}},
        "epoch": 50,
        "dino_loss": {"center": 1.0},
    }


@pytest.mark.parametrize(
    ("folder", "heads", "size"),
    [
        ("SurgeNet-CAFormer-S18", ["head"], 64),
        ("SurgeNet-ConvNeXtV2-T", ["head"], 64),
        ("SurgeNet-PVTv2-B2", ["head"], 64),
        ("SurgeNet-DINOv1-ViT-B", ["head"], 64),
        ("SurgeNet-DINOv3-ViT-B", ["dino_head", "ibot_head"], 64),
    ],
)
def test_the_teacher_of_a_whole_training_is_taken(folder, heads, size, config_of, tmp_path):
    """The bare state dict of the teacher gives the same network."""
    config = tiny(config_of(folder))
    config = replace(config, preprocessing=replace(config.preprocessing, size=size))
    random = surgenet.build(config, WeightSource("random"))
    state = vit_release(random) if "DINOv3" in folder else random.network.state_dict()
    torch.save(state, tmp_path / "teacher.pth")
    torch.save(full_training(state, *heads), tmp_path / "full.pth")
    bare = surgenet.build(config, find_weights(str(tmp_path / "teacher.pth"), config))
    source = find_weights(str(tmp_path / "full.pth"), config)
    assert source.network == "teacher"
    whole = surgenet.build(config, source).network.state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in bare.network.state_dict().items())


# --- published weights --------------------------------------------------------------------------------------------


def test_published_names_stand_for_addresses(config_of):
    names = config_of("SurgeNet-CAFormer-S18").named_weights
    sets = ["surgenetxl", "surgenet", "small", "cholec", "ramie", "rarp", "public"]
    assert list(names) == [*sets, *(f"{name}-full" for name in sets), "imagenet1k"]
    addresses = [names[name] for name in names if name != "imagenet1k"]
    assert all(url.startswith("https://huggingface.co/TimJaspersTue/SurgeNetModels/") for url in addresses)
    assert names["public"].endswith("/Public_checkpoint_epoch0050_teacher.pth")
    assert names["public-full"].endswith("/Public_checkpoint0050.pth")


def test_the_control_is_the_network_with_starrelu(config_of, golden, ruled_input, tmp_path):
    """Its authors' names and head; no feature of SurgeNet's file depends on the activation's parameters."""
    config = config_of("SurgeNet-CAFormer-S18").with_weights("imagenet1k")
    assert (config.licence, config.domain, config.feature_dim) == ("Apache-2.0", "general", 512)
    torch.save(golden.state("surgenet_caformer_s18"), tmp_path / "caformer_s18.pth")
    encoder = surgenet.build(config, find_weights(str(tmp_path / "caformer_s18.pth"), config))
    assert encoder.num_parameters == 23_237_936
    with torch.no_grad():
        features = encoder.network(ruled_input((1, 3, 224, 224)))
    assert (features - torch.from_numpy(golden.features["surgenet_caformer_s18"])).abs().max().item() < 1e-5


VITS = [
    ("DINOv1", "vits", 384, 21_665_664),
    ("DINOv1", "vitb", 768, 85_798_656),
    ("DINOv2", "vits", 384, 21_752_832),
    ("DINOv2", "vitb", 768, 85_972_992),
    ("DINOv2", "vitl", 1024, 303_558_656),
    ("DINOv3", "vits", 384, 21_594_624),
    ("DINOv3", "vitb", 768, 85_656_576),
    ("DINOv3", "vitl", 1024, 303_124_480),
]


@pytest.mark.parametrize(("method", "name", "width", "num_parameters"), VITS)
def test_all_eight_vision_transformers_have_their_name_and_size(method, name, width, num_parameters, config_of):
    config = config_of(f"SurgeNet-{method}-ViT-B").with_weights(name)
    with torch.device("meta"):
        encoder = surgenet.build(config, WeightSource("none"))
    assert (encoder.feature_dim, encoder.num_parameters) == (width, num_parameters)
    patch, size = ("14", 336) if method == "DINOv2" else ("16", {"DINOv1": 224, "DINOv3": 336}[method])
    assert config.weights.endswith(
        f"/SurgeNetXL_DINOv1-v3/resolve/main/{method}_ViT{name[3]}{patch}_size{size}_SurgeNetXL.pth"
    )
    assert config.preprocessing.size == size
    assert config.licence.startswith("CC-BY-NC-SA-4.0")


def test_unknown_architecture_and_uneven_sizes_are_refused(config_of):
    config = config_of("SurgeNet-DINOv3-ViT-B")
    with pytest.raises(UserError, match="architecture 'x' is unknown; known: caformer_s18"):
        surgenet.build(replace(config, architecture="x"), WeightSource("random"))
    with pytest.raises(UserError, match="size 100 is not a multiple of 16"):
        surgenet.build(tiny(config, preprocessing=replace(config.preprocessing, size=100)), WeightSource("random"))

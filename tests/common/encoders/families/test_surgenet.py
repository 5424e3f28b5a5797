"""SurgeNet: the authors' features out of timm's networks, every key used or listed, the DINOv3 release's peculiarities."""

import itertools
from dataclasses import replace

import pytest
import torch

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


def test_a_teacher_of_the_training_code_is_unwrapped(config_of, tmp_path):
    config = tiny(config_of("SurgeNet-ConvNeXtV2-T"))
    random = surgenet.build(replace(config, feature_dim=32), WeightSource("random"))
    wrapped = {f"module.backbone.{key}": value for key, value in random.network.state_dict().items()}
    torch.save({"student": {}, "teacher": wrapped, "epoch": 50}, tmp_path / "full.pth")
    loaded = surgenet.build(config, find_weights(str(tmp_path / "full.pth")))
    assert torch.equal(loaded.network.stem[0].weight, random.network.stem[0].weight)


def test_published_names_stand_for_addresses(config_of):
    names = config_of("SurgeNet-CAFormer-S18").named_weights
    assert list(names) == ["surgenetxl", "surgenet", "small", "cholec", "ramie", "rarp", "public"]
    assert all(url.startswith("https://huggingface.co/TimJaspersTue/SurgeNetModels/") for url in names.values())


def test_unknown_architecture_and_uneven_sizes_are_refused(config_of):
    config = config_of("SurgeNet-DINOv3-ViT-B")
    with pytest.raises(UserError, match="architecture 'x' is unknown; known: caformer_s18"):
        surgenet.build(replace(config, architecture="x"), WeightSource("random"))
    with pytest.raises(UserError, match="size 100 is not a multiple of 16"):
        surgenet.build(tiny(config, preprocessing=replace(config.preprocessing, size=100)), WeightSource("random"))

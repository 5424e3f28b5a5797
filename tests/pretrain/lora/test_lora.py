"""Which layers get an adapter, what an adapter changes and what it leaves alone, and the folder that it is kept in."""

import re
import warnings

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import nn

from common.base.files import atomic_folder, restore_folder
from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.families.dinov3 import DINOv3Features
from common.encoders.families.vjepa2 import VJEPA2Features
from common.encoders.weights.adapters import apply_adapter
from pretrain.backbones import start_backbone
from pretrain.lora.adapters import (
    adapted_part,
    add_adapters,
    load_adapter,
    relative_difference,
    target_pattern,
    write_adapter,
)
from pretrain.ssl_config import find_model
from tests.pretrain.finetuning import base_config, noise, write_export

DINOV3 = [f"model.layer.{layer}.attention.{name}_proj" for layer in (0, 1) for name in "qkvo"]
DINOV3_MLP = [f"model.layer.{layer}.mlp.{name}_proj" for layer in (0, 1) for name in ("up", "down")]
VJEPA2 = [f"encoder.layer.{layer}.attention.{name}" for layer in (0, 1) for name in ("query", "key", "value", "proj")]
VJEPA2_MLP = [f"encoder.layer.{layer}.mlp.{name}" for layer in (0, 1) for name in ("fc1", "fc2")]
SMALL = {"rank": 2, "alpha": 4.0, "dropout": 0.0}


def network_of(name: str) -> nn.Module:
    """A tiny encoder's network with random weights."""
    backbone, _ = start_backbone(find_model(name), "random")
    return DINOv3Features(backbone, "cls", 4) if name == "dinov3-tiny" else as_features(backbone)


def as_features(model: nn.Module) -> VJEPA2Features:
    features = VJEPA2Features(model.config)
    features.encoder = model.encoder
    return features


def pixels_of(name: str) -> torch.Tensor:
    return torch.randn(
        2, *((3,) if name == "dinov3-tiny" else (8, 3)), 64, 64, generator=torch.Generator().manual_seed(0)
    )


def with_trained_factors(adapted: nn.Module) -> None:
    """Random second factors, which start at 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


BOTH = pytest.mark.parametrize("name", ["dinov3-tiny", "vjepa2-tiny"])


# --- which layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mlp", "expected"),
    [
        ("dinov3-tiny", False, DINOV3),
        ("dinov3-tiny", True, DINOV3 + DINOV3_MLP),
        ("vjepa2-tiny", False, VJEPA2),
        ("vjepa2-tiny", True, VJEPA2 + VJEPA2_MLP),
    ],
)
def test_exactly_the_named_layers_get_an_adapter(name, mlp, expected):
    network = network_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what peft asks transformers' networks is no matter of whoever trains
        add_adapters(network, **SMALL, mlp=mlp)
    found = {name for name, module in adapted_part(network).named_modules() if isinstance(module, LoraLayer)}
    assert found == set(expected)


def test_layers_may_be_chosen_by_name():
    part = network_of("vjepa2-tiny")
    pattern = target_pattern(part, chosen=["attention.query", "mlp.fc2"])
    found = sorted(name for name, _ in part.named_modules() if re.fullmatch(pattern, name))
    assert found == [f"encoder.layer.{layer}.{name}" for layer in (0, 1) for name in ("attention.query", "mlp.fc2")]
    with pytest.raises(
        UserError, match=r"--target_modules q_proj: no linear layer of VJEPA2Features; there are attention.query, "
    ):
        target_pattern(part, chosen=["q_proj"])


def test_the_gated_mlp_of_the_7b_network():
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    network = DINOv3Features(DINOv3ViTModel(DINOv3ViTConfig(**sizes, use_gated_mlp=True, hidden_act="silu")), "cls", 4)
    adapted = add_adapters(network, **SMALL, mlp=True)
    assert {key.split(".lora_")[0].rpartition(".")[2] for key, _ in adapted.named_parameters() if "lora_" in key} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj",
    }  # fmt: skip


@BOTH
def test_layers_that_are_not_there_are_listed(name):
    part = adapted_part(network_of(name))
    config = part.config if name == "dinov3-tiny" else part.encoder.config
    config.num_hidden_layers = 3
    prefix = "model.layer.2.attention." if name == "dinov3-tiny" else "encoder.layer.2.attention."
    with pytest.raises(UserError, match=rf"8 of the 12 layers expected .* are there; .*: {prefix}\w+, {prefix}"):
        target_pattern(part)


def test_a_layer_that_is_no_matrix_is_not_adapted():
    part = adapted_part(network_of("dinov3-tiny"))
    part.model.layer[1].attention.q_proj = nn.Identity()
    with pytest.raises(UserError, match=r"7 of the 8 layers .* unexpected: model\.layer\.1\.attention\.q_proj$"):
        target_pattern(part)


def test_other_families_have_no_adapters():
    with pytest.raises(UserError, match="LoRA is for DINOv3 and V-JEPA 2, not for Linear"):
        add_adapters(nn.Linear(2, 2), **SMALL)


# --- what an adapter changes ----------------------------------------------------------------------------------------


@BOTH
def test_a_new_adapter_changes_nothing(name):
    network, pixels = network_of(name).eval(), pixels_of(name)
    with torch.no_grad():
        before = network(pixels)
        add_adapters(network, **SMALL)
        assert torch.equal(network.eval()(pixels), before)


@BOTH
def test_only_the_adapters_learn_and_the_base_stays_bit_equal(name):
    network, pixels = network_of(name).eval(), pixels_of(name)
    base = {key: value.clone() for key, value in network.state_dict().items()}
    add_adapters(network, **SMALL)
    learning = {key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert all("lora_" in key for key in learning)
    optimizer = torch.optim.AdamW(learning.values(), lr=0.1)
    before = network(pixels).detach()
    for _ in range(2):
        network(pixels).square().sum().backward()
        optimizer.step()
    assert relative_difference(network(pixels), before) > 1e-2
    after = {key.replace(".base_layer", ""): value for key, value in network.state_dict().items() if "lora_" not in key}
    assert after.keys() == base.keys()
    assert all(torch.equal(after[key], base[key]) for key in base)


def test_start_values_depend_on_the_seed_alone():
    def factors(seed: int) -> list[torch.Tensor]:
        adapted = add_adapters(network_of("dinov3-tiny"), **SMALL, seed=seed)
        return [value for key, value in adapted.named_parameters() if "lora_A" in key]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = factors(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, factors(1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, factors(2), strict=True))


@BOTH
def test_merged_weights_give_the_features_of_the_adapter_beside_its_base(name):
    network, pixels = network_of(name).eval(), pixels_of(name)
    adapted = add_adapters(network, **SMALL)
    with_trained_factors(adapted)
    with torch.no_grad():
        unmerged = network(pixels)
        adapted.merge_adapter(safe_merge=True)
        assert relative_difference(network(pixels), unmerged) < 1e-5


def test_relative_difference():
    assert relative_difference(torch.tensor([1.0, -3.0]), torch.tensor([1.5, -4.0])) == pytest.approx(0.25)


# --- the folder -----------------------------------------------------------------------------------------------------


@BOTH
def test_a_written_adapter_comes_back_bit_equal(name, tmp_path):
    network, pixels = network_of(name).eval(), pixels_of(name)
    adapted = add_adapters(network, **SMALL)
    with_trained_factors(adapted)
    write_adapter(tmp_path, adapted, nn.Linear(48, 2))
    expected = network(pixels)
    again = network_of(name).eval()
    empty = add_adapters(again, **SMALL, seed=9)
    assert relative_difference(again(pixels), expected) > 1e-2
    load_adapter(tmp_path, empty)
    assert torch.equal(again(pixels), expected)


def test_what_is_written(tmp_path):
    adapted = add_adapters(network_of("vjepa2-tiny"), **SMALL)
    write_adapter(tmp_path, adapted, nn.Linear(48, 2))
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors",
    }  # fmt: skip
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert len(list(file.keys())) == 2 * len(VJEPA2)
        assert all(".lora_A." in key or ".lora_B." in key for key in file.keys())  # noqa: SIM118
    with safe_open(tmp_path / "head.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["bias", "weight"]


def write_one(folder, text: str) -> None:
    with atomic_folder(folder) as partial:
        (partial / "a").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "best_lora"
    write_one(target, "first")
    (target / "old").write_text("of the first")
    write_one(target, "second")
    assert [path.name for path in target.iterdir()] == ["a"]
    assert (target / "a").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best_lora"]


def test_a_failure_leaves_the_former_folder(tmp_path):
    target = tmp_path / "best_lora"
    write_one(target, "first")

    def fail() -> None:
        with atomic_folder(target) as partial:
            (partial / "a").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best_lora"]


@pytest.mark.parametrize("killed_between_renames", [False, True])
def test_what_a_kill_leaves_is_put_right(tmp_path, killed_between_renames):
    target = tmp_path / "best_lora"
    write_one(target, "first")
    (tmp_path / ".best_lora.partial").mkdir()
    if killed_between_renames:
        target.rename(tmp_path / ".best_lora.former")
    restore_folder(target)
    assert (target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best_lora"]


def test_an_adapter_that_is_merged_before_its_base_is_loaded_is_lost(workspace, tmp_path):
    """Stage 1's weights come first: loaded afterwards, they overwrite what was merged."""
    export = write_export("dinov3-tiny", tmp_path / "ssl")
    encoder = build_encoder(base_config("dinov3-tiny", export))
    base, clips = {key: value.clone() for key, value in encoder.network.state_dict().items()}, noise(2, 3, 64, 64)
    of_base = encoder.encode(clips)
    adapted = add_adapters(encoder.network, **SMALL)
    with_trained_factors(adapted)
    write_adapter(tmp_path / "lora", adapted, nn.Linear(48, 2))
    right = encoder.encode(clips)

    wrong = build_encoder(base_config("dinov3-tiny", write_export("dinov3-tiny", tmp_path / "other", seed=2)))
    apply_adapter(wrong.network.backbone, tmp_path / "lora")
    wrong.network.load_state_dict(base)
    assert relative_difference(wrong.encode(clips), of_base) < 1e-6
    assert relative_difference(wrong.encode(clips), right) > 1e-2

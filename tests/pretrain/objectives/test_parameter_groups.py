"""Parameter groups: every network's names, layer decay by hand, weight decay only where it belongs."""

import math

import pytest
import timm
import torch
from timm.models.metaformer import Attention, MetaFormer, SepConv
from torch import nn
from transformers import (
    DINOv3ViTConfig,
    DINOv3ViTModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VJEPA2Config,
    VJEPA2Model,
)

from pretrain.objectives.heads import HeadSize, PrototypeHead
from pretrain.objectives.parameter_groups import ParameterGroup, backbone_groups, check_groups, head_groups, layer_ids

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
VJEPA2_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "pred_hidden_size": 24}
PREDICTOR_SIZES = {"pred_num_attention_heads": 2, "pred_num_hidden_layers": 2}


def dinov3() -> nn.Module:
    return DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **SIZES))


def vjepa2() -> nn.Module:
    return VJEPA2Model(VJEPA2Config(**VJEPA2_SIZES, **PREDICTOR_SIZES))


def videomae() -> nn.Module:
    return VideoMAEForPreTraining(VideoMAEConfig(decoder_num_hidden_layers=1, **SIZES))


def timm_vit() -> nn.Module:
    return timm.create_model("vit_small_patch16_dinov3", depth=3, embed_dim=48, num_heads=3, num_classes=0)


def caformer() -> nn.Module:
    mixers = [SepConv, SepConv, Attention, Attention]
    return MetaFormer(depths=(1, 2, 1, 1), dims=(8, 16, 32, 32), token_mixers=mixers, num_classes=0)


BACKBONES = {
    "dinov3": dinov3,
    "vjepa2": lambda: vjepa2().encoder,
    "videomae": lambda: videomae().videomae,
    "timm_vit": timm_vit,
    "caformer": caformer,
}


@pytest.fixture(params=BACKBONES, scope="module")
def backbone(request) -> nn.Module:
    with torch.device("meta"):
        return BACKBONES[request.param]()


def group_of(groups: list[ParameterGroup], module: nn.Module) -> dict[str, ParameterGroup]:
    """Name of each parameter -> its group."""
    where = {id(parameter): group for group in groups for parameter in group.parameters}
    return {name: where[id(parameter)] for name, parameter in module.named_parameters()}


def test_each_parameter_is_in_exactly_one_group(backbone):
    groups = backbone_groups(backbone, layer_decay=0.9, patch_embedding_scale=0.2)
    listed = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in backbone.parameters())
    assert len({group.name for group in groups}) == len(groups)
    check_groups(groups, backbone)


def test_biases_norms_and_layer_scale_do_not_decay_and_weights_and_tokens_do(backbone):
    still = ("bias", "norm", "lambda1", "gamma", "scale")
    for name, group in group_of(backbone_groups(backbone), backbone).items():
        leaf = name.split(".")[-2:]
        assert group.decays == (not any(word in part for word in still for part in leaf)), name


def test_names_of_dinov3_give_the_published_factors():
    """At a layer decay of 0.9 ViT-L's embeddings learn at 0.0718 and its patches at 0.0144 of the rate."""
    with torch.device("meta"):
        model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **SIZES | {"num_hidden_layers": 24}))
    groups = group_of(backbone_groups(model, layer_decay=0.9, patch_embedding_scale=0.2), model)
    blocks = "model.layer" if any(name.startswith("model.layer.") for name in groups) else "layer"
    expected = {
        "embeddings.cls_token": 0.9**25,
        "embeddings.mask_token": 0.9**25,
        "embeddings.register_tokens": 0.9**25,
        "embeddings.patch_embeddings.weight": 0.2 * 0.9**25,
        f"{blocks}.0.attention.q_proj.weight": 0.9**24,
        f"{blocks}.10.layer_scale1.lambda1": 0.9**14,
        f"{blocks}.23.mlp.down_proj.bias": 0.9,
        "norm.weight": 1.0,
    }
    assert {name: groups[name].lr_scale for name in expected} == pytest.approx(expected)
    assert round(0.9**25, 4) == 0.0718
    assert groups["embeddings.cls_token"].decays
    assert not groups[f"{blocks}.10.layer_scale1.lambda1"].decays


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            "vjepa2",
            {"embeddings.patch_embeddings.proj.weight": 0, "layer.0.norm1.bias": 1, "layer.2.mlp.fc2.weight": 3},
        ),
        ("vjepa2", {"layernorm.weight": 4}),
        (
            "videomae",
            {
                "embeddings.patch_embeddings.projection.bias": 0,
                "encoder.layer.0.layernorm_after.weight": 1,
                "encoder.layer.2.attention.attention.query.weight": 3,
            },
        ),
        (
            "timm_vit",
            {"cls_token": 0, "reg_token": 0, "patch_embed.proj.weight": 0, "blocks.0.gamma_1": 1, "norm.weight": 4},
        ),
        (
            "caformer",
            {
                "stem.conv.weight": 0,
                "stages.0.blocks.0.norm1.weight": 1,
                "stages.1.downsample.conv.weight": 2,
                "stages.1.blocks.0.norm1.weight": 2,
                "stages.1.blocks.1.norm1.weight": 3,
                "stages.3.blocks.0.mlp.fc1.weight": 5,
                "head.norm.weight": 6,
            },
        ),
    ],
)
def test_layer_ids_follow_the_depth_in_every_family(network, expected):
    with torch.device("meta"):
        ids = layer_ids(BACKBONES[network]())
    assert {name: ids[name] for name in expected} == expected


def test_layer_ids_read_the_names_of_older_and_of_wrapped_networks():
    """On disk and in earlier releases DINOv3's blocks are `layer.N`; wrappers put words in front."""
    block = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    older = nn.ModuleDict({"embeddings": nn.Linear(2, 2), "layer": block, "norm": nn.LayerNorm(2)})
    wrapped = nn.ModuleDict({"module": older})
    expected = {"embeddings.weight": 0, "layer.0.weight": 1, "layer.1.bias": 2, "norm.weight": 3}
    assert {name: layer_ids(older)[name] for name in expected} == expected
    assert {name: layer_ids(wrapped)[f"module.{name}"] for name in expected} == expected


def test_a_layer_decay_needs_blocks():
    with pytest.raises(ValueError, match="Linear has no numbered blocks"):
        backbone_groups(nn.Linear(2, 2), layer_decay=0.9)
    assert {group.lr_scale for group in backbone_groups(nn.Linear(2, 2))} == {1.0}


def test_a_network_that_ends_with_its_last_block_keeps_the_exponents():
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2, bias=False)])})
    assert [group.lr_scale for group in backbone_groups(network, layer_decay=0.5)] == [0.5]


def test_frozen_parameters_are_in_no_group():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = backbone_groups(model)
    assert [tuple(parameter.shape) for group in groups for parameter in group.parameters] == [(2, 2), (2,)]
    check_groups(groups, model)


def test_clip_name_and_first_step_are_handed_on():
    model = nn.Sequential(nn.Linear(2, 2))
    groups = backbone_groups(model, clip="encoder", frozen_until=100)
    assert {(group.clip, group.frozen_until) for group in groups} == {("encoder", 100)}
    assert [group.name for group in groups] == ["encoder/layer_00/decay", "encoder/layer_00/no_decay"]


# --- heads, predictors, decoders ----------------------------------------------------------------------------------


def test_prototypes_wait_and_the_rest_of_the_head_does_not():
    head = PrototypeHead(8, HeadSize(hidden=6, bottleneck=4, prototypes=10))
    groups = head_groups(head, "dino_head", prototypes_frozen_until=50)
    check_groups(groups, head)
    waiting = [group for group in groups if group.frozen_until]
    assert [group.parameters for group in waiting] == [[head.prototypes.weight]]
    assert waiting[0].frozen_until == 50
    assert {group.clip for group in groups} == {"dino_head"}
    assert {group.lr_scale for group in groups} == {1.0}


def test_a_predictor_has_one_rate_and_its_mask_tokens_decay():
    with torch.device("meta"):
        predictor = vjepa2().predictor
    groups = group_of(head_groups(predictor, "predictor"), predictor)
    assert {group.name for group in groups.values()} == {"predictor/layers/decay", "predictor/layers/no_decay"}
    assert groups["embeddings.mask_tokens"].decays
    assert not groups["layernorm.weight"].decays


def test_prototypes_that_are_not_there_cannot_wait():
    with pytest.raises(ValueError, match=r"Linear has no trainable parameters under 'prototypes\.'"):
        head_groups(nn.Linear(2, 2), "predictor", prototypes_frozen_until=1)


# --- completeness -------------------------------------------------------------------------------------------------


def test_missing_repeated_and_foreign_parameters_are_named():
    model = nn.Linear(2, 2)
    weight = ParameterGroup("weights", [model.weight], 1.0, True, "all")
    with pytest.raises(ValueError, match=r"in none: \['bias'\], in several: \[\]"):
        check_groups([weight], model)
    with pytest.raises(ValueError, match=r"in none: \['bias'\], in several: \['weight'\]"):
        check_groups([weight, weight], model)
    foreign = ParameterGroup("other", [nn.Parameter(torch.zeros(1))], 1.0, False, "all")
    with pytest.raises(ValueError, match="not of this module or not trainable: 1"):
        check_groups([*backbone_groups(model), foreign], model)


def test_groups_drive_an_optimiser():
    """The fields are what AdamW needs: one step moves each parameter by its own share of the rate."""
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
    groups = backbone_groups(network, layer_decay=0.5)
    settings = [{"params": group.parameters, "lr": 0.1 * group.lr_scale, "weight_decay": 0.0} for group in groups]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    sum(parameter.sum() for parameter in network.parameters()).backward()
    torch.optim.AdamW(settings).step()
    moved = [(b - p).abs().max().item() for b, p in zip(before, network.parameters(), strict=True)]
    assert all(math.isclose(m, e, rel_tol=1e-4) for m, e in zip(moved, [0.025, 0.025, 0.05, 0.05], strict=True))

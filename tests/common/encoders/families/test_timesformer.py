"""TimeSformer: Endo-FM's files under its authors' names, the arithmetic of its divided attention, positions of other sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config

HEADS = 3


@pytest.fixture
def config(checkout):
    """Endo-FM's, at a small size."""
    full = read_encoder_config(checkout / "models" / "Endo-FM" / "config.yaml")
    return replace(full, architecture="tiny", feature_dim=48, preprocessing=replace(full.preprocessing, size=32))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A network of the small size under the authors' names, every value random."""
    shapes = {"cls_token": [1, 1, 48], "pos_embed": [1, 5, 48], "time_embed": [1, 8, 48]}
    shapes |= {"patch_embed.proj.weight": [48, 3, 16, 16], "patch_embed.proj.bias": [48]}
    linear = {
        "attn.qkv": (144, 48),
        "attn.proj": (48, 48),
        "temporal_attn.qkv": (144, 48),
        "temporal_attn.proj": (48, 48),
    }
    linear |= {"temporal_fc": (48, 48), "mlp.fc1": (192, 48), "mlp.fc2": (48, 192)}
    for block in ("blocks.0", "blocks.1"):
        for name, (outputs, inputs) in linear.items():
            shapes |= {f"{block}.{name}.weight": [outputs, inputs], f"{block}.{name}.bias": [outputs]}
        for name in ("norm1", "temporal_norm1", "norm2"):
            shapes |= {f"{block}.{name}.weight": [48], f"{block}.{name}.bias": [48]}
    shapes |= {"norm.weight": [48], "norm.bias": [48]}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / 5 for name, shape in shapes.items()}


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def run(encoder, clips):
    with torch.no_grad():
        return encoder.network(clips)


def by_hand(state: dict[str, torch.Tensor], clips: torch.Tensor) -> torch.Tensor:
    """The paper's divided attention, written out: over time at each place, then over each frame with the CLS token."""

    def linear(name, values):
        return F.linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, values):
        return F.layer_norm(values, (48,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def attention(name, values):
        query, key, value = linear(f"{name}.qkv", values).unflatten(-1, (3, HEADS, 16)).transpose(-2, -4).unbind(-3)
        scores = (query @ key.transpose(-1, -2) / 4).softmax(-1)
        return linear(f"{name}.proj", (scores @ value).transpose(-2, -3).flatten(-2))

    features = []
    for clip in clips:
        patches = F.conv2d(clip, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
        places = patches.flatten(2).transpose(1, 2) + state["pos_embed"][:, 1:]  # frame, place
        places = places + state["time_embed"].transpose(0, 1)
        cls = (state["cls_token"] + state["pos_embed"][:, :1])[0]
        for block in ("blocks.0", "blocks.1"):
            over_time = attention(f"{block}.temporal_attn", norm(f"{block}.temporal_norm1", places.transpose(0, 1)))
            places = places + linear(f"{block}.temporal_fc", over_time).transpose(0, 1)
            frames = torch.cat([cls.expand(len(places), 1, 48), places], dim=1)
            over_space = attention(f"{block}.attn", norm(f"{block}.norm1", frames))
            cls, places = cls + over_space[:, 0].mean(0), places + over_space[:, 1:]

            def mlp(values, block=block):
                return linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", values))))

            cls, places = cls + mlp(cls), places + mlp(places)
        features.append(norm("norm", cls)[0])
    return torch.stack(features)


def test_features_are_those_of_the_arithmetic_written_out(config, state, clips, tmp_path):
    torch.save(state, tmp_path / "endo_fm.pth")
    features = run(build_encoder(config, str(tmp_path / "endo_fm.pth")), clips)
    assert torch.allclose(features, by_hand(state, clips), atol=1e-5)


def test_the_teacher_of_a_published_file_is_taken_without_its_head(config, state, clips, tmp_path):
    teacher = {f"backbone.{key}": value for key, value in state.items()} | {"head.mlp.0.weight": torch.zeros(2, 2)}
    student = {f"module.{key}": value + 1 for key, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 30}, tmp_path / "endo_fm.pth")
    torch.save(teacher, tmp_path / "teacher.pth")
    torch.save(state, tmp_path / "bare.pth")
    whole, alone, bare = (
        build_encoder(config, str(tmp_path / name)) for name in ("endo_fm.pth", "teacher.pth", "bare.pth")
    )
    assert whole.weights.network == "teacher"
    assert torch.equal(run(whole, clips), run(bare, clips))
    assert torch.equal(run(alone, clips), run(bare, clips))


def test_positions_of_another_size_and_length_are_the_nearest(config, state, tmp_path):
    """Twice as many frames, rows and columns: each position twice."""
    torch.save(state, tmp_path / "w.pth")
    larger = replace(config, clip_len=16, preprocessing=replace(config.preprocessing, size=64))
    usual, twice = (build_encoder(each, str(tmp_path / "w.pth")) for each in (config, larger))
    with torch.no_grad():
        few = usual.network.backbone.embeddings(torch.zeros(1, 8, 3, 32, 32))[0, 1:].unflatten(0, (2, 2, 8))
        many = twice.network.backbone.embeddings(torch.zeros(1, 16, 3, 64, 64))[0, 1:].unflatten(0, (4, 4, 16))
    assert torch.allclose(many, few.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2), atol=1e-6)
    assert run(twice, torch.zeros(1, 16, 3, 64, 64)).shape == (1, 48)


def test_a_key_that_is_neither_used_nor_listed_is_an_error(config, state, tmp_path):
    torch.save(state | {"blocks.0.adapter.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"1 unknown \(blocks\.0\.adapter\.weight\)"):
        build_encoder(config, str(tmp_path / "w.pth"))
    del state["time_embed"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"1 missing \("):
        build_encoder(config, str(tmp_path / "w.pth"))


def test_sizes_that_patches_do_not_fill_are_refused(config):
    with pytest.raises(UserError, match="size 100 is not a multiple of 16"):
        build_encoder(replace(config, preprocessing=replace(config.preprocessing, size=100)), "random")

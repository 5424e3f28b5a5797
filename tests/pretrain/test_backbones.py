"""Start weights: random by request, from folders of transformers' own, from the authors' files, or a clear error."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import VJEPA2Model

from common.base.runtime import UserError
from pretrain.backbones import start_backbone
from pretrain.ssl_config import find_model

TINY = ("dinov3-tiny", "vjepa2-tiny", "videomae-tiny", "surgvista-tiny", "caformer-tiny")
TRANSFORMERS = TINY[:4]


@pytest.fixture(autouse=True)
def offline(workspace, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(workspace / "cache"))


def equal(one, other) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", TINY)
def test_random_start_depends_on_the_seed_alone(name):
    network, source = start_backbone(find_model(name), "random", seed=1)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    assert equal(network, start_backbone(find_model(name), "random", seed=1)[0])
    assert not equal(network, start_backbone(find_model(name), "random", seed=2)[0])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert source.is_random
    assert network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_folder_of_weights_comes_back_whole(name, tmp_path, caplog):
    network, _ = start_backbone(find_model(name), "random", seed=1)
    network.save_pretrained(tmp_path)
    found, source = start_backbone(find_model(name), str(tmp_path), seed=2)
    assert equal(found, network)
    assert len(source.sha256) == 64
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert not caplog.text


@pytest.mark.parametrize(("name", "body"), [("vjepa2-tiny", "encoder"), ("videomae-tiny", "videomae")])
def test_weights_of_the_encoder_alone_leave_the_rest_random(name, body, tmp_path, caplog):
    network, _ = start_backbone(find_model(name), "random", seed=1)
    state = {key: value for key, value in network.state_dict().items() if key.startswith(f"{body}.")}
    network.save_pretrained(tmp_path, state_dict=state)
    found, _ = start_backbone(find_model(name), str(tmp_path), seed=2)
    assert equal(found.get_submodule(body), network.get_submodule(body))
    assert not equal(found, network)
    assert equal(found, start_backbone(find_model(name), str(tmp_path), seed=2)[0])
    assert "which start at random values" in caplog.text


@pytest.mark.parametrize("body", [True, False])
@pytest.mark.parametrize("release", ["5.17", "5.23"])
def test_a_video_mae_comes_back_whichever_transformers_wrote_it(release, body, tmp_path):
    """5.23 writes the published names of biases, which 5.17 does not read; 5.17 biases of the keys, which 5.23 has not."""
    network, _ = start_backbone(find_model("videomae-tiny"), "random", seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    state = {key: value for key, value in network.state_dict().items() if not body or key.startswith("videomae.")}
    assert not any(key.endswith("key.bias") for key in state)
    if release == "5.17":
        weights = [key for key in state if key.endswith(".key.weight")]
        state |= {key.replace("weight", "bias"): torch.randn(len(state[key])) for key in weights}
    else:
        state = {key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): state[key] for key in state}
    network.config.save_pretrained(tmp_path)
    save_file(
        {key.removeprefix("videomae.") if body else key: state[key] for key in state}, tmp_path / "model.safetensors"
    )
    found, _ = start_backbone(find_model("videomae-tiny"), str(tmp_path), seed=2)
    assert equal(found.videomae, network.videomae)
    assert equal(found, network) is not body


def in_metas_names(part, table: dict[str, str]) -> dict[str, torch.Tensor]:
    """A part of a V-JEPA 2 as Meta's files have it: other names, one tensor for queries, keys and values."""
    own, state = part.state_dict(), {}
    for key, value in own.items():
        name = next((new + key.removeprefix(old) for old, new in table.items() if key.startswith(old)), key)
        if ".attention.query." in name:
            parts = [own[key.replace("query", part)] for part in ("query", "key", "value")]
            state[name.replace("attention.query", "attn.qkv")] = torch.cat(parts)
        elif key == "embeddings.mask_tokens":
            state |= {f"mask_tokens.{number}": token for number, token in enumerate(value)}
        elif ".attention.key." not in name and ".attention.value." not in name:
            state[name.replace(".attention.proj", ".attn.proj")] = value
    return state


META_ENCODER = {"layer.": "blocks.", "embeddings.patch_embeddings.": "patch_embed.", "layernorm.": "norm."}
META_PREDICTOR = {
    "layer.": "predictor_blocks.",
    "embeddings.predictor_embeddings.": "predictor_embed.",
    "layernorm.": "predictor_norm.",
    "proj.": "predictor_proj.",
}


def metas_file(network) -> dict[str, dict[str, torch.Tensor]]:
    """The networks of a training of Meta's, each wrapped twice, as in `vitl.pt`."""
    parts = {
        "encoder": in_metas_names(network.encoder, META_ENCODER),
        "predictor": in_metas_names(network.predictor, META_PREDICTOR),
    }
    return {part: {f"module.backbone.{name}": value for name, value in state.items()} for part, state in parts.items()}


def trained_network():
    """Of random values in every tensor, those that start at 0 or 1 too."""
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random", seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return network


def test_metas_file_gives_the_encoder_and_the_predictor(tmp_path, caplog):
    network = trained_network()
    torch.save(metas_file(network), tmp_path / "vitl.pt")
    found, _ = start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "vitl.pt"), seed=2)
    assert isinstance(found, VJEPA2Model)
    assert equal(found, network)
    assert "random values" not in caplog.text
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in found.parameters())


def test_the_predictor_has_as_many_mask_tokens_as_its_file(tmp_path):
    content = metas_file(trained_network())
    content["predictor"] = {
        name: value for name, value in content["predictor"].items() if "mask_tokens" not in name or name.endswith(".1")
    }
    content["predictor"]["module.backbone.mask_tokens.0"] = torch.full((1, 1, 24), 3.0)
    torch.save(content, tmp_path / "vitl.pt")
    found, _ = start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "vitl.pt"))
    assert found.predictor.embeddings.mask_tokens.shape == (2, 1, 1, 24)
    assert (found.predictor.embeddings.mask_tokens[0] == 3).all()
    assert found.config.pred_num_mask_tokens == 2
    found.save_pretrained(tmp_path / "export")
    assert equal(start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "export"))[0], found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("module.backbone.predictor_norm.weight"), "1 missing .*predictor_norm.weight"),
        (
            lambda state: state.update({"module.backbone.predictor_proj.weight": torch.ones(48, 12)}),
            r"1 unfit \(module.backbone.predictor_proj.weight; .*shape \(48, 12\), expected \(48, 24\)",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if "mask_tokens" in name],
            r"expected predictor.mask_tokens.0 \.\.\. beside the predictor's blocks, found none",
        ),
    ],
)
def test_a_predictor_that_does_not_fit_is_refused(tmp_path, change, message):
    content = metas_file(trained_network())
    change(content["predictor"])
    torch.save(content, tmp_path / "vitl.pt")
    with pytest.raises(UserError, match=message):
        start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "vitl.pt"))


def test_a_file_of_metas_encoder_alone_leaves_the_predictor_new(tmp_path, caplog):
    network = trained_network()
    torch.save({"encoder": metas_file(network)["encoder"]}, tmp_path / "vitl.pt")
    found, _ = start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "vitl.pt"), seed=2)
    assert equal(found.encoder, network.encoder)
    assert equal(found.predictor, start_backbone(find_model("vjepa2-tiny"), "random", seed=2)[0].predictor)
    assert "only the encoder is read from there; predictor. starts at random values" in caplog.text


def test_what_is_new_of_v_jepa_2_begins_as_the_authors_begin_it(tmp_path):
    """.02 over sqrt(2 n) in block n for what a block adds: .0141, .01; .02 elsewhere."""
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random", crop_size=32)
    body = {key: value for key, value in network.state_dict().items() if key.startswith("encoder.")}
    network.save_pretrained(tmp_path, state_dict=body)
    for blocks in (
        network.encoder.layer,
        network.predictor.layer,
        start_backbone(find_model("vjepa2-tiny"), str(tmp_path), crop_size=32)[0].predictor.layer,
    ):
        for block, expected in zip(blocks, (0.0141, 0.01), strict=True):
            assert block.mlp.fc2.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert block.attention.proj.weight.std().item() == pytest.approx(expected, rel=0.08)
            assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


# positions of SurgVISTA


def space_time(width: int, num_sides: int, num_times: int) -> torch.Tensor:
    """Position by position: a quarter of the width for the time, three eighths each for column and row."""

    def waves(size: int, place: int) -> list[float]:
        angles = [place / 10000 ** (index / (size / 2)) for index in range(size // 2)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    part, side = width // 4, width // 8 * 3
    return torch.tensor(
        [
            waves(part, time) + waves(side, column) + waves(side, row)
            for time in range(num_times)
            for row in range(num_sides)
            for column in range(num_sides)
        ]
    )


def authors_file(with_positions: bool = True) -> dict[str, dict[str, torch.Tensor]]:
    """A SurgVISTA as its pretraining writes it (`modeling_surgery_student.py`), of the tiny size."""
    encoder = start_backbone(find_model("videomae-tiny"), "random", seed=5)[0].videomae.encoder.state_dict()
    state = {"patch_embed.proj.weight": torch.randn(96, 3, 2, 16, 16), "patch_embed.proj.bias": torch.randn(96)}
    for number in range(3):
        old, new = f"layer.{number}", f"blocks.{number}"
        own = {key.removeprefix(f"{old}."): value for key, value in encoder.items() if key.startswith(f"{old}.")}
        qkv = [own[f"attention.attention.{part}.weight"] for part in ("query", "key", "value")]
        state[f"{new}.attn.qkv.weight"] = torch.cat(qkv)
        state |= {f"{new}.attn.q_bias": torch.randn(96), f"{new}.attn.v_bias": torch.randn(96)}
        for theirs, ours in (
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
        ):
            state |= {f"{new}.{theirs}.{part}": own[f"{ours}.{part}"] for part in ("weight", "bias")}
    state |= {"norm.weight": torch.ones(96), "norm.bias": torch.zeros(96)}
    for kind in ("img", "vid"):
        state |= {f"mask_token_{kind}": torch.ones(1, 1, 48), f"down_{kind}.weight": torch.ones(48, 96)}
        state |= {f"pos_embed_{kind}": torch.ones(1, 64, 48), f"decoder_{kind}.norm.weight": torch.ones(48)}
    if with_positions:
        state["pos_embed"] = space_time(96, 4, 4)[None]
    return {"model": state}


@pytest.mark.parametrize("with_positions", [True, False])
def test_surgvista_s_own_file_starts_a_training_with_its_positions(tmp_path, with_positions):
    torch.save(authors_file(with_positions), tmp_path / "surgvista.pth")
    found, _ = start_backbone(find_model("surgvista-tiny"), str(tmp_path / "surgvista.pth"))
    torch.testing.assert_close(found.videomae.embeddings.position_embeddings[0], space_time(96, 4, 4))
    torch.testing.assert_close(found.position_embeddings[0], space_time(48, 4, 4))  # of the decoders


def test_positions_of_the_other_kind_are_refused(tmp_path):
    beside = ("norm.", "mask_token", "down_", "decoder_", "pos_embed_")
    encoder = {name: value for name, value in authors_file()["model"].items() if not name.startswith(beside)}
    torch.save(encoder, tmp_path / "surgvista.pth")
    with pytest.raises(UserError, match=r"videomae-tiny counts positions along the line .* give --model surgvista-b"):
        start_backbone(find_model("videomae-tiny"), str(tmp_path / "surgvista.pth"))
    for own, other in (("videomae-tiny", "surgvista-tiny"), ("surgvista-tiny", "videomae-tiny")):
        start_backbone(find_model(own), "random")[0].save_pretrained(tmp_path / own)
        assert start_backbone(find_model(own), str(tmp_path / own))[0].config.space_time_positions == ("surg" in own)
        with pytest.raises(UserError, match=f"{other} counts positions along .*give --model"):
            start_backbone(find_model(other), str(tmp_path / own))


def test_the_input_size_is_the_training_s(tmp_path):
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random")
    network.save_pretrained(tmp_path)
    found, _ = start_backbone(find_model("vjepa2-tiny"), str(tmp_path), crop_size=96)
    assert found.config.crop_size == 96
    assert start_backbone(find_model("vjepa2-tiny"), "random", crop_size=32)[0].config.crop_size == 32


def test_weights_of_another_size_or_kind_are_refused(tmp_path):
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random")
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="features of 48 values, but vjepa2-vitl-fpc64-256 has 1024"):
        start_backbone(find_model("vjepa2-l"), str(tmp_path))
    with pytest.raises(UserError, match=str(tmp_path)):
        start_backbone(find_model("dinov3-tiny"), str(tmp_path))


@pytest.mark.parametrize("name", ["videomae-tiny", "vjepa2-tiny"])
def test_a_folder_whose_config_describes_no_network_is_refused(name, tmp_path):
    start_backbone(find_model(name), "random")[0].save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"num_attention_heads": 7}))
    with pytest.raises(UserError, match=r"config\.json: no such network can be built"):
        start_backbone(find_model(name), str(tmp_path))


def test_a_folder_that_lacks_part_of_the_encoder_is_refused(tmp_path):
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random")
    state = {key: value for key, value in network.state_dict().items() if "layernorm" not in key}
    network.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UserError, match=r"not for this network: .* 2 missing \(encoder\.layernorm"):
        start_backbone(find_model("vjepa2-tiny"), str(tmp_path))


def test_tiny_networks_have_no_weights_of_their_own():
    with pytest.raises(UserError, match="dinov3-tiny: there are no weights of this size; say --init random"):
        start_backbone(find_model("dinov3-tiny"))


def test_gated_weights_say_every_way_to_go_on():
    with pytest.raises(UserError) as found:
        start_backbone(find_model("dinov3-l"))
    for part in ("facebook/dinov3-vitl16-pretrain-lvd1689m", "accept the licence", "pass --init FOLDER", "--init timm"):
        assert part in str(found.value)


def test_advice_about_other_weights_is_left_out():
    with pytest.raises(UserError, match="MCG-NJU/videomae-base") as found:
        start_backbone(find_model("videomae-b"))
    assert "no checkpoint is public" not in str(found.value)


def test_an_absent_file_is_named():
    with pytest.raises(UserError, match=r"weights '/nowhere.pt': no such file; give --init a local file"):
        start_backbone(find_model("dinov3-tiny"), "/nowhere.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov3-b", "dinov3-7b", "vjepa2-l", "vjepa2-g", "videomae-b", "surgvista-b"])
def test_published_sizes_are_the_encoders_own(name):
    """On the meta device, in the millions of parameters that are published."""
    from pretrain.backbones import _encoder_config, _transformers_network

    published = {"dinov3-b": 85.66, "dinov3-7b": 6716.0, "vjepa2-l": 303.9 + 22.1, "vjepa2-g": 1012.2 + 22.4}
    model = find_model(name)
    network_class, config = _transformers_network(model, _encoder_config(model, None, None))
    assert config.hidden_size == model.width
    with torch.device("meta"):
        network = network_class(config)
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(published.get(name, 94.2), rel=2e-3)


def test_start_weights_are_those_of_the_encoder_unless_a_model_has_its_own(workspace):
    for name in ("dinov3-b", "dinov3-l", "dinov3-7b", "vjepa2-l", "vjepa2-g"):
        model = find_model(name)
        assert model.encoder_config().weights.startswith("hub:facebook/")
        other = replace(model, start_weights="hub:other/name").encoder_config()
        assert (other.weights, other.access) == ("hub:other/name", None)

"""Start weights: random by request, from folders of transformers' own, from the authors' files, or a clear error."""

from dataclasses import replace

import pytest
import torch
from transformers import VJEPA2Model

from common.base.runtime import UserError
from pretrain.backbones import start_backbone
from pretrain.ssl_config import find_model

TINY = ("dinov3-tiny", "vjepa2-tiny", "videomae-tiny", "caformer-tiny")
TRANSFORMERS = TINY[:3]


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


def test_the_authors_file_gives_the_encoder(tmp_path, caplog):
    """Meta's names: one tensor for queries, keys and values."""
    network, _ = start_backbone(find_model("vjepa2-tiny"), "random", seed=1)
    state = {}
    own = network.encoder.state_dict()
    for key, value in own.items():
        name = key.replace("layer.", "blocks.", 1) if key.startswith("layer.") else key
        name = name.replace("embeddings.patch_embeddings.", "patch_embed.").replace("layernorm.", "norm.")
        if ".attention.query." in name:
            parts = [own[key.replace("query", part)] for part in ("query", "key", "value")]
            state[name.replace("attention.query", "attn.qkv")] = torch.cat(parts)
        elif ".attention.key." not in name and ".attention.value." not in name:
            state[name.replace(".attention.proj", ".attn.proj")] = value
    torch.save({"encoder": state}, tmp_path / "vitl.pt")
    found, _ = start_backbone(find_model("vjepa2-tiny"), str(tmp_path / "vitl.pt"), seed=2)
    assert isinstance(found, VJEPA2Model)
    assert equal(found.encoder, network.encoder)
    assert "only the encoder is read from there; predictor. starts at random values" in caplog.text


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


@pytest.mark.parametrize("name", ["dinov3-b", "dinov3-7b", "vjepa2-l", "vjepa2-g", "videomae-b"])
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

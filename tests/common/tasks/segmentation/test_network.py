"""Encoder and decoder together: the authors' three networks, state dicts that their code saved, checkpoints of our own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.families import surgenet
from common.tasks.segmentation.config import SegmentConfig
from common.tasks.segmentation.network import (
    SegmentationCheckpoint,
    SegmentationNetwork,
    authors_count,
    load_segmentation_network,
    read_segmentation_file,
)

SMALL = SegmentConfig(size="64x96", pyramid_channels=8, segmentation_channels=32)
# folder, authors' name of the encoder, entry of the family's table, its sizes in the reference
AUTHORS = {
    "MetaFormerFPN": ("caformer_s18", {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}),
    "ConvNextFPN": ("convnextv2_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}),
    "PVTV2FPN": ("pvt_v2_b2", {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 2)}),
}


@pytest.fixture(scope="module")
def arrays(reference_data) -> dict[str, np.ndarray]:
    with np.load(reference_data / "golden" / "segmentation_reference.npz") as found:
        return dict(found)


@pytest.fixture
def small_encoder(checkout, monkeypatch):
    """`small_encoder(folder)`: the config of one of the three folders, of a network of the reference's size."""

    def config(folder: str) -> EncoderConfig:
        name, sizes = AUTHORS[folder]
        monkeypatch.setitem(surgenet.ARCHITECTURES, name, (name, sizes))
        found = read_encoder_config(checkout / "models" / folder / "config.yaml")
        return replace(found, feature_dim=sizes.get("dims", sizes.get("embed_dims"))[-1])

    return config


def authors_state(arrays: dict[str, np.ndarray], folder: str) -> dict[str, torch.Tensor]:
    start = f"{folder}_small/state/"
    return {key.removeprefix(start): torch.from_numpy(value) for key, value in arrays.items() if key.startswith(start)}


@pytest.mark.parametrize("folder", AUTHORS)
def test_a_state_dict_of_the_authors_code_gives_their_scores(folder, arrays, small_encoder, tmp_path):
    path = tmp_path / "trained.pth"
    torch.save(authors_state(arrays, folder), path)
    network, encoder = load_segmentation_network(path, small_encoder(folder), SMALL, 3)
    network.double()
    pixels = torch.from_numpy(arrays[f"{folder}_small/input"]).double()
    with torch.no_grad():
        maps = network.stages(pixels)
        scores = network.decoder(maps)
    for place, found in enumerate(maps):
        assert (found - torch.from_numpy(arrays[f"{folder}_small/stage/{place}"])).abs().max().item() < 1e-9
    assert (scores - torch.from_numpy(arrays[f"{folder}_small/output"])).abs().max().item() < 1e-9
    assert encoder.weights.sha256 is not None
    assert not network.training


@pytest.mark.parametrize("folder", AUTHORS)
@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "optimizer": {"state": {}}},
    ],
    ids=["container", "wrapper", "both"],
)
def test_what_training_code_puts_around_a_state_dict_is_taken_off(folder, around, arrays, small_encoder, tmp_path):
    path = tmp_path / "trained.pth"
    torch.save(around(authors_state(arrays, folder)), path)
    network, _ = load_segmentation_network(path, small_encoder(folder), SMALL, 3)
    own = network.decoder.state_dict()
    assert torch.equal(own["p5.bias"], authors_state(arrays, folder)["FPN.p5.bias"])


def changed(state: dict, kind: str) -> dict:
    """A state dict with one thing wrong."""
    first = next(iter(state))
    return {
        "missing": {key: value for key, value in state.items() if key != "FPN.p4.skip_conv.bias"},
        "unknown": state | {"FPN.p6.weight": torch.zeros(1)},
        "encoder missing": {key: value for key, value in state.items() if key != first},
        "encoder unknown": state | {f"{first.partition('.')[0]}.surprise": torch.zeros(1)},
        "shape": state | {"FPN.p5.bias": torch.zeros(3)},
        "not finite": state | {"FPN.p5.bias": state["FPN.p5.bias"] * float("nan")},
        "no decoder": {key: value for key, value in state.items() if not key.startswith("FPN")},
        "third part": state | {"extra.weight": torch.zeros(1)},
    }[kind]


@pytest.mark.parametrize("folder", AUTHORS)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "1 missing .p4.skip_conv.bias"),
        ("unknown", "1 unknown .p6.weight"),
        ("encoder missing", "1 missing"),
        ("encoder unknown", r"\d+ unknown \(\w+\."),  # one, or of the CAFormer all that timm then gives up on
        ("shape", "1 of another shape or kind .p5.bias"),
        ("not finite", "1 not finite .p5.bias"),
        ("no decoder", "expected a checkpoint of common.segment, or the state dict of a network"),
        ("third part", "found tensors of .*extra"),
    ],
)
def test_names_are_strict(folder, kind, message, arrays, small_encoder, tmp_path):
    path = tmp_path / "trained.pth"
    torch.save(changed(authors_state(arrays, folder), kind), path)
    with pytest.raises(UserError, match=rf"trained\.pth: .*{message}"):
        load_segmentation_network(path, small_encoder(folder), SMALL, 3)


def test_another_number_of_classes_is_told(arrays, small_encoder, tmp_path):
    torch.save(authors_state(arrays, "ConvNextFPN"), tmp_path / "trained.pth")
    with pytest.raises(UserError, match="a network of 3 classes, the data set has 8"):
        load_segmentation_network(tmp_path / "trained.pth", small_encoder("ConvNextFPN"), SMALL, 8)


@pytest.mark.parametrize(
    ("folder", "total"), [("MetaFormerFPN", 26_259_480), ("ConvNextFPN", 29_924_504), ("PVTV2FPN", 26_798_296)]
)
def test_at_full_size_they_have_as_many_parameters_as_the_authors_code_builds(folder, total, checkout, monkeypatch):
    """At twelve classes. SurgeNet's CAFormer has ReLU, which a file of weights tells; StarReLU has 48 values more."""
    monkeypatch.setattr(surgenet, "_has_plain_relu", lambda source: True)
    encoder = build_encoder(read_encoder_config(checkout / "models" / folder / "config.yaml"), "random")
    network = SegmentationNetwork(encoder, SegmentConfig(size="64"), 12)
    assert authors_count(network) == (folder, total)
    assert f"as {folder} of SurgeNet's authors {total:,}" in network.describe()


def test_a_class_more_is_4609_parameters_in_the_decoder(small_encoder):
    encoder = build_encoder(small_encoder("PVTV2FPN"), "random")
    counts = [
        SegmentationNetwork(encoder, SegmentConfig(size="64"), classes).count_parameters() for classes in (12, 13)
    ]
    assert counts[1] - counts[0] == 4609


def test_another_network_is_not_called_theirs(checkout):
    config = read_encoder_config(checkout / "models" / "EfficientNet-Lite0" / "config.yaml")
    assert authors_count(SegmentationNetwork(build_encoder(config, "random"), SMALL, 3)) is None


# --- frozen and trained -------------------------------------------------------------------------------------------


def gradients(network: SegmentationNetwork) -> dict[str, bool]:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network(pixels).square().mean().backward()
    return {name: value.grad is not None for name, value in network.named_parameters()}


def test_a_frozen_encoder_gets_no_gradient_and_every_part_of_the_decoder_does(small_encoder):
    found = gradients(SegmentationNetwork(build_encoder(small_encoder("ConvNextFPN"), "random"), SMALL, 3))
    assert found == {name: name.startswith("decoder.") for name in found}


def test_fine_tuning_trains_what_maps_depend_on(small_encoder):
    """All but the norm before the classifier."""
    network = SegmentationNetwork(
        build_encoder(small_encoder("ConvNextFPN"), "random"), replace(SMALL, finetune=True), 3
    )
    without = {name for name, is_there in gradients(network).items() if not is_there}
    assert without == {"stages.network.head.norm.weight", "stages.network.head.norm.bias"}


def test_initial_weights_depend_on_the_seed_alone(small_encoder):
    encoder = build_encoder(small_encoder("ConvNextFPN"), "random")
    first, same, other = (
        SegmentationNetwork(encoder, replace(SMALL, seed=seed), 3).decoder.p5.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(small_encoder, tmp_path) -> Path:
    encoder = build_encoder(small_encoder("ConvNextFPN"), "random")
    config = replace(SMALL, weights="random")
    network = SegmentationNetwork(encoder, config, 3)
    found = SegmentationCheckpoint(
        vars(config), ["a", "b", "c"], "hash", encoder.weights.to_json(), 1, decoder=network.decoder.state_dict()
    )
    found.save(tmp_path / "segmentation.pt")
    return tmp_path / "segmentation.pt"


def test_a_checkpoint_comes_back_with_its_own_settings(checkpoint, small_encoder):
    network, _ = load_segmentation_network(checkpoint, small_encoder("ConvNextFPN"), SegmentConfig(), 3)
    assert network.decoder.p5.out_channels == 8
    with pytest.raises(UserError, match="trained on 3 classes, the data set has 4"):
        load_segmentation_network(checkpoint, small_encoder("ConvNextFPN"), SegmentConfig(), 4)


def test_a_decoder_of_other_weights_maps_is_refused(checkpoint, small_encoder):
    content = torch.load(checkpoint, weights_only=True)
    content["weights"] = {"source": "elsewhere", "sha256": "ab"}
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match=r"trained on the maps of other weights \(elsewhere, SHA-256 ab\)"):
        load_segmentation_network(checkpoint, small_encoder("ConvNextFPN"), SegmentConfig(), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 2}, "epoch 2 with a history of 0"),
        ({"classes": 3}, "classes: expected a list"),
        ({"format": 9}, "damaged checkpoint, or one of another version"),
    ],
)
def test_a_damaged_checkpoint_is_a_message(change, message, checkpoint):
    torch.save(torch.load(checkpoint, weights_only=True) | change, checkpoint)
    with pytest.raises(UserError, match=rf"segmentation\.pt: .*{message}"):
        read_segmentation_file(checkpoint)


def test_a_file_that_is_no_checkpoint_and_one_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no such checkpoint; run common\.segment train first"):
        read_segmentation_file(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"text\.pt: damaged or unsafe checkpoint"):
        read_segmentation_file(tmp_path / "text.pt")

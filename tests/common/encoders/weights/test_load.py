"""Weights in memory: loaded strictly, messages in the words of their file; random ones the same everywhere."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.base.runtime import UserError
from common.encoders.weights.load import keys_in_the_file, load_strictly, randomise, read_network


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
    read = read_network(path).state
    assert read.keys() == state().keys()
    assert all(torch.equal(read[key], value) for key, value in state().items())


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
        (without("2.bias"), r"1 missing \(2\.bias\); give"),
        (state() | {"3.weight": torch.zeros(1)}, r"1 unknown \(3\.weight\)"),
        (
            state() | {"0.weight": torch.zeros(3, 4)},
            r"1 unfit \(0\.weight; the first has shape \(3, 4\), expected \(4, 3\)\)",
        ),
        (
            state() | {"0.bias": torch.tensor([1, 2, 3, 4])},
            r"1 unfit \(0\.bias; the first has int64 instead of floating-point",
        ),
        (
            {f"net.{key}": value for key, value in state().items()},
            r"8 missing \(.* and 3 more\), 9 unknown \(net\.0\.bias,",
        ),
    ],
    ids=["missing", "unexpected", "shape", "whole numbers", "other names"],
)
def test_weights_of_another_network_are_refused_and_the_first_keys_listed(given, complaint):
    with pytest.raises(UserError, match=f"^w.pth: these weights are not for this network: .*{complaint}"):
        load_strictly(network(), given, "w.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused_by_name(value):
    given = state() | {"0.bias": torch.tensor([1, value, 2, 3])}
    with pytest.raises(
        UserError, match=r"^w\.pth: values that are not finite, NaN or infinite, in 1 tensor \(0\.bias\)"
    ):
        load_strictly(network(), given, "w.pth")


def test_an_extra_head_is_left_out_and_listed(caplog):
    target = network()
    with caplog.at_level("INFO"):
        load_strictly(target, state() | {"fc.weight": torch.zeros(1), "dino_head.mlp.0.bias": torch.zeros(1)}, "w.pth")
    assert torch.equal(target[0].weight, state()["0.weight"])
    assert caplog.messages == ["w.pth: left out 2 tensors that no feature depends on: dino_head.mlp.0.bias, fc.weight"]


def test_a_batch_norm_without_its_counter_is_whole():
    target = network()
    load_strictly(target, without("1.num_batches_tracked"), "w.pth")
    assert torch.equal(target[1].running_mean, state()["1.running_mean"])


def test_messages_name_keys_as_the_file_has_them(tmp_path):
    """Also those that are missing, by what the file calls the same part of another layer."""
    torch.save({f"module.blocks.{key}": value for key, value in without("2.bias").items()}, tmp_path / "w.pth")
    read = read_network(tmp_path / "w.pth")
    renamed = {key.removeprefix("blocks."): value for key, value in read.state.items()}
    renamed["0.weight"] = renamed["0.weight"][:2]  # a part of the file's tensor
    with pytest.raises(UserError, match=r"1 missing \(module\.blocks\.2\.bias\), 1 unfit \(module\.blocks\.0\.weight;"):
        load_strictly(network(), renamed, "w.pth", file_keys=keys_in_the_file(renamed, read))


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
    with pytest.raises(UserError, match=r"1 missing \(0\.bias\)"):
        load_strictly(network(), without("0.bias"), "w.pth", missing=("2.",), unexpected=("fc.",))


def test_an_allowed_prefix_does_not_excuse_a_wrong_shape():
    with pytest.raises(UserError, match="1 unfit"):
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


def test_random_branches_are_not_left_at_next_to_nothing():
    """As training begins, LayerScale shuts every block off."""
    block = nn.ModuleDict({"norm": nn.LayerNorm(8), "scale": nn.RMSNorm(8)})
    nn.init.constant_(block["scale"].weight, 1e-5)
    nn.init.constant_(block["norm"].weight, 0.5)
    assert randomise(block) == 1
    assert [block[name].weight[0].item() for name in block] == [0.5, 1]


def own_megabytes() -> float:
    """Memory that this process has for itself, without the pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much memory is a process's own")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_lies_beside_a_network_is_not_read(tmp_path, suffix):
    """200 MB of another network and of an optimiser."""
    state, other = torch.nn.Linear(3, 2).state_dict(), {"weight": torch.ones(25_000_000)}
    if suffix == ".pth":
        torch.save({"teacher": state, "student": other, "optimizer": {"0": torch.ones(25_000_000)}}, tmp_path / "w.pth")
    else:
        flat = {f"teacher.{key}": value for key, value in state.items()} | {"student.weight": other["weight"]}
        save_file(flat | {"predictor.weight": torch.ones(25_000_000)}, tmp_path / "w.safetensors")
    before = own_megabytes()
    read = read_network(tmp_path / f"w{suffix}", "teacher")
    assert torch.equal(read.state["weight"], state["weight"])
    assert own_megabytes() - before < 20


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_network_does_not_change_with_its_file(tmp_path, suffix):
    """One that was built without memory for its values, and whose file is written over in its place afterwards."""
    state = {"weight": torch.ones(64, 64), "bias": torch.ones(64)}
    file = tmp_path / f"w{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    with torch.device("meta"):
        network = torch.nn.Linear(64, 64)
    load_strictly(network, read_network(file).state, file)
    with open(file, "r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert (network.weight == 1).all()
    assert (network.bias == 1).all()

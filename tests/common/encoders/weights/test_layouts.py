"""Layouts of checkpoints: where they keep their networks, which one is taken, what falls off the names."""

import argparse
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import read_network


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # default initial values, biases included, depend on it
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    return network(seed).state_dict()


def prefixed(prefix: str, seed: int = 1) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state(seed).items()}


# --- which network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {"weights": {"w": torch.zeros(3)}}, {"epoch": 3}, {}, {"model": {"epoch": 3}}],
    ids=["tensor", "list", "unknown container", "number", "empty", "container of numbers"],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="expected a state dict"):
        read_network(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state", "teacher", "module"])
def test_known_containers_are_opened(tmp_path, key):
    torch.save({key: state(), "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    assert read_network(tmp_path / "w.pth").state.keys() == state().keys()


def test_a_teacher_is_taken_before_a_student(tmp_path):
    torch.save({"student": state(1), "model": state(1), "teacher": {"state_dict": state(2)}}, tmp_path / "w.pth")
    assert torch.equal(read_network(tmp_path / "w.pth").state["0.weight"], state(2)["0.weight"])


def test_the_command_line_that_training_code_keeps_is_no_obstacle(tmp_path):
    torch.save({"model": state(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    assert read_network(tmp_path / "w.pth").state.keys() == state().keys()


@pytest.mark.parametrize("wrapper", ["module.", "backbone.", "_orig_mod.", "module.backbone."])
def test_a_wrapper_around_every_key_is_dropped(tmp_path, wrapper):
    torch.save({f"{wrapper}{key}": value for key, value in state().items()}, tmp_path / "w.pth")
    assert read_network(tmp_path / "w.pth").state.keys() == state().keys()


def test_a_prefix_of_some_keys_is_part_of_their_names(tmp_path):
    given = {"backbone.weight": torch.zeros(1), "neck.weight": torch.zeros(1)}
    torch.save(given, tmp_path / "w.pth")
    assert read_network(tmp_path / "w.pth").state.keys() == given.keys()
    assert read_network(tmp_path / "w.pth", heads=("neck.",)).state.keys() == {"weight", "neck.weight"}


# content (the right values have seed 1), name of the network that is taken, names of the others
LAYOUTS = {
    "dino": ({"student": prefixed("module.backbone.", 2), "teacher": prefixed("backbone.")}, "teacher", ("student",)),
    "dinov2": (
        {"model": prefixed("student.backbone.", 2) | prefixed("teacher.backbone.")},
        "model.teacher",
        ("model.student",),
    ),
    "dinov3 with a gram teacher": (
        {"model": prefixed("gram_teacher.backbone.", 2) | prefixed("student.", 2) | prefixed("teacher.backbone.")},
        "model.teacher",
        ("model.student",),
    ),
    "v-jepa": (
        {"encoder": prefixed("module.backbone.", 2), "target_encoder": prefixed("module.backbone."), "opt": {}},
        "target_encoder",
        ("encoder",),
    ),
    "v-jepa, averaged": ({"encoder": state(2), "ema_encoder": state(1)}, "ema_encoder", ("encoder",)),
    "timm": ({"state_dict": state(2), "state_dict_ema": state(1), "arch": "x"}, "state_dict_ema", ("state_dict",)),
    "moco": (
        {"state_dict": prefixed("module.encoder_q.") | prefixed("module.encoder_k.", 2)},
        "state_dict.encoder_q",
        ("state_dict.encoder_k",),
    ),
    "lightning": ({"state_dict": prefixed("model."), "hyper_parameters": {"lr": 1}}, "state_dict", ()),
    "lightning with measures": (
        {"state_dict": prefixed("encoder.") | {"val_acc.tp": torch.zeros(1)}},
        "state_dict",
        (),
    ),
    "lightning pair": (
        {"state_dict": prefixed("model.teacher.") | prefixed("model.student.", 2)},
        "state_dict.teacher",
        ("state_dict.student",),
    ),
    "deepspeed": ({"module": prefixed("backbone."), "optimizer": {"state": {0: torch.zeros(1)}}}, "module", ()),
    "nested": ({"state_dict": {"model": prefixed("module.")}, "epoch": 3}, "state_dict.model", ()),
    "student alone": ({"student": state(1), "center": torch.zeros(1)}, "student", ()),
    "numbers between the tensors": (state(1) | {"epoch": 3, "config": {"lr": 0.1}}, "", ()),
    "ordered": (OrderedDict(state(1)), "", ()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_several_networks_the_one_that_the_authors_evaluate_is_taken(tmp_path, layout):
    content, name, others = LAYOUTS[layout]
    torch.save(content, tmp_path / "w.pth")
    read = read_network(tmp_path / "w.pth")
    assert (read.name, read.others) == (name, others)
    assert all(torch.equal(read.state[key], value) for key, value in state(1).items())


@pytest.mark.parametrize("wanted", ["student", "model.student"])
def test_another_network_is_asked_for_by_its_name_said_and_recorded(tmp_path, wanted, caplog):
    torch.save({"model": prefixed("student.") | prefixed("teacher.", 2)}, tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        source = find_weights(f"{tmp_path / 'w.pth'}::{wanted}")
    said = "w.pth: takes the network model.student; --weights FILE::NAME takes another (model.teacher)"
    assert caplog.messages[0].endswith(said)
    assert (source.path, source.to_json()["network"]) == (tmp_path / "w.pth", "model.student")
    assert torch.equal(read_network(source.path, source.network).state["0.weight"], state(1)["0.weight"])


@pytest.mark.parametrize("wanted", ["vision.tower", "state_dict.vision.tower"])
def test_a_network_under_any_prefix_can_be_asked_for(tmp_path, wanted):
    torch.save({"state_dict": prefixed("vision.tower.") | prefixed("text.", 2)}, tmp_path / "w.pth")
    source = find_weights(f"{tmp_path / 'w.pth'}::{wanted}")
    assert source.network == "state_dict.vision.tower"
    assert torch.equal(read_network(source.path, source.network).state["0.weight"], state(1)["0.weight"])


def test_a_network_under_an_unexpected_name_is_named_with_what_was_found(tmp_path):
    torch.save({"my_net": state(), "epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"found my_net \(9: 0\.weight \.\.\.\); name one: --weights FILE::my_net"):
        find_weights(str(tmp_path / "w.pth"))
    assert find_weights(f"{tmp_path / 'w.pth'}::my_net").network == "my_net"


def test_a_name_that_is_not_there_lists_those_that_are(tmp_path):
    torch.save({"student": state(), "teacher": state()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"no network 'ema' in this file; found student .*, teacher "):
        find_weights(f"{tmp_path / 'w.pth'}::ema")


def test_a_file_whose_own_name_holds_two_colons_is_a_file(tmp_path):
    torch.save(state(), tmp_path / "w::teacher")
    assert find_weights(str(tmp_path / "w::teacher")).path == tmp_path / "w::teacher"


def test_the_state_of_an_optimiser_is_no_network(tmp_path):
    torch.save({"optimizer": {"state": {"0.weight": {"exp_avg": torch.zeros(1)}}}, "epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"found the state of an optimiser and no network \(optimizer, epoch\)"):
        find_weights(str(tmp_path / "w.pth"))


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.module.",
        "module._orig_mod.",
        "model.encoder.module.backbone.",
        "module.module.",
        "backbone._fsdp_wrapped_module.",
    ],
)
def test_wrappers_fall_off_in_any_order_and_as_often_as_they_are_there(tmp_path, prefix):
    torch.save(prefixed(prefix), tmp_path / "w.pth")
    read = read_network(tmp_path / "w.pth")
    assert read.state.keys() == state().keys()
    assert read.file_keys["0.weight"] == f"{prefix}0.weight"


def test_wrappers_inside_a_network_fall_off_too(tmp_path):
    torch.save(
        {f"0._checkpoint_wrapped_module.{key[2:]}": value for key, value in state().items() if key[0] == "0"},
        tmp_path / "w.pth",
    )
    assert read_network(tmp_path / "w.pth").state.keys() == {"0.weight", "0.bias"}


# --- files of the field -------------------------------------------------------------------------------------------

# file, model, the file that holds the same values alone (None: others than in the flat file), network, what is said
FIELD = [
    ("dinov3_teacher_checkpoint.pth", "DinoV3-Tiny", "dinov3_meta_release.pth", "teacher", "left out 10 tensors"),
    ("classifier_head.pth", "DinoV3-Tiny", "dinov3_meta_release.pth", "state_dict", "head.bias, head.weight"),
    ("lightning.ckpt", "DinoV3-Tiny", "dinov3_meta_release.pth", "state_dict", ""),
    ("numpy_scalar.pth", "DinoV3-Tiny", "dinov3_meta_release.pth", "state_dict", ""),
    ("vjepa2_posembed.pt", "V-JEPA2-Tiny", "vjepa2_encoder_flat.pth", "encoder", "left out pos_embed"),
    ("vjepa2_vitl.pt::encoder", "V-JEPA2-Tiny", "vjepa2_encoder_flat.pth", "encoder", "another (target_encoder)"),
    ("vjepa2_vitl.pt", "V-JEPA2-Tiny", None, "target_encoder", "takes the network target_encoder"),
]


@pytest.mark.parametrize(("file", "model", "flat", "network_name", "said"), FIELD, ids=[row[0] for row in FIELD])
def test_files_as_they_circulate_load(reference_data, checkout, caplog, file, model, flat, network_name, said):
    folder = reference_data / "cases" / "weights"
    if not folder.is_dir():
        pytest.skip(f"no such files in {folder}")
    config = read_encoder_config(checkout / "models" / model / "config.yaml")
    with caplog.at_level("INFO"):
        encoder = build_encoder(config, str(folder / file))
    assert encoder.weights.to_json()["network"] == network_name
    assert said in "\n".join(caplog.messages)
    given = encoder.network.state_dict()
    if flat:
        expected = build_encoder(config, str(folder / flat)).network.state_dict()
        assert all(torch.equal(given[key], value) for key, value in expected.items())
    else:
        own = torch.load(folder / file, weights_only=True)[network_name]["module.backbone.norm.weight"]
        assert torch.equal(given["encoder.layernorm.weight"], own)


def test_a_resnet_without_counters_loads(checkout, tmp_path):
    config = read_encoder_config(checkout / "models" / "Base" / "config.yaml")
    config = replace(config, architecture="resnet18", feature_dim=512)
    whole = build_encoder(config, "random").network.state_dict()
    kept = {f"module.{key}": value for key, value in whole.items() if not key.endswith("num_batches_tracked")}
    torch.save({"state_dict": kept | {"module.fc.weight": torch.zeros(5, 512)}}, tmp_path / "w.pth")
    loaded = build_encoder(config, str(tmp_path / "w.pth")).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in whole.items())

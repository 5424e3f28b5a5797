"""Weight files on the disk: told by their content, read without running code; folders, shards, what is no weight file."""

import gzip
import os
import pickle
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.base.files import write_json
from common.base.runtime import UserError
from common.encoders.weights.files import read_content, weight_files
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import read_network


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # default initial values, biases included, depend on it
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int = 1) -> dict[str, torch.Tensor]:
    return network(seed).state_dict()


# --- what a file is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ""])
@pytest.mark.parametrize("kind", ["torch", "torch of old", "safetensors"])
def test_a_file_is_told_by_its_content_not_by_its_name(tmp_path, kind, suffix, lazy):
    path = tmp_path / f"w{suffix}"
    if kind == "safetensors":
        save_file(state(), path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=kind == "torch")
    content = read_content(path, lazy=lazy)
    assert all(torch.equal(content[key], value) for key, value in state().items())


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")


PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"
NO_WEIGHTS = {
    "page": (lambda path: path.write_bytes(PAGE), r"it is a web page \(HTML\)"),
    "page after blanks": (lambda path: path.write_bytes(b"\xef\xbb\xbf \n<html>"), r"it is a web page \(HTML\)"),
    "lfs": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "it is a git-lfs pointer, .*: run git lfs pull",
    ),
    "text": (lambda path: path.write_text("not found\n"), "it is a text file, which begins with 'not found'"),
    "json": (lambda path: path.write_text('{"error": 404}'), "it is a text file"),
    "other zip": (zipped, r"it is a zip archive of something else, first readme\.txt"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"weights")), "it is a gzip archive: unpack it first"),
    "script": (
        lambda path: torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path)),
        "it is a TorchScript archive",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "it is a pickle that torch.save did not write"),
    "header": (lambda path: path.write_bytes((9).to_bytes(8, "little") + b'{"a": [1}' + bytes(4)), "header"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weight_file_is_named_in_one_line(tmp_path, kind, suffix):
    path = tmp_path / f"w{suffix}"
    write, complaint = NO_WEIGHTS[kind]
    write(path)
    with pytest.raises(UserError, match=complaint) as error:
        find_weights(str(path))
    assert str(error.value).startswith(f"{path}: not a weight file that can be read safely")
    assert not {"\n", "\x1b"} & set(str(error.value))


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
        read_content(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 100, bytes(range(256)) * 4], ids=["empty", "text", "zeros", "bytes"]
)
def test_damaged_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"w\{suffix}: not a weight file that can be read safely \(.+\)"):
        read_content(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(state(), path) if suffix == ".pth" else save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"w\{suffix}: not a weight file"):
        read_content(path)


@pytest.mark.parametrize(
    ("value", "name"),
    # its module is another one in Python 3.13
    [
        (PurePosixPath("/x"), f"{PurePosixPath.__module__}.PurePosixPath"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
    ids=["path", "module"],
)
def test_a_blocked_class_is_named_in_one_sentence(tmp_path, value, name):
    torch.save({"state_dict": state(), "extra": value}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"building it needs {name}, and no code of a file is run") as error:
        read_content(tmp_path / "w.pth")
    assert not {"\n", "\x1b"} & set(str(error.value))


def test_numbers_of_numpy_beside_the_weights_are_passed_over(tmp_path):
    beside = {"best": np.float64(0.5), "epoch": np.int64(3), "flag": np.bool_(True), "curve": np.arange(3.0)}
    torch.save({"state_dict": state(), "meta": beside}, tmp_path / "w.pth")
    content = read_content(tmp_path / "w.pth")
    assert torch.equal(content["state_dict"]["0.weight"], state()["0.weight"])
    assert not any(isinstance(value, np.ndarray | np.generic) for value in content["meta"].values())


def test_objects_inside_arrays_of_numpy_are_refused_like_any_other(tmp_path):
    trace = tmp_path / "attacked"
    torch.save({"state_dict": state(), "array": np.array([Attack(trace)], dtype=object)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="building it needs"):
        read_content(tmp_path / "w.pth")
    assert not trace.exists()


def test_a_pipe_is_neither_a_file_nor_a_folder(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        find_weights(str(tmp_path / "w.pth"))


# --- folders ------------------------------------------------------------------------------------------------------


def test_shards_are_read_by_their_index(tmp_path):
    whole = state()
    parts = {"model-00001-of-00002.safetensors": list(whole)[:4], "model-00002-of-00002.safetensors": list(whole)[4:]}
    for name, keys in parts.items():
        save_file({key: whole[key] for key in keys}, tmp_path / name)
    index = {key: name for name, keys in parts.items() for key in keys}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": index})
    read = read_network(tmp_path).state
    assert all(torch.equal(read[key], value) for key, value in whole.items())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="1 of 2 shards are missing, first model-00002-of-00002"):
        read_network(tmp_path)


def test_safetensors_come_first(tmp_path):
    save_file(state(1), tmp_path / "model.safetensors")
    torch.save(state(2), tmp_path / "pytorch_model.bin")
    assert torch.equal(read_network(tmp_path).state["0.weight"], state(1)["0.weight"])


def test_one_file_of_any_name_will_do_but_not_two(tmp_path):
    torch.save(state(), tmp_path / "checkpoint.pth")
    (tmp_path / "._checkpoint.pth").write_bytes(b"\x00\x05\x16\x07")  # of macOS, beside the file
    assert weight_files(tmp_path) == [tmp_path / "checkpoint.pth"]
    torch.save(state(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"expected model\.safetensors .* or one weight file; found neither"):
        weight_files(tmp_path)


@pytest.mark.parametrize("beside", ["optimizer.bin", "scheduler.bin", "training_args.bin", "random_states_0.bin"])
def test_what_training_writes_beside_the_weights_is_no_weight_file(tmp_path, beside):
    torch.save(state(), tmp_path / "weights.bin")
    torch.save({"state": {}}, tmp_path / beside)
    assert weight_files(tmp_path) == [tmp_path / "weights.bin"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("__0_0.distcp", r"torch\.distributed\.checkpoint.*dcp_to_torch"),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", r"DeepSpeed.*zero_to_fp32\.py"),
        ("readme.txt", r"found neither \(in it: readme\.txt\)"),
    ],
)
def test_a_folder_without_whole_weights_says_how_to_join_them(tmp_path, name, complaint):
    (tmp_path / name).write_bytes(b"part")
    with pytest.raises(UserError, match=complaint):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "name", ["../w.safetensors", "/w.safetensors", "a/../../w.safetensors", "..\\w.safetensors", "C:\\w", ""]
)
def test_an_index_names_files_inside_its_own_folder_only(tmp_path, name):
    save_file(state(), tmp_path / "w.safetensors")
    (tmp_path / "weights").mkdir()
    write_json(tmp_path / "weights" / "model.safetensors.index.json", {"weight_map": {"0.weight": name}})
    with pytest.raises(UserError, match="which is outside its own folder"):
        weight_files(tmp_path / "weights")


@pytest.mark.parametrize("content", [{}, [], {"weight_map": {}}, {"weight_map": {"a": 3}}, {"weight_map": "a"}])
def test_an_index_of_nothing_is_refused(tmp_path, content):
    write_json(tmp_path / "model.safetensors.index.json", content)
    with pytest.raises(UserError, match=r"index\.json: expected 'weight_map'"):
        weight_files(tmp_path)


def test_an_index_of_torch_files_is_read(tmp_path):
    whole = state()
    for number, keys in enumerate((list(whole)[:4], list(whole)[4:])):
        torch.save({key: whole[key] for key in keys}, tmp_path / f"part{number}.bin")
    index = {key: f"part{int(place >= 4)}.bin" for place, key in enumerate(whole)}
    write_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": index})
    assert read_content(tmp_path).keys() == whole.keys()
    with pytest.raises(UserError, match="it is the index of a folder of weights: name the folder"):
        read_content(tmp_path / "pytorch_model.bin.index.json")


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The archive at `path` with each member's bytes as `change(name, content)` gives them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


@pytest.mark.parametrize("lazy", [False, True])
def test_values_that_are_not_in_the_file_are_never_taken_from_beside(tmp_path, lazy):
    """A member that is empty or short would be mapped all the same, with what follows it for its values."""
    path = tmp_path / "weights.pth"
    for keep in (0, 8):
        torch.save({"a": torch.ones(64), "b": torch.zeros(64)}, path)
        rewritten(path, lambda name, content, keep=keep: content[:keep] if name.endswith("data/0") else content)
        with pytest.raises(UserError, match=r"weights\.pth"):
            read_content(path, lazy=lazy)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_flipped_bit_of_a_value_is_found_by_its_checksum(tmp_path, caplog, lazy):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(4096)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes()) + 100] ^= 16
    path.write_bytes(content)
    read_content(path, lazy=lazy)
    assert "weights.pth: the content of weights/data/0 is not what its checksum is of" in caplog.text


@pytest.mark.parametrize("lazy", [False, True])
def test_a_packed_archive_is_read_as_a_plain_one(tmp_path, lazy):
    """Mapped, its packed bytes would be taken for values."""
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    content = read_content(path, lazy=lazy)
    assert all(torch.equal(content[key], value) for key, value in state().items())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_mapping_may_hold_itself(tmp_path, lazy):
    whole = {"model": torch.ones(4)}
    whole["whole"] = whole
    torch.save(whole, tmp_path / "weights.pth")
    content = read_content(tmp_path / "weights.pth", lazy=lazy)
    assert torch.equal(content["whole"]["whole"]["model"], torch.ones(4))

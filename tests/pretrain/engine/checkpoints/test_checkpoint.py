"""Checkpoints: read without running code, refused when damaged, never half written."""

import pytest
import torch

from common.base.runtime import UserError
from pretrain.engine.checkpoints.checkpoint import newest_checkpoint, read_checkpoint, restore_training, state_of
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.step import TrainingStep
from tests.pretrain.engine.toy import ALONE, OPTIONS, ToyMethod, train_toy


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    train_toy(tmp_path)
    return RunFolder(tmp_path)


def load(path, method):
    options = OPTIONS.completed(on_gpu=False, world_size=1)
    step = TrainingStep(method, method.schedules(6), options, ALONE)
    return restore_training(path, method, step.optimizer, ALONE), step


def test_a_checkpoint_holds_tensors_by_name_and_plain_values(folder):
    content = torch.load(folder.final, weights_only=True)
    assert content["model"].keys() == ToyMethod().state_dict().keys()
    assert content["model"]["calls"] == 6
    assert set(content["optimizer"]["state"]) == {name for name, _ in ToyMethod().student.named_parameters("student")}
    state = state_of(content, folder.final)
    assert (state.recipe, state.step, state.samples, state.total_steps, state.skipped) == ("toy", 6, 24, 6, 0)
    assert state.config["model"] == "dinov3-tiny"


def test_everything_comes_back(folder):
    method = ToyMethod()
    state, step = load(folder.final, method)
    content = read_checkpoint(folder.final)
    assert state == state_of(content, folder.final)
    for name, value in method.state_dict().items():
        assert torch.equal(value, content["model"][name])
    weight = method.student["head"].weight
    moments = content["optimizer"]["state"]["student.head.weight"]
    found = step.optimizer.state[weight]
    assert all(torch.equal(found[key], moments[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert found["step"] == 6


def test_a_damaged_file_is_named(folder):
    path = folder.step_file(4)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(
        UserError, match=r"step_000004.pt: damaged or unsafe checkpoint .*delete it to resume from the one"
    ):
        read_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"format": 1, "model": print}, tmp_path / "final.pt")
    with pytest.raises(UserError, match="damaged or unsafe"):
        read_checkpoint(tmp_path / "final.pt")


def test_another_file_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "final.pt")
    with pytest.raises(UserError, match="not a checkpoint of this training"):
        read_checkpoint(tmp_path / "final.pt")


def test_another_method_is_refused(folder):
    method = ToyMethod()
    method.student["head"] = torch.nn.Linear(8, 9)
    method.teacher["head"] = torch.nn.Linear(8, 9)
    with pytest.raises(UserError, match=r"final.pt: this checkpoint is of another model or recipe \(.*give --output"):
        load(folder.final, method)


def test_a_save_that_is_cut_off_leaves_the_one_before(tmp_path, monkeypatch):
    """As when the disk is full, or the process is killed: the name is given last."""

    def half(content, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    train_toy(tmp_path, max_steps=4)
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        train_toy(tmp_path, max_steps=8)
    assert newest_checkpoint(RunFolder(tmp_path)) == tmp_path / "final.pt"
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_process_left_half_written_is_not_read_and_goes_away(folder):
    partial = folder.root / ".step_000009.abc.partial.pt"
    partial.write_bytes(b"half")
    assert newest_checkpoint(folder) == folder.final
    train_toy(folder.root, max_steps=7)
    assert not partial.exists()


def test_the_newest_is_the_one_with_most_steps(folder):
    assert newest_checkpoint(folder) == folder.final
    folder.step_file(7).write_bytes(b"not looked into")
    assert newest_checkpoint(folder) == folder.step_file(7)
    assert newest_checkpoint(RunFolder(folder.root / "empty")) is None


@pytest.mark.parametrize(
    ("protected", "kept"), [(None, [40, 50]), (25, [20, 40, 50]), (30, [30, 40, 50]), (5, [40, 50]), (45, [40, 50])]
)
def test_pruning_keeps_the_last_and_the_protected(tmp_path, protected, kept):
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30, 40, 50):
        folder.step_file(step).touch()
    (tmp_path / "step_notes.pt").touch()
    folder.prune(2, protected)
    assert list(folder.step_files()) == kept
    assert (tmp_path / "step_notes.pt").exists()

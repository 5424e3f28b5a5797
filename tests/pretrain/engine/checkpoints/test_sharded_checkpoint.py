"""Checkpoints in parts: read by any number of processes, whole or not taken for it, and what stays is written once."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from common.base.runtime import UserError
from pretrain.engine.checkpoints.checkpoint import newest_checkpoint, state_of
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.checkpoints.sharded_checkpoint import COMPLETE, is_complete, partial_of, read_complete
from pretrain.engine.distributed import Processes
from pretrain.engine.reporting import read_metrics
from tests.pretrain.engine.toy import ALONE, OPTIONS, ToyMethod, train_toy

EXPORT = "export/model.safetensors"


def here() -> Processes:
    return Processes(dist.get_rank(), 2, torch.device("cpu")) if dist.is_initialized() else ALONE


class Anchored(ToyMethod):
    """With a part that stays as it is, and is no teacher."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Linear(8, 8).requires_grad_(False)
        with torch.no_grad():
            self.anchor.weight.copy_(torch.eye(8))
            self.anchor.bias.zero_()


def losses(folder):
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]


class Constant(ToyMethod):
    """Whose rate does not depend on how long it is trained."""

    def learning_rate(self, total_steps):
        return super().learning_rate(6)


def part(folder, steps) -> int:
    shards = {"sharding": "fsdp", "batch_size": 2} if dist.is_initialized() else {"batch_size": 4}
    return train_toy(folder, Constant(), here(), max_steps=steps, save_every=1, **shards)


def test_two_then_one_then_two_processes_are_one_training(two, tmp_path):
    assert two(part, tmp_path / "parts", 2) == [0, 0]
    assert is_complete(tmp_path / "parts" / "final")
    assert part(tmp_path / "parts", 4) == 0
    assert (tmp_path / "parts" / "final.pt").is_file()
    assert two(part, tmp_path / "parts", 6) == [0, 0]
    assert part(tmp_path / "whole", 6) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    one, other = (load_file(tmp_path / name / EXPORT) for name in ("parts", "whole"))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


def test_a_file_of_one_process_is_taken_up_by_shards(two, tmp_path):
    assert part(tmp_path, 3) == 0
    assert two(part, tmp_path, 4) == [0, 0]
    assert len(losses(tmp_path)) == 4


def test_what_is_complete_says_so_last_and_holds_no_pickle(two, tmp_path):
    two(part, tmp_path, 2)
    final = tmp_path / "final"
    content = read_complete(final)
    assert content["files"].keys() == {path.name for path in final.iterdir()} - {COMPLETE}
    assert {path.suffix for path in final.iterdir()} == {".safetensors", ".json"}
    assert state_of(content["state"], final).step == 2


def test_a_folder_that_was_not_finished_is_no_checkpoint_and_goes(two, tmp_path):
    two(part, tmp_path, 2)
    folder = RunFolder(tmp_path)
    (tmp_path / "step_000007").mkdir()
    partial_of(tmp_path / "step_000008").mkdir()
    assert newest_checkpoint(folder) == tmp_path / "final"
    folder.remove_partial()
    assert not partial_of(tmp_path / "step_000008").exists()


def damaged(folder) -> str:
    try:
        return str(part(folder, 4))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda final, file: file.write_bytes(file.read_bytes()[:-1] + b"x"), "expected the SHA-256 that complete.json says, found another"),
        (lambda final, file: file.unlink(), "of this checkpoint, and not there"),
        (lambda final, file: (final / COMPLETE).write_text("{}"), "complete.json: not a checkpoint of this training"),
        (lambda final, file: (final / COMPLETE).write_text('{"format": 1, "state": {}, "files": {"../x": "0"}}'), "outside its own folder|not the state of a training"),
    ],
    ids=["byte", "file", "record", "path"],
)  # fmt: skip
def test_a_damaged_part_is_named_by_all(two, tmp_path, change, message):
    two(part, tmp_path, 2)
    final = tmp_path / "final"
    change(final, sorted(final.glob("shard-*"))[0])
    first, second = two(damaged, tmp_path)
    assert any(pattern in first for pattern in message.split("|"))
    assert "complete.json" in second or "final" in second


def anchored(folder) -> int:
    return train_toy(folder, Anchored(), here(), max_steps=3, save_every=1, sharding="fsdp", batch_size=2)


def anchor_after_resuming(folder) -> list[float]:
    method = Anchored()
    with torch.no_grad():
        method.anchor.weight.fill_(7)  # which the checkpoint is to put right
    train_toy(folder, method, here(), max_steps=4, save_every=1, sharding="fsdp", batch_size=2)
    return method.anchor.weight.full_tensor().flatten().tolist()


def test_what_never_changes_is_written_once(two, tmp_path):
    two(anchored, tmp_path)
    named = {name for file in (tmp_path / "frozen").glob("*.safetensors") for name in load_file(file)}
    assert named == {"model.anchor.weight", "model.anchor.bias"}
    for place in ("step_000002", "final"):
        names = {name for file in (tmp_path / place).glob("shard-*") for name in load_file(file)}
        assert not any("anchor" in name for name in names)
        assert any(name.startswith("optimizer.") for name in names)
    assert two(anchor_after_resuming, tmp_path)[0] == torch.eye(8).flatten().tolist()


PROGRAM = """
import logging, sys, time
from pathlib import Path
import pretrain.engine.checkpoints.sharded_checkpoint as sharded
from pretrain.engine.distributed import start_processes
from tests.pretrain.engine.checkpoints.test_sharded_checkpoint import part
hash_of = sharded.sha256_of_file
def slow(path):
    if sys.argv[2] == "slow" and ".step_000002.partial" in str(path):
        print("SAVING", flush=True)
        time.sleep(60)
    return hash_of(path)
sharded.sha256_of_file = slow
logging.basicConfig(level=logging.INFO)
with start_processes("cpu"):
    sys.exit(part(Path(sys.argv[1]), 4))
"""


@pytest.mark.slow
def test_killed_while_it_saves_in_the_background_it_goes_on_from_the_checkpoint_before(tmp_path, checkout):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(program),
        str(tmp_path / "run"),
    ]
    settings = {
        "cwd": checkout,
        "env": os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        "text": True,
    }
    killed = subprocess.Popen([*words, "slow"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **settings)
    assert any("SAVING" in line for line in killed.stdout)
    everyone = [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]
    for process in everyone:
        process.kill()
    killed.wait()
    psutil.wait_procs(everyone, timeout=10)
    assert (tmp_path / "run" / ".step_000002.partial").is_dir()
    assert list(RunFolder(tmp_path / "run").step_files()) == [1]
    done = subprocess.run([*words, "quick"], capture_output=True, check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert "step_000001: resuming after step 1 of 4" in done.stderr
    assert sorted(path.name for path in (tmp_path / "run").glob(".*")) == []
    assert part(tmp_path / "whole", 4) == 0
    assert losses(tmp_path / "run")[-3:] == pytest.approx(losses(tmp_path / "whole")[-3:], abs=1e-6)


def test_the_plain_state_survives_as_json(tmp_path, two):
    two(part, tmp_path, 1)
    state = json.loads((tmp_path / "final" / COMPLETE).read_text())["state"]
    assert state["config"]["model"] == OPTIONS.model
    assert replace(OPTIONS, max_steps=1).max_steps == state["total_steps"]

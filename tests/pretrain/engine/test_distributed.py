"""Several processes do what one does: replicas, shards, accumulation, checkpoints that all of them read."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTLayer

from common.base.runtime import UserError
from pretrain.backbones import start_backbone
from pretrain.engine.checkpoints.checkpoint import TrainingState, restore_training, save_training, whole_model_state
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes, require_equal_start, start_processes
from pretrain.engine.export import export_backbone
from pretrain.engine.reporting import read_metrics
from pretrain.engine.step import TrainingStep
from pretrain.ssl_config import find_model
from tests.pretrain.engine.test_export import Bare
from tests.pretrain.engine.toy import ALONE, OPTIONS, ToyMethod, batches_of, train_toy

STEPS = 3


def here() -> Processes:
    """This process, alone or one of two."""
    return Processes(dist.get_rank(), 2, torch.device("cpu")) if dist.is_initialized() else ALONE


def state(world_size: int) -> TrainingState:
    return TrainingState("toy", {"model": "dinov3-tiny"}, 10, world_size, 1, {"source": "random"})


def trained(
    sharding,
    batch_size,
    accumulate=1,
    precision="fp32",
    saved=None,
    loaded=None,
    steps=STEPS,
    first=0,
    shard_nodes=None,
):
    """Numbers of each step, features, and the whole state after `steps` steps from step `first` on."""
    options = replace(
        OPTIONS, sharding=sharding, precision=precision, gradient_checkpointing="all", shard_nodes=shard_nodes
    )
    processes = here()
    method = ToyMethod()
    step = TrainingStep(method, method.schedules(10), options, processes)
    if loaded:
        restore_training(loaded, method, step.optimizer, processes)
    source = batches_of(processes, batch_size)(first * batch_size * accumulate * processes.world_size)
    numbers = [step(first + index, [next(source) for _ in range(accumulate)]) for index in range(steps)]
    features = step.features(next(batches_of(ALONE, 8)(0)))
    if saved:
        save_training(saved, state(processes.world_size), method, step.optimizer, processes)
    return numbers, features, whole_model_state(method)


def assert_same(one, other, rtol=1e-5):
    for found, expected in zip(one[0], other[0], strict=True):
        assert found == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(one[1], other[1], rtol=rtol, atol=rtol)
    assert one[2].keys() == other[2].keys()
    for name, value in one[2].items():
        torch.testing.assert_close(value, other[2][name], rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_are_one_on_the_concatenated_batch(two, sharding, accumulate):
    alone = trained("none", batch_size=4, accumulate=accumulate)
    first, second = two(trained, sharding, 2, accumulate)
    assert_same(first, alone)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


def sharded_within_a_node() -> tuple:
    """Two nodes of one process, as far as the launcher says: each holds a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_WORLD_SIZE", "1")
        return trained("fsdp", 2, 1, "fp32", None, None, STEPS, 0, 1)


def test_copies_that_are_sharded_within_a_node_are_replicas(two):
    alone = trained("none", batch_size=4)
    assert_same(two(sharded_within_a_node)[0], alone)


def three_nodes() -> str:
    try:
        return str(trained("fsdp", 2, shard_nodes=3))
    except UserError as error:
        return str(error)


def test_nodes_that_do_not_divide_into_groups_are_refused(two):
    assert "--shard_nodes 3: 2 processes do not divide into groups of 6" in two(three_nodes)[0]


def test_shards_are_replicas_in_bf16_too(two):
    replicas, shards = (two(trained, sharding, 2, 1, "bf16")[0] for sharding in ("ddp", "fsdp"))
    for found, expected in zip(shards[0], replicas[0], strict=True):
        assert found == pytest.approx(expected, rel=0.03)
    torch.testing.assert_close(shards[1], replicas[1], rtol=0.02, atol=0.02)
    assert {value.dtype for value in shards[2].values()} == {torch.float32}


def sharded_parameters() -> tuple[set[str], int]:
    options = replace(OPTIONS, sharding="fsdp", precision="fp32", gradient_checkpointing="none")
    method = ToyMethod()
    step = TrainingStep(method, method.schedules(10), options, here())
    step.features(next(batches_of(ALONE, 8)(0)))
    kinds = {type(parameter).__name__ for parameter in method.parameters()}
    return kinds, sum(parameter.to_local().numel() for parameter in method.parameters())


def test_a_process_keeps_half_of_student_and_teacher(two):
    total = sum(parameter.numel() for parameter in ToyMethod().parameters())
    for kinds, count in two(sharded_parameters):
        assert kinds == {"DTensor"}
        assert count == total // 2


@pytest.mark.parametrize("writer", ["none", "ddp", "fsdp"])
def test_every_way_reads_every_way_s_checkpoints(two, tmp_path, writer):
    path = tmp_path / "step_000002.pt"
    size = {"none": 4, "ddp": 2, "fsdp": 2}
    write = [writer, size[writer], 1, "fp32", path, None, 2]
    trained(*write) if writer == "none" else two(trained, *write)
    unbroken = trained("none", 4)
    rest = {way: [way, size[way], 1, "fp32", None, path, 1, 2] for way in size}
    continued = [trained(*rest["none"]), two(trained, *rest["ddp"])[0], two(trained, *rest["fsdp"])[0]]
    for found in continued:
        assert_same(found, (unbroken[0][2:], *unbroken[1:]))


def sharded_training(folder) -> int:
    return train_toy(folder, processes=here(), sharding="fsdp", batch_size=2, monitor_every=2)


def test_a_whole_sharded_training_writes_what_one_process_writes(two, tmp_path):
    assert two(sharded_training, tmp_path / "two") == [0, 0]
    assert train_toy(tmp_path / "one", monitor_every=2) == 0
    sharded, alone = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    timeless = [name for name in alone[-1] if name.startswith(("loss", "health/", "gradient_norm/", "monitor/"))]
    assert len(timeless) == 10
    for found, expected in zip(sharded, alone, strict=True):
        present = [name for name in timeless if name in expected]
        assert [found[name] for name in present] == pytest.approx([expected[name] for name in present], 1e-4, 1e-6)
    names = sorted(path.name for path in (tmp_path / "one" / "export").rglob("*"))
    assert names == sorted(path.name for path in (tmp_path / "two" / "export").rglob("*"))
    exports = [load_file(tmp_path / name / "export" / "model.safetensors") for name in ("one", "two")]
    for name, value in exports[0].items():
        torch.testing.assert_close(value, exports[1][name], rtol=1e-4, atol=1e-6)
    there = {name: sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")}
    assert there["one"] == ["export", "final.pt", "metrics.jsonl", "step_000002.pt", "step_000004.pt"]
    assert there["two"] == ["export", "final", "metrics.jsonl", "step_000002", "step_000004"]


def sharded_export(folder) -> dict[str, torch.Tensor]:
    """A transformers network, sharded block by block and exported; returns what the teacher was before."""
    backbone, _ = start_backbone(find_model("dinov3-tiny"), "random")
    method, processes = Bare(backbone), here()
    method.block_classes = (DINOv3ViTLayer,)
    before = {name: value.clone() for name, value in method.teacher["backbone"].state_dict().items()}
    options = replace(OPTIONS, sharding="fsdp", precision="fp32", gradient_checkpointing="none")
    TrainingStep(method, method.schedules(1), options, processes)
    tensors = whole_model_state(method)
    if processes.is_first:
        export_backbone(method, tensors, TrainingState("bare", options.to_json(), 1, 2, 1, {}), RunFolder(folder))
    return before


def test_a_sharded_transformers_network_is_exported_whole(two, tmp_path):
    before, _ = two(sharded_export, tmp_path)
    found, _ = start_backbone(find_model("dinov3-tiny"), str(tmp_path / "export"))
    assert found.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


def start_differently() -> str:
    torch.manual_seed(dist.get_rank())
    try:
        require_equal_start(torch.nn.Linear(2, 2), here())
    except RuntimeError as error:
        return str(error)
    return "nothing noticed"


def test_different_start_values_are_refused(two):
    assert all("built with different start values" in message for message in two(start_differently))


def test_one_process_needs_no_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with start_processes("cpu") as processes:
        assert (processes.rank, processes.world_size, processes.is_first) == (0, 1, True)
        assert processes.largest(2) == 2
        assert not dist.is_initialized()


@pytest.mark.slow
def test_half_an_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with (
        pytest.raises(UserError, match=r"LOCAL_RANK.* not set: start several processes with torchrun"),
        start_processes(),
    ):
        pass


@pytest.mark.slow
def test_torchrun_starts_two_processes(checkout, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.pretrain.engine.toy", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=checkout, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["samples"] == 6 * 4 * 2
    assert done.stderr.count("exported to") == 1

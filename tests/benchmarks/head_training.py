"""Training the published-size head: this project's loop against the usual one, in one run.

python -m tests.benchmarks.head_training [--num_frames 15000] [--feature_dim 2048] [--steps 5] [--repeats 3]
python -m tests.benchmarks.head_training --peer DIR               against sj-li/MS-TCN2's own `Trainer.train`, from its checkout
python -m tests.benchmarks.head_training --loops "plain fp32" asformer gru        the other heads, at their published sizes

Each loop runs in a process of its own on the same made feature files, the loops in turn, `--repeats` times; the table has the
median seconds of a step, frames per second, the most memory (of the device on a GPU), and the median of the ratios to the first
loop of the same turn with the least and the largest. `plain` restates the usual loop: batch 1, fp32, `np.load` at every step,
`nn.Conv1d`, `nn.Dropout`. `command` is a step of `common.train` itself, with all that it does besides in an epoch: what further epochs
add to the seconds of one, by their steps.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import train
from common.base import paths
from common.base.runtime import keep_freed_memory, peak_memory_bytes, select_device
from common.head.batch_gen import BatchGenerator, VideoFeatures, open_video
from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.networks.catalogue import DEFAULT_HEAD, HEADS
from common.head.training import TrainingLoop, adam, kept_as
from tests.benchmarks.made_set import ENCODER, make_dataset

FEW_FRAMES, FIXED_TURNS = 16, 5  # of what a step costs however short its video
NUM_VIDEOS, NUM_CLASSES, LAYERS, STAGES, MAPS = 2, 19, 13, 4, 64
PEER = "MS-TCN2's own"
COMMANDS = {"command fp32": "fp32", "command bf16": "bf16"}  # with their precision

# from the folder of the videos, the features' dimension and the device to what trains a step each time it is asked
Loop = Callable[[Path, int, torch.device], Iterator[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_frames", type=int, default=15_000)
    parser.add_argument("--feature_dim", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each loop, after a few that are not")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all loops (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument(
        "--loops",
        nargs="+",
        choices=(*LOOPS, *COMMANDS),
        default=DEFAULT_LOOPS,
        metavar="LOOP",
        help="of " + ", ".join((*LOOPS, *COMMANDS)),
    )
    parser.add_argument(
        "--peer", type=Path, metavar="DIR", help="checkout of sj-li/MS-TCN2, whose code is run as the first loop"
    )
    parser.add_argument("--json", type=Path, help="write the numbers of every turn to this file too")
    parser.add_argument("--loop", choices=(PEER, *COMMANDS, *LOOPS), help=argparse.SUPPRESS)
    parser.add_argument("--fixed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loop:
        device = select_device(given.device)
        if given.fixed:
            print(json.dumps(fixed_seconds(LOOPS[given.loop], given.feature_dim, given.steps, device)))
            return
        if given.loop == PEER:
            times = peer_times(given.folder, given.feature_dim, given.steps, device)
        elif given.loop in COMMANDS:
            times = command_times(COMMANDS[given.loop], given.folder, given.feature_dim, given.steps, given.device)
        else:
            times = loop_times(LOOPS[given.loop](given.folder, given.feature_dim, device), given.steps, device)
        peak_bytes = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory_bytes()
        print(json.dumps({"seconds": float(np.median(times)), "peak_bytes": peak_bytes}))
        return
    loops = [PEER, *given.loops] if given.peer else given.loops
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), given.num_frames, given.feature_dim)
        print(
            f"{given.num_frames} frames x {given.feature_dim} features, {given.device}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}"
        )
        turns = [{loop: run_alone(loop, folder, given) for loop in loops} for _ in range(given.repeats)]
    if given.json:
        given.json.write_text(json.dumps(turns, indent=2) + "\n", encoding="utf-8")
    print(f"{'loop':<18} {'s/step':>8} {'frames/s':>9} {'peak MB':>8}  time / {loops[0]}")
    for loop in loops:
        seconds = float(np.median([turn[loop]["seconds"] for turn in turns]))
        megabytes = max(turn[loop]["peak_bytes"] for turn in turns) / 1e6
        ratios = [turn[loop]["seconds"] / turn[loops[0]]["seconds"] for turn in turns]
        print(
            f"{loop:<18} {seconds:>8.3f} {given.num_frames / seconds:>9.0f} {megabytes:>8.0f}  {np.median(ratios):.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )


def run_alone(loop: str, folder: str, given: argparse.Namespace) -> dict[str, float]:
    """The numbers of one loop from a process of its own."""
    words = [sys.executable, os.path.abspath(__file__), "--loop", loop, "--folder", folder, "--device", given.device]
    words += ["--feature_dim", str(given.feature_dim), "--steps", str(given.steps)]
    surroundings = dict(os.environ)
    if loop == PEER:  # whose modules lie in its root
        surroundings["PYTHONPATH"] = os.pathsep.join(
            filter(None, (os.environ.get("PYTHONPATH"), str(given.peer.resolve())))
        )
    # its last line: a peer may print what it likes before
    return json.loads(
        subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=surroundings).stdout.splitlines()[-1]
    )


def make_videos(folder: Path, num_frames: int, feature_dim: int) -> None:
    """Random features and segment-like labels of `NUM_VIDEOS` videos."""
    for index in range(NUM_VIDEOS):
        random = np.random.default_rng(index)
        rows = random.standard_normal((num_frames, feature_dim), dtype=np.float32)
        np.save(folder / f"video{index}.npy", rows.T)  # a frame's vector contiguous, as feature files are
        np.save(
            folder / f"labels{index}.npy",
            np.repeat(random.integers(0, NUM_CLASSES, num_frames // 100 + 1), 100)[:num_frames],
        )


def loop_times(step: Iterator[None], num_steps: int, device: torch.device) -> list[float]:
    """Seconds of each of so many steps, reading included, after each video was read once."""
    for _ in range(NUM_VIDEOS + 1):
        next(step)
    times = []
    for _ in range(num_steps):
        started = time.perf_counter()
        next(step)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times


def fixed_seconds(loop: Loop, feature_dim: int, num_steps: int, device: torch.device) -> float:
    """What a step costs however few frames its video has: its operations' start, Python, the optimizer."""
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), FEW_FRAMES, feature_dim)
        step = loop(Path(folder), feature_dim, device)
        return float(np.median([loop_times(step, num_steps, device) for _ in range(FIXED_TURNS)]))


def peer_times(folder: Path, feature_dim: int, num_steps: int, device: torch.device) -> list[float]:
    """The same of sj-li/MS-TCN2's own `Trainer.train` on the same files, from one question for a further batch to the next."""
    if importlib.util.find_spec("loguru") is None:  # it only prints by it
        silent = types.SimpleNamespace(add=lambda *_, **__: None, info=lambda *_: None)
        sys.modules["loguru"] = types.SimpleNamespace(logger=silent)
    batch_gen, model = importlib.import_module("batch_gen"), importlib.import_module("model")
    asked = []

    class Batches(batch_gen.BatchGenerator):
        def has_next(self) -> bool:
            asked.append(time.perf_counter())
            return super().has_next()

    names = [f"video{index}.txt" for index in range(NUM_VIDEOS)]
    for index, name in enumerate(names):
        labels = np.load(folder / f"labels{index}.npy").tolist()
        (folder / name).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    (folder / "videos.bundle").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    actions = {str(number): number for number in range(NUM_CLASSES)}
    batches = Batches(NUM_CLASSES, actions, f"{folder}/", f"{folder}/", 1)
    batches.read_data(str(folder / "videos.bundle"))
    trainer = model.Trainer(LAYERS, LAYERS, STAGES, MAPS, feature_dim, NUM_CLASSES, f"{folder}/log", "1")
    num_epochs = 1 + -(-num_steps // NUM_VIDEOS)
    trainer.train(str(folder), batches, num_epochs, 1, 5e-4, device)
    # in each epoch one question more than steps; the first epoch is not timed
    epochs = np.array(asked).reshape(num_epochs, NUM_VIDEOS + 1)
    return np.diff(epochs[1:]).flatten().tolist()


def command_times(precision: str, folder: Path, feature_dim: int, num_steps: int, device: str) -> list[float]:
    """Seconds of a step of `common.train` on `NUM_VIDEOS` videos as long as the folder's, from runs of few and of more epochs."""
    root = folder / "command"
    os.environ["SICS155_ROOT"] = str(root)
    if not root.exists():  # half of its videos are for training
        num_frames = len(np.load(folder / "labels0.npy"))
        make_dataset(root / "data" / "made", 2 * NUM_VIDEOS, num_frames, feature_dim=feature_dim, folds=2)
        (root / "models" / ENCODER).mkdir(parents=True)
        shutil.copy(paths.CHECKOUT / "models" / ENCODER / "config.yaml", root / "models" / ENCODER)
    words = f"--dataset made --model {ENCODER} --split 1 --features_dim {feature_dim} --no-adaptive_mse".split()
    words += ["--precision", precision, "--device", device]
    more, seconds = -(-num_steps // NUM_VIDEOS), []
    for num_epochs in (1, 1, 1 + more):  # the first is not counted: it reads the files
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # it names its checkpoint
            train.main([*words, "--num_epochs", str(num_epochs)])
        seconds.append(time.perf_counter() - started)
    return [(seconds[2] - seconds[1]) / (more * NUM_VIDEOS)]


def ours(precision: str = "fp32", **head: object):
    """This project's loop: kept features, prefetched batches, seeded one-bit dropout, channels-last convolutions.

    `head`: settings of another one than MS-TCN++.
    """

    def steps(folder: Path, feature_dim: int, device: torch.device) -> Iterator[None]:
        keep_freed_memory()
        config = TrainConfig(features_dim=feature_dim, adaptive_mse=False, precision=precision, **head)
        network = build_head(config, NUM_CLASSES).to(device)
        loop = TrainingLoop(config, network, adam(config, network), None)
        videos = [labelled(folder, index, feature_dim) for index in range(NUM_VIDEOS)]
        batches = BatchGenerator(videos, config.bz, config.seed, dtype=kept_as(config), device=device)
        network.train()
        for epoch in range(10_000):
            for batch in batches.epoch(epoch):
                loop.step(batch)  # a GPU is waited for by who takes the time; the loss is read once an epoch
                yield

    return steps


def labelled(folder: Path, index: int, feature_dim: int) -> VideoFeatures:
    """One made video with its labels."""
    video = open_video(folder / f"video{index}.npy", feature_dim)
    video.target = np.load(folder / f"labels{index}.npy")
    return video


def plain(folder: Path, feature_dim: int, device: torch.device) -> Iterator[None]:
    """The usual loop, restated: everything is read and copied again at each step."""
    model = PlainHead(feature_dim).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    for step in range(10_000):
        features = np.load(folder / f"video{step % NUM_VIDEOS}.npy")
        target = torch.from_numpy(np.load(folder / f"labels{step % NUM_VIDEOS}.npy")).to(device)
        batch = torch.zeros(1, *features.shape)
        batch[0] = torch.from_numpy(features)
        batch = batch.to(device)
        loss = 0
        for logits in model(batch):
            loss = loss + F.cross_entropy(logits, target[None])
            log_p = F.log_softmax(logits, dim=1)
            change = F.mse_loss(log_p[:, :, 1:], log_p.detach()[:, :, :-1], reduction="none")
            loss = loss + 0.35 * change.clamp(0, 16).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # the usual loop prints its loss
        yield


class PlainHead(nn.Module):
    """MS-TCN++ as it is usually written."""

    def __init__(self, feature_dim: int):
        super().__init__()

        def dilated(exponents: range) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv1d(MAPS, MAPS, 3, padding=2**e, dilation=2**e) for e in exponents)

        self.first = nn.Conv1d(feature_dim, MAPS, 1)
        self.falling, self.rising = dilated(range(LAYERS - 1, -1, -1)), dilated(range(LAYERS))
        self.fusion = nn.ModuleList(nn.Conv1d(2 * MAPS, MAPS, 1) for _ in range(LAYERS))
        self.outputs = nn.ModuleList(nn.Conv1d(MAPS, NUM_CLASSES, 1) for _ in range(STAGES + 1))
        self.inputs = nn.ModuleList(nn.Conv1d(NUM_CLASSES, MAPS, 1) for _ in range(STAGES))
        self.stages = nn.ModuleList(dilated(range(LAYERS)) for _ in range(STAGES))
        self.mixers = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(MAPS, MAPS, 1) for _ in range(LAYERS)) for _ in range(STAGES)
        )
        self.dropout = nn.Dropout()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Logits of every stage, each `(1, num_classes, T)`, from `(1, feature_dim, T)`."""
        x = self.first(x)
        for falling, rising, fusion in zip(self.falling, self.rising, self.fusion, strict=True):
            x = x + self.dropout(F.relu(fusion(torch.cat([falling(x), rising(x)], dim=1))))
        logits = [self.outputs[0](x)]
        for entry, stage, mixers, output in zip(self.inputs, self.stages, self.mixers, self.outputs[1:], strict=True):
            x = entry(F.softmax(logits[-1], dim=1))
            for conv, mixer in zip(stage, mixers, strict=True):
                x = x + self.dropout(mixer(F.relu(conv(x))))
            logits.append(output(x))
        return logits


LOOPS = {
    "plain fp32": plain,
    "ours fp32": ours(),
    "ours bf16": ours("bf16"),
    **{name: ours(head=name) for name in HEADS if name != DEFAULT_HEAD},
    "asformer corrected": ours(head="asformer", head_options={"window": "corrected"}),
}
DEFAULT_LOOPS = ("plain fp32", "ours fp32", "ours bf16")

if __name__ == "__main__":
    main()

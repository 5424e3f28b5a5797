"""SIGKILL at random moments, again and again until all is done: the same bytes, no leftovers, no process alive.

KILLS=30 pytest tests/faults        kills of each command (default 3)
"""

import random
import shutil
import time

import pytest

from tests.faults.conftest import COMMANDS, KILLS, make_root

EXTRACT = COMMANDS["extract"]
SHARDS = [[*EXTRACT, "--shard", f"{number}/2"] for number in (1, 2)]
# commands of one piece of work, and the files that must be the same; times in records differ
WORK = {
    "extraction": ([EXTRACT], ["data/mini/features/*/*.npy"]),
    "two decoders": ([[*EXTRACT, "--num_decoders", "2"]], ["data/mini/features/*/*.npy"]),
    "two shards": (SHARDS, ["data/mini/features/*/*.npy"]),
    "head": ([COMMANDS["train_interrupted"], [*COMMANDS["train_interrupted"], "--action", "predict"]], ["models/*/results/**/*.npy"]),
    "folds": ([COMMANDS["run_k_folds"]], ["models/*/results/**/*.npy", "models/*/results/**/*.txt"]),
    "report": ([COMMANDS["report"]], ["comparison_results/per_video.csv"]),
    "stage 1": ([COMMANDS["pretrain"]], ["pretrain/checkpoints/ssl/*/export/model.safetensors"]),
    "stage 2": ([COMMANDS["finetune"]], ["pretrain/checkpoints/*/best_lora/*.safetensors"]),
}  # fmt: skip
INPUTS = {"head": "train_interrupted", "folds": "run_k_folds", "stage 2": "finetune"}
RESUMED = {"head": ["--resume"]}


@pytest.mark.slow
@pytest.mark.timeout(600 + 200 * KILLS)
@pytest.mark.parametrize("name", WORK)
def test_killed_at_any_moment_it_ends_the_same(name, tmp_path):
    commands, patterns = WORK[name]
    whole = make_root(tmp_path / "whole").with_input_of(INPUTS.get(name, name))
    started = time.monotonic()
    for words in commands:
        whole.run(words)
    seconds = (time.monotonic() - started) / len(commands)
    expected = whole.content(*patterns)
    assert expected

    def ends_the_same(root):
        for words in commands:
            root.run(words)
        assert root.content(*patterns) == expected
        assert root.leftovers() == []
        root.assert_quiet()
        shutil.rmtree(root.path)

    moments, kills, root = random.Random(name), 0, None
    while kills < KILLS:
        root = root or make_root(tmp_path / "killed").with_input_of(INPUTS.get(name, name))
        words = commands[kills % len(commands)] if name == "two shards" else commands[0]
        if root.kill([*words, *RESUMED.get(name, [])], moments.uniform(0.3, 1.0) * seconds):
            kills += 1
            root.assert_quiet()
        else:  # it is done: the next kills are of one that begins anew
            ends_the_same(root)
            root = None
    if root:
        ends_the_same(root)
    shutil.rmtree(tmp_path)

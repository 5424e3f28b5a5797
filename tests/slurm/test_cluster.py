"""The launch scripts under a real SLURM: two nodes on this machine."""

import os
import re
import sys

import pytest

from common.base import paths
from common.base.files import video_fingerprint
from common.dataset.kfold import make_folds, write_folds
from common.features.files import open_features
from common.features.shards import assign_videos
from pretrain.video_data.packed import read_packed_corpus, verify_shard
from tests.common.conftest import PHASES, SMALL_HEAD, MadeDataset

LENGTHS = {"BL_1": 40, "BL_2": 9, "BN_1": 25, "BN_2": 13, "SD_1": 31, "SD_2": 7, "SD_3": 18}
TASKS = 4

pytestmark = pytest.mark.slow


@pytest.fixture
def clips(workspace, make_clip, solid):
    labels = workspace / "data" / "clips" / "groundTruth"
    labels.mkdir(parents=True)
    for name, length in LENGTHS.items():
        make_clip(workspace / "data" / "clips" / "videos" / f"{name}.mp4", solid((20, 120, 220), length))
        (labels / f"{name}.txt").write_text("background\n" * length)
    return paths.dataset("clips")


def submit(cluster, checkout, logs, *words: str) -> int:
    """`sbatch` with the script's own settings, from the checkout; returns the job's exit code."""
    logs.mkdir(exist_ok=True)
    environment = {key: os.environ[key] for key in ("SICS155_ROOT",)} | {"PYTHON": sys.executable}
    done = cluster.run("sbatch", "--wait", f"--output={logs}/%a.out", *words, cwd=checkout, env=environment)
    assert "Submitted batch job" in done.stdout, done.stderr
    return done.returncode


def test_an_array_extracts_every_video_exactly_once(cluster, checkout, clips, tmp_path):
    logs = tmp_path / "logs"
    options = ("ColorHistogram", "--dataset", "clips", "--device", "cpu")
    assert submit(cluster, checkout, logs, f"--array=1-{TASKS}", "models/launch_extract.sh", *options) == 0
    features = clips.features("ColorHistogram")
    assert {name: open_features(features / f"{name}.npy").array.shape[1] for name in LENGTHS} == LENGTHS
    texts = [(logs / f"{task}.out").read_text() for task in range(1, TASKS + 1)]
    extracted = [int(re.search(r"(\d+) extracted, 0 already there, 0 failed", text)[1]) for text in texts]
    assert sum(extracted) == len(LENGTHS)  # all files are there, so none was made twice
    shares = assign_videos(paths.find_videos(clips.videos), TASKS)
    assert extracted == [len(names) for names in shares]
    for task, text in enumerate(texts, 1):
        assert f"shard {task} of {TASKS}" in text
        assert f"array task {task}" in text


def test_an_array_packs_every_video_exactly_once(cluster, checkout, clips, tmp_path):
    """The tasks write the same description of the folder, at the same time."""
    command = f"PYTHONPATH={checkout} {sys.executable} pretrain/pack_videos.py --videos clips --num_processes 0"
    assert submit(cluster, checkout, tmp_path / "logs", "--array=1-3", "--gres=none", "--wrap", command) == 0
    packed = read_packed_corpus(paths.packed_videos("clips"))
    assert set(packed.videos) == set(packed.shards()) == set(LENGTHS)
    assert {verify_shard(shard).entry.fingerprint for shard in packed.shards().values()} == {
        video_fingerprint(path) for path in clips.videos.iterdir()
    }
    texts = [(tmp_path / "logs" / f"{task}.out").read_text() for task in (1, 2, 3)]
    assert sum(int(re.search(r"clips: (\d+) packed in", text)[1]) for text in texts) == len(LENGTHS)


def test_a_failed_task_is_a_failed_job(cluster, checkout, clips, tmp_path):
    (clips.videos / "SD_9.mp4").write_bytes(b"not a video")
    options = ("ColorHistogram", "--dataset", "clips", "--device", "cpu")
    assert submit(cluster, checkout, tmp_path / "logs", "--gres=none", "models/launch_extract.sh", *options) == 1
    (log,) = (tmp_path / "logs").glob("*.out")
    assert "SD_9" in log.read_text()
    assert sum(1 for _ in clips.features("ColorHistogram").glob("*.npy")) == len(LENGTHS)


@pytest.fixture
def made(workspace):
    """Features of `ColorHistogram` and labels of four videos, in two folds."""
    root = workspace / "data" / "made"
    root.mkdir()
    (root / "mapping.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    result = MadeDataset(paths.Dataset(root))
    names = ["BL_1", "BL_2", "SD_1", "SD_2"]
    for seed, name in enumerate(names):
        result.write_video(name, seed)
    write_folds(result.dataset, make_folds(names, 2), seed=42, stratify="prefix", patients={})
    return result


def test_an_array_runs_one_fold_a_task(cluster, checkout, made, tmp_path):
    head = [word for key, value in SMALL_HEAD.items() for word in (f"--{key}", str(value))]
    options = ("ColorHistogram", "--dataset", "made", "--device", "cpu", "--folds", "2", *head)
    assert submit(cluster, checkout, tmp_path / "logs", "--array=1-2", "models/launch_kfold.sh", *options) == 0
    results = paths.model("ColorHistogram").results("made")
    assert sorted(path.parent.name for path in results.glob("*/run.json")) == ["split_1", "split_2"]
    predicted = [path.stem for path in results.glob("*/*_?.txt")]
    assert sorted(predicted) == ["BL_1", "BL_2", "SD_1", "SD_2"]
    for task in (1, 2):
        assert f"ColorHistogram made split {task}: " in (tmp_path / "logs" / f"{task}.out").read_text()

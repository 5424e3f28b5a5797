"""Shares of a job array: what is asked for, what SLURM says, and who gets which video."""

import random

import pytest

from common.base.runtime import UserError
from common.features.shards import assign, assign_videos, parse_shard, shard_from_environment

# --- which share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("1/1", (1, 1)), ("2/8", (2, 8)), (" 8/8 ", (8, 8))])
def test_a_share_counts_from_one(text, expected):
    assert parse_shard(text) == expected


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "-1/8", "2", "2/", "/8", "2/8/1", "a/b", "", "1.0/2", "²/8"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"i/n.*2/8"):
        parse_shard(text)


def slurm(task, first, last, count, step=1) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in values.items()}


def test_outside_an_array_there_is_no_share(monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert shard_from_environment() is None
    assert shard_from_environment({"SLURM_JOB_ID": "17"}) is None


@pytest.mark.parametrize(
    ("tasks", "step"),
    [(range(1, 9), 1), (range(0, 8), 1), (range(5, 8), 1), (range(0, 15, 2), 2), ([7], 1), ([1, 3, 5], 1)],
    ids=["1-8", "0-7", "5-7", "0-14:2", "7", "1,3,5"],
)
def test_the_tasks_of_an_array_are_the_shares_one_to_n(tasks, step):
    tasks = list(tasks)
    shares = [shard_from_environment(slurm(task, tasks[0], tasks[-1], len(tasks), step)) for task in tasks]
    assert shares == [(index, len(tasks)) for index in range(1, len(tasks) + 1)]


def test_the_environment_of_the_process_is_read(monkeypatch):
    for key, value in slurm(3, 1, 8, 8).items():
        monkeypatch.setenv(key, value)
    assert shard_from_environment() == (3, 8)


@pytest.mark.parametrize("task", [1, 2, 7])
def test_an_array_with_gaps_is_refused(task):
    with pytest.raises(UserError, match="gaps"):
        shard_from_environment(slurm(task, 1, 8, 4))  # --array=1,2,7,8


@pytest.mark.parametrize("damage", [{"SLURM_ARRAY_TASK_COUNT": "many"}, {"SLURM_ARRAY_TASK_ID": "x"}])
def test_an_unreadable_environment_says_to_give_the_share(damage):
    with pytest.raises(UserError, match="--shard"):
        shard_from_environment(slurm(1, 1, 8, 8) | damage)


# --- who gets which ------------------------------------------------------------------------------------------------


def lengths(num_videos: int, seed: int) -> dict[str, int]:
    source = random.Random(seed)
    return {f"BL_{index:04}": source.randint(1, 60_000) for index in range(num_videos)}


@pytest.mark.parametrize("num_shards", [1, 2, 7, 8, 155, 200])
def test_every_video_is_in_exactly_one_shard(num_shards):
    frames = lengths(155, num_shards)
    shards = assign(frames, num_shards)
    assert len(shards) == num_shards
    assert sorted(name for shard in shards for name in shard) == sorted(frames)


@pytest.mark.parametrize("num_shards", [2, 5, 8, 16])
@pytest.mark.parametrize("seed", range(5))
def test_shards_differ_by_at_most_one_video(num_shards, seed):
    frames = lengths(155, seed)
    loads = [sum(frames[name] for name in shard) for shard in assign(frames, num_shards)]
    assert max(loads) - min(loads) <= max(frames.values())
    assert max(loads) <= 4 / 3 * max(sum(frames.values()) / num_shards, max(frames.values()))


def test_frames_are_balanced_not_videos():
    frames = {"long": 1000, **{f"short_{index}": 100 for index in range(10)}}
    assert assign(frames, 2) == [["long"], [f"short_{index}" for index in range(10)]]


def test_the_assignment_depends_on_names_and_counts_only():
    frames = lengths(40, 0) | {"tie_a": 5, "tie_b": 5, "tie_c": 5}
    expected = assign(frames, 6)
    for seed in range(5):
        items = list(frames.items())
        random.Random(seed).shuffle(items)
        assert assign(dict(items), 6) == expected


def test_no_videos_give_empty_shards():
    assert assign({}, 3) == [[], [], []]


def test_files_are_shared_out_by_their_frames(make_clip, solid, tmp_path):
    frames = {"a": 8, "b": 30, "c": 10, "d": 12}
    videos = {name: make_clip(tmp_path / f"{name}.mp4", solid((9, 9, 9), count)) for name, count in frames.items()}
    assert assign_videos(videos, 2) == [["b"], ["a", "c", "d"]]

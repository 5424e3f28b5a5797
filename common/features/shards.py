"""Videos to the tasks of a job array, balanced by frames; every task computes the same assignment for itself."""

import heapq
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common.base.runtime import UserError
from common.features.config import ExtractionConfig
from common.video.probe import estimate_frames

log = logging.getLogger(__name__)


def parse_shard(text: str) -> tuple[int, int]:
    """`"2/8"` as `(2, 8)`: share 2 of 8, counted from 1.

    Raises `UserError` for anything else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if match:
        index, count = int(match[1]), int(match[2])
        if 1 <= index <= count:
            return index, count
    raise UserError(f"--shard {text!r}: expected i/n with 1 <= i <= n, such as 2/8 for the second of eight shares")


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """The share `(i, n)` of this task of a SLURM job array; None outside an array.

    Arrays may start anywhere and have a step (`--array=0-14:2`). Raises `UserError` for an array with gaps.
    """
    if not environment.get("SLURM_ARRAY_TASK_ID"):
        return None
    try:
        task = int(environment["SLURM_ARRAY_TASK_ID"])
        first = int(environment["SLURM_ARRAY_TASK_MIN"])
        last = int(environment["SLURM_ARRAY_TASK_MAX"])
        count = int(environment["SLURM_ARRAY_TASK_COUNT"])
    except (KeyError, ValueError) as error:
        raise UserError(f"SLURM array: cannot read {error} from the environment; give --shard i/n instead") from error
    # not SLURM_ARRAY_TASK_STEP, which is 1 for an array given as a list (`--array=1,3,5`)
    step, rest = divmod(last - first, count - 1) if count > 1 else (1, 0)
    if rest or not step or not first <= task <= last or (task - first) % step:
        raise UserError(
            f"SLURM array of {count} tasks from {first} to {last} has gaps, so the shares are unclear; use an even "
            "range such as --array=1-8, or give --shard i/n"
        )
    return (task - first) // step + 1, count


def assign(frames: Mapping[str, int], num_shards: int) -> list[list[str]]:
    """Split videos into `num_shards` lists of names with about equal sums of `frames`, every name in exactly one.

    The longest goes first to the shard with the least so far, which is at most 4/3 of the best possible (Graham, 1969).
    Depends on names and counts only, not on their order.
    """
    shards: list[list[str]] = [[] for _ in range(num_shards)]
    loads = [(0, index) for index in range(num_shards)]
    for name in sorted(frames, key=lambda name: (-frames[name], name)):
        load, index = heapq.heappop(loads)
        shards[index].append(name)
        heapq.heappush(loads, (load + frames[name], index))
    return [sorted(names) for names in shards]


def assign_videos(videos: Mapping[str, Path], num_shards: int) -> list[list[str]]:
    """`assign` for video files by the frames that `estimate_frames` expects of them."""
    return assign(estimate_frames(videos), num_shards)


def with_task_shard(config: ExtractionConfig) -> ExtractionConfig:
    """`config` with the share of this task of a SLURM job array, where it names none itself."""
    own = shard_from_environment() if config.shard is None else None
    return replace(config, shard=f"{own[0]}/{own[1]}") if own else config


def own_share(videos: Mapping[str, Path], shard: str) -> dict[str, Path]:
    """The videos of share `i/n`, balanced by frames. Raises `UserError` for what is no share."""
    index, count = parse_shard(shard)
    names = assign_videos(videos, count)[index - 1]
    log.info("shard %d of %d: %d of %d videos", index, count, len(names), len(videos))
    return {name: videos[name] for name in names}

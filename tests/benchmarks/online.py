"""A head with state against the usual way, which runs the whole video so far for each new frame; its memory over hours.

python -m tests.benchmarks.online [--hours 2] [--num_frames 15000] [--feature_dim 2048]

Heads of published size with initial weights on made features, one thread: milliseconds a frame of the head with state, and of one run of
PyTorch over a prefix of `--num_frames`. With EfficientNet-Lite0 (its real weights) the whole way of a frame of a made video, decoding
included. Memory is that of the process at every tenth of the hours of features at 25 a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from common.base import paths
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.live.online import online_head
from common.video.decode import decode
from common.video.preprocess import resize
from tests.conftest import write_clip

NUM_CLASSES, RATE = 19, 25
WARM_UP, TIMED = 300, 1500  # frames
HEADS = {
    "mstcn++ --causal": {"causal": True},
    "mstcn++ --lookahead, 300 frames": {"lookahead": 12.0, "lookahead_frames": 300},
    "tecno": {"head": "tecno"},
    "gru --causal": {"head": "gru", "causal": True},
    "linear": {"head": "linear", "causal": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument(
        "--num_frames", type=int, default=15_000, help="of the prefix that is run anew (default: %(default)s)"
    )
    parser.add_argument("--feature_dim", type=int, default=2048)
    given = parser.parse_args()
    torch.set_num_threads(1)
    features = np.random.default_rng(0).normal(size=(4096, given.feature_dim)).astype(np.float32)
    print(f"{'head':<34} {'ms a frame':>10} {'whole prefix, ms':>17} {'ratio':>8} {'state, MB':>10}")
    for name, settings in HEADS.items():
        head = build_head(TrainConfig(features_dim=given.feature_dim, **settings), NUM_CLASSES).eval()
        online = online_head(head)
        for feature in features[:WARM_UP]:
            online.push(feature)
        started = time.perf_counter()
        for index in range(TIMED):
            online.push(features[index % len(features)])
        each = (time.perf_counter() - started) / TIMED
        whole = seconds_of_prefix(head, features, given.num_frames)
        print(
            f"{name:<34} {1e3 * each:>10.3f} {1e3 * whole:>17.0f} {whole / each:>8.0f} {online.state_bytes / 1e6:>10.1f}"
        )
    with_encoder()
    memory_over(given.hours, features)


@torch.inference_mode()
def seconds_of_prefix(head: torch.nn.Module, features: np.ndarray, num_frames: int) -> float:
    """Of one run over so many frames, the second of two."""
    x = torch.from_numpy(np.resize(features, (num_frames, features.shape[1])).T[None].copy())
    for _ in range(2):
        started = time.perf_counter()
        head(x)
        seconds = time.perf_counter() - started
    return seconds


def with_encoder() -> None:
    """A frame's way from the file to its phase."""
    encoder = build_encoder(read_encoder_config(paths.CHECKOUT / "models" / "EfficientNet-Lite0" / "config.yaml"))
    encoder.prepare(torch.device("cpu"))
    online = online_head(build_head(TrainConfig(features_dim=encoder.feature_dim, causal=True), NUM_CLASSES).eval())
    spent = dict.fromkeys(("decode", "resize", "encoder", "head"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        frames = np.random.default_rng(1).integers(0, 255, (8, 540, 960, 3), dtype=np.uint8)
        frames = frames[:, ::20, ::20].repeat(20, axis=1).repeat(20, axis=2)[:, :540, :960]
        video = write_clip(
            Path(folder) / "made.mp4", [frames[index % 8] for index in range(120)], options={"crf": "23"}
        )
        count, moment = 0, time.perf_counter()

        def lap(part: str) -> None:
            nonlocal moment
            now = time.perf_counter()
            spent[part] += now - moment
            moment = now

        for frame in decode(video):
            lap("decode")
            pixels = resize(torch.from_numpy(frame.image)[None], encoder.preprocessing)
            lap("resize")
            feature = encoder.encode(pixels)[0].numpy()
            lap("encoder")
            online.push(feature)
            lap("head")
            count += 1
    parts = ", ".join(f"{part} {1e3 * seconds / count:.2f}" for part, seconds in spent.items())
    print(
        f"a frame of 960 x 540 with EfficientNet-Lite0, ms: {parts}; together {1e3 * sum(spent.values()) / count:.1f}"
    )


def memory_over(hours: float, features: np.ndarray) -> None:
    """Memory of the process while made features go through the head."""
    online = online_head(build_head(TrainConfig(features_dim=features.shape[1], causal=True), NUM_CLASSES).eval())
    process, marks = psutil.Process(), []
    num_frames = int(hours * 3600 * RATE)
    for index in range(num_frames):
        online.push(features[index % len(features)])
        if index % max(1, num_frames // 10) == 0:
            marks.append(process.memory_info().rss / 1e6)
    marks.append(process.memory_info().rss / 1e6)
    print(f"{hours:g} hours, {num_frames:,} features: MB at each tenth: {', '.join(f'{mark:.0f}' for mark in marks)}")
    print(f"from the first tenth to the end: {marks[-1] - marks[1]:+.1f} MB")


if __name__ == "__main__":
    main()

"""Peak memory of an extraction against the length of the video: it is bounded by the queue, not by the video.

python -m tests.benchmarks.extraction_memory [--minutes 1 10] [--decoder pyav]

Each made 720p 30 fps video runs in a process of its own, through an encoder of almost no cost with 4,095 float16
features a frame (as many as the largest encoder's). Prints what the process needed beyond the ready encoder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import psutil
import torch

from common.base import paths
from common.base.runtime import keep_freed_memory, peak_memory_bytes
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.features.config import ExtractionConfig
from common.features.extract import ExtractionLoop, Summary

FPS = 30
SCENE_SECONDS = 10  # encoded once, its packets repeated
FEATURE_DIM = 4095


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10], help="lengths of the made videos")
    parser.add_argument("--decoder", default="pyav")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.decoder)))
        return
    print(f"{'minutes':>8} {'frames':>8} {'file MB':>8} {'seconds':>8} {'peak MB above the encoder':>26}")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in given.minutes:
            video = make_video(Path(folder) / f"{minutes:g}_minutes.mp4", minutes)
            words = [sys.executable, __file__, "--one", str(video), "--decoder", given.decoder]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            numbers = (found["features"] / 1e6, found["seconds"], found["peak"] / 1e6)
            print(
                f"{minutes:>8g} {found['frames']:>8} {numbers[0]:>8.0f} {numbers[1]:>8.0f} {numbers[2]:>26.0f}",
                flush=True,
            )


def measure(video: Path, decoder: str) -> dict[str, float]:
    """Extract one video; peak memory in bytes above that of the ready encoder."""
    keep_freed_memory()
    model = read_encoder_config(paths.model("ColorHistogram").config)
    encoder = build_encoder(replace(model, feature_dim=FEATURE_DIM))
    encoder.prepare(torch.device("cpu"))
    encoder.encode(torch.zeros(16, 3, model.preprocessing.size, model.preprocessing.size, dtype=torch.uint8))
    before, started = psutil.Process().memory_info().rss, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        loop = ExtractionLoop(
            encoder, ExtractionConfig(dtype="float16", decoder=decoder), {"encoder": "ColorHistogram"}
        )
        loop.run({video.stem: video}, Path(folder), Summary())
        file = Path(folder) / f"{video.stem}.npy"
        frames, size = np.load(file, mmap_mode="r").shape[1], file.stat().st_size
    return {
        "frames": frames,
        "features": size,
        "seconds": time.monotonic() - started,
        "peak": peak_memory_bytes() - before,
    }


def make_video(path: Path, minutes: float) -> Path:
    """A 1280 x 720 H.264 video: one scene, encoded once, its packets written again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"bf": "0"}  # without reordered frames packets can follow one another as they are
        packets = [packet for frame in scene() for packet in stream.encode(frame)] + list(stream.encode())
        kept = [(bytes(packet), packet.pts, packet.is_keyframe, packet.time_base) for packet in packets]
        length = SCENE_SECONDS * FPS
        for repeat in range(round(minutes * 60 / SCENE_SECONDS)):
            for content, pts, is_keyframe, time_base in kept:
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_keyframe
                packet.pts = packet.dts = pts + round(repeat * length / FPS / time_base)
                container.mux(packet)
    return path


def scene():
    """Frames of a moving pattern."""
    texture = np.random.default_rng(0).integers(0, 255, (36, 64, 3), dtype=np.uint8).repeat(25, 0).repeat(25, 1)
    for index in range(SCENE_SECONDS * FPS):
        image = np.ascontiguousarray(np.roll(texture, (2 * index, 3 * index), axis=(0, 1))[:720, :1280])
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        yield frame


if __name__ == "__main__":
    main()

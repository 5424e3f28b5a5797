"""Clip encoders: a window around every frame against overlapping clips' own tokens, and windows that span seconds.

python -m tests.benchmarks.clip_modes                                     # a tiny V-JEPA 2 of the real class, random weights
python -m tests.benchmarks.clip_modes --model V-JEPA2-ViT-L --weights FOLDER --video FILE.mp4

Prints seconds and the speed-up of tokens. With real weights and a video also the cosine agreement of the two features,
frame by frame; with random weights that number would mean nothing and is left out. Windows whose frames lie apart follow,
as a ratio to neighbours in the same run, and the memory of the authors' windows: two minutes of frames at the size of
the full network go through the stream without any network, which leaves the frames that it keeps, and one clip.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

from common.base import paths
from common.base.runtime import keep_freed_memory, select_device
from common.encoders.base import ClipEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.features.streams import Batcher, FeatureStream, TokenStream, Window, WindowStream
from common.video.decode import decode
from common.video.preprocess import Preprocessing, resize

TINY = {"architecture": "tiny", "feature_dim": 48}
TINY_SIZE = 64
STRIDES = (1, 4)
REPEATS = 3  # of the ratios
FPS = 25
# of `--recipe published`: frames, seconds between them, anchor, pixels of a side
AUTHORS_WINDOWS = {"V-JEPA 2": (64, 0.25, "centre", 256), "SurgVISTA": (16, 4.0, "end", 224)}
STREAMED_SECONDS = 120
CHUNK = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="V-JEPA2-ViT-L")
    parser.add_argument("--weights", help="of the full model (default: the tiny one with random weights)")
    parser.add_argument("--video", type=Path, help="(default: noise)")
    parser.add_argument("--num_frames", type=int, default=128)
    parser.add_argument("--clip_len", type=int, help="(default: the model's config)")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    keep_freed_memory()
    encoder = prepare(given.model, given.weights, given.clip_len, given.device)
    frames = read_frames(given.video, given.num_frames, encoder.preprocessing)
    for encode in (encoder.encode, encoder.encode_tokens):  # the first calls also set up memory and kernels
        encode(torch.zeros(1, encoder.clip_len, *frames.shape[1:], dtype=torch.uint8))
    kind = "real weights" if given.weights else "tiny network, random weights"
    print(f"{encoder.config.title} ({kind}), {len(frames)} frames, windows of {encoder.clip_len}, {encoder.device}")
    tokens, token_seconds = timed(
        TokenStream(Batcher(encoder.encode_tokens, 1), encoder.clip_len, encoder.tubelet), frames
    )
    print(f"{'tokens':<22} {token_seconds:>8.2f} s")
    for stride in STRIDES:
        windows, seconds = timed(WindowStream(Batcher(encoder.encode, 1), Window(encoder.clip_len), stride), frames)
        line = f"{f'window, stride {stride}':<22} {seconds:>8.2f} s   tokens are {seconds / token_seconds:.1f} times faster"
        if given.weights:
            cosine = (windows * tokens).sum(1) / np.linalg.norm(windows, axis=1) / np.linalg.norm(tokens, axis=1)
            line += f"   cosine mean {cosine.mean():.4f}, least {cosine.min():.4f}"
        print(line, flush=True)
    spaced_rows(encoder, frames)
    print(
        f"\n{STREAMED_SECONDS} s at {FPS} frames/s, no network: kept frames, their MB, peak MB of the process above its start"
    )
    for name, (clip_len, spacing, anchor, size) in AUTHORS_WINDOWS.items():
        # a process of its own, whose memory nothing has stretched before
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            kept, peak = fresh.submit(memory_of, Window(clip_len, spacing, anchor), size).result()
        print(
            f"{name:<12} {clip_len} x {spacing:g} s {anchor:<7} {kept:>5} {kept * 3 * size**2 / 1e6:>6.0f} {peak / 1e6:>6.0f}"
        )


def spaced_rows(encoder: ClipEncoder, frames: torch.Tensor) -> None:
    """Print the seconds of windows with frames apart as a ratio to neighbours, the best of runs that take turns."""
    windows = [Window(encoder.clip_len), *(Window(encoder.clip_len, 0.25, anchor) for anchor in ("centre", "end"))]
    stride, best = STRIDES[-1], dict.fromkeys(windows, float("inf"))
    for _ in range(REPEATS):
        for window in windows:
            _, seconds = timed(WindowStream(Batcher(encoder.encode, 1), window, stride), frames)
            best[window] = min(best[window], seconds)
    near = best.pop(windows[0])
    for window, seconds in best.items():
        label = f"{window.spacing:g} s apart, {window.anchor}"
        print(f"{label:<22} {seconds:>8.2f} s   {seconds / near:.2f} of neighbours' time, stride {stride}", flush=True)


def memory_of(window: Window, size: int) -> tuple[int, int]:
    """Frames that a stream keeps at most, and the peak of the process's memory above that before it, in bytes."""
    stream = WindowStream(Batcher(lambda clips: clips[:, :, 0, 0, 0].float(), 1), window, STRIDES[-1])
    process, kept, generator = psutil.Process(), 0, torch.Generator().manual_seed(0)
    keep_freed_memory()
    torch.randint(0, 256, (1,), dtype=torch.uint8, generator=generator)  # what torch sets up once is no part of it
    before = peak = process.memory_info().rss
    for start in range(0, STREAMED_SECONDS * FPS, CHUNK):
        chunk = torch.randint(0, 256, (CHUNK, 3, size, size), dtype=torch.uint8, generator=generator)
        stream.push(chunk, [(start + index) / FPS for index in range(CHUNK)], [True] * CHUNK)
        kept, peak = max(kept, len(stream.frames)), max(peak, process.memory_info().rss)
    return kept, peak - before


def prepare(model: str, weights: str | None, clip_len: int | None, device: str) -> ClipEncoder:
    """The full encoder with `weights`, else a tiny one of the same class."""
    config = read_encoder_config(paths.model(model).config)
    config = replace(config, clip_len=clip_len or config.clip_len)
    if weights is None:
        config = replace(config, **TINY, preprocessing=replace(config.preprocessing, size=TINY_SIZE))
    encoder = build_encoder(config, weights or "random")
    encoder.prepare(select_device(device))
    return encoder


def read_frames(video: Path | None, num_frames: int, rule: Preprocessing) -> torch.Tensor:
    """Resized uint8 frames `(num_frames, 3, size, size)`."""
    if video is None:
        noise = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (num_frames, 3, rule.size, rule.size), dtype=torch.uint8, generator=noise)
    images = (torch.from_numpy(frame.image)[None] for frame in decode(video))
    return torch.cat([resize(image, rule) for _, image in zip(range(num_frames), images, strict=False)])


def timed(stream: FeatureStream, frames: torch.Tensor) -> tuple[np.ndarray, float]:
    """All rows of a stream, and the seconds they took."""
    started = time.perf_counter()
    parts = []
    for start in range(0, len(frames), CHUNK):
        part = frames[start : start + CHUNK]
        seconds = [(start + index) / FPS for index in range(len(part))]
        parts.append(stream.push(part, seconds, [True] * len(part)))
    parts.append(stream.finish())
    return np.concatenate([part for part in parts if len(part)]), time.perf_counter() - started


if __name__ == "__main__":
    main()

"""Clip encoders: a window around every frame against overlapping clips' own tokens.

python tests/benchmarks/clip_modes.py                                     # a tiny V-JEPA 2 of the real class, random weights
python tests/benchmarks/clip_modes.py --model V-JEPA2-ViT-L --weights FOLDER --video FILE.mp4

Prints seconds and the speed-up of tokens. With real weights and a video also the cosine agreement of the two features,
frame by frame; with random weights that number would mean nothing and is left out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    for start in range(0, len(frames), 32):
        part = frames[start : start + 32]
        seconds = [(start + index) / 25 for index in range(len(part))]
        parts.append(stream.push(part, seconds, [True] * len(part)))
    parts.append(stream.finish())
    return np.concatenate([part for part in parts if len(part)]), time.perf_counter() - started


if __name__ == "__main__":
    main()

"""Extraction speed: decoding alone, the encoder alone, both together, against the limit and against a plain loop.

python -m tests.benchmarks.extraction [--video FILE] [--num_frames 120] [--models Base EfficientNet-Lite0]

Without --video a 720p H.264 clip is made. Weights are random where the model's own are not at hand: speed does not
depend on them. Each row runs in a process of its own. The limit is decode + encode seconds on a CPU, which share its
cores, and the larger of the two on a GPU. `plain` is the usual loop: read a frame, resize it, run batches, fp32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from common.base import paths
from common.base.runtime import UserError, keep_freed_memory, select_device
from common.encoders.base import build_encoder
from common.encoders.config import EncoderConfig, read_encoder_config
from common.features.config import ExtractionConfig
from common.features.decode_ahead import Chunk, DecodePlan, chunks
from common.features.extract import ExtractionLoop, Summary
from common.video.decode import DECODERS, decode
from common.video.preprocess import normalise

BATCH_SIZE = 16
REPEATS = 2


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a real video (default: a made 720p H.264 clip)")
    parser.add_argument("--num_frames", type=int, default=120, help="of the made clip")
    parser.add_argument("--models", nargs="+", default=["Base", "EfficientNet-Lite0"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "MODEL", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.one:
        print(json.dumps(MEASUREMENTS[given.one[0]](given.video, given.one[1], given.one[2], given.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        video = given.video or make_clip(Path(folder) / "made_720p.mp4", given.num_frames)
        report(video, given.models, given.device)


def report(video: Path, models: list[str], device: str) -> None:
    """Measure and print all rows."""
    on_gpu = select_device(device).type == "cuda"

    def seconds(what: str, model: str, precision: str) -> float | None:
        words = [sys.executable, __file__, "--video", str(video), "--device", device, "--one", what, model, precision]
        done = subprocess.run(words, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    num_frames = sum(1 for _ in decode(video))
    print(f"{video.name}: {num_frames} frames; device {select_device(device)}, {torch.get_num_threads()} threads")
    print("\ndecode and resize to 224 x 224, frames/s")
    for decoder in DECODERS:
        taken = seconds("decode", models[0], decoder)
        print(f"  {decoder:<12} {'not available' if taken is None else f'{num_frames / taken:.0f}'}")
    print(
        f"\n{'model':<20} {'precision':<10} {'encoder':>9} {'together':>9} {'plain':>7}   together / limit   speed-up over plain"
    )
    for model in models:
        decoding, plain = seconds("decode", model, "pyav"), seconds("plain", model, "fp32")
        for precision in ("fp32", "bf16"):
            encoding, together = (seconds(what, model, precision) for what in ("encode", "together"))
            limit = max(decoding, encoding) if on_gpu else decoding + encoding
            rates = [f"{num_frames / taken:.1f}" for taken in (encoding, together, plain)]
            print(
                f"{model:<20} {precision:<10} {rates[0]:>9} {rates[1]:>9} {rates[2]:>7}   {together / limit:>16.2f}   {plain / together:>19.2f}",
                flush=True,
            )


def best_of(function) -> float:
    """The shortest of a few runs, in seconds, after one that is not counted."""
    function()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return min(taken)


def measure_decode(video: Path, model: str, decoder: str, device: str) -> float:
    """Seconds to decode (and on a CPU resize) every frame."""
    keep_freed_memory()
    on_gpu = select_device(device).type == "cuda"
    rule = None if on_gpu else model_config(model).preprocessing
    plan = DecodePlan(decoder=decoder, fps=None, chunk_frames=BATCH_SIZE, rule=rule, pin_memory=on_gpu)
    return best_of(lambda: sum(len(chunk.frames) for chunk in decoded(video, plan)))


def decoded(video: Path, plan: DecodePlan) -> Iterator[Chunk]:
    """The chunks of a video, without the record of its decoding that follows them."""
    return (part for part in chunks(video, plan) if isinstance(part, Chunk))


def measure_encode(video: Path, model: str, precision: str, device: str) -> float:
    """Seconds for the encoder alone, on frames that are already resized."""
    keep_freed_memory()
    encoder = ready_encoder(model, precision, device)
    plan = DecodePlan(decoder="pyav", fps=None, chunk_frames=BATCH_SIZE, rule=encoder.preprocessing)
    batches = [chunk.frames.to(encoder.device) for chunk in decoded(video, plan)]
    return best_of(lambda: [encoder.encode(batch) for batch in batches])


def measure_together(video: Path, model: str, precision: str, device: str) -> float:
    """Seconds of the real extraction: decoding, encoding and writing."""
    keep_freed_memory()
    encoder = ready_encoder(model, precision, device)
    config = ExtractionConfig(precision=precision, batch_size=BATCH_SIZE if encoder.device.type == "cpu" else None)
    with tempfile.TemporaryDirectory() as folder:
        loop = ExtractionLoop(encoder, config, {"encoder": model})
        return best_of(lambda: loop.run({video.stem: video}, Path(folder), Summary()))


def measure_plain(video: Path, model: str, precision: str, device: str) -> float:
    """Seconds of the usual loop, without any of the above: no overlap, no memory settings, fp32."""
    encoder = build(model_config(model))
    network, target = encoder.network.to(select_device(device)), select_device(device)
    size = encoder.preprocessing.size

    @torch.no_grad()
    def run() -> None:
        batch = []
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None]
                batch.append(
                    normalise(
                        F.interpolate(image.float(), (size, size), mode="bilinear", antialias=True),
                        encoder.preprocessing,
                    )
                )
                if len(batch) == BATCH_SIZE:
                    network(torch.cat(batch).to(target)).cpu()
                    batch = []
        if batch:
            network(torch.cat(batch).to(target)).cpu()

    return best_of(run)


MEASUREMENTS = {
    "decode": measure_decode,
    "encode": measure_encode,
    "together": measure_together,
    "plain": measure_plain,
}


def model_config(model: str) -> EncoderConfig:
    return read_encoder_config(paths.model(model).config)


def build(config: EncoderConfig):
    """The encoder with its own weights where they are at hand, else with random ones."""
    try:
        return build_encoder(config)
    except UserError:
        return build_encoder(config, "random")


def ready_encoder(model: str, precision: str, device: str):
    encoder = build(model_config(model))
    encoder.prepare(select_device(device), precision)
    return encoder


def make_clip(path: Path, num_frames: int) -> Path:
    """A 1280 x 720 H.264 clip of moving texture at 25 fps."""
    texture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for index in range(num_frames):
            image = np.roll(texture, (3 * index, 5 * index), axis=(0, 1))[:720, :1280]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


if __name__ == "__main__":
    main()

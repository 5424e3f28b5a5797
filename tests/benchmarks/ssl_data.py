"""Speed of the samples of self-supervised training, by number of workers: direct, packed, and the plain way.

python -m tests.benchmarks.ssl_data [--video FILE] [--num_samples 96] [--num_workers 0 1 2]

Without --video a 720p H.264 clip is made, with keyframes 250 frames apart as encoders put them. It stands for
`--num_videos` videos (links to it), so that most samples open one. All ways have the same workers, times and views. Packed
samples are read from what `pretrain/pack_videos.py` makes of the video with its defaults; neighbours are 4 samples a seek; the
plain way opens the file for each sample, seeks, decodes every frame and converts those that it keeps.

Targets on 2 cores, one process each side: packed frames at least 8 times the direct rate, packed clips 6 times.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from pretrain.pack_videos import PackingOptions
from pretrain.ssl_dataset import VideoSamples, loader
from pretrain.video_data.augment import MultiCrop, VideoCrop
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.packed import is_shard, read_shard, record_of, table_of
from pretrain.video_data.packing import PackingTask, pack_video
from pretrain.video_data.sampling import BalancedSampling, SampleOrder
from pretrain.video_data.video_index import probe_video

BATCH_SIZE = 4
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a real video (default: a made 720p H.264 clip)")
    parser.add_argument("--num_frames", type=int, default=1000, help="of the made clip")
    parser.add_argument("--num_videos", type=int, default=32, help="links to the video")
    parser.add_argument("--open_videos", type=int, default=8)
    parser.add_argument("--num_samples", type=int, default=96)
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        video = (given.video or make_clip(Path(name) / "made_720p.mp4", given.num_frames)).resolve()
        shard = packed(video, Path(name) / "packed")
        direct, small = (corpus(path, Path(name) / folder, given) for path, folder in ((video, "a"), (shard, "b")))
        report({"direct": direct, "packed": small, "neighbours": direct, "plain": direct}, given)


def packed(video: Path, folder: Path) -> Path:
    """Pack a video as the command does without options; print what it takes."""
    settings = PackingOptions().settings()
    started = time.process_time()
    done = pack_video(PackingTask(video.stem, video, folder / f"{video.stem}.tar", settings, False))
    seconds, shard = time.process_time() - started, done.shard
    hours = shard.entry.duration_seconds / 3600
    print(
        f"packed ({settings}): {shard.size_bytes / 1e6:.1f} MB, {shard.size_bytes / 1e9 / hours:.2f} GB an hour of video "
        f"(the video {shard.entry.size_bytes / 1e9 / hours:.2f}); {seconds / hours / 60:.1f} minutes of one core an hour"
    )
    return shard.entry.path


def corpus(path: Path, folder: Path, given: argparse.Namespace) -> Corpus:
    """Links to a video, or to a packed one with its table and record."""
    folder.mkdir()
    entry = read_shard(path).entry if is_shard(path) else probe_video(path)
    beside = [path, table_of(path), record_of(path)] if is_shard(path) else [path]
    for number in range(given.num_videos):
        for file in beside:
            (folder / f"{number}{file.suffix}").symlink_to(file)
    links = [folder / f"{number}{path.suffix}" for number in range(given.num_videos)]
    return Corpus("links", tuple(replace(entry, path=link, name=link.stem) for link in links))


def report(corpora: dict[str, Corpus], given: argparse.Namespace) -> None:
    """Measure and print all rows."""
    for kind in ("frames", "clips"):
        ways = {way: dataset(kind, way, corpus, given.open_videos) for way, corpus in corpora.items()}
        print(f"\n{kind}: milliseconds of processor time a sample\n{'':>10} {'read':>8} {'views':>8} {'both':>8}")
        count = max(1, given.num_samples // 4)
        spent = {way: processor_seconds(samples, count) for way, samples in ways.items()}
        for way, (reading, viewing) in spent.items():
            print(f"{way:>10} {reading * 1e3:8.1f} {viewing * 1e3:8.1f} {(reading + viewing) * 1e3:8.1f}")
        print(
            f"packed against direct: read {spent['direct'][0] / spent['packed'][0]:.1f} times as fast, read and viewed "
            f"{sum(spent['direct']) / sum(spent['packed']):.1f} times\n"
            f"{'workers':>8} {'direct':>10} {'packed':>10} {'neighbours':>10} {'plain':>10} {'packed/direct':>14} (samples a second)"
        )
        for num_workers in given.num_workers:
            # one after the other within a row, so that a busy machine is busy for all
            rates = {way: samples_per_second(samples, given.num_samples, num_workers) for way, samples in ways.items()}
            ratio = rates["packed"] / rates["direct"]
            print(f"{num_workers:>8} {' '.join(f'{rate:10.1f}' for rate in rates.values())} {ratio:>14.1f}", flush=True)


def dataset(kind: str, way: str, corpus: Corpus, open_videos: int) -> VideoSamples:
    """Frames for DINOv3 or clips of 16 frames at 4 a second for V-JEPA 2."""
    rule, clip = (MultiCrop(), {}) if kind == "frames" else (VideoCrop(), {"clip_len": 16, "fps": 4})
    seek = {"samples_per_seek": BATCH_SIZE} if way == "neighbours" else {}
    made = VideoSamples(BalancedSampling([corpus]), rule, seed=SEED, open_videos=open_videos, **clip, **seek)
    if way == "plain":
        made.reader = PlainReader()
    return made


class TimedReader:
    """A reader whose processor time is added up."""

    def __init__(self, reader: ClipReader | PlainReader):
        self.reader, self.seconds = reader, 0.0

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        """As the reader's."""
        started = time.process_time()
        frames = self.reader.read(path, seconds)
        self.seconds += time.process_time() - started
        return frames


def processor_seconds(samples: VideoSamples, count: int) -> tuple[float, float]:
    """Processor time a sample for reading frames and for making views, all threads together.

    Unlike rates it is the same, within a fifth or so, on a busy machine.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    timed = TimedReader(samples.reader)
    samples.reader = timed
    started = time.process_time()
    for first in range(0, count, BATCH_SIZE):
        samples.__getitems__(range(first, first + BATCH_SIZE))
    both = time.process_time() - started
    samples.reader = timed.reader
    count = -(-count // BATCH_SIZE) * BATCH_SIZE
    return timed.seconds / count, (both - timed.seconds) / count


def samples_per_second(samples: VideoSamples, count: int, num_workers: int) -> float:
    """Rate of a loader, after the first batch."""
    batches = iter(loader(samples, SampleOrder(BATCH_SIZE), BATCH_SIZE, num_workers=num_workers))
    warm_up = max(1, 3 * num_workers)  # batches that may be ready before the clock starts
    for _ in range(warm_up):
        next(batches)
    started = time.perf_counter()
    for _ in range(count // BATCH_SIZE):
        next(batches)
    return count // BATCH_SIZE * BATCH_SIZE / (time.perf_counter() - started)


class PlainReader:
    """Frames by time, each read for itself."""

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        """The frames `(T, H, W, 3)` nearest to the ascending times `(T,)`."""
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            container.seek(int(seconds[0] / stream.time_base), stream=stream)
            frames, times = [], []
            for frame in container.decode(stream):
                frames.append(frame)
                times.append(frame.time)
                if frame.time >= seconds[-1]:
                    break
        nearest = [int(np.abs(np.array(times) - second).argmin()) for second in seconds]
        return np.stack([frames[index].to_ndarray(format="rgb24") for index in nearest])


def make_clip(path: Path, num_frames: int) -> Path:
    """A 1280 x 720 H.264 clip at 25 fps: a soft scene that moves, with the noise of a sensor."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, 30, 50))).float()
    scene = torch.nn.functional.interpolate(coarse, (900, 1500), mode="bicubic")[0].permute(1, 2, 0).numpy()
    noise = [random.normal(0, 4, (720, 1280, 1)).astype(np.float32) for _ in range(8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"preset": "veryfast", "x264-params": "keyint=250:bframes=3"}
        for index in range(num_frames):
            top, left = int(90 + 80 * np.sin(index / 40)), int(110 + 100 * np.cos(index / 55))
            image = scene[top : top + 720, left : left + 1280] + noise[index % len(noise)]
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


if __name__ == "__main__":
    main()

"""Needs of a planned extraction: frames by the headers, disk, hours measured on this machine. All are estimates."""

import math
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from common.base.runtime import UserError, keep_freed_memory, select_device
from common.encoders.config import EncoderConfig
from common.features.config import ExtractionConfig
from common.video.decode import decode
from common.video.probe import VideoError, estimate_frames, probe_all
from common.video.timeline import DEFAULT_FPS

BYTES_PER_VALUE = {"float32": 4, "float16": 2}
DECODE_SECONDS = 3.0
ENCODE_SECONDS = 8.0  # of batches after the first
PATIENCE_SECONDS = 20.0  # for all batches
BUILD_SECONDS = 180.0
MEMORY_FACTOR = 2.0  # free memory over the size of the weights, below which a network is not even built


@dataclass(frozen=True)
class EncoderSpeed:
    """Frames, windows or clips a second, None where it could not be measured; `remark` says how, or why not."""

    calls_per_second: float | None
    remark: str
    at_most: bool = False
    """The first batch did not end in time: the true speed is lower."""


class Expected(NamedTuple):
    """What a video holds by its header, which may lie: decoded frames, those with a feature, seconds."""

    decoded: int
    sampled: int
    seconds: float

    def calls(self, config: EncoderConfig, plan: ExtractionConfig) -> int:
        """Frames, windows or clips that the network gets; `config` has the window that the plan asks for."""
        if config.clip_len is None:
            return self.sampled
        if plan.mode == "window":  # every n-th frame and the last
            return math.ceil((self.sampled - 1) / plan.stride) + 1 if self.sampled else 0
        spacing = config.clip_spacing
        frames = self.sampled if spacing is None else math.ceil(self.seconds / spacing)
        # clips that half overlap, as many as cover the frames
        return 1 + math.ceil(max(0, frames - config.clip_len) / max(1, config.clip_len // 2))


def expected_frames(videos: Mapping[str, Path], fps: float | None, every: int | None = None) -> list[Expected]:
    """What each video holds, by the headers; a feature at `fps` a second, or at `every` n-th frame."""
    headers, expected = probe_all(videos), []
    for name, frames in estimate_frames(videos, headers).items():
        header = headers[name]
        seconds = (header.seconds if header else None) or frames / DEFAULT_FPS
        sampled = math.ceil(frames / (every or 1)) if fps is None else min(frames, math.ceil(seconds * fps))
        expected.append(Expected(frames, sampled, seconds))
    return expected


def feature_bytes(config: EncoderConfig, num_vectors: int, dtype: str) -> int:
    """Size of an encoder's feature files."""
    return config.feature_dim * num_vectors * BYTES_PER_VALUE[dtype]


def decode_speed(videos: Mapping[str, Path], config: EncoderConfig) -> float | None:
    """Frames a second of decoding and resizing, from the start of the first video that decodes; None without one."""
    import torch

    from common.video.preprocess import resize

    for path in videos.values():
        count, started = 0, time.monotonic()
        try:
            for frame in decode(path):
                resize(torch.from_numpy(frame.image)[None], config.preprocessing)
                count += 1
                if time.monotonic() - started > DECODE_SECONDS:
                    break
        except VideoError:
            continue
        return count / (time.monotonic() - started)
    return None


def encoder_speed(
    config: EncoderConfig, device: str, seconds: float = ENCODE_SECONDS, *, mode: str = "window"
) -> EncoderSpeed:
    """Run an encoder with random weights for about `seconds`, in a process of its own that can be stopped."""
    needed = MEMORY_FACTOR * (config.weights_megabytes or 0) * 1e6
    if needed > psutil.virtual_memory().available:
        return EncoderSpeed(None, f"not timed: it needs about {needed / 1e9:.0f} GB of free memory")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_batch_times, args=(config, device, seconds, mode, sender), daemon=True)
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        return _listen(receiver)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _listen(receiver: Connection) -> EncoderSpeed:
    """Collect `(frames, seconds)` of batches; the first is slower than the others and counts only when it is alone."""
    batches: list[tuple[int, float]] = []
    setting, batch_size = "", 0
    deadline = time.monotonic() + BUILD_SECONDS
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            message = receiver.recv()
            if isinstance(message, UserError):
                return EncoderSpeed(None, f"not timed: {message}")
            if isinstance(message[0], str):
                setting, batch_size = message
                deadline = time.monotonic() + PATIENCE_SECONDS
            else:
                batches.append(message)
    except EOFError:  # the process has ended
        if not batches:
            return EncoderSpeed(None, "not timed: its process died (too little memory?)")
    if not setting:
        return EncoderSpeed(None, f"not timed: not built within {BUILD_SECONDS:.0f} s")
    if not batches:
        return EncoderSpeed(batch_size / PATIENCE_SECONDS, setting, at_most=True)
    counted = batches[1:] or batches
    return EncoderSpeed(sum(frames for frames, _ in counted) / sum(seconds for _, seconds in counted), setting)


def _send_batch_times(config: EncoderConfig, device_name: str, seconds: float, mode: str, sender: Connection) -> None:
    """Body of the timing process: `(setting, batch size)`, then `(calls, seconds)` of each batch."""
    import torch

    from common.base.children import end_with_parent
    from common.base.runtime import choose_precision
    from common.encoders.base import build_encoder

    end_with_parent()
    try:
        keep_freed_memory()
        device = select_device(device_name)
        encoder = build_encoder(config, "random")
        precision = choose_precision(ExtractionConfig().precision, device)
        encoder.prepare(device, precision)
        rule, clip = config.preprocessing, () if config.clip_len is None else (config.clip_len,)
        batch_size = (1 if clip else 16) * (1 if device.type == "cpu" else 4)
        sender.send((f"{device}, {precision}, batches of {batch_size}, random weights", batch_size))
        shape = (batch_size, *clip, 3, rule.size, rule.size)
        encode = encoder.encode_tokens if mode == "tokens" else encoder.encode
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        spent = 0.0
        while spent < seconds:
            started = time.monotonic()
            encode(pixels)  # its result is on the CPU, so nothing is still running
            taken = max(time.monotonic() - started, 1e-6)
            sender.send((batch_size, taken))
            spent += taken
    except UserError as error:
        sender.send(error)
    except RuntimeError as error:  # out of GPU memory, an operation that the device lacks
        sender.send(UserError(str(error).partition("\n")[0]))


def hours(decoded: int, calls: int, decode_rate: float, encode_rate: float, *, overlap: bool) -> float:
    """Hours of one process; on a GPU decoding and encoding overlap, on a CPU they share the cores."""
    parts = decoded / decode_rate / 3600, calls / encode_rate / 3600
    return max(parts) if overlap else sum(parts)

"""Needs of a planned extraction: frames by the headers, disk, hours measured on this machine. All are estimates."""

import math
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from common.base.runtime import UserError, keep_freed_memory, select_device
from common.encoders.config import EncoderConfig, read_encoder_config
from common.features.config import ExtractionConfig
from common.video.decode import decode
from common.video.probe import VideoError, estimate_frames, probe

BYTES_PER_VALUE = {"float32": 4, "float16": 2}
DECODE_SECONDS = 3.0
ENCODE_SECONDS = 8.0  # of batches after the first
PATIENCE_SECONDS = 20.0  # for all batches
BUILD_SECONDS = 180.0
MEMORY_FACTOR = 2.0  # free memory over the size of the weights, below which a network is not even built


@dataclass(frozen=True)
class EncoderSpeed:
    """`frames_per_second` of an encoder, None where it could not be measured; `remark` says how, or why not."""

    frames_per_second: float | None
    remark: str
    at_most: bool = False
    """The first batch did not end in time: the true speed is lower."""


def expected_frames(videos: Mapping[str, Path], fps: float | None) -> tuple[int, int]:
    """Frames to decode and feature vectors to compute, by the headers (which may lie)."""
    frames = estimate_frames(videos)
    if fps is None:
        return sum(frames.values()), sum(frames.values())
    sampled = 0
    for name, path in videos.items():
        try:
            seconds = probe(path).seconds
        except VideoError:  # extraction reports it when its turn comes
            seconds = None
        seconds = seconds or frames[name] / 25  # where no header tells the time, most cameras' rate
        sampled += min(frames[name], math.ceil(seconds * fps))
    return sum(frames.values()), sampled


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


def encoder_speed(config_path: Path, device: str, seconds: float = ENCODE_SECONDS) -> EncoderSpeed:
    """Run an encoder with random weights for about `seconds`, in a process of its own that can be stopped."""
    config = read_encoder_config(config_path)
    needed = MEMORY_FACTOR * (config.weights_megabytes or 0) * 1e6
    if needed > psutil.virtual_memory().available:
        return EncoderSpeed(None, f"not timed: it needs about {needed / 1e9:.0f} GB of free memory")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_batch_times, args=(config_path, device, seconds, sender), daemon=True)
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


def _send_batch_times(config_path: Path, device_name: str, seconds: float, sender: Connection) -> None:
    """Body of the timing process: `(setting, batch size)`, then `(frames, seconds)` of each batch."""
    import torch

    from common.base.children import end_with_parent
    from common.base.runtime import choose_precision
    from common.encoders.base import build_encoder

    end_with_parent()
    try:
        keep_freed_memory()
        config, device = read_encoder_config(config_path), select_device(device_name)
        encoder = build_encoder(config, "random")
        precision = choose_precision(ExtractionConfig().precision, device)
        encoder.prepare(device, precision)
        rule, clip = config.preprocessing, () if config.clip_len is None else (config.clip_len,)
        batch_size = (1 if clip else 16) * (1 if device.type == "cpu" else 4)
        sender.send((f"{device}, {precision}, batches of {batch_size}, random weights", batch_size))
        shape = (batch_size, *clip, 3, rule.size, rule.size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        spent = 0.0
        while spent < seconds:
            started = time.monotonic()
            encoder.encode(pixels)  # its result is on the CPU, so nothing is still running
            taken = max(time.monotonic() - started, 1e-6)
            sender.send((batch_size, taken))
            spent += taken
    except UserError as error:
        sender.send(error)
    except RuntimeError as error:  # out of GPU memory, an operation that the device lacks
        sender.send(UserError(str(error).partition("\n")[0]))


def hours(decoded: int, vectors: int, decode_rate: float, encode_rate: float, *, overlap: bool) -> float:
    """Hours of one process; on a GPU decoding and encoding overlap, on a CPU they share the cores."""
    parts = decoded / decode_rate / 3600, vectors / encode_rate / 3600
    return max(parts) if overlap else sum(parts)

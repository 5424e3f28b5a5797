"""Checks of a machine: Python, torch, CUDA, decoders that really decode, weights, disk and hours of an extraction."""

import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.children import Ask, ChildEnded, num_cores
from common.base.runtime import UserError, counted, first_line, listed, select_device
from common.dataset.description import features_owner, read_description
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights import find as weights
from common.features.config import ExtractionConfig, on_label_grid, with_options
from common.features.estimate import Expected, decode_speed, encoder_speed, expected_frames, feature_bytes, hours
from common.video.decode import DECODERS, decode, decoder_version

OLDEST_PYTHON = (3, 11)  # pyproject.toml's requires-python
CLIP_COLOUR, CLIP_FRAMES = (200, 60, 90), 12
COLOUR_LEVELS = 8  # that H.264 may be off by; a wrong colour matrix or range is off by more
GIB = 2**30
DOWNLOADED = ("hub", "torchvision", "https", "http")


@dataclass(frozen=True)
class Check:
    """One line of the table: `state` is ok, note (works, but worth knowing) or PROBLEM (to be solved first)."""

    name: str
    state: str
    found: str
    advice: str = ""

    def text(self, name_width: int) -> str:
        """The line, and the advice in a line of its own below what was found."""
        line = f"{self.state:<8} {self.name:<{name_width}} {self.found}"
        return line + (f"\n{'':<{9 + name_width}} -> {self.advice}" if self.advice else "")


def check_python() -> Check:
    """Whether this Python is new enough."""
    if sys.version_info >= OLDEST_PYTHON:
        return Check("Python", "ok", platform.python_version())
    return Check("Python", "PROBLEM", platform.python_version(), "make the environment with Python 3.11 or newer")


def check_torch(ask: Ask) -> Check:
    """Whether torch and torchvision load together: wheels built for different torches do not.

    They are loaded where `ask` asks (`children.apart`): their 0.7 GB are given back, and a library that takes its process
    with it, as one built for another processor does, is a line of the table like any other.
    """
    try:
        versions = [ask(_loaded_version, package) for package in ("torch", "torchvision")]
    except Exception as error:  # what a package raises while it is imported is up to that package
        found = first_line(error)
        if "torchvision::nms" in found:
            found += ": torch and torchvision are of different builds (a CPU-only torch, a CUDA torchvision)"
    else:
        return Check("torch, torchvision", "ok", ", ".join(versions))
    install = "pip install --force-reinstall torch torchvision -c constraints.txt (together, so that pip matches them)"
    return Check("torch, torchvision", "PROBLEM", found, install)


def _loaded_version(package: str) -> str:
    return str(importlib.import_module(package).__version__)


def check_cuda(ask: Ask) -> list[Check]:
    """CUDA devices with their memory and whether they compute in bf16, as a process that `ask` asks sees them."""
    try:
        return ask(_cuda_devices)
    except (RuntimeError, ChildEnded) as error:  # a driver that answers, and then does not
        return [Check("CUDA", "PROBLEM", first_line(error), "look at nvidia-smi; --device cpu needs no GPU")]


def _cuda_devices() -> list[Check]:
    import torch

    if not torch.cuda.is_available():
        return [Check("CUDA", "note", "no device: encoders run on the CPU")]
    checks = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if device.major >= 8 else "no bf16: use --precision fp32"
        free = torch.cuda.mem_get_info(index)[0]
        memory = f"{device.total_memory / GIB:.0f} GiB, {free / GIB:.0f} free"
        checks.append(Check(f"CUDA cuda:{index}", "ok", f"{device.name}, {memory}, {bf16}"))
    return checks


def check_cpu() -> Check:
    """Cores that this process may use, and whether they compute in bf16 (elsewhere bf16 is slower than fp32)."""
    cores = num_cores()
    native = bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    bf16 = "bf16 native: --precision bf16 is faster" if native else "bf16 not native: keep --precision fp32"
    return Check("CPU", "ok", f"{cores} cores, {bf16}")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: nothing is known
        return set()
    return {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}


def check_decoders() -> Iterator[Check]:
    """Whether each decoder gives every frame of a clip made on the spot, in the correct colour; PyAV is needed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            clip = _make_clip(Path(folder) / "clip.mp4", CLIP_FRAMES, (96, 128))
        except (ImportError, ValueError, OSError) as error:  # FFmpeg's errors are OSErrors or ValueErrors
            yield Check("decoders", "PROBLEM", f"PyAV cannot make a clip ({error})", 'pip install "av>=17,<19"')
            return
        for decoder in DECODERS:
            yield _check_decoder(decoder, clip)


def _check_decoder(decoder: str, clip: Path) -> Check:
    broken = "PROBLEM" if decoder == "pyav" else "note"
    name = f"decoder {decoder}"
    try:
        frames = [frame.image for frame in decode(clip, decoder)]
        version = decoder_version(decoder)
    except UserError as error:
        return Check(name, broken, "does not run", str(error).removeprefix(f"--decoder {decoder}: "))
    levels = max(float(np.abs(image.mean(axis=(0, 1)) - CLIP_COLOUR).max()) for image in frames)
    found = f"{version}, {len(frames)} of {CLIP_FRAMES} frames, colour off by {levels:.1f} levels"
    if len(frames) == CLIP_FRAMES and levels <= COLOUR_LEVELS:
        return Check(name, "ok", found)
    advice = 'pip install "av>=17,<19"' if decoder == "pyav" else "use --decoder pyav"
    return Check(name, broken, found, advice)


def _make_clip(path: Path, num_frames: int, size: tuple[int, int]) -> Path:
    """An H.264 clip of one colour, `size` (height, width)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(num_frames):
            image = np.full((*size, 3), CLIP_COLOUR, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def check_weights(model: paths.Model, ask: Ask, *, needed: bool) -> Check:
    """Whether a model's weights are on this machine; nothing is downloaded.

    Where `ask` asks: what a short config leaves out, and where a torchvision release lies, their libraries know.
    """
    name, broken = f"weights {model.name}", "PROBLEM" if needed else "note"
    try:
        config = ask(read_encoder_config, model.config)
        there, found = ask(weights.is_available, config)
    except (ImportError, RuntimeError, ChildEnded) as error:  # a torchvision that does not load
        return Check(name, broken, f"unknown ({error})", "solve the PROBLEM lines above first")
    except UserError as error:
        return Check(name, "PROBLEM", "config.yaml cannot be used", str(error))
    if there:
        return Check(name, "ok", found)
    if config.weights.partition(":")[0] in DOWNLOADED:
        return Check(name, broken, found, f"python -m common.weights prefetch {model.name}")
    return Check(name, broken, found, f"give them with --weights (models/{model.name}/config.yaml says what fits)")


def check_all_weights(models: Sequence[paths.Model], ask: Ask) -> Iterator[Check]:
    """The weights of models that nobody named: each that is here, and those that are not in one line an advice."""
    absent: dict[str, list[str]] = {}
    for model in models:
        check = check_weights(model, ask, needed=False)
        if check.state == "note":
            absent.setdefault(check.advice.replace(model.name, "NAME"), []).append(model.name)
        else:
            yield check
    for advice, names in absent.items():
        yield Check(
            "weights of others", "note", f"not found for {counted(len(names), 'encoder')}: {listed(names)}", advice
        )


def check_plan(
    dataset: paths.Dataset,
    models: list[paths.Model],
    timed: list[paths.Model],
    ask: Ask,
    *,
    plan: ExtractionConfig,
    device: str,
) -> Iterator[Check]:
    """Disk for the features of all `models` under the `plan`, and hours for the `timed` ones; configs where `ask` asks."""
    try:
        if read_description(dataset).task == "segmentation":
            yield Check(
                f"plan {dataset.name}", "note", "masks need no features: common.segment runs the encoder itself"
            )
            return
        owner = features_owner(dataset)
        plan = on_label_grid(plan, read_description(owner))
        videos = paths.find_videos(owner.videos)
    except UserError as error:
        yield Check(f"plan {dataset.name}", "PROBLEM", "an extraction stops at this", str(error))
        return
    if not videos:
        yield Check(f"plan {dataset.name}", "PROBLEM", f"no videos in {dataset.videos}", "see data/README.md")
        return
    expected = expected_frames(videos, plan.fps, plan.every)
    decoded, vectors = sum(video.decoded for video in expected), sum(video.sampled for video in expected)
    what = (
        f"{len(videos)} videos, by their headers {decoded:,} frames, {vectors:,} of them with a feature (an estimate)"
    )
    yield Check(f"plan {dataset.name}", "ok", what)
    configs = {model.name: ask(read_encoder_config, model.config) for model in models}
    yield from _check_disk(dataset, configs, vectors, plan.dtype)
    for model in timed:
        yield _check_hours(model.name, configs[model.name], videos, expected, plan, device)


def _check_disk(dataset: paths.Dataset, configs: dict[str, EncoderConfig], vectors: int, dtype: str) -> Iterator[Check]:
    total = 0
    for name, config in configs.items():
        total += (size := feature_bytes(config, vectors, dtype))
        found = f"{size / GIB:.2f} GiB ({config.feature_dim} x {vectors:,} {dtype}, an estimate)"
        yield Check(f"disk {name}", "ok", found)
    free = shutil.disk_usage(dataset.root).free
    found = f"{total / GIB:.2f} GiB needed, {free / GIB:.2f} GiB free in {dataset.root}"
    advice = "free some space, name fewer models with --model, or use --dtype float16 (half) or --fps"
    yield Check("disk together", "ok", found) if total < free else Check("disk together", "PROBLEM", found, advice)


def _check_hours(
    model: str,
    config: EncoderConfig,
    videos: dict[str, Path],
    expected: list[Expected],
    plan: ExtractionConfig,
    device: str,
) -> Check:
    name = f"hours {model}"
    try:
        config = with_options(config, plan).with_window(plan.window)
    except UserError as error:
        return Check(name, "note", f"not planned: {error}")
    decode_rate = decode_speed(videos, config)
    if decode_rate is None:
        return Check(name, "PROBLEM", "none of the videos decodes", "see data/README.md")
    speed = encoder_speed(config, device, mode=plan.mode)
    if speed.calls_per_second is None:
        return Check(name, "note", speed.remark)
    overlap = select_device(device).type != "cpu"
    decoded, calls = sum(video.decoded for video in expected), sum(video.calls(config, plan) for video in expected)
    estimate = hours(decoded, calls, decode_rate, speed.calls_per_second, overlap=overlap)
    about, under = ("more than", "under ") if speed.at_most else ("about", "")
    unit = "frames" if config.clip_len is None else "windows" if plan.mode == "window" else "clips"
    rates = f"decoding {_rate(decode_rate, 'frames')}, {calls:,} {unit}, encoder {under}{_rate(speed.calls_per_second, unit)}"
    advice = "share it out: sbatch --array=1-8 models/launch_extract.sh " + model if estimate > 24 else ""
    return Check(name, "ok", f"{about} {estimate:.2f} h (an estimate: {rates}; {speed.remark})", advice)


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second:,.0f} {unit}/s" if per_second >= 100 else f"{per_second:.3g} {unit}/s"

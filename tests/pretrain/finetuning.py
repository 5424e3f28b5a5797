"""Made data for Stage 2: two phases that differ in colour, tiny exports, and a training on them without video files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from common.base import paths
from common.base.files import write_json
from common.encoders.base import build_encoder
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.adapters import find_export
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.backbones import start_backbone
from pretrain.handover import encoder_folder
from pretrain.lora.adapter_writer import AdapterWriter
from pretrain.lora.adapters import add_adapters
from pretrain.lora.data import Clips, seen_corpora
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.lora.options import FinetuneOptions
from pretrain.lora.phase_classifier import PhaseClassifier
from pretrain.lora.training import Finetuning
from pretrain.ssl_config import find_model

FPS = 10
CLASSES = PhaseClasses(("cut", "rinse"), {"Made": {"unlabelled": None, "Cut": "cut", "Rinse": "rinse"}})
CLASSES_YAML = "classes: [cut, rinse]\ndatasets:\n  Made: {unlabelled: null, Cut: cut, Rinse: rinse}\n"
PHASES = ["Cut"] * 16 + ["Rinse"] * 4  # 2 s, four times as much of one as of the other
COLOURS = {"Cut": (160, 90, 90), "Rinse": (90, 90, 160)}


def frames_of(video: int) -> list[np.ndarray]:
    """Frames of a made video: its phases in their colours, lighter from video to video."""
    return [np.full((32, 32, 3), np.add(COLOURS[phase], 5 * video), dtype=np.uint8) for phase in PHASES]


class ColourReader:
    """Reads the made frames without files; remembers which videos it was asked for."""

    def __init__(self):
        self.asked: list[str] = []

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        self.asked.append(path.stem)
        images = frames_of(int(path.stem.rpartition("_")[2]))
        return np.stack([images[number] for number in np.round(seconds * FPS).astype(int)])


def write_dataset(root: Path, num_videos: int = 6, *, make_clip=None) -> paths.Dataset:
    """The made data set as an importer leaves it; without `make_clip` its videos are files of a few bytes."""
    dataset = paths.Dataset(root)
    for folder in (dataset.videos, dataset.ground_truth):
        folder.mkdir(parents=True)
    dataset.mapping.write_text("0 unlabelled\n1 Cut\n2 Rinse\n")
    entries = {}
    for video in range(num_videos):
        path = dataset.videos / f"case_{video}.mp4"
        if make_clip:
            make_clip(path, frames_of(video), fps=FPS)
        else:
            path.write_text(f"video {video}")
        (dataset.ground_truth / f"case_{video}.txt").write_text("\n".join(PHASES) + "\n")
        entries[f"case_{video}"] = {"fps": float(FPS), "stratum": ""}
    (root / "manifest.json").write_text(json.dumps({"release": "Made", "videos": entries}))
    return dataset


def write_export(name: str, folder: Path | None = None, *, seed: int = 1) -> Path:
    """A Stage 1 output of a tiny model with random weights, where the model's own is kept or in `folder`."""
    model = find_model(name)
    folder = folder or paths.pretrained_backbone(model.name)
    network, _ = start_backbone(model, "random", seed=seed)
    network.save_pretrained(folder / "export")
    (folder / "final.pt").write_bytes(b"state of the whole training")
    seen = {"corpus": "films", "name": "a", "size_bytes": 3, "fingerprint": "0" * 64}
    write_json(
        folder / "manifest.json", {"format": 1, "stage": "ssl", "model": model.name, "videos": [seen], "based_on": []}
    )
    return folder


def options_of(name: str, output: Path, **changes) -> FinetuneOptions:
    """Small and quick settings, completed."""
    settings = {
        "model": name, "output": str(output), "datasets": ("Made",), "rank": 2, "alpha": 4.0, "fps": float(FPS),
        "validation_share": 0.34, "grid_seconds": 0.2, "epochs": 2, "steps_per_epoch": 4, "batch_size": 4,
        "learning_rate": 1e-2, "head_learning_rate": 3e-2, "num_workers": 0, "dropout": 0.1,
    }  # fmt: skip
    return FinetuneOptions(**(settings | changes)).completed()


def base_config(name: str, export: Path) -> EncoderConfig:
    """The encoder of Stage 3 on an export alone."""
    config = read_encoder_config(encoder_folder(find_model(name)).config)
    return replace(config, ssl_checkpoint=str(export))


def clips_of(dataset: paths.Dataset, options: FinetuneOptions, config: EncoderConfig) -> Clips:
    """Both sides of the made data set, each with a reader of its own."""
    names = ("clip_len", "fps", "seed", "validation_share", "grid_seconds")
    settings = {"preprocessing": config.preprocessing} | {name: getattr(options, name) for name in names}
    sides = [
        LabelledClips([dataset], CLASSES, split, reader=ColourReader(), **settings) for split in ("train", "validation")
    ]
    return Clips(*sides, CLASSES.names)


def training_of(dataset: paths.Dataset, options: FinetuneOptions, export: Path) -> Finetuning:
    """A training on the made data set, ready to run on the CPU."""
    config = base_config(options.model, export)
    clips = clips_of(dataset, options, config)
    encoder = build_encoder(config)
    adapted = add_adapters(
        encoder.network, rank=options.rank, alpha=options.alpha, dropout=options.dropout, seed=options.seed
    )
    classifier = PhaseClassifier(encoder, len(CLASSES.names), seed=options.seed)
    writer = AdapterWriter(adapted, classifier, options, encoder.weights, CLASSES.names, seen_corpora(clips))
    return Finetuning(classifier, clips, options, writer, device=torch.device("cpu"))


def sha256_of(folder: Path) -> str:
    """What `common.encoders.weights.adapters` says of an export."""
    return find_export(str(folder)).sha256


def noise(*shape: int) -> torch.Tensor:
    """uint8 noise."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def flags(options: Sequence[str] = ()) -> list[str]:
    """Flags of `finetune_lora.py` for a short training on the made data set."""
    return [
        "--datasets", "Made", "--fps", str(FPS), "--validation_share", "0.34", "--grid_seconds", "0.2",
        "--epochs", "2", "--steps_per_epoch", "4", "--batch_size", "4", "--learning_rate", "1e-2",
        "--num_workers", "0", "--device", "cpu", *options,
    ]  # fmt: skip

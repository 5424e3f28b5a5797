"""Encoder and decoder as one network, its checkpoints, and state dicts of whole networks that the authors' code saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.base.files import misfit, save_tensors
from common.base.options import from_mapping
from common.base.runtime import UserError, listed
from common.encoders.base import Encoder, build_encoder
from common.encoders.config import EncoderConfig
from common.encoders.stages import open_stages, require_single_frames
from common.encoders.weights.files import read_content
from common.encoders.weights.layouts import INSERTED, Network, choose_network
from common.encoders.weights.load import STEP_COUNTER, load_strictly
from common.head.checkpoint import fill_head
from common.head.networks.fpn import FPN, NUM_MAPS
from common.tasks.segmentation.config import SegmentConfig
from common.video.preprocess import normalise

log = logging.getLogger(__name__)

FORMAT = 1
TASK = "segmentation"
DECODER = "FPN"  # how the authors' networks call it; the other attribute is the encoder
SHAPE = {
    "config": dict, "classes": [str], "inputs_hash": str, "weights": dict, "num_threads": int, "epoch": int,
    "history": [{"loss": float, "accuracy": float, "seconds": float}], "decoder": dict, "encoder?": dict, "optimizer": dict,
}  # fmt: skip
MLP_RATIO = 4  # of the classifier of a CAFormer
# classes of timm -> what the authors' network (TimJaspers0801/SurgeNet@54831cf) is called
AUTHORS_NETWORKS = {"MetaFormer": "MetaFormerFPN", "ConvNeXt": "ConvNextFPN", "PyramidVisionTransformerV2": "PVTV2FPN"}


class SegmentationNetwork(nn.Module):
    """Scores of each class for every pixel, out of an encoder's four maps."""

    def __init__(self, encoder: Encoder, config: SegmentConfig, num_classes: int):
        super().__init__()
        self.rule, self.finetune, self.family = encoder.preprocessing, config.finetune, encoder.config.family
        self.precision = config.precision
        self.stages = open_stages(encoder, config.sides)
        # layers draw their weights from torch's global generator: seeded here, and put back for whoever uses it next
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.decoder = FPN(
                self.stages.channels,
                num_classes,
                pyramid_channels=config.pyramid_channels,
                segmentation_channels=config.segmentation_channels,
            )
        if self.finetune:
            # what no map depends on, such as the norm before a classifier, has nothing to learn
            for parameter in self._used_by_maps(config.sides):
                parameter.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pixels `(N, 3, H, W)` -> scores before softmax `(N, num_classes, H, W)` float32.

        A frozen encoder keeps nothing for a backward pass. It stays in evaluation mode in fine-tuning too: its statistics
        and dropout are those of its features.
        """
        inputs = normalise(pixels, self.rule).to(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
                maps = self.stages(inputs)
            return self.decoder(maps).float()

    def _used_by_maps(self, sides: tuple[int, int]) -> list[nn.Parameter]:
        parameters = list(self.stages.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        total = sum(found.sum() for found in self.stages(torch.zeros(1, 3, *sides)))
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        self.stages.requires_grad_(False)
        return [value for value, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def encoder_state(self) -> dict[str, Tensor]:
        """What fine-tuning changes, for a checkpoint; without counters of steps, which nothing depends on."""
        return {name: value for name, value in self.stages.state_dict().items() if not name.endswith(STEP_COUNTER)}

    def count_parameters(self) -> int:
        """Parameters of encoder and decoder."""
        return sum(value.numel() for value in self.parameters())

    def describe(self) -> str:
        """Its size in words; of the authors' three networks also as their code builds them, with a classifier beside."""
        trained = sum(value.numel() for value in self.parameters() if value.requires_grad)
        words = f"{self.count_parameters():,} parameters, {trained:,} of them trained"
        count = authors_count(self)
        return (
            f"{words}; as {count[0]} of SurgeNet's authors {count[1]:,}, with a classifier that is not used"
            if count
            else words
        )


def authors_count(network: SegmentationNetwork) -> tuple[str, int] | None:
    """Name and parameters of a network as the authors' code builds it; None for one that is not of theirs.

    Theirs holds the encoder's classifier too, for as many classes, though no mask depends on it.
    """
    name = AUTHORS_NETWORKS.get(type(network.stages.network).__name__)
    if name is None or network.family != "surgenet":
        return None
    width, num_classes = network.stages.channels[-1], network.decoder.segmentation_head[0].out_channels
    unused = (width + 1) * num_classes
    if name == "MetaFormerFPN":
        hidden = MLP_RATIO * width
        unused = (width + 1) * hidden + 2 * hidden + (hidden + 1) * num_classes
    return name, network.count_parameters() + unused


@dataclass
class SegmentationCheckpoint:
    """A decoder after `epoch` finished epochs, and with fine-tuning its encoder.

    `weights` says which weights the encoder began with; `inputs_hash` identifies training images and masks.
    """

    config: dict[str, Any]
    classes: list[str]
    inputs_hash: str
    weights: dict[str, Any]
    num_threads: int
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    decoder: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] | None = None
    optimizer: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically."""
        save_tensors(path, {"format": FORMAT, "task": TASK} | self.__dict__)

    def fill(self, network: SegmentationNetwork, path: Path) -> None:
        """Put its parameters into a network. Raises `UserError` naming the file when they do not fit."""
        fill_head(network.decoder, self.decoder, path)
        if network.finetune:
            load_strictly(network.stages, self.encoder or {}, path)


def read_segmentation_file(path: Path) -> SegmentationCheckpoint | Network:
    """A checkpoint of this project, or the state dict of a whole network (`<encoder>.*` and `FPN.*`), on the CPU.

    Raises `UserError` naming the file when it is missing, damaged or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; run common.segment train first")
    content = read_content(path, "damaged or unsafe checkpoint ({reason}); train again")
    if not isinstance(content, dict) or content.get("task") != TASK:
        return _whole_network(content, path)
    wrong = misfit(content, SHAPE)
    if not wrong and not 0 <= content["epoch"] == len(content["history"]):
        wrong = f"epoch {content['epoch']} with a history of {len(content['history'])}"
    if wrong or content.get("format") != FORMAT:
        raise UserError(f"{path}: damaged checkpoint, or one of another version ({wrong or 'format'}); train again")
    return SegmentationCheckpoint(**{entry.name: content.get(entry.name) for entry in fields(SegmentationCheckpoint)})


def _whole_network(content: Any, path: Path) -> Network:
    read = choose_network(content, path)
    parts = {name.partition(".")[0] for name in read.state}
    if len(parts) != 2 or DECODER not in parts:
        raise UserError(
            f"{path}: expected a checkpoint of common.segment, or the state dict of a network with an encoder and {DECODER}, "
            f"found tensors of {listed(sorted(parts))}; train again, or name another file"
        )
    return read


def load_segmentation_network(
    path: Path, encoder: EncoderConfig, config: SegmentConfig, num_classes: int
) -> tuple[SegmentationNetwork, Encoder]:
    """The trained network of a checkpoint, or of an authors' state dict, in evaluation mode, and its encoder.

    Of our own checkpoints architecture and weights are the checkpoint's. Raises `UserError` when the parameters do not fit.
    """
    require_single_frames(encoder)
    found = read_segmentation_file(path)
    if isinstance(found, Network):
        return _from_whole_network(found, path, encoder, config, num_classes)
    trained = from_mapping(SegmentConfig, found.config, path)
    if len(found.classes) != num_classes:
        raise UserError(f"{path}: trained on {len(found.classes)} classes, the data set has {num_classes}")
    built = build_encoder(encoder, trained.weights)
    require_same_weights(built, found.weights, path)
    network = SegmentationNetwork(built, trained, num_classes)
    found.fill(network, path)
    return network.eval(), built


def require_same_weights(encoder: Encoder, recorded: Mapping[str, Any], path: Path) -> None:
    """Raise `UserError` when a decoder was trained on the maps of other weights than an encoder has."""
    ours = encoder.weights.to_json()
    if (ours["sha256"], ours["source"] == "random") != (recorded.get("sha256"), recorded.get("source") == "random"):
        raise UserError(
            f"{path}: trained on the maps of other weights ({recorded.get('source')}, SHA-256 {recorded.get('sha256')}) than "
            f"those of {encoder.config.title} now ({ours['source']}, {ours['sha256']}); give --weights as in training"
        )


def _from_whole_network(
    read: Network, path: Path, encoder: EncoderConfig, config: SegmentConfig, num_classes: int
) -> tuple[SegmentationNetwork, Encoder]:
    """The network of a state dict that holds both parts; its decoder's sizes are read off its tensors."""
    decoder = {
        name.removeprefix(f"{DECODER}."): value for name, value in read.state.items() if name.startswith(DECODER)
    }
    body = next(name for name in read.state if not name.startswith(f"{DECODER}."))
    part = body.partition(".")[0]
    around = INSERTED.sub("", read.file_keys[body]).removesuffix(body)
    heads = tuple(dict.fromkeys([*encoder.allowed_unexpected, "head."]))
    name = ".".join(filter(None, [read.name, f"{around}{part}"]))
    built = build_encoder(replace(encoder, allowed_unexpected=heads), f"{path}::{name}")
    classifier, branch = decoder.get("segmentation_head.0.weight"), decoder.get("seg_blocks.0.block.0.block.0.weight")
    if classifier is None or branch is None or classifier.ndim != NUM_MAPS or branch.ndim != NUM_MAPS:
        raise UserError(
            f"{path}: expected {DECODER}.segmentation_head.0.weight and {DECODER}.seg_blocks, found neither whole"
        )
    if len(classifier) != num_classes:
        raise UserError(f"{path}: a network of {len(classifier)} classes, the data set has {num_classes}")
    sizes = {"segmentation_channels": branch.shape[0], "pyramid_channels": branch.shape[1]}
    network = SegmentationNetwork(built, replace(config, finetune=False, **sizes), num_classes)
    fill_head(network.decoder, decoder, path)
    return network.eval(), built

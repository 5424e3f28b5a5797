"""Settings of a segmentation's training, as flags, as YAML, and as they are recorded."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common.base.options import CommandParser, add_options, check_ranges, option
from common.base.paths import DEFAULT_DATASET, require_name
from common.base.runtime import UserError, shown

STRIDE = 32  # of the coarsest map: sides are multiples of it
GROUPED = 32  # channels of the decoder come in whole groups of its normalisation
LARGEST_SIDE = 4096
DEFAULT_SIZE = "448x448"  # whole patches of 14 and of 16 pixels, and a multiple of 32: every encoder takes it
SIDES = re.compile(r"(\d{2,4})(?:x(\d{2,4}))?")
FLOOR = "floor=majority"  # the run of what knows no picture: the most frequent class of each pixel


@dataclass(frozen=True)
class SegmentConfig:
    """Everything that decides a segmentation; the flags of `common.segment`."""

    dataset: str = option(DEFAULT_DATASET, group="data")
    """Data set whose task is segmentation: a name under data/ or a path; where none is named, the only one in data/."""
    model: str | None = option(None, group="data")
    """Folder under models/ with an encoder of single frames (default: the current one)."""
    weights: str | None = option(None, group="model")
    """A published name, an address, a local file or folder of the encoder's weights, or 'random' (default: the config's)."""
    split: str = option("1", group="data")
    """Number of the split, from 1; train and predict take 'all' too."""
    splits: str | None = option(None, group="data")
    """Named list of splits of groups, splits/<NAME>/, such as official (default: the generated folds)."""
    run: str | None = option(None, group="output")
    """Name that keeps this run apart from others (default: from what differs from defaults)."""
    size: str = option(DEFAULT_SIZE, group="data", unit="pixels")
    """Height x width that images are stretched to, multiples of 32 (one number: both); scores are taken at the mask's size."""
    train_fraction: float = option(1.0, group="data", above=0, maximum=1)
    """Share of the training groups: nested, stratified subsets for learning curves; the test groups stay."""
    finetune: bool = option(False, group="model")
    """Train the encoder too, which is frozen else."""
    pyramid_channels: int = option(256, group="model", above=0, maximum=4096)
    """Channels of the decoder's pyramid."""
    segmentation_channels: int = option(128, group="model", above=0, maximum=4096)
    """Channels of the decoder's branches, a multiple of 32."""
    num_epochs: int = option(50, unit="epochs", above=0, maximum=1_000_000)
    """Length of the training; the last epoch is scored."""
    batch_size: int = option(8, unit="images", above=0)
    """Images of a step."""
    lr: float = option(1e-3, above=0)
    """Learning rate of AdamW for the decoder; falls to 0 with the epochs, by (1 - share)^0.9."""
    encoder_lr: float = option(1e-5, above=0)
    """With --finetune: learning rate for the encoder."""
    weight_decay: float = option(0.01, minimum=0)
    """Weight decay of AdamW."""
    loss_dice: float = option(1.0, minimum=0)
    """Weight of the soft Dice loss beside cross-entropy."""
    precision: Literal["fp32", "bf16"] = option("fp32", group="machine")
    """Arithmetic of encoder and decoder; the loss is always fp32."""
    seed: int = option(42, minimum=-(1 << 63), maximum=(1 << 63) - 1)
    """Seed of initial weights and of the order of images."""

    def __post_init__(self) -> None:
        check_ranges(self)
        object.__setattr__(self, "size", "x".join(map(str, self.sides)))
        for noun in ("run", "model", "splits"):
            if (name := getattr(self, noun)) is not None:
                require_name(noun, name)
        if not (self.split.isascii() and self.split.isdecimal() and int(self.split) > 0):
            raise UserError(f"split must be a number from 1, found {shown(self.split)}")
        if self.segmentation_channels % GROUPED:
            raise UserError(
                f"segmentation_channels must be a multiple of {GROUPED}, which groups of channels are normalised by, found "
                f"{self.segmentation_channels}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the encoder's pictures. Raises `UserError` for what is no such size."""
        found = SIDES.fullmatch(self.size)
        sides = tuple(int(number) for number in (found[1], found[2] or found[1])) if found else (0, 0)
        if not all(0 < side <= LARGEST_SIDE and side % STRIDE == 0 for side in sides):
            near = [max(STRIDE, round(side / STRIDE) * STRIDE) for side in sides] if all(sides) else (256, 448)
            raise UserError(
                f"size must be HEIGHTxWIDTH (or one number) of multiples of {STRIDE} up to {LARGEST_SIDE}, found "
                f"{shown(self.size)}; try {near[0]}x{near[1]}"
            )
        return sides

    @property
    def run_name(self) -> str | None:
        """The run's folder name: `run`, or what differs from the defaults among the settings below, or None."""
        channels = self.pyramid_channels, self.segmentation_channels
        derived = [f"splits={self.splits}" if self.splits else None]
        if self.weights:  # of an address or a file the last part
            name = re.sub(r"[^\w.@+=-]+", "_", Path(self.weights).name, flags=re.ASCII).strip(".").replace("..", ".")
            derived.append(name[:40])
        derived.append("finetune" if self.finetune else None)
        derived.append(f"size{self.size}" if self.size != DEFAULT_SIZE else None)
        derived.append(f"decoder{channels[0]}+{channels[1]}" if channels != (256, 128) else None)
        derived.append(f"fraction{self.train_fraction:g}" if self.train_fraction != 1 else None)
        derived.append(f"seed{self.seed}" if self.seed != SegmentConfig.seed else None)
        return self.run or "-".join(part for part in derived if part) or None


def segment_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """`key: theirs -> ours` for each setting that differs between two recorded configurations."""
    defaults = asdict(SegmentConfig())
    ours, theirs = defaults | ours, defaults | theirs
    keys = sorted(ours.keys() | theirs.keys())
    return [f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]


def add_segment_options(parser: CommandParser) -> None:
    """The flags of every field of `SegmentConfig`, and where to run."""
    parser.add_config()
    add_options(parser, SegmentConfig)
    parser.add_device()

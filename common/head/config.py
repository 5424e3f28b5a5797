"""Settings of a head's training, as flags, as YAML, and as they are recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from common.base.options import CommandParser, add_options, option
from common.base.paths import DEFAULT_DATASET
from common.base.runtime import (
    UserError,
)
from common.dataset.phases import LENGTH_TOLERANCE


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a head's training; the flags of `common.train` and `common.run_k_folds`."""

    dataset: str = option(DEFAULT_DATASET, "data set: a name under data/ or a path")
    model: str | None = option(None, "folder under models/ whose features are used (default: the current one)")
    variant: str | None = option(None, "feature variant: features/<Encoder>@<variant>/")
    split: str = option("1", "fold number from 1, or 'val' (train on all of groundTruth/, score groundTruth_val/)")
    run: str | None = option(
        None, "name that keeps this run apart from others (default: from what differs from defaults)"
    )
    features_dim: int | None = option(
        None, "feature dimension (default: the model's config; a wrong value is an error)"
    )
    num_epochs: int = option(100, "training epochs; the last one is scored")
    num_layers_PG: int = option(13, "dual dilated layers of the prediction generation stage")
    num_layers_R: int = option(13, "dilated residual layers of each refinement stage")
    num_R: int = option(4, "refinement stages")
    num_f_maps: int = option(64, "channels inside the head")
    bz: int = option(1, "videos in a batch")
    lr: float = option(5e-4, "learning rate of Adam; x0.3 at 60%% and 90%% of the epochs")
    loss_mse: float = option(0.35, "weight of the smoothing loss (T-MSE)")
    adaptive_mse: bool = option(True, "smooth less around true phase changes")
    window_mse: int = option(30, "frames around a phase change that --adaptive_mse smooths less")
    loss_focal: float = option(0.0, "gamma of the focal loss; 0 = cross-entropy")
    class_weights: str = option(
        "none", "'none', 'inverse' (to the training frames of a phase) or a file of 'PHASE WEIGHT' lines"
    )
    sample_rate: int = option(1, "use every n-th feature; predictions are expanded back")
    causal: bool = option(False, "the output at a frame depends on earlier frames only (online recognition)")
    seed: int = option(42, "seed of initial weights, dropout and video order")
    length_tolerance: int = option(
        LENGTH_TOLERANCE, "frames by which features and labels may differ; the end is trimmed for training"
    )
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the head; the loss is always fp32")
    train_fraction: float = option(
        1.0, "share of the training videos: nested, stratified subsets for learning curves; the test videos stay"
    )

    def __post_init__(self) -> None:
        positive = ("num_epochs", "num_layers_PG", "num_layers_R", "num_f_maps", "bz", "lr", "sample_rate")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, found {getattr(self, name)}")
        for name in ("num_R", "loss_mse", "loss_focal", "length_tolerance"):
            if not getattr(self, name) >= 0:  # NaN included
                raise UserError(f"{name} must not be negative, found {getattr(self, name)}")
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"train_fraction must be greater than 0 and at most 1, found {self.train_fraction}")
        if self.window_mse < 2:
            raise UserError(f"window_mse must be at least 2 frames, found {self.window_mse}")
        if self.split != "val" and not (self.split.isdecimal() and int(self.split) > 0):
            raise UserError(f"split must be a fold number from 1 or 'val', found {self.split!r}")

    @property
    def run_name(self) -> str | None:
        """The run's folder name: `run`, or what differs from the defaults among the settings below, or None."""
        derived = [self.variant, "causal" if self.causal else None]
        derived.append(f"fraction{self.train_fraction:g}" if self.train_fraction != 1 else None)
        derived.append(f"seed{self.seed}" if self.seed != TrainConfig.seed else None)
        return self.run or "-".join(part for part in derived if part) or None


def config_record(config: TrainConfig) -> dict[str, Any]:
    """A resolved configuration as it is saved in checkpoints and `run.json`."""
    return asdict(config)


def config_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """`key: theirs -> ours` for each setting that differs.

    A record from before a setting existed was made with what is its default now.
    """
    defaults = config_record(TrainConfig())
    ours, theirs = defaults | ours, defaults | theirs
    keys = sorted(ours.keys() | theirs.keys())
    return [f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]


def add_train_options(parser: CommandParser, *, skip: tuple[str, ...] = ()) -> None:
    """The flags that training commands share: every field of `TrainConfig`, and where and how to run."""
    parser.add_config()
    add_options(parser, TrainConfig, skip=skip)
    parser.add_device()
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline works)")

"""What can be configured: an encoder's folder, an extraction, a head's training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.options import from_mapping, option, read_yaml
from common.paths import DEFAULT_DATASET
from common.runtime import UserError


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
        16, "frames by which features and labels may differ; the end is trimmed for training"
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


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to a network's input, as data.

    `crop` none resizes the whole field to a square of `size` pixels (surgery happens at the borders too); `center` is
    the library's own rule: the short side to `short_side` pixels, then the middle square. Without a `short_side` the
    library resizes to the square itself. Pixels are scaled to 0..1, then (x - mean) / std.
    """

    size: int = 224
    crop: Literal["none", "center"] = "none"
    short_side: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def to_json(self) -> dict[str, Any]:
        """The rule as it stands in a sidecar."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std), "resize": "antialiased, on uint8"}


@dataclass(frozen=True)
class EncoderConfig:
    """A model folder's `config.yaml`."""

    family: str
    title: str
    feature_dim: int
    weights: str
    licence: str
    preprocessing: Preprocessing
    architecture: str
    """The family's name for the network (a timm or torchvision name, or a key of the family's table)."""
    pooling: str = "average"
    """How tokens or positions become one vector; `poolings` lists what the family offers."""
    poolings: tuple[str, ...] = ()
    library: str | None = None
    clip_len: int | None = None
    """Frames of a clip encoder's window; None = the encoder sees one frame."""
    named_weights: dict[str, str] = field(default_factory=dict)
    """Other published weights by the name that `--weights` takes."""
    access: str | None = None
    """What a person must do before the weights can be had, and what works without."""
    weights_megabytes: int | None = None
    fp32_modules: tuple[str, ...] = ()
    """Names of submodules that keep fp32 under bf16, because bf16 changes the features too much there."""
    allowed_missing: tuple[str, ...] = ()
    """Prefixes of network keys that the weights may lack."""
    allowed_unexpected: tuple[str, ...] = ()
    """Prefixes of weight keys that the network does not have (a classifier)."""
    lora_path: str | None = None
    """An adapter folder of `pretrain/finetune_lora.py` (default: the one that `weights: pretrain:NAME` means)."""
    ssl_checkpoint: str | None = None
    """A Stage 1 export of `pretrain/`: where the adapter's base now is, or alone without any adapter."""


@dataclass(frozen=True)
class ExtractionConfig:
    """The flags of `extract_features.py`."""

    dataset: str = option(DEFAULT_DATASET, "data set: a name under data/ or a path")
    videos: str | None = option(None, "extract the videos of this folder instead of the data set's videos/")
    variant: str | None = option(None, "write to features/<Encoder>@<variant>/")
    weights: str | None = option(
        None,
        "a published name, a local file or folder, or 'random' for untrained weights (default: the model's config)",
    )
    lora_path: str | None = option(
        None,
        "CataractFT: an adapter folder of pretrain/finetune_lora.py (default: pretrain/checkpoints/NAME/best_lora)",
    )
    ssl_checkpoint: str | None = option(
        None, "CataractFT: the Stage 1 export under the adapter (default: the recorded one); alone, without any adapter"
    )
    fps: float | None = option(None, "sample frames at this rate by nearest timestamp (default: every frame)")
    pooling: str | None = option(
        None, "how tokens become one vector, such as cls, mean, cls+mean (default: the config's)"
    )
    crop: Literal["none", "center"] | None = option(None, "center: the library's own crop (default: the whole field)")
    clip_len: int | None = option(None, "clip encoders: frames of a window (default: the model's config)")
    stride: int = option(1, "clip encoders: a window at every n-th frame, linear interpolation between")
    mode: Literal["window", "tokens"] = option(
        "window", "clip encoders: a window around each frame, or (much cheaper) overlapping clips' own tokens"
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "arithmetic; auto: bf16 on a GPU that has it, else fp32"
    )
    dtype: Literal["float32", "float16"] = option("float32", "number format of the feature files")
    decoder: Literal["pyav", "opencv", "decord", "torchcodec"] = option("pyav", "video decoder")
    batch_size: int | None = option(
        None, "frames or windows in a batch (default: fixed on a CPU, by free memory on a GPU)"
    )
    num_decoders: int = option(1, "decoder processes")
    compile: bool = option(False, "torch.compile the network")
    shard: str | None = option(None, "i/n: this process's share of the videos (default: a SLURM array's own)")

    def __post_init__(self) -> None:
        for name in ("fps", "batch_size", "clip_len", "stride", "num_decoders"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, found {getattr(self, name)}")


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read and check a model folder's `config.yaml`."""
    return from_mapping(EncoderConfig, read_yaml(path), path)

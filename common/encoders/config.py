"""A model folder's `config.yaml`."""

from dataclasses import dataclass, field
from pathlib import Path

from common.base.files import read_yaml
from common.base.options import from_mapping
from common.video.preprocess import Preprocessing


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
    """Steps that a person must take before the weights can be had, and what works without."""
    sha256: str | None = None
    """SHA-256 of the file at the address `weights`, where its source publishes one."""
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


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read and check a model folder's `config.yaml`."""
    return from_mapping(EncoderConfig, read_yaml(path), path)

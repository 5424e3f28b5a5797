"""A trained head found again: its checkpoint, and what it says of its features, phases and training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common import paths
from common.checkpoint import load_checkpoint
from common.config import EncoderConfig, TrainConfig, read_encoder_config
from common.experiment import VALIDATION
from common.options import from_mapping
from common.phases import PhaseMapping
from common.predict import RUN_RECORD
from common.runtime import UserError, read_json
from common.weights import RANDOM


def find_checkpoint(model: paths.Model, dataset: str, *, split: str | None = None, run: str | None = None) -> Path:
    """The head of a model's run; without `split` that of the validation split, else of the first fold.

    Raises `UserError` naming the heads that there are.
    """
    name = Path(dataset).name
    if split:
        candidates = [model.checkpoint(name, split, run)]
    else:
        folds = _trained(model, model.checkpoint(name, "[0-9]*", run))
        folds.sort(key=lambda path: int(path.parent.name.removeprefix("split_")))
        candidates = [model.checkpoint(name, VALIDATION, run), *folds]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        there = [str(path) for path in _trained(model, model.checkpoint("**", "*"))]
        raise UserError(
            f"{candidates[0]}: no such checkpoint; trained heads of {model.name}: {', '.join(there) or 'none'}. Choose "
            "one with --checkpoint (or --dataset, --split, --run), or train with python -m common.train"
        )
    return found


def _trained(model: paths.Model, pattern: Path) -> list[Path]:
    return sorted(model.root.glob(str(pattern.relative_to(model.root))))


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head's checkpoint and what it says of itself: nothing else of its training need be on this machine.

    `identity` is how its features were made (`features.IDENTITY`).
    """

    path: Path
    config: TrainConfig
    identity: dict[str, Any]
    mapping: PhaseMapping
    model: paths.Model
    encoder: EncoderConfig

    @property
    def dataset(self) -> str:
        return Path(self.config.dataset).name

    @property
    def description(self) -> str:
        """Encoder, head and training set in a line."""
        run = f", run {self.config.run_name}" if self.config.run_name else ""
        split = f"split {self.config.split}{run}"
        return f"{self.encoder.title} features, MS-TCN++ head trained on {self.dataset} ({split})"

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What must be known before any phase of this head is believed."""
        remarks = []
        if self.identity["weights"]["source"] == RANDOM:
            remarks.append("random encoder weights: this encoder has learned nothing")
        if self._is_synthetic():
            remarks.append("head trained on synthetic data: it has seen no surgery")
        return tuple(remarks)

    def _is_synthetic(self) -> bool:
        """As the run's record says, or else the data set; taken for real where neither is on this machine."""
        record = self.model.split_results(self.dataset, self.config.split, self.config.run_name) / RUN_RECORD
        if record.is_file():
            return read_json(record)["synthetic"]
        try:
            return paths.dataset(self.config.dataset).is_synthetic
        except UserError:
            return False


def open_head(path: Path, model_name: str | None = None) -> TrainedHead:
    """Read what a checkpoint says.

    Raises `UserError` when it is of another model than `model_name`, or does not say how its features were made.
    """
    checkpoint = load_checkpoint(path)
    config = from_mapping(TrainConfig, checkpoint.config, path)
    model = paths.model(model_name or config.model)
    encoder = read_encoder_config(model.config)
    if model.name != config.model:
        raise UserError(
            f"{path}: a head for features of {config.model} (feature_dim {config.features_dim}), not of {model.name} "
            f"(feature_dim {encoder.feature_dim}); leave --model out, or give a checkpoint of {model.name}"
        )
    if checkpoint.feature_identity is None:
        raise UserError(
            f"{path}: trained on features without sidecars, so it is unknown how to make those of another video; "
            f"extract the training features with models/{model.name}/extract_features.py and train again"
        )
    return TrainedHead(
        path, config, checkpoint.feature_identity, PhaseMapping(tuple(checkpoint.phases)), model, encoder
    )

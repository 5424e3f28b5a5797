"""Write what Stage 2 leaves behind, `best_lora/`, whole or not at all, prove that Stage 3 reads it correctly, and make its
classifier a `linear` head, which `common.predict_video` reads to tell the classes of any video at once.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from common.base import paths
from common.base.files import atomic_folder, sha256_of_file, write_json
from common.base.runtime import git_state, versions
from common.encoders.base import Encoder, build_encoder
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource
from common.features.config import ExtractionConfig
from common.features.extract import identity_of
from common.head.checkpoint import Checkpoint, build_head, fill_head
from common.head.config import TrainConfig
from common.video.preprocess import normalise
from pretrain.handover import encoder_folder, stage_1_manifest, stage_window
from pretrain.lora.adapters import HEAD_FILE, load_adapter, relative_difference, write_adapter
from pretrain.lora.options import FinetuneOptions
from pretrain.lora.phase_classifier import PhaseClassifier
from pretrain.ssl_config import find_model
from pretrain.video_data.corpora import Corpus, write_manifest

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)

# float32 of a forty-layer network; an adapter on other weights is off by tenths
MERGE_TOLERANCE = 1e-3
PROBE_RUN = "stage-2"


@dataclass(frozen=True)
class AdapterWriter:
    """Writes the adapter of a training to its `best_lora/`."""

    adapted: PeftModel
    classifier: PhaseClassifier
    options: FinetuneOptions
    base: WeightSource
    classes: Sequence[str]
    corpora: Sequence[Corpus]
    """The videos of training and validation."""

    def write(self, metrics: dict[str, Any]) -> None:
        """Put the present weights in the place of the former."""
        target = self.options.best_lora
        with atomic_folder(target) as folder:
            write_adapter(folder, self.adapted, self.classifier.head)
            write_json(folder / paths.ADAPTER_METRICS, metrics)
            write_json(folder / paths.PROVENANCE, self._provenance(target))
            manifest = folder / paths.MANIFEST
            write_manifest(
                manifest, "lora", self.options.model, corpora=self.corpora, based_on=self._earlier_manifests(target)
            )

    def _earlier_manifests(self, target: Path) -> list[str]:
        """Those of Stage 1; published weights have none."""
        found = stage_1_manifest(self.base.path)
        if found is None and self.options.base == "stage1":
            log.warning(
                "%s: no %s says which videos Stage 1 has seen, so leaks of it cannot be found; copy it with the "
                "weights",
                self.base.path,
                paths.MANIFEST,
            )
        return [_place(found, target)] if found else []

    def _provenance(self, target: Path) -> dict[str, Any]:
        return {
            "model": self.options.model,
            "stage": "lora",
            "base": self.options.base,
            "base_checkpoint": _place(self.base.path, target),
            "base_sha256": self.base.sha256,
            "datasets": [corpus.name for corpus in self.corpora],
            "classes": list(self.classes),
            "options": self.options.to_json(),
            "window": stage_window(self.options.to_json(), find_model(self.options.model).clip_len),
            **git_state(paths.CHECKOUT),
            "versions": versions() | {"peft": importlib.metadata.version("peft")},
        }

    @torch.no_grad()
    def check(self, config: EncoderConfig, clips: Tensor) -> float:
        """Compare the features of the adapter beside its base with those of Stage 3, where it is merged, in float32.

        `clips` are uint8 on the device, `config` is the encoder's own. The classifier gets the kept adapter and leaves
        the device, for the memory. What passes is worth a linear head, which is written beside the adapter. Returns the largest difference as a share of the largest feature.

        Raises `RuntimeError` when it cannot be rounding.
        """
        load_adapter(self.options.best_lora, self.adapted)
        expected = self.classifier.eval().features(clips)
        self.classifier.cpu()
        encoder = build_encoder(replace(config, lora_path=str(self.options.best_lora), ssl_checkpoint=None))
        encoder.prepare(clips.device)
        pixels = normalise(clips if self.classifier.sees_clips else clips[:, 0], config.preprocessing)
        difference = relative_difference(encoder.network(pixels), expected)
        if not difference < MERGE_TOLERANCE:
            raise RuntimeError(
                f"{self.options.best_lora}: the merged adapter gives other features than in training, by "
                f"{difference:.1e}"
            )
        log.info("%s: merged features are those of training to %.1e", self.options.best_lora, difference)
        write_linear_probe(
            self.options.output_folder / paths.LINEAR_PROBE,
            self.options.best_lora,
            encoder,
            encoder_folder(find_model(self.options.model)).name,
            self.classes,
            [corpus.name for corpus in self.corpora],
        )
        return difference


def write_linear_probe(
    path: Path, adapter: Path, encoder: Encoder, encoder_name: str, classes: Sequence[str], datasets: Sequence[str]
) -> None:
    """Write the classifier that is kept in the folder `adapter`, for the features of `encoder`, which has that adapter in it.

    `encoder_name` is the folder under `models/` that the encoder is of, `datasets` are those that were learned from.
    """
    config = TrainConfig(
        dataset="+".join(datasets), model=encoder_name, run=PROBE_RUN, head="linear", features_dim=encoder.feature_dim
    )
    learned = load_file(adapter / HEAD_FILE)
    weight, bias = learned["weight"], learned["bias"]
    state = {
        "conv_out.weight": weight.float().unsqueeze(2),
        "conv_out.bias": bias.float(),
    }  # a convolution over one frame
    fill_head(build_head(config, len(classes)), state, path)
    identity, inputs = identity_of(encoder_name, encoder, ExtractionConfig()), sha256_of_file(adapter / HEAD_FILE)
    Checkpoint(asdict(config), list(classes), inputs, identity, num_threads=1, model=state, background=None).save(path)
    log.info(
        "%s: the classifier as a linear head, for python -m common.predict_video VIDEO --checkpoint %s", path, path
    )


def _place(path: Path, start: Path) -> str:
    """A path as a record names it: relative to the folder `start` where both are kept together and may move."""
    root = paths.pretraining_checkpoints().resolve()
    path, start = path.resolve(), start.resolve()
    if path.is_relative_to(root) and start.is_relative_to(root):
        return Path(os.path.relpath(path, start)).as_posix()
    return str(path)

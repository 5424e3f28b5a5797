"""The trained backbone in a folder of its own, for feature extraction and for LoRA.

`common.encoders.weights.adapters` reads it.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from common.base import paths
from common.base.files import atomic_folder, sha256_of_file, write_json
from common.base.runtime import git_state, versions
from common.encoders.weights.adapters import save_network
from pretrain.engine.checkpoints.checkpoint import TrainingState
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.method import Method
from pretrain.handover import stage_window
from pretrain.ssl_config import SslModel, find_model


def export_backbone(method: Method, tensors: dict[str, Tensor], state: TrainingState, folder: RunFolder) -> Path:
    """Write `export/`: `config.json`, `model.safetensors`, `provenance.json`, all at once or not at all.

    `tensors` are the method's whole state (`whole_model_state`, or a checkpoint's `model`).
    """
    network = method.exported()
    model = find_model(state.config["model"])
    with atomic_folder(folder.export) as partial:
        _write_network(network, _tensors_of(network, method, tensors), model, partial)
        write_json(partial / paths.PROVENANCE, provenance(state, model, folder))
    return folder.export


def provenance(state: TrainingState, model: SslModel, folder: RunFolder) -> dict[str, Any]:
    """Record of what an export was made of, from and by."""
    manifest = folder.manifest
    return {
        "model": model.name,
        "family": model.family,
        "stage": "ssl",
        "recipe": state.recipe,
        "step": state.step,
        "init": state.init,
        "config": state.config,
        "window": stage_window(state.config, model.clip_len),
        "manifest_sha256": sha256_of_file(manifest) if manifest.is_file() else None,
        **git_state(paths.CHECKOUT),
        "versions": versions(),
    }


def _tensors_of(network: nn.Module, method: Method, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's state out of the whole method's: its parameters are the method's own, found by identity."""
    # by identity and not by name: a recipe may call the part another thing, or put the network together for the export
    names = {id(value): name for name, value in method.state_dict(keep_vars=True).items()}
    found = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if id(value) not in names:
            raise ValueError(f"the exported network's {name} is no tensor of {type(method).__name__}")
        found[name] = tensors[names[id(value)]].contiguous()
    return found


def _write_network(network: nn.Module, tensors: dict[str, Tensor], model: SslModel, folder: Path) -> None:
    if hasattr(network, "save_pretrained"):  # of transformers, whatever the family
        save_network(network, tensors, folder)
        return
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {"library": "timm", "architecture": model.architecture})

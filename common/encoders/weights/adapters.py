"""Weights that `pretrain/` makes: exports of Stage 1, and LoRA adapters of Stage 2 that are merged into them.

An adapter folder is peft's (`adapter_config.json`, `adapter_model.safetensors`) with a `provenance.json`:
`base_checkpoint`, the path of the export that it was trained on, `base_sha256`, what `find_export` says of that export,
and `model`, its name in `pretrain/`. An export is a transformers folder; `final.pt` in or above it stands for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.entries import visible
from common.base.runtime import UserError, read_json, sha256_of_file
from common.encoders.weights.load import WeightSource, sha256_of_weights

if TYPE_CHECKING:
    from torch import nn

    from common.encoders.config import EncoderConfig

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROVENANCE_FILE, PROVENANCE_KEYS = "provenance.json", ("base_checkpoint", "base_sha256", "model")


def find_pretrained(name: str, config: EncoderConfig | None = None) -> WeightSource:
    """The adapter that `pretrain/` keeps under a short name, on its own export.

    Raises `UserError` with the commands that make it.
    """
    folder = paths.pretrained_adapter(name)
    if not folder.is_dir():
        how = config.access if config and config.access else "pretrain/README.md says how to make it"
        raise UserError(f"weights pretrain:{name}: {folder} does not exist. {how}")
    return find_adapted(folder)


def find_adapted(folder: Path, ssl_checkpoint: str | None = None) -> WeightSource:
    """An adapter and the export under it: the recorded one, or where `ssl_checkpoint` says that it now is.

    Raises `UserError` naming both when the export is not the one that the adapter was trained on.
    """
    provenance = _read_provenance(folder)
    base = find_export(ssl_checkpoint or _recorded_base(folder, provenance))
    if base.sha256 != provenance["base_sha256"]:
        raise UserError(
            f"the adapter {folder} was trained on {provenance['base_checkpoint']} (SHA-256 "
            f"{provenance['base_sha256']}), but {base.path} has {base.sha256}: give --ssl_checkpoint that export"
        )
    file = folder / ADAPTER_FILE
    return replace(base, adapter=WeightSource(str(folder), file, sha256_of_file(file)))


def find_export(spec: str) -> WeightSource:
    """A Stage 1 export, named by its folder or by the `final.pt` in it or above it.

    Raises `UserError` when there is none.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".pt" and path.name != paths.FINAL_STATE:
        raise UserError(
            f"{spec}: the state of an unfinished training; its export is of the end of training: give "
            f"{paths.FINAL_STATE} or its folder"
        )
    folder = path.parent if path.suffix == ".pt" else path
    if not (folder / "config.json").is_file() and folder.is_dir():
        inside = [config.parent for config in visible(folder, "*/config.json")]
        folder = inside[0] if len(inside) == 1 else folder
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{spec}: expected a Stage 1 export, a folder with config.json and model.safetensors, found none; "
            "pretrain/ssl_pretrain_*.py writes one beside final.pt"
        )
    return WeightSource(spec, folder, sha256_of_weights(folder))


def _read_provenance(folder: Path) -> dict[str, Any]:
    absent = [name for name in (ADAPTER_CONFIG, ADAPTER_FILE, PROVENANCE_FILE) if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder}: expected an adapter of pretrain/finetune_lora.py, but {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not there; name the best_lora folder itself"
        )
    provenance = read_json(folder / PROVENANCE_FILE)
    lacking = [key for key in PROVENANCE_KEYS if key not in provenance]
    if lacking:
        raise UserError(
            f"{folder / PROVENANCE_FILE}: {', '.join(lacking)} missing: run pretrain/finetune_lora.py again"
        )
    return provenance


def _recorded_base(folder: Path, provenance: dict[str, Any]) -> str:
    """The recorded path: absolute, or relative to the adapter or to the repository."""
    recorded = Path(provenance["base_checkpoint"])
    for start in (folder, paths.repository_root()):
        if (start / recorded).exists():
            return str(start / recorded)
    raise UserError(
        f"the adapter {folder} was trained on {recorded}, which is not there; give --ssl_checkpoint its new place"
    )


def apply_adapter(network: nn.Module, folder: Path) -> nn.Module:
    """`network` with a LoRA adapter merged into its weights, in float32 (Hu et al., ICLR 2022: W + scale * B A).

    Raises `UserError` when the adapter's names or shapes are not the network's, or a part of it finds no place.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    try:
        adapted = PeftModel.from_pretrained(network.float(), str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder}: this adapter is not for {type(network).__name__} ({reason})") from error
    with safe_open(folder / ADAPTER_FILE, "pt") as file:
        unused = set(file.keys()) ^ set(get_peft_model_state_dict(adapted))
    if unused:
        raise UserError(
            f"{folder}: this adapter is not for {type(network).__name__}: {len(unused)} of its tensors do not fit, "
            f"first {min(unused)}"
        )
    return adapted.merge_and_unload(safe_merge=True)

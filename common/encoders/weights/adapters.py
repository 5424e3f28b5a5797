"""Weights that `pretrain/` makes: exports of Stage 1, and LoRA adapters of Stage 2 that are merged into them.

An adapter folder is peft's (`adapter_config.json`, `adapter_model.safetensors`) with a `provenance.json`:
`base_checkpoint`, the path of the export that it was trained on, `base_sha256`, what `find_export` says of that export,
and `model`, its name in `pretrain/`. Of networks that see clips, both stages record their `window` there: `clip_len` frames,
`clip_spacing` seconds apart. An adapter made by somebody else has no such file: it is merged into the base that
is named with it, and recorded as unverified. An export is a transformers folder; `final.pt` in or above it stands for it.
"""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.entries import visible
from common.base.files import misfit, read_json, sha256_of_file
from common.base.runtime import UserError, counted, listed, shortened, shown
from common.encoders.config import TrainedWindow
from common.encoders.weights.files import READ_ERRORS, in_one_line, sha256_of_weights
from common.encoders.weights.load import WeightSource, read_network

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from common.encoders.config import EncoderConfig

log = logging.getLogger(__name__)

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
ADAPTER_FILE_OF_OLD = "adapter_model.bin"
PROVENANCE_FILE = "provenance.json"
PROVENANCE = {"base_checkpoint": str, "base_sha256": str, "model": str}  # its shape
# around the names of tensors by peft, and between a layer's name and its factors
PEFT_PREFIX = "base_model.model."
FACTOR = re.compile(r"(?=\.lora_)")
# entries of adapter_config.json that the arithmetic of merging depends on
SETTINGS = {
    "r": int,
    "lora_alpha": float,
    "use_rslora": bool,
    "use_dora": bool,
    "fan_in_fan_out": bool,
    "lora_bias": bool,
}
# other values for layers whose names end as a pattern says
PATTERNS = {"rank_pattern": {str: int}, "alpha_pattern": {str: float}}
SHAPE = {f"{key}?": kind for key, kind in (SETTINGS | PATTERNS).items()} | {"peft_type": str}
# entries by which an adapter is more than two factors a layer
BEYOND_LORA = (
    *("bias", "alora_invocation_tokens"),
    *("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "megatron_config"),
    *("use_bdlora", "use_qalora", "arrow_config", "monteclora_config", "velora_config", "kasa_config"),
)
DEFAULT_RANK = 8  # of peft, where the settings say none
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others subtract the start from the base


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
    file = adapter_file(folder)
    return replace(base, adapter=WeightSource(str(folder), file, sha256_of_file(file)))


def adapter_on(base: WeightSource, folder: Path) -> WeightSource:
    """`base` with an adapter that somebody else made, which does not record its base: `is_verified` is False.

    Raises `UserError` when the folder is no LoRA adapter of peft, or none that can be merged.
    """
    read_adapter_config(folder)
    file = adapter_file(folder)
    return replace(base, adapter=WeightSource(str(folder), file, sha256_of_file(file), is_verified=False))


def has_provenance(folder: Path) -> bool:
    """Whether an adapter folder records the export that it was trained on."""
    return (folder / PROVENANCE_FILE).is_file()


def trained_window(source: WeightSource) -> TrainedWindow | None:
    """The window that weights of `pretrain/` were trained with, those of the last stage; None where nothing says it.

    Raises `UserError` for a `provenance.json` that says something else there.
    """
    places = [source.adapter.path.parent if source.adapter and source.adapter.path else None, source.path]
    for place in places:
        file = place / PROVENANCE_FILE if place and place.is_dir() else None
        record = read_json(file) if file and file.is_file() else {}
        window = record.get("window") if isinstance(record, dict) else None
        if window is None:
            continue
        if wrong := misfit(window, {"clip_len": int, "clip_spacing": float}):
            raise UserError(f"{file}, window: expected clip_len (frames) and clip_spacing (seconds): {wrong}")
        return TrainedWindow(window["clip_len"], window["clip_spacing"], file)
    return None


def adapter_file(folder: Path) -> Path:
    """The weights of a peft adapter, as safetensors or, of older releases, as a torch file."""
    places = [folder / name for name in (ADAPTER_FILE, ADAPTER_FILE_OF_OLD)]
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f"{folder}: expected a peft adapter, but {ADAPTER_FILE} is not there; name the folder that holds it"
    )


def find_export(spec: str) -> WeightSource:
    """A Stage 1 export, named by its folder or by the `final.pt` (of shards the folder `final`) in it or above it.

    Raises `UserError` when there is none.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".pt" and path.name != paths.FINAL_STATE:
        raise UserError(
            f"{spec}: the state of an unfinished training; its export is of the end of training: give "
            f"{paths.FINAL_STATE} or its folder"
        )
    folder = export_folder(path)
    if folder is None:
        raise UserError(
            f"{spec}: expected a Stage 1 export, a folder with config.json and model.safetensors, found none; "
            "pretrain/ssl_pretrain_*.py writes one beside final.pt"
        )
    return WeightSource(spec, folder, sha256_of_weights(folder))


def export_folder(path: Path) -> Path | None:
    """The transformers folder that `path`, a folder or the `final.pt` or `final` in it or above it, stands for; None: none."""
    folder = path.parent if path.name in (paths.FINAL_STATE, paths.FINAL_FOLDER) else path
    if not (folder / "config.json").is_file() and folder.is_dir():
        inside = [config.parent for config in visible(folder, "*/config.json")]
        folder = inside[0] if len(inside) == 1 else folder
    return folder if (folder / "config.json").is_file() else None


def save_network(network: PreTrainedModel, tensors: dict[str, Tensor], folder: Path) -> None:
    """Write a network of transformers, with these tensors for its own, without the bar that it draws for one file."""
    from transformers.utils import logging as said

    was_shown = said.is_progress_bar_enabled()
    said.disable_progress_bar()
    try:
        network.save_pretrained(folder, state_dict=tensors)
    finally:
        if was_shown:
            said.enable_progress_bar()


def _read_provenance(folder: Path) -> dict[str, Any]:
    absent = [name for name in (ADAPTER_CONFIG, ADAPTER_FILE, PROVENANCE_FILE) if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder}: expected an adapter of pretrain/finetune_lora.py, but {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not there; name the best_lora folder itself"
        )
    provenance = read_json(folder / PROVENANCE_FILE, "run pretrain/finetune_lora.py again")
    if wrong := misfit(provenance, PROVENANCE):
        raise UserError(f"{folder / PROVENANCE_FILE}: {wrong}; run pretrain/finetune_lora.py again")
    return provenance


def _recorded_base(folder: Path, provenance: dict[str, Any]) -> str:
    """The recorded path: absolute, or relative to the adapter or to the repository."""
    recorded = Path(provenance["base_checkpoint"])
    for start in (folder, paths.repository_root()):
        if (start / recorded).exists():
            return str(
                (start / recorded).resolve()
            )  # not `best_lora/../../ssl/...`, as messages and sidecars would have it
    raise UserError(
        f"the adapter {folder} was trained on {recorded}, which is not there; give --ssl_checkpoint its new place"
    )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What decides the arithmetic of a LoRA adapter: the `SETTINGS` and `PATTERNS` of its `adapter_config.json`.

    The others say how it was trained, or what peft should import or fetch; they are not passed on.
    Raises `UserError` for another kind of adapter, and for settings by which more than W + scale * B A is changed.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise UserError(f"{folder}: expected a peft adapter, but {ADAPTER_CONFIG} is not there; name its own folder")
    stored = read_json(file, "copy the adapter again")
    if wrong := misfit(stored, SHAPE):
        raise UserError(f"{file}: expected a LoRA adapter of peft ({wrong}); copy the adapter again")
    if (kind := stored["peft_type"]) != "LORA":
        raise UserError(
            f"{file}: expected a LoRA adapter of peft, found peft_type {shown(kind)}; only LoRA can be merged"
        )
    beyond = [key for key in BEYOND_LORA if stored.get(key) and stored[key] != "none"]
    start = stored.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        beyond.append(f"init_lora_weights: {shortened(str(start))}")
    if beyond:
        raise UserError(
            f"{file}: this adapter changes more than LoRA's two factors ({', '.join(beyond)}); merge it with the program "
            "that trained it, and give the merged weights by --weights"
        )
    return {key: stored[key] for key in (*SETTINGS, *PATTERNS) if stored.get(key) is not None}


def apply_adapter(network: nn.Module, folder: Path, unexpected: tuple[str, ...] = ()) -> nn.Module:
    """`network` with a LoRA adapter merged into its weights, in float32 (Hu et al., ICLR 2022: W + scale * B A).

    Layers are found by the end of their names, as a network inside another has a longer one; those under the prefixes
    `unexpected`, which the network does not have, are left out.
    Raises `UserError` when the adapter's names or shapes are not the network's, or a part of it finds no place.
    """
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
    from peft.utils.other import get_pattern_key

    settings, file = read_adapter_config(folder), adapter_file(folder)
    read = read_network(file).state
    tensors = {name: value for name, value in read.items() if not _layer(name).startswith(unexpected)}
    if len(tensors) < len(read):
        log.info(
            "%s: left out %s of parts that no feature depends on", file, counted(len(read) - len(tensors), "tensor")
        )
    layers = _places({_layer(name) for name in tensors}, network, file)
    placed = {PEFT_PREFIX + layers[_layer(name)] + _end(name): value for name, value in tensors.items()}
    refusal = f"{folder}: this adapter is not for {type(network).__name__}"
    try:
        for name, value in tensors.items():  # before any memory is taken for what the settings say
            if name.endswith(".lora_A.weight") and value.ndim:
                ranks = settings.get("rank_pattern") or {}
                rank = ranks.get(get_pattern_key(ranks, _layer(name)), settings.get("r", DEFAULT_RANK))
                if rank != len(value):
                    raise ValueError(f"rank {shown(rank)} in {ADAPTER_CONFIG}, but {len(value)} in its tensors")
        # of the adapter's own names, which may be others here
        for name in PATTERNS:
            values, settings[name] = settings.get(name) or {}, {}
            for layer, place in layers.items():
                pattern = get_pattern_key(values, layer)
                settings[name] |= {re.escape(place): values[pattern]} if pattern in values else {}
        config = LoraConfig(**settings, target_modules=sorted(set(layers.values())), init_lora_weights=False)
        adapted = with_adapter(network.float(), config)
        set_peft_model_state_dict(adapted, placed)
        unused = set(placed) ^ set(get_peft_model_state_dict(adapted))
        if unused:
            raise ValueError(f"{len(unused)} of its tensors do not fit, first {shown(min(unused))}")
        return adapted.merge_and_unload(safe_merge=True)
    except READ_ERRORS as error:
        raise UserError(f"{refusal} ({in_one_line(error)})") from error


def with_adapter(network: nn.Module, config: LoraConfig) -> PeftModel:
    """peft's view of `network` with the factors of `config` in it, in place.

    peft asks a network of transformers for a property that this calls deprecated: a warning that nobody here can act on.
    """
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(network, config)


def _layer(name: str) -> str:
    """The layer that a tensor of an adapter belongs to, by its name without what peft puts around it."""
    return FACTOR.split(name, maxsplit=1)[0].removeprefix(PEFT_PREFIX)


def _end(name: str) -> str:
    """What a tensor is to its layer: `.lora_A.weight` and the like."""
    return name[len(FACTOR.split(name, maxsplit=1)[0]) :]


def _places(layers: set[str], network: nn.Module, file: Path) -> dict[str, str]:
    """The network's name of each layer of an adapter: the same, or one of which it is the end, or that is its end.

    Raises `UserError` listing layers without a place, or with several.
    """
    own = [name for name, module in network.named_modules() if name and not list(module.children())]
    places = {
        layer: [layer]
        if layer in own
        else [n for n in own if f".{n}".endswith(f".{layer}") or f".{layer}".endswith(f".{n}")]
        for layer in layers
    }
    lost = sorted(layer for layer, found in places.items() if len(found) != 1)
    if lost or not layers:
        raise UserError(
            f"{file}: this adapter is not for {type(network).__name__}: of {counted(len(layers), 'adapted layer')} "
            f"{len(lost)} have no place in the network ({listed(lost, most=5)})"
        )
    return {layer: found[0] for layer, found in places.items()}

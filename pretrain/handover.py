"""Find what the stages of pretraining leave each other, and the encoder under `models/` that they all work for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.runtime import UserError
from common.encoders.config import read_encoder_config
from common.encoders.weights.find import find_weights
from pretrain.ssl_config import SslModel


def encoder_folder(model: SslModel) -> paths.Model:
    """The folder under `models/` whose config says `weights: pretrain:<short name>`.

    Raises `UserError` unless there is exactly one.
    """
    own = f"pretrain:{model.short}"
    found = [folder for folder in paths.all_models() if read_encoder_config(folder.config).weights == own]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise UserError(
            f"{model.name}: expected one folder under models/ whose config.yaml says 'weights: {own}', found {names}"
        )
    return found[0]


def find_stage_output(text: str, flag: str = "--ssl_checkpoint") -> Path:
    """The absolute place of what an earlier stage wrote; a relative path starts here, in `pretrain/` or at the root.

    Raises `UserError` that lists the places, and for a `.pt` file that no export belongs to.
    """
    given = Path(text).expanduser()
    if given.suffix == ".pt" and given.name != paths.FINAL_STATE:
        raise UserError(
            f"{flag} {text}: only {paths.FINAL_STATE} has an export beside it; name that, or an export folder"
        )
    starts = (Path.cwd(), paths.pretraining_checkpoints().parent, paths.repository_root())
    places = list(dict.fromkeys((start / given).resolve() for start in starts))
    for place in places:
        if place.exists() or (place.suffix == ".pt" and place.parent.is_dir()):
            return place
    raise UserError(f"{flag} {text}: no such file or folder; looked for {', '.join(map(str, places))}")


def find_base(model: SslModel, base: str, ssl_checkpoint: str | None) -> Path:
    """The weights that LoRA starts from: those named, else the model's own Stage 1 output, or `published` ones.

    Raises `UserError` when there are none.
    """
    if base == "published":
        if ssl_checkpoint:
            raise UserError("--base published together with --ssl_checkpoint: give one or the other")
        if model.is_tiny:
            raise UserError(f"--base published: there are no published weights of {model.name}, a network for trials")
        config = model.encoder_config()
        source = find_weights(config.weights, config)
        # adapters are kept beside a transformers folder, from which Stage 3 builds their base again
        if source.folder_config is None:
            raise UserError(f"--base published: {source.path} is no transformers folder with a config.json")
        return source.path
    if ssl_checkpoint:
        return find_stage_output(ssl_checkpoint)
    own = paths.pretrained_backbone(model.name)
    if not own.is_dir():
        raise UserError(
            f"{own}: no Stage 1 output of {model.name}; make it with pretrain/ssl_pretrain_{model.family}.py "
            f"--model {model.name}, name another by --ssl_checkpoint, or say --base published for LoRA without Stage 1"
        )
    return own


def stage_1_manifest(export: Path) -> Path | None:
    """The record of the videos behind an export, in its folder or the one above; None: Stage 1 says nothing."""
    places = [folder / paths.MANIFEST for folder in (export, export.parent)]
    return next(filter(Path.is_file, places), None)


def stage_window(options: Mapping[str, Any], clip_len: int) -> dict[str, Any] | None:
    """The window that Stage 3 is to use: `clip_len` frames (the model's, where options have none), `1 / fps` s apart.

    None for networks that see single frames.
    """
    if clip_len == 1:
        return None
    return {"clip_len": options["clip_len"] or clip_len, "clip_spacing": 1 / options["fps"]}

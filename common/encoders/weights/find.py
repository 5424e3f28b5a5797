"""Find and verify pretrained weights, wherever they are; `tensors` reads them.

A weight source is written as
    random                              random weights, only by explicit request; recorded as such
    none                                the encoder has none
    local                               only in a config: none are public, --weights must name some
    /path/to/file                       a local file, safetensors or a torch state dict
    /path/to/folder                     a local folder: config.json and weights, whole or sharded
    package:<python package>/<file>     a file inside an installed package
    torchvision:<Enum>.<MEMBER>         a torchvision release, downloaded once into torch's cache
    hub:<org>/<name>[@<revision>]       a Hugging Face repository, downloaded once into its cache
    https://...                         a published file, downloaded once into torch's cache
    pretrain:<short name>               what `pretrain/` made: a LoRA adapter and the export that it was trained on

`python -m common.weights list` shows every model's, `prefetch MODEL...|all` downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.runtime import UserError
from common.encoders.weights import download
from common.encoders.weights.adapters import find_adapted, find_export
from common.encoders.weights.source import LOCAL, NONE, RANDOM, WeightSource
from common.encoders.weights.tensors import sha256_of_weights

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig


def find_weights(spec: str, config: EncoderConfig | None = None) -> WeightSource:
    """Locate (and if published, download) the weights that `spec` names, and hash them.

    Raises `UserError` that says which other ways there are.
    """
    spec = config.named_weights.get(spec, spec) if config else spec
    if spec in (RANDOM, NONE):
        return WeightSource(spec)
    if spec == LOCAL:
        raise UserError(
            f"{config.title}: {config.access}" if config else "weights local: pass --weights FILE or FOLDER"
        )
    kind, _, rest = spec.partition(":")
    if kind == "pretrain":
        from common.encoders.weights.adapters import find_pretrained

        return find_pretrained(rest, config)
    if kind == "package":
        path = download.package_file(rest)
    elif kind == "torchvision":
        path = download.torchvision_file(rest)
    elif kind == "hub":
        path = download.hub_folder(rest, config)
    elif kind in ("https", "http"):
        path = download.url_file(spec, config)
    else:
        path = Path(spec).expanduser()
    if not path.exists() or not spec:
        names = f" ({', '.join(config.named_weights)})" if config and config.named_weights else ""
        raise UserError(
            f"weights {spec!r}: no such file; give --weights a local file, a local folder with config.json, a name from "
            f"the model's config.yaml{names}, hub:ORG/NAME, an address, or 'random' for untrained weights"
            + (f". {config.title}: {config.access}" if config and config.access else "")
        )
    return WeightSource(spec, path, sha256_of_weights(path))


def is_available(config: EncoderConfig) -> tuple[bool, str]:
    """Whether a model's own weights are on this machine, and where or what to do; downloads and hashes nothing."""
    kind, _, rest = config.weights.partition(":")
    if config.weights == NONE:
        return True, "needs none"
    if config.weights == LOCAL:
        return False, config.access or "pass --weights FILE"
    if kind == "pretrain":
        path = paths.pretrained_adapter(rest)
    elif kind == "hub":
        path = download.cached_hub_folder(rest)
    elif kind == "torchvision":
        path = download.torch_cache(download.torchvision_url(rest))
    elif kind in ("https", "http"):
        path = download.torch_cache(config.weights)
    else:
        try:
            path = download.package_file(rest) if kind == "package" else Path(config.weights).expanduser()
        except UserError as error:
            return False, str(error)
    if path is not None and path.exists():
        return True, str(path)
    return False, config.access or "not downloaded yet: python -m common.weights prefetch"


def choose_weights(config: EncoderConfig, weights: str | None = None) -> WeightSource:
    """The weights that `--weights`, `--lora_path`, `--ssl_checkpoint` or else the model's config name.

    Raises `UserError` when they contradict each other, or the model takes no adapter.
    """
    if not (config.lora_path or config.ssl_checkpoint):
        return find_weights(weights or config.weights, config)
    if weights:
        raise UserError("--weights together with --lora_path or --ssl_checkpoint: give one or the other")
    if not config.weights.startswith("pretrain:"):
        raise UserError(
            f"--lora_path, --ssl_checkpoint: {config.title} is the encoder as published; use its CataractFT folder"
        )
    if config.lora_path:
        return find_adapted(Path(config.lora_path).expanduser(), config.ssl_checkpoint)
    return find_export(config.ssl_checkpoint)

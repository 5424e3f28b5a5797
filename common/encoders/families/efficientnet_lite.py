"""EfficientNet-Lite of timm, without its classifier: global average of the last feature map."""

import timm
from torch import Tensor, nn

from common.encoders.base import ImageEncoder, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import STEP_COUNTER, WeightSource


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """The timm architecture named by `architecture`.

    The TensorFlow-padded `tf_efficientnet_lite0` is the one that the converted weights are for: timm's plain
    `efficientnet_lite0` takes the same values and gives other features.
    """
    network = timm.create_model(config.architecture, pretrained=False)
    load_network(network, config, source, rename=_in_order)
    network.reset_classifier(0)
    return ImageEncoder(config, network, source)


def _in_order(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights under timm's names: other implementations name the same layers differently, in the same order.

    A file whose order does not fit keeps its names, and strict loading then reports it. Files without batch norm's
    counters of training steps are as good.
    """
    own = network.state_dict()
    if not any(key.endswith(STEP_COUNTER) for key in state):
        own = {key: value for key, value in own.items() if not key.endswith(STEP_COUNTER)}
    same_order = len(own) == len(state) and all(
        theirs.rpartition(".")[2] == ours.rpartition(".")[2] and state[theirs].shape == own[ours].shape
        for theirs, ours in zip(state, own, strict=True)
    )
    return dict(zip(own, state.values(), strict=True)) if same_order else state

"""ResNet (He et al., CVPR 2016) of torchvision, without its classifier: global average of the last stage."""

import torchvision.models
from torch import nn

from common.encoders.base import ImageEncoder, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource


def build(config: EncoderConfig, source: WeightSource) -> ImageEncoder:
    """The ResNet named by `architecture` (`resnet50`: 2048-d)."""
    network = torchvision.models.get_model(config.architecture, weights=None)
    network.fc = nn.Identity()
    return ImageEncoder(config, load_network(network, config, source), source)

"""I3D with a ResNet-50 (Carreira and Zisserman, CVPR 2017) of pytorchvideo, without its classifier."""

from typing import Any

import torch
from torch import Tensor, nn

from common.encoders.base import ClipEncoder, choose_architecture, load_network
from common.encoders.config import EncoderConfig
from common.encoders.weights.load import WeightSource

# `architecture` -> what differs from pytorchvideo's defaults
ARCHITECTURES: dict[str, dict[str, Any]] = {"i3d_r50": {}, "tiny": {"stem_dim_out": 4}}


class I3DFeatures(nn.Module):
    """Average over time and space of the last stage; pytorchvideo's head with its fixed 4 x 7 x 7 pool is left out."""

    def __init__(self, blocks: nn.ModuleList):
        super().__init__()
        self.blocks = blocks

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips `(N, T, 3, H, W)` -> `(N, feature_dim)`."""
        features = clips.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
        for block in self.blocks:
            features = block(features)
        return features.mean(dim=(2, 3, 4))


def build(config: EncoderConfig, source: WeightSource) -> ClipEncoder:
    """I3D-R50; `feature_dim` is 2048.

    Raises `UserError` for an unknown architecture.
    """
    # the models alone: pytorchvideo.transforms needs a torchvision module that is gone
    from pytorchvideo.models.hub import i3d_r50

    whole = i3d_r50(pretrained=False, **choose_architecture(config, ARCHITECTURES))
    network = load_network(I3DFeatures(whole.blocks[:-1]), config, source)
    # several times as fast in fp32 as the default order on a CPU
    return ClipEncoder(config, network.to(memory_format=torch.channels_last_3d), source)

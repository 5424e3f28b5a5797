"""The projection head of DINO and iBOT: features to scores of learned prototypes."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_STD = 0.02


@dataclass(frozen=True)
class HeadSize:
    """Widths of a `PrototypeHead`; the defaults are those of DINOv3's ViT-L recipe, for both of its heads."""

    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536
    layers: int = 3


# of DINOv3's 7B network and of those distilled from it
DINO_7B = HeadSize(hidden=8192, bottleneck=512, prototypes=262144)
IBOT_7B = HeadSize(hidden=4096, bottleneck=384, prototypes=98304)


class PrototypeHead(nn.Module):
    """MLP with GELU to a bottleneck, L2 normalisation, and a linear layer without bias to K prototypes.

    As in DINOv3 (`dinov3/layers/dino_head.py`), or with `unit_prototypes` as in DINO (`dino:vision_transformer.py`), whose
    weight norm of length 1 brings every prototype onto the sphere; both without batch norm. The class tokens' head and
    the patches' head are separate networks.
    """

    def __init__(
        self,
        feature_dim: int,
        size: HeadSize | None = None,
        *,
        unit_prototypes: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Weights are drawn from a truncated normal of standard deviation 0.02, biases start at zero."""
        super().__init__()
        size = size or HeadSize()
        widths = [feature_dim, *[size.hidden] * (size.layers - 1), size.bottleneck]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.prototypes = nn.Linear(size.bottleneck, size.prototypes, bias=False)
        self.unit_prototypes = unit_prototypes
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """`(..., feature_dim)` -> scores `(..., K)`."""
        bottleneck = self.mlp(features)
        # the usual 1e-12 is zero in half precision, where a bottleneck of zeros would become NaN
        eps = 1e-6 if bottleneck.dtype == torch.float16 else 1e-12
        direction = F.normalize(bottleneck, dim=-1, eps=eps)
        if self.unit_prototypes:
            return F.linear(direction, F.normalize(self.prototypes.weight.float(), dim=-1).to(direction.dtype))
        return self.prototypes(direction)

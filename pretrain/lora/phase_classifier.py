"""The network that Stage 2 trains: an encoder with adapters, and a linear classifier on the feature of Stage 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.encoders.base import ClipEncoder, Encoder
from common.video.preprocess import normalise


class PhaseClassifier(nn.Module):
    """`head` on the pooled feature of an encoder's network: CLS of DINOv3, the mean of all tokens of V-JEPA 2."""

    def __init__(self, encoder: Encoder, num_classes: int, *, seed: int = 42):
        """The start values of the head depend on `seed` alone."""
        super().__init__()
        self.network, self.preprocessing = encoder.network, encoder.preprocessing
        self.sees_clips = isinstance(encoder, ClipEncoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(encoder.feature_dim, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 clips `(B, T, 3, size, size)`, T = 1 for encoders of single frames -> float32 logits `(B, classes)`."""
        features = self.features(clips)
        with torch.autocast(clips.device.type, enabled=False):
            return self.head(features)

    def features(self, clips: Tensor) -> Tensor:
        """Features `(B, D)` float32 of uint8 clips, as Stage 3 extracts them."""
        pixels = normalise(clips if self.sees_clips else clips[:, 0], self.preprocessing)
        return self.network(pixels).float()

    def train(self, mode: bool = True) -> PhaseClassifier:
        """Training mode for the adapters' dropout alone.

        The network's own would rescale DINOv3's positions and drop blocks, and Stage 3 does neither.
        """
        super().train(False)
        self.training = mode
        for name, module in self.network.named_modules():
            if ".lora_dropout." in name:
                module.train(mode)
        return self

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The adapters' factors, and the head."""
        adapters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return adapters, list(self.head.parameters())

    def trainable_state(self) -> dict[str, Tensor]:
        """Tensors that training changes, by name."""
        return {name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave. Raises `KeyError` unless the names are the same."""
        own = self.trainable_state()
        if own.keys() != state.keys():
            raise KeyError(f"other trainable parameters: {sorted(own.keys() ^ state.keys())[:3]}")
        for name, parameter in own.items():
            parameter.copy_(state[name])

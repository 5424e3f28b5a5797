"""The decoders of a video masked autoencoder: from the states of visible tokens to what the hidden ones hold."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import VideoMAEForPreTraining

from pretrain.objectives.masks_video import TokenMasks

IMAGE_DECODER_LAYERS = 2  # SurgVISTA's


class TokenDecoder(nn.Module):
    """Predicts the hidden tokens: visible ones, then a learned token for each hidden one, all with their positions."""

    def __init__(self, embed: nn.Linear, mask_token: nn.Parameter, blocks: nn.Module, positions: Tensor):
        """`blocks` are a decoder of transformers' Video MAE; `positions` `(N, W)` for its width W."""
        super().__init__()
        self.embed, self.mask_token, self.blocks = embed, mask_token, blocks
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, states: Tensor, masks: TokenMasks) -> Tensor:
        """States `(B, K, D)` of the visible tokens -> predictions `(B, M, P)` for the hidden ones, in their order."""
        visible = self.embed(states) + self.positions[masks.context]
        hidden = self.mask_token + self.positions[masks.target]
        return self.blocks(torch.cat([visible, hidden], dim=1), masks.target.shape[1]).logits


def pixel_decoder(network: VideoMAEForPreTraining) -> TokenDecoder:
    """The network's own decoder."""
    return TokenDecoder(
        network.encoder_to_decoder, network.mask_token, network.decoder, network.position_embeddings[0]
    )  # fmt: skip


def image_decoder(network: VideoMAEForPreTraining, feature_dim: int, random: torch.Generator) -> TokenDecoder:
    """A decoder like that of the pixels, with two blocks, for image features; it starts at random values (Xavier)."""
    decoder = copy.deepcopy(pixel_decoder(network))
    decoder.blocks.decoder_layers = decoder.blocks.decoder_layers[:IMAGE_DECODER_LAYERS]
    decoder.blocks.head = nn.Linear(network.config.decoder_hidden_size, feature_dim)
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    nn.init.trunc_normal_(decoder.mask_token, std=0.02, generator=random)
    return decoder

"""Both halves of V-JEPA 2's masked prediction, which transformers' own forward does not keep apart.

There the encoder sees the whole clip and masks apply to its output, so that hidden pixels reach the context. Here
tokens are taken away before the first block; the blocks' rotary positions come from the places of those that stay.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2Predictor

from common.runtime import UserError
from pretrain.objectives.latent_losses import gather_tokens
from pretrain.objectives.masks_video import TokenMasks

log = logging.getLogger(__name__)


def embed(encoder: VJEPA2Encoder, clips: Tensor) -> Tensor:
    """Normalised clips `(B, T, 3, S, S)` -> a token for each patch of two frames `(B, N, D)`, by time, row, column.

    Raises `ValueError` for another size than `crop_size`, from which positions are counted, and for an odd T: the
    network would take either without a word, with wrong rows and columns, or without the last frame.
    """
    config = encoder.config
    num_frames, size = clips.shape[1], tuple(clips.shape[-2:])
    if size != (config.crop_size, config.crop_size):
        raise ValueError(
            f"clips of {size} pixels for a network whose positions are those of {config.crop_size} squared"
        )
    if num_frames % config.tubelet_size:
        raise ValueError(f"clips of {num_frames} frames, which do not divide by {config.tubelet_size}")
    return encoder.embeddings(clips)


def encode(encoder: VJEPA2Encoder, tokens: Tensor, places: Tensor | None = None) -> Tensor:
    """States of the `embed`ded tokens `(B, N, D)` at the places `(B, K)` alone, `(B, K, D)`; by default of all.

    No other token takes part (V-JEPA, Bardes et al., 2024, section 3.1).
    """
    states = tokens if places is None else gather_tokens(tokens, places)
    for block in encoder.layer:
        states, _ = block(states, places)
    return encoder.layernorm(states)


def predict(predictor: VJEPA2Predictor, context: Tensor, masks: TokenMasks, *, mask_token: int = 0) -> Tensor:
    """Predicted states `(B, M, D)` of the target tokens, in their order, from those of the context `(B, K, D)`.

    A target enters as the learned mask token number `mask_token` at its true position.
    """
    known = predictor.embeddings.predictor_embeddings(context)
    asked = predictor.embeddings.mask_tokens[mask_token].expand(*masks.target.shape, -1)
    # attention does not look at the order: sorting by place, as the reference does, would change nothing
    states, places = torch.cat([known, asked], dim=1), torch.cat(masks, dim=1)
    for block in predictor.layer:
        states, _ = block(states, places)
    return predictor.proj(predictor.layernorm(states[:, known.shape[1] :]))


def choose_mask_token(predictor: VJEPA2Predictor, asked_for: int | None = None) -> int:
    """The number asked for, or that of the mask token with the largest norm; 0 where none was trained.

    All start at 0. The published training has one for each length of clips, 0 where there is a single length
    (`vjepa2:src/utils/wrappers.py`), and transformers always takes 1.

    Raises `UserError` for a number that is not there.
    """
    norms = predictor.embeddings.mask_tokens.detach().flatten(1).norm(dim=1)
    if asked_for is not None and not 0 <= asked_for < len(norms):
        raise UserError(f"--mask_token {asked_for}: the predictor has {len(norms)} mask tokens, from 0 on")
    chosen = int(norms.argmax()) if asked_for is None else asked_for
    listed = " ".join(f"{norm:.3g}" for norm in norms.tolist())
    log.info("mask token %d of the predictor is trained; norms at the start: %s", chosen, listed)
    return chosen

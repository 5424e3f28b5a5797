"""The predictor of V-JEPA 2 at the start of a training: out of a file of Meta's, or new as Meta begins it.

Folders of transformers hold a predictor under names of their own and need nothing of this.
"""

import logging
import math
import re

import torch
from torch import Tensor, nn
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Predictor

from common.base.runtime import UserError
from common.encoders.weights.files import read_content
from common.encoders.weights.layouts import Network, choose_network
from common.encoders.weights.load import WeightSource, keys_in_the_file, load_strictly, rename_start, split_joint

log = logging.getLogger(__name__)

PREDICTOR = "predictor"  # the network's name in Meta's files, beside `encoder` and `target_encoder`
MASK_TOKENS = "mask_tokens."
RESIDUAL_OUTPUT = re.compile(r"(?:encoder|predictor)\.layer\.(\d+)\.(?:attention\.proj|mlp\.fc2)")
# Meta's names (`vjepa2:src/models/predictor.py`) -> transformers'
NAMES = {
    "predictor_embed.": "embeddings.predictor_embeddings.",
    "predictor_blocks.": "layer.",
    "predictor_norm.": "layernorm.",
    "predictor_proj.": "proj.",
}


def read_predictor(predictor: VJEPA2Predictor, source: WeightSource) -> bool:
    """Give `predictor`, on the meta device, the trained one of Meta's file, where its tensors stay; False: there is none.

    It gets as many mask tokens as the file has, one for each length of clips that it was trained on.

    Raises `UserError` that names the file's keys for a predictor of another size, or without its mask tokens.
    """
    content = read_content(source.path, lazy=True)
    if not isinstance(content, dict) or not isinstance(content.get(PREDICTOR), dict):
        return False
    found = choose_network(content, source.path, PREDICTOR)
    tokens = _mask_tokens(found, source)
    state: dict[str, Tensor] = {"embeddings.mask_tokens": tokens}
    for key, value in found.state.items():
        name = rename_start(key, NAMES)
        if key.startswith(MASK_TOKENS):
            continue
        if ".attn.qkv." in name:
            state |= split_joint(name, value, *(f"attention.{part}" for part in ("query", "key", "value")))
        else:
            state[name.replace(".attn.proj.", ".attention.proj.")] = value
    predictor.embeddings.mask_tokens = nn.Parameter(torch.empty_like(tokens, device="meta"))
    predictor.embeddings.num_mask_tokens = predictor.embeddings.config.pred_num_mask_tokens = len(tokens)
    # of earlier trainings of Meta's, whose positions were added: those of V-JEPA 2 are rotary
    load_strictly(
        predictor,
        state,
        source.path,
        unexpected=("predictor_pos_embed",),
        stays_in_file=True,
        file_keys=keys_in_the_file(state, found),
    )
    log.info("%s: the predictor is the file's own, with %d mask tokens", source.path, len(tokens))
    return True


def _mask_tokens(found: Network, source: WeightSource) -> Tensor:
    """`(n, 1, 1, D)` of the entries `mask_tokens.0`, `mask_tokens.1` ... of `(1, 1, D)` each."""
    entries = [found.state.get(f"{MASK_TOKENS}{number}") for number in range(len(found.state))]
    tokens = [value.float() for value in entries if value is not None]
    if not tokens:
        raise UserError(
            f"{source.path}: expected {PREDICTOR}.{MASK_TOKENS}0 ... beside the predictor's blocks, found none; give the file "
            "as Meta published it, or --init FILE::target_encoder of one without a predictor"
        )
    return torch.stack(tokens)


def residual_divisor(name: str) -> float:
    """By what the start value of a weight is divided, by the name of its layer; 1 for most.

    sqrt(2 n) for what block n, from 1, of encoder and predictor adds to its input (`vjepa2:src/models/predictor.py` and
    `vision_transformer.py`, `_rescale_blocks`): a standard deviation of .02 becomes .0141 in the first block and .01 in the
    second, so that the sum over all does not grow with their number.
    """
    found = RESIDUAL_OUTPUT.fullmatch(name)
    return math.sqrt(2 * (int(found[1]) + 1)) if found else 1.0

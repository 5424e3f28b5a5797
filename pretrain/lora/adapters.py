"""LoRA adapters (Hu et al., ICLR 2022) of peft: which layers get one, and the folder that an adapter is kept in.

The layers are the attention's four projections, by option the MLP's too. Bare names would do for DINOv3, but on V-JEPA
2 `proj` and `key` also hit the patch embedding and the predictor, so both are spelled in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.base.runtime import UserError
from common.encoders.families.dinov3 import DINOv3Features
from common.encoders.families.vjepa2 import VJEPA2Features
from common.encoders.weights.adapters import ADAPTER_FILE, with_adapter

if TYPE_CHECKING:
    from peft import PeftModel

HEAD_FILE = "head.safetensors"


def adapted_part(network: nn.Module) -> nn.Module:
    """The part of an encoder's network that gets adapters; `common.encoders.weights.adapters` merges them there.

    Raises `UserError` for a family without adapters.
    """
    if isinstance(network, DINOv3Features):
        return network.backbone
    if isinstance(network, VJEPA2Features):
        return network
    raise UserError(f"LoRA is for DINOv3 and V-JEPA 2, not for {type(network).__name__}")


def target_pattern(part: nn.Module, *, mlp: bool = False, chosen: Sequence[str] = ()) -> str:
    """The regular expression of the layers that get an adapter, matched against whole names; `chosen` names parts of a layer.

    Raises `UserError` that lists the layers of the network without partner, or matches beyond them, and for a part that there is not.
    """
    layers, names, num_layers = _layers_and_names(part, mlp=mlp)
    if chosen:
        _, known, _ = _layers_and_names(part, mlp=True)
        if strange := [name for name in chosen if name not in known]:
            raise UserError(
                f"--target_modules {strange[0]}: no linear layer of {type(part).__name__}; there are {', '.join(known)}"
            )
        names = list(dict.fromkeys(chosen))
    pattern = rf"{re.escape(layers)}\d+\.({'|'.join(map(re.escape, names))})"
    expected = {f"{layers}{number}.{name}" for number in range(num_layers) for name in names}
    linear = {name for name, module in part.named_modules() if isinstance(module, nn.Linear)}
    found = {name for name in linear if re.fullmatch(pattern, name)}
    if wrong := sorted(expected ^ found):
        raise UserError(
            f"LoRA: {len(found)} of the {len(expected)} layers expected in {type(part).__name__} are there; missing or "
            f"unexpected: {', '.join(wrong)}"
        )
    return pattern


def _layers_and_names(part: nn.Module, *, mlp: bool) -> tuple[str, list[str], int]:
    """The beginning of every layer's name, the layers' parts, and the number of layers."""
    if isinstance(part, VJEPA2Features):
        names = [f"attention.{name}" for name in ("query", "key", "value", "proj")]
        return "encoder.layer.", names + ["mlp.fc1", "mlp.fc2"] * mlp, part.encoder.config.num_hidden_layers
    names = [f"attention.{name}_proj" for name in "qkvo"]
    gate = ["mlp.gate_proj"] if part.config.use_gated_mlp else []
    # of recent releases `model.layer.N`, before `layer.N`
    layers = "model.layer." if hasattr(part, "model") else "layer."
    return layers, names + ["mlp.up_proj", "mlp.down_proj", *gate] * mlp, part.config.num_hidden_layers


def add_adapters(
    network: nn.Module,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    mlp: bool = False,
    chosen: Sequence[str] = (),
    seed: int = 42,
) -> PeftModel:
    """Put adapters into an encoder's network, in place; they alone are trainable. Returns peft's view of it.

    The second factor starts at 0, so the network's output is unchanged; the first depends on `seed` alone.
    """
    part = adapted_part(network.requires_grad_(False))
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_pattern(part, mlp=mlp, chosen=chosen)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_adapter(part, config)


def write_adapter(folder: Path, adapted: PeftModel, head: nn.Linear) -> None:
    """Write peft's two files and the head's into `folder`."""
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form for a model card, not filled in
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    save_file(tensors, folder / HEAD_FILE)


def load_adapter(folder: Path, adapted: PeftModel) -> None:
    """Put the weights of an adapter folder into the adapters of a network."""
    set_peft_model_state_dict(adapted, load_file(folder / ADAPTER_FILE))


@torch.no_grad()
def relative_difference(features: Tensor, expected: Tensor) -> float:
    """Largest absolute difference, as a share of the largest feature."""
    return float((features - expected).abs().max() / expected.abs().max())

"""Groups of parameters that share a learning rate, weight decay and gradient clipping.

The networks' own names and order of parameters decide, so that DINOv3, V-JEPA 2 and VideoMAE of transformers and the
vision transformers and convolutional networks of timm need no table each.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

BLOCK = re.compile(r"^(?:.*\.)?(?:layer|layers|blocks)\.\d+(?=\.)")
PATCH_EMBEDDING = "patch_embed"
PROTOTYPES = "prototypes."  # of pretrain.objectives.heads.PrototypeHead

Treatment = tuple[str, float, int]  # part of the network, factor of the learning rate, first trained step


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are trained alike."""

    name: str
    parameters: list[nn.Parameter]
    lr_scale: float
    """Multiplies the scheduled learning rate."""
    decays: bool
    """Whether the scheduled weight decay applies."""
    clip: str
    """Groups of one clip name are clipped by their common gradient norm."""
    frozen_until: int = 0
    """First step at which the group is trained."""


def backbone_groups(
    module: nn.Module,
    *,
    clip: str = "backbone",
    layer_decay: float = 1.0,
    patch_embedding_scale: float = 1.0,
    frozen_until: int = 0,
) -> list[ParameterGroup]:
    """Groups of an encoder with L blocks: learning rate times `layer_decay ** (L + 1 - id)`, ids by `layer_ids`.

    Layer decay is that of BEiT (Bao et al., ICLR 2022). The patch embedding has a further factor, 0.2 in DINOv2 and
    DINOv3 (`dinov3/train/param_groups.py`).

    Raises `ValueError` for a layer decay in a network without blocks.
    """
    ids = layer_ids(module)
    last = 1 + len({match[0] for name in ids if (match := BLOCK.match(name))})
    if last == 1 and layer_decay != 1.0:
        raise ValueError(f"{type(module).__name__} has no numbered blocks that a layer decay could follow")

    def treatment(name: str) -> Treatment:
        depth = ids[name]
        scale = layer_decay ** (last - depth)
        if depth == 0 and PATCH_EMBEDDING in name:
            return "patch_embedding", scale * patch_embedding_scale, frozen_until
        return f"layer_{depth:02d}", scale, frozen_until

    return _grouped(module, treatment, clip)


def head_groups(module: nn.Module, clip: str, *, prototypes_frozen_until: int = 0) -> list[ParameterGroup]:
    """Groups of a projection head, predictor or decoder: the full learning rate; prototypes may start late.

    Frozen prototypes steady the first targets (DINO, Caron et al., ICCV 2021, appendix on training stability).

    Raises `ValueError` when there are no prototypes to freeze.
    """

    def treatment(name: str) -> Treatment:
        return ("prototypes", 1.0, prototypes_frozen_until) if name.startswith(PROTOTYPES) else ("layers", 1.0, 0)

    groups = _grouped(module, treatment, clip)
    if prototypes_frozen_until and not any(group.frozen_until for group in groups):
        raise ValueError(f"{type(module).__name__} has no trainable parameters under {PROTOTYPES!r} to freeze")
    return groups


def layer_ids(module: nn.Module) -> dict[str, int]:
    """Name of each parameter -> 0 before the first of L blocks, i + 1 in block i, L + 1 after the last.

    Blocks are counted in the order of registration, over all stages of a hierarchical network; what lies between two
    blocks, such as a stage's downsampling, belongs to the next one.
    """
    names = [name for name, _ in module.named_parameters()]
    blocks = [match[0] if (match := BLOCK.match(name)) else None for name in names]
    numbers = {block: number for number, block in enumerate(dict.fromkeys(filter(None, blocks)), 1)}
    first_in_block = next((position for position, block in enumerate(blocks) if block), len(names))
    ids = dict.fromkeys(names, 0)
    number = len(numbers) + 1
    for position in reversed(range(first_in_block, len(names))):
        number = numbers.get(blocks[position], number)
        ids[names[position]] = number
    return ids


def check_groups(groups: Iterable[ParameterGroup], module: nn.Module) -> None:
    """Raise `ValueError` unless each trainable parameter of `module` is in exactly one group, and nothing else is."""
    counts = Counter(id(parameter) for group in groups for parameter in group.parameters)
    names = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    missing = [name for key, name in names.items() if not counts[key]]
    repeated = [name for key, name in names.items() if counts[key] > 1]
    foreign = sum(key not in names for key in counts)
    if missing or repeated or foreign:
        raise ValueError(
            f"each trainable parameter belongs to one group; in none: {missing}, in several: {repeated}, "
            f"not of this module or not trainable: {foreign}"
        )


def _grouped(module: nn.Module, treatment: Callable[[str], Treatment], clip: str) -> list[ParameterGroup]:
    """The trainable parameters, those of one treatment together.

    Biases, norms and LayerScale (`lambda1`, `gamma`) are the parameters of one dimension: they do not decay. Class,
    register and mask tokens do, as in DINOv3's training.
    """
    groups: dict[tuple[str, bool], ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part, lr_scale, frozen_until = treatment(name)
        decays = parameter.ndim > 1
        if (part, decays) not in groups:
            title = f"{clip}/{part}/{'decay' if decays else 'no_decay'}"
            groups[part, decays] = ParameterGroup(title, [], lr_scale, decays, clip, frozen_until)
        groups[part, decays].parameters.append(parameter)
    return list(groups.values())

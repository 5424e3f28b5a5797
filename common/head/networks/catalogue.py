"""Which heads there are, their own settings, and what each can be used for; without torch, for flags and reports."""

from dataclasses import dataclass
from typing import Any, Literal

from common.base.options import check_ranges, option
from common.base.runtime import UserError

DEFAULT_HEAD = "mstcn++"  # that of the study, and of every run from before there were others
MOST_LAYERS = 30  # dilations double: of more, one layer would span more frames than any video has
MOST_MAPS = 65_536


class HeadOptions:
    """Settings of one head; values outside their ranges are a `UserError`."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class NoOptions(HeadOptions):
    """A head without settings of its own (those of MS-TCN++ are flags, as in the study)."""


@dataclass(frozen=True)
class GRUOptions(HeadOptions):
    """Settings of `gru`."""

    hidden: int = option(256, above=0, maximum=MOST_MAPS)
    """Width of a direction."""
    layers: int = option(2, above=0, maximum=MOST_LAYERS)
    """Layers, one upon the other."""


@dataclass(frozen=True)
class TeCNOOptions(HeadOptions):
    """Settings of `tecno`: the best of its author (issue 6 of tobiascz/TeCNO), not those of `config_tcn.yml` (8, 32)."""

    stages: int = option(2, above=0, maximum=100)
    """Stages, the first included."""
    layers: int = option(9, above=0, maximum=MOST_LAYERS)
    """Dilated layers of a stage."""
    maps: int = option(64, above=0, maximum=MOST_MAPS)
    """Channels inside."""


@dataclass(frozen=True)
class ASFormerOptions(HeadOptions):
    """Settings of `asformer`, at those of the authors' `main.py`."""

    decoders: int = option(3, minimum=0, maximum=100)
    """Decoders after the encoder."""
    layers: int = option(10, above=0, maximum=16)
    """Layers of the encoder and of each decoder; windows double from layer to layer."""
    r1: int = option(2, above=0, maximum=MOST_MAPS)
    """Queries and keys have maps / r1 channels."""
    r2: int = option(2, above=0, maximum=MOST_MAPS)
    """Values have maps / r2 channels."""
    maps: int = option(64, above=0, maximum=MOST_MAPS)
    """Channels inside."""
    channel_masking: float = option(0.3, minimum=0, below=1)
    """Share of the feature's dimensions that a training step drops for a whole video."""
    window: Literal["released", "corrected"] = option("released")
    """Frames that a query sees: as in the published code and weights, or as the authors' README corrects it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.r1, self.r2) > self.maps:
            raise UserError(f"r1 and r2 must be at most maps, found {self.r1} and {self.r2} of {self.maps}")


@dataclass(frozen=True)
class HeadKind:
    """A head as commands and reports know it.

    `causality`: whether it can leave later frames alone (`either` by `--causal`), always does, or never can; `has_lookahead`:
    whether it can also see a part of them (`--lookahead`). `recipe` is how its authors train where that differs from this
    project's training.
    """

    title: str
    options: type[HeadOptions]
    causality: Literal["either", "always", "never"] = "either"
    recipe: str | None = None
    has_lookahead: bool = False


HEADS: dict[str, HeadKind] = {
    "mstcn++": HeadKind("MS-TCN++", NoOptions, has_lookahead=True),
    "linear": HeadKind("linear", NoOptions),
    "gru": HeadKind("GRU", GRUOptions),
    "tecno": HeadKind(
        "TeCNO",
        TeCNOOptions,
        "always",
        "learning rate 7e-5, no smoothing loss (--lr 7e-5 --loss_mse 0)",
        has_lookahead=True,
    ),
    "asformer": HeadKind(
        "ASFormer", ASFormerOptions, "never", "smoothing loss 0.15, weight decay 1e-5 (--loss_mse 0.15; none here)"
    ),
}


def options_that_differ(head: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those settings of a head that are not at their defaults."""
    defaults = vars(HEADS[head].options())
    return {name: value for name, value in options.items() if value != defaults[name]}

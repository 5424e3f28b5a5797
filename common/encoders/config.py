"""A model folder's `config.yaml`: which network, whose weights, what it sees, and what is known of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from common.base.files import read_yaml
from common.base.options import from_mapping
from common.base.runtime import UserError, nearest_name
from common.video.preprocess import Preprocessing

# what `family:` in a config.yaml may say: the modules of `common/encoders/families/`, each loaded where it is asked for
FAMILIES = (
    *("timm", "torchvision", "transformers"),  # any network of these libraries
    *("color_histogram", "i3d", "dinov3", "vjepa1", "vjepa2", "surgenet", "videomae", "timesformer"),
)
# Families that know their networks themselves, by the key that names one: their modules have a function
# `<family>_facts(NAME)` with what the library says of it, so that a config.yaml need not repeat it.
NETWORK_KEYS = {"timm": "timm", "torchvision": "torchvision", "transformers": "hf"}
# of earlier versions; their configs name the network under `architecture` and say everything
Anchor = Literal["centre", "end"]
FORMER_FAMILIES = {"resnet": "torchvision", "efficientnet_lite": "timm"}
NOT_NAMED = ("named_weights", "sha256", "ledger", "seen", "seen_source")  # of the weights in `weights` alone


@dataclass(frozen=True)
class Ledger:
    """What is known of published weights, when it was looked up and where."""

    state: Literal["public", "gated", "announced", "gone", "none"]
    """gated: after a licence is accepted; announced: in a paper alone; gone: no longer there; none: nobody publishes any."""
    checked: str
    """The month, such as 2026-11."""
    source: str
    """Where it was read."""
    tried: str = "random weights"
    """What of it the tests of this repository have run."""


@dataclass(frozen=True)
class PublishedWindow:
    """The window on which an encoder's authors train or evaluate it, and where they say so."""

    clip_spacing: float
    source: str
    clip_len: int | None = None
    """None: the length of the folder's own window."""
    anchor: Anchor = "centre"


@dataclass(frozen=True)
class TrainedWindow:
    """The window that weights of `pretrain/` were trained with; `source` is the file that says so."""

    clip_len: int
    clip_spacing: float
    source: Path


@dataclass(frozen=True)
class WindowChoice:
    """What somebody asks of a clip encoder's window; None: as the recipe has it."""

    recipe: Literal["study", "published"] | None = None
    clip_len: int | None = None
    clip_spacing: float | None = None
    anchor: Anchor | None = None


@dataclass(frozen=True)
class EncoderConfig:
    """A model folder's `config.yaml`."""

    family: str
    title: str
    feature_dim: int
    weights: str
    licence: str
    preprocessing: Preprocessing
    architecture: str
    """The family's name for the network (a key of the family's table; in a file `timm: NAME` and the like)."""
    pooling: str = "average"
    """How tokens or positions become one vector; `poolings` lists what the family offers."""
    poolings: tuple[str, ...] = ()
    library: str | None = None
    clip_len: int | None = None
    """Frames of a clip encoder's window; None = the encoder sees one frame."""
    clip_spacing: float | None = None
    """Seconds between frames of the window; None = neighbours among the frames that get a feature."""
    anchor: Anchor = "centre"
    """Where the window has the frame that its feature is of: centre (position clip_len // 2), or end (nothing later)."""
    recipe: Literal["study", "published", "weights", "own"] = "study"
    """Whose window it is: that of this file, as in the study, `published`, or the one that the `weights` were trained with;
    own: changed by flags."""
    published: PublishedWindow | None = None
    domain: Literal["general", "surgical", "trial"] = "general"
    """What it was trained on; trial: a network for trials of the code, never for results."""
    named_weights: dict[str, object] = field(default_factory=dict)
    """Other published weights by the name that `--weights` takes: an address, or the fields that differ with them."""
    network: str | None = None
    """The network to take from a file that holds several, such as `target_encoder`: the one that its authors evaluate."""
    access: str | None = None
    """Steps that a person must take before the weights can be had, and what works without."""
    substitute: str | None = None
    """The nearest model folder whose weights ask for nothing, where these are gated."""
    ledger: Ledger | None = None
    seen: dict[str, str] | None = None
    """Videos of public data sets that `weights` were trained on (`dataset.seen`): '1-40', 'all', '76 of 80'; None: not stated."""
    seen_source: str | None = None
    """Where `seen` was read."""
    sha256: str | None = None
    """SHA-256 of the file at the address `weights`, where its source publishes one."""
    weights_megabytes: int | None = None
    fp32_modules: tuple[str, ...] = ()
    """Names of submodules that keep fp32 under bf16, because bf16 changes the features too much there."""
    allowed_missing: tuple[str, ...] = ()
    """Prefixes of network keys that the weights may lack."""
    allowed_unexpected: tuple[str, ...] = ()
    """Prefixes of weight keys that the network does not have (a classifier)."""
    lora_path: str | None = None
    """An adapter folder of `pretrain/finetune_lora.py` (default: the one that `weights: pretrain:NAME` means)."""
    ssl_checkpoint: str | None = None
    """A Stage 1 export of `pretrain/`: where the adapter's base now is, or alone without any adapter."""

    @property
    def pooled_dim(self) -> int:
        """Width of a feature: `feature_dim` for each of the parts that the pooling puts side by side."""
        return self.feature_dim * len(self.pooling.split("+"))

    def with_window(self, asked: WindowChoice, trained: TrainedWindow | None = None) -> EncoderConfig:
        """This configuration with the window that its recipe, or what is `asked`, gives it.

        Raises `UserError` for an encoder of single frames, a recipe that it does not have, and for weights that were
        `trained` with another window than one that nobody asked for.
        """
        given = {name: value for name, value in vars(asked).items() if value is not None and name != "recipe"}
        if self.clip_len is None:
            if asked != WindowChoice():
                raise UserError(
                    f"--recipe, --clip_len, --clip_spacing, --anchor: {self.title} sees single frames; use --fps to sample"
                )
            return self
        # weights that do not say what they were trained with are taken as in the study
        recipe = asked.recipe or ("study" if self.recipe == "weights" and trained is None else self.recipe)
        usual = {"clip_len": self.clip_len, "clip_spacing": self.clip_spacing, "anchor": self.anchor}
        if recipe == "published":
            if self.published is None:
                raise UserError(f"--recipe published: the authors of {self.title} publish no other window than its own")
            usual = {name: getattr(self.published, name) or usual[name] for name in usual}
        elif recipe == "weights":
            usual |= {"clip_len": trained.clip_len, "clip_spacing": trained.clip_spacing}
        elif trained and asked.recipe is None and "clip_spacing" not in given:
            here = usual | given
            if (here["clip_len"], here["clip_spacing"]) != (trained.clip_len, trained.clip_spacing):
                spacing = here["clip_spacing"]
                apart = "neighbouring frames" if spacing is None else f"frames {spacing:g} s apart"
                raise UserError(
                    f"{trained.source}: these weights were trained on clips of {trained.clip_len} frames "
                    f"{trained.clip_spacing:g} s apart, but {self.title} has windows of {here['clip_len']} {apart}; give "
                    f"--clip_len {trained.clip_len} --clip_spacing {trained.clip_spacing:g}, or --recipe study for the latter"
                )
        chosen = usual | given
        return replace(self, **chosen, recipe=recipe if chosen == usual else "own")

    def named_file(self, spec: str | None) -> tuple[str, str] | None:
        """Name and file of `NAME=FILE`: a file of one's own for the network of the named weights; None: it is no such."""
        name, sign, file = (spec or "").partition("=")
        return (name, file) if sign and name in self.named_weights else None

    def address(self, name: str) -> str:
        """Weight source that a name of `named_weights`, or `NAME=FILE`, stands for; anything else stands for itself."""
        own = self.named_file(name)
        entry = own[1] if own else self.named_weights.get(name, name)
        return entry["weights"] if isinstance(entry, dict) else str(entry)

    def with_weights(self, spec: str | None) -> EncoderConfig:
        """This configuration with the named weights that `spec` asks for, by name or address, `::NETWORK` behind or not.

        Of `NAME=FILE` everything but where the weights are, which `address` says.

        With them may go another architecture, width, size or licence. Asked for twice, it is what it was after once.
        """
        own = self.named_file(spec)
        asked = own[0] if own else (spec or "").partition("::")[0]
        for name, entry in self.named_weights.items():
            if asked in (name, self.address(name)) and self.address(name) != self.weights:
                changes = entry if isinstance(entry, dict) else {"weights": entry}
                unknown = {"sha256": None, "ledger": None, "seen": None, "seen_source": None}
                return replace(self, **unknown | changes)
        return self


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read and check a model folder's `config.yaml`. Raises `UserError` as `encoder_config`."""
    return encoder_config(read_yaml(path), path)


def encoder_config(values: Mapping[str, Any], source: object) -> EncoderConfig:
    """Configuration of plain values; what they leave out of a library's network is what the library says of it.

    Raises `UserError` naming `source` and the key, or the network that the library does not have.
    """
    given = dict(values)
    named = given.pop("named_weights", {})
    config = from_mapping(EncoderConfig, _completed(given, source), source)
    if not isinstance(named, dict):
        raise UserError(f"{source}, named_weights: expected names with an address each, found {named!r}")
    entries = {
        str(name): _named_entry(config, given, entry, f"{source}, named_weights, {name}")
        for name, entry in named.items()
    }
    return replace(config, named_weights=entries)


def _named_entry(config: EncoderConfig, values: dict[str, Any], entry: object, source: str) -> object:
    """An address as it is; of a mapping the fields in which the configuration with these weights differs."""
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict) or not {"weights", *NETWORK_KEYS.values()} & entry.keys():
        raise UserError(f"{source}: expected an address, or a mapping with `weights: ADDRESS`, found {entry!r}")
    # another network: nothing that was said of the first holds
    dropped = {"architecture", *NETWORK_KEYS.values()} if {"family", *NETWORK_KEYS.values()} & entry.keys() else set()
    shared = {key: value for key, value in values.items() if key not in dropped and key not in NOT_NAMED}
    if isinstance(entry.get("preprocessing"), dict) and isinstance(shared.get("preprocessing"), dict):
        entry = entry | {"preprocessing": shared["preprocessing"] | entry["preprocessing"]}
    whole = encoder_config(shared | entry, source)
    different = {
        item.name: getattr(whole, item.name)
        for item in fields(EncoderConfig)
        if item.name not in ("named_weights", "weights") and getattr(whole, item.name) != getattr(config, item.name)
    }
    return {"weights": whole.weights} | different


def _completed(values: dict[str, Any], source: object) -> dict[str, Any]:
    """A library's network under `architecture`, with what the library says of it where `values` say nothing."""
    family = values.get("family")
    family = FORMER_FAMILIES.get(family, family) if isinstance(family, str) else None
    if family is not None and family not in FAMILIES and values.keys() & set(NETWORK_KEYS.values()):
        near = nearest_name(family, FAMILIES)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"{source}: family {family!r} is unknown{hint}; known: {', '.join(FAMILIES)}")
    if family not in NETWORK_KEYS:
        return values
    key = NETWORK_KEYS[family]
    architecture = values.get(key, values.get("architecture"))
    if not isinstance(architecture, str):
        raise UserError(f"{source}: missing key {key!r}, the name of the network in {family}")
    values = {name: value for name, value in values.items() if name != key}
    values |= {"family": family, "architecture": architecture}
    rule = values.get("preprocessing", {})
    required = {
        item.name for item in fields(EncoderConfig) if item.default is MISSING and item.default_factory is MISSING
    }
    if not isinstance(rule, dict) or (required <= values.keys() and {"size", "mean", "std"} <= rule.keys()):
        return values
    known = getattr(load_family(family), f"{family}_facts")(architecture)
    usual = known["preprocessing"]
    if "size" in rule and isinstance(rule["size"], int) and usual.get("short_side"):
        # the library's crop keeps its share of the picture at another size
        usual = usual | {"short_side": round(usual["short_side"] * rule["size"] / usual["size"])}
    return known | values | {"preprocessing": usual | rule}


def load_family(name: str) -> ModuleType:
    """Load the module of a family. Raises `UserError` for an unknown one, and where its library does not load."""
    if name not in FAMILIES:
        raise UserError(f"family: {name!r} is unknown; known: {', '.join(FAMILIES)}")
    try:
        return importlib.import_module(f"common.encoders.families.{name}")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise UserError(
            f"family {name}: its library does not load ({error}); install torch and torchvision together: "
            "pip install -r requirements.txt -c constraints.txt"
        ) from error

"""Settings of a head's training, as flags, as YAML, and as they are recorded."""

import argparse
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, Literal

from common.base.options import (
    CommandParser,
    add_options,
    check_ranges,
    from_mapping,
    help_texts,
    mapping_option,
    option,
    resolve,
)
from common.base.paths import DEFAULT_DATASET, require_name
from common.base.runtime import UserError, shown
from common.dataset.phases import LENGTH_TOLERANCE
from common.head.networks.catalogue import DEFAULT_HEAD, HEADS, MOST_LAYERS, options_that_differ

# settings of which `run_k_folds` takes several values at once: their type, and what a list looks like
DEFAULT_VARIANT = "default"  # what `--variants` calls features/<Encoder>/ itself
FLOORS = {"majority": "majority class", "linear": "linear probe"}  # what every head must beat: `controls.floors`
ACQUIRED_MARK = "acquire="  # in the name of a run on videos that a rule chose: `run_k_folds --acquire`
FLOOR_MARK = "floor="  # in the name of a floor's run
DERIVED = "choose", "lookahead_frames"  # settings that are no flags as they stand
CHOICES = ("lr", "standardise", "pooling")  # what `--choose` can choose
LISTED: dict[str, tuple[type[float] | type[int], str]] = {
    "train_fraction": (float, "0.1,0.25,1"),
    "seed": (int, "42,43,44"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a head's training; the flags of `common.train` and `common.run_k_folds`."""

    dataset: str = option(DEFAULT_DATASET, group="data")
    """Data set: a name under data/ or a path; where none is named, the only one in data/."""
    model: str | None = option(None, group="data")
    """Folder under models/ whose features are used (default: the current one)."""
    variant: str | None = option(None, group="data")
    """Feature variant: features/<Encoder>@<variant>/."""
    split: str = option("1", group="data")
    """Fold number from 1, or 'val' (train on all of groundTruth/, score groundTruth_val/)."""
    splits: str | None = option(None, group="data")
    """Named list of splits, splits/<NAME>/, such as official (default: the generated folds)."""
    run: str | None = option(None, group="output")
    """Name that keeps this run apart from others (default: from what differs from defaults)."""
    features_dim: int | None = option(None, group="data")
    """Feature dimension (default: the model's config; a wrong value is an error)."""
    num_epochs: int = option(100, unit="epochs", above=0, maximum=1_000_000)
    """Length of the training; the last epoch is scored."""
    head: Literal["mstcn++", "linear", "gru", "tecno", "asformer"] = option(DEFAULT_HEAD, group="model")
    """Network over the features; docs/heads.md."""
    head_options: dict[str, object] = mapping_option(group="model")  # noqa: RUF009 - a field of the dataclass, as `option` is
    """Settings of a head other than mstcn++, such as hidden=128 layers=1; those not given are at its defaults."""
    num_layers_PG: int = option(13, group="model", above=0, maximum=MOST_LAYERS)
    """Dual dilated layers of MS-TCN++'s prediction generation stage."""
    num_layers_R: int = option(13, group="model", above=0, maximum=MOST_LAYERS)
    """Dilated residual layers of each of MS-TCN++'s refinement stages."""
    num_R: int = option(4, group="model", minimum=0, maximum=100)
    """Refinement stages of MS-TCN++."""
    num_f_maps: int = option(64, group="model", unit="channels", above=0, maximum=65_536)
    """Width inside MS-TCN++."""
    bz: int = option(1, unit="videos", above=0)
    """Size of a batch."""
    lr: float = option(5e-4, above=0)
    """Learning rate of Adam; x0.3 at 60% and 90% of the epochs."""
    loss_mse: float = option(0.35, minimum=0)
    """Weight of the smoothing loss (T-MSE)."""
    adaptive_mse: bool = option(True)
    """Smooth less around true phase changes."""
    window_mse: int = option(30, unit="frames", minimum=2)
    """Window around a phase change that --adaptive_mse smooths less."""
    loss_focal: float = option(0.0, minimum=0)
    """Gamma of the focal loss; 0 = cross-entropy."""
    class_weights: str = option("none")
    """'none', 'inverse' (to the training frames of a phase) or a file of 'PHASE WEIGHT' lines."""
    standardise: Literal["none", "train"] = option("none", group="data")
    """'train': each feature dimension less its mean, over its deviation, of the training part; the study: 'none'."""
    sample_rate: int = option(1, group="data", above=0)
    """Use every n-th feature; predictions are expanded back."""
    causal: bool = option(False, group="model")
    """The output at a frame depends on earlier frames only (online recognition)."""
    lookahead: float | None = option(None, group="model", unit="seconds", minimum=0)
    """The output at a frame depends on so much of what follows, and no more; 0 is --causal (default: on all of it)."""
    lookahead_frames: int | None = option(None, group="model", unit="features", minimum=0)
    """What `lookahead` comes to in features of the slowest test video; found when the features are there."""
    allow_future_features: bool = option(False, group="model")
    """Let --causal and --lookahead have features that have seen later frames themselves (windows around a frame)."""
    choose: str = option("none", group="training")
    """run_k_folds --choose: settings that each fold chooses inside its training part, joined by +."""
    seed: int = option(42, minimum=-(1 << 63), maximum=(1 << 63) - 1)
    """Seed of initial weights, dropout and video order."""
    length_tolerance: int = option(LENGTH_TOLERANCE, group="data", unit="frames", minimum=0)
    """By how much features and labels may differ, never more than 1% of a video; the end is trimmed for training."""
    feature_stride: int = option(1, group="data", unit="frames", above=0)
    """Features made elsewhere (.npy without .json) are of every n-th frame, from the first."""
    precision: Literal["fp32", "bf16"] = option("fp32", group="machine")
    """Arithmetic of the head; the loss is always fp32."""
    deterministic: bool = option(False, group="machine")
    """The same bits at every run on a GPU too, by slower algorithms; on a CPU they always are."""
    train_fraction: float = option(1.0, group="data", above=0, maximum=1)
    """Share of the training videos: nested, stratified subsets for learning curves; the test videos stay."""

    def __post_init__(self) -> None:
        check_ranges(self)
        self._complete_head()
        if self.choose != "none" and set(self.choose.split("+")) - set(CHOICES):
            raise UserError(
                f"choose: expected none, or some of {', '.join(CHOICES)} joined by +, found {shown(self.choose)}"
            )
        for noun in ("run", "variant", "model", "splits"):
            if (name := getattr(self, noun)) is not None:
                require_name(noun, name)
        if self.split != "val" and not (self.split.isascii() and self.split.isdecimal() and int(self.split) > 0):
            raise UserError(f"split must be a fold number from 1 or 'val', found {shown(self.split)}")
        if self.split == "val" and self.splits:
            raise UserError(
                f"--split val is all of groundTruth/ against groundTruth_val/; of --splits {self.splits} give a number, and "
                "--action predict --part val for its validation list"
            )

    def _complete_head(self) -> None:
        """Put the head's own settings down in full, and hold them and `causal` to what the head can do."""
        kind = HEADS[self.head]
        options = from_mapping(kind.options, self.head_options, f"head_options of {self.head}")
        object.__setattr__(self, "head_options", asdict(options))
        if kind.causality == "never" and self.causal:
            able = ", ".join(name for name, each in HEADS.items() if each.causality != "never")
            raise UserError(
                f"--causal: expected a head that can leave later frames alone ({able}), found {self.head}, whose attention "
                "sees them; choose another --head, or leave --causal out"
            )
        if kind.causality == "always":
            object.__setattr__(self, "causal", not self.lookahead)
        if self.lookahead and not kind.has_lookahead:
            able = ", ".join(name for name, each in HEADS.items() if each.has_lookahead)
            raise UserError(
                f"--lookahead: expected a head that can see a part of what follows ({able}), found {self.head}; choose another "
                "--head, or --causal where the head has it"
            )
        if self.lookahead and self.causal:
            raise UserError(
                f"--causal together with --lookahead {self.lookahead:g}: expected one of them; 0 is --causal"
            )
        if self.lookahead == 0:
            object.__setattr__(self, "causal", True)
            object.__setattr__(self, "lookahead", None)

    @property
    def sees_past_only(self) -> bool:
        """Whether what lies after a frame, but for a look-ahead, must not be used for it."""
        return self.causal or self.lookahead is not None

    def describe_head(self) -> str:
        """The network and its size in words."""
        title = HEADS[self.head].title
        if self.head == DEFAULT_HEAD:
            sizes = f"{self.num_layers_PG} + {self.num_R} x {self.num_layers_R} layers, {self.num_f_maps} maps"
        else:
            sizes = ", ".join(f"{name} {value}" for name, value in self.head_options.items())
        return f"{title} of {sizes}" if sizes else f"{title} head"

    def decoded_name(self, decode: str) -> str | None:
        """The name of this run's predictions by a decoding, the plain one's for `argmax`."""
        parts = [self.run_name, None if decode == "argmax" else decode]
        return "-".join(part for part in parts if part) or None

    def of_floor(self, kind: str) -> "TrainConfig":
        """The configuration of a floor under this run: its data, and nothing of its head."""
        own = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.metadata["group"] == "data"}
        # a probe of the study's features, of as many as it likes
        bare = TrainConfig(**own | {"standardise": "none", "sample_rate": 1})
        return replace(bare, run="-".join(filter(None, [bare.run_name, FLOOR_MARK + kind])))

    @property
    def run_name(self) -> str | None:
        """The run's folder name: `run`, or what differs from the defaults among the settings below, or None."""
        derived = [f"splits={self.splits}" if self.splits else None, self.variant]
        if self.head != DEFAULT_HEAD:
            own = options_that_differ(self.head, self.head_options)
            derived.append("+".join([f"head={self.head}", *(f"{name}={value}" for name, value in own.items())]))
        # of a head that is always causal the name says it
        derived.append("causal" if self.causal and HEADS[self.head].causality == "either" else None)
        derived.append(f"lookahead{self.lookahead:g}" if self.lookahead else None)
        derived.append("standardised" if self.standardise == "train" else None)
        derived.append(f"choose={self.choose}" if self.choose != "none" else None)
        derived.append(f"fraction{self.train_fraction:g}" if self.train_fraction != 1 else None)
        derived.append(f"seed{self.seed}" if self.seed != TrainConfig.seed else None)
        return self.run or "-".join(part for part in derived if part) or None


def is_floor(run: str | None) -> bool:
    """Whether a run's name is that of a floor (`TrainConfig.of_floor`)."""
    return run is not None and run.split("-")[-1] in {FLOOR_MARK + kind for kind in FLOORS}


def is_acquired(run: str | None) -> bool:
    """Whether a run's name is that of one on videos that a rule chose (`acquisition.simulation`)."""
    return run is not None and run.split("-")[-1].startswith(ACQUIRED_MARK)


def config_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """`key: theirs -> ours` for each setting that differs between two recorded configurations.

    A record from before a setting existed was made with what is its default now.
    """
    defaults = asdict(TrainConfig())
    ours, theirs = defaults | ours, defaults | theirs
    keys = sorted(ours.keys() | theirs.keys())
    return [f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]


def add_train_options(parser: CommandParser, *, series: bool = False) -> None:
    """The flags that training commands share: every field of `TrainConfig`, and where and how to run.

    With `series` those of `LISTED` take several values (see `read_series`), and there is no `--split`: all are run.
    """
    parser.add_config()
    add_options(parser, TrainConfig, skip=(*DERIVED, *(("split", *LISTED) if series else ())))
    texts = help_texts(TrainConfig)
    for entry in fields(TrainConfig):
        if series and entry.name in LISTED:
            parser.groups[entry.metadata["group"]].add_argument(
                f"--{entry.name}",
                default=argparse.SUPPRESS,
                metavar="LIST",
                help=f"{texts[entry.name]}; several with commas, a run for each",
            )
    parser.groups["output"].add_argument(
        "--decode",
        choices=("argmax", "viterbi"),
        default="argmax",
        help="viterbi: also the most probable path of each video, by counts of the training labels, as a run of its own "
        "whose name ends in viterbi (default: %(default)s)",
    )
    parser.add_device()
    parser.groups["machine"].add_argument(
        "--no_verify",
        action="store_true",
        help="take features as they are, without a look at their SHA-256 (once a file and machine)",
    )
    parser.groups["output"].add_argument(
        "--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline works)"
    )


def read_series(given: dict[str, Any]) -> list[TrainConfig]:
    """A configuration for every feature variant, training fraction and seed that were asked for, each of another run name.

    Raises `UserError` for a list that is not one of numbers, or names a run twice.
    """
    listed = {name: _numbers(name, given[name]) for name in LISTED if name in given}
    # the first value of each list stands in while the rest is resolved, so that a wrong YAML file is named once
    first = {name: values[0] for name, values in listed.items()}
    config = resolve(TrainConfig, given | first, given["config"])
    listed["variant"] = _variants(given, config)
    values = [listed.get(name, [getattr(config, name)]) for name in ("variant", *LISTED)]
    configs = [replace(config, **dict(zip(("variant", *LISTED), chosen, strict=True))) for chosen in product(*values)]
    if config.run and len(configs) > 1:
        # one --run for a whole series: what tells its runs apart is appended to the name
        derived = [replace(each, run=None).run_name for each in configs]
        names = [f"{config.run}-{name}" if name else config.run for name in derived]
        configs = [replace(each, run=name) for each, name in zip(configs, names, strict=True)]
    names = [each.run_name or "the default run" for each in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"--variants, --train_fraction and --seed ask twice for {', '.join(twice)}; give each value once"
        )
    return configs


def _variants(given: dict[str, Any], config: TrainConfig) -> list[str | None]:
    """The feature variants of a series; the default one is None."""
    asked = given.get("variants")
    if asked and config.variant:
        raise UserError(f"--variants together with --variant {config.variant}: name all of them behind --variants")
    return [None if name == DEFAULT_VARIANT else name for name in asked] if asked else [config.variant]


def _numbers(name: str, text: str) -> list[float]:
    number, example = LISTED[name]
    try:
        return [number(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--{name} {text}: expected one number, or several with commas between them, such as {example}"
        ) from error

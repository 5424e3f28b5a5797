"""Dataclass configurations filled from YAML, then from the command line; unknown keys are an error.

An option is a field of a dataclass; the docstring below it is what `--help` says of it:

    lr: float = option(5e-4, above=0)
    "Learning rate of Adam."

No torch here nor in any module that declares options, so that `--help` answers at once.
"""

import argparse
import ast
import contextlib
import dataclasses
import datetime
import inspect
import itertools
import logging
import math
import re
import textwrap
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.base.files import read_yaml
from common.base.paths import DEFAULT_DATASET, USUAL_DATASET, default_dataset
from common.base.runtime import UserError, nearest_name, shown

ConfigT = TypeVar("ConfigT")
log = logging.getLogger(__name__)

MOST = (1 << 31) - 1  # of whole numbers that say no maximum
LONGEST_TEXT = 4096  # characters of a value: of a path systems take no more
OPTIONS = "options"  # the source of values that a command line gives
GROUPS = ("data", "model", "training", "output", "machine")  # of every `--help`, in this order


def option(
    default: Any = dataclasses.MISSING,
    *,
    group: str = "training",
    unit: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    alias: str | None = None,
) -> Any:
    """A dataclass field with where and how the command line shows it, and the range that `check_ranges` holds it to.

    `minimum` and `maximum` are allowed themselves, `above` and `below` are not; `alias` is a second flag for it.
    """
    shown = {"group": group, "unit": unit, "alias": alias}
    bounds = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    return dataclasses.field(default=default, metadata=shown | bounds)


def mapping_option(*, group: str = "training") -> Any:
    """As `option`, for a field of settings by name: a nested block in YAML, `NAME=VALUE ...` on the command line."""
    metadata = {"group": group, "unit": "", "alias": None}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def check_ranges(settings: Any) -> None:
    """Hold a dataclass of `option`s to its ranges, whether it was filled by flags, YAML or code; None passes.

    Raises `UserError` naming the setting, its range and what was found (NaN lies in no range).
    """
    for entry in dataclasses.fields(settings):
        value, (at_least, above, at_most, below) = getattr(settings, entry.name), _bounds(entry)
        if isinstance(value, float) and not math.isfinite(value) and not math.isnan(value):
            raise UserError(f"{entry.name} must be finite, found {value}")
        if isinstance(value, int) and at_most is below is None:
            at_most = MOST  # what arithmetic in 32 bits still counts
        if value is None or (at_least is above is at_most is below is None):
            continue
        inside = (
            (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (at_most is None or value <= at_most)
            and (below is None or value < below)
        )
        if not inside:
            words = f"be at most {MOST}" if at_most == MOST < value else _range_in_words(entry)
            raise UserError(f"{entry.name} must {words}, found {shown(value)}")


def _bounds(entry: dataclasses.Field) -> tuple[float | None, ...]:
    return tuple(entry.metadata.get(name) for name in ("minimum", "above", "maximum", "below"))


def _range_in_words(entry: dataclasses.Field) -> str:
    """The end of "x must ...", such as `not be negative`, `be at least 2 frames`, `lie between 0 and 1`."""
    at_least, above, at_most, below = _bounds(entry)
    if (at_least, at_most) == (0, None) and below is None:
        return "not be negative"
    if at_least is not None and at_most is not None:
        return f"lie between {at_least} and {at_most}"
    parts = (("at least", at_least), ("greater than", above), ("at most", at_most), ("below", below))
    words = " and ".join(f"{word} {bound}" for word, bound in parts if bound is not None)
    unit = entry.metadata["unit"]
    return f"be {words} {unit}" if unit and at_least is not None else f"be {words}"


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: `--help` shows its options in the groups of `GROUPS`, in their order.

    `module` is what `python -m` takes (None: a script, called by its file); `doc` the module's docstring, whose first
    line describes the command and whose rest, examples mostly, stands below the options.
    """

    def __init__(self, module: str | None, doc: str):
        purpose, _, details = doc.strip().partition("\n")
        super().__init__(
            prog=f"python -m {module}" if module else None,
            description=purpose,
            epilog=details.rstrip().lstrip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # `--split 2` where a command has `--splits NAME` alone would be that
        )
        self.groups = {name: self.add_argument_group(name) for name in GROUPS}

    def add_device(self) -> None:
        """`--device`, the same for all commands that compute."""
        self.groups["machine"].add_argument(
            "--device", default="auto", help="auto, cpu, cuda, cuda:0 ... (default: the best there is)"
        )

    def add_config(self) -> None:
        """`--config`, for commands whose settings may come from a file."""
        self.groups["data"].add_argument(
            "--config", metavar="FILE", help="YAML file with any of the settings below; flags win over it"
        )

    def add_trained_head(self) -> None:
        """Which trained head looks at new videos, and where its encoder's weights are."""
        data, model = self.groups["data"], self.groups["model"]
        data.add_argument(
            "--accept_damaged", action="store_true", help="take videos that lack frames or do not decode throughout"
        )
        model.add_argument("--model", help="folder under models/ (default: that of --checkpoint, or the current one)")
        model.add_argument(
            "--checkpoint", type=Path, metavar="FILE", help="the trained head (default: found by the next three)"
        )
        model.add_argument("--dataset", help=f"data set that it was trained on (default: {USUAL_DATASET})")
        model.add_argument(
            "--split",
            metavar="K",
            help="split that it was trained on (default: val, which learned from all of groundTruth/, if it is trained, "
            "else the first fold that is)",
        )
        model.add_argument(
            "--run", metavar="NAME", help="name of its run, such as causal or seed7 (default: the run without a name)"
        )
        model.add_argument(
            "--weights", help="where the encoder's weights are on this machine (default: where they were at training)"
        )


class Positive(argparse.Action):
    """For a flag of its own with a number above 0; any other, NaN too, is a `UserError` that names the flag."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        if not value > 0:
            raise UserError(f"{self.option_strings[0]} must be greater than 0, found {value}")
        setattr(namespace, self.dest, value)


class NotNegative(argparse.Action):
    """For a flag of its own with a finite number from 0 on; any other is a `UserError` that names the flag."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        if not 0 <= value < math.inf:
            raise UserError(f"{self.option_strings[0]} must be at least 0, found {value}")
        setattr(namespace, self.dest, value)


class Settings(argparse.Action):
    """Words `NAME=VALUE` as a mapping; anything else is a `UserError` that names the flag."""

    def __call__(self, parser, namespace, words, option_string=None) -> None:
        settings: dict[str, Any] = {}
        for word in words:
            name, sign, value = word.partition("=")
            if not name or not sign or name in settings:
                raise UserError(f"{self.option_strings[0]}: expected NAME=VALUE, each name once, found {shown(word)}")
            settings[name] = value
            for kind in (float, int):  # a whole number stays one
                with contextlib.suppress(ValueError):
                    settings[name] = kind(value)
        setattr(namespace, self.dest, settings)


def from_mapping(cls: type[ConfigT], values: dict[str, Any], source: object) -> ConfigT:
    """Build the dataclass `cls` from plain values, nested mappings included.

    Raises `UserError` naming `source` and the key: unknown (with the known ones), missing, or of a wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = {entry.name: entry for entry in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            near = nearest_name(str(key), known)
            nearest = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"{source}: unknown key {shown(key)}{nearest}; known: {', '.join(known)}")
    without_default = {
        name for name, entry in known.items() if entry.default is entry.default_factory is dataclasses.MISSING
    }
    required = sorted(without_default - values.keys())
    if required:
        raise UserError(f"{source}: missing key {shown(required[0])}")
    converted = {key: _convert(value, hints[key], f"{source}, {key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except UserError as error:  # a value outside its range
        raise error if source == OPTIONS else UserError(f"{source}: {error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type `hint`; numbers may be written as integers or as 5e-4 where a float is meant."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_mapping(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(value, _without_none(hint), where)
    if origin is Literal:
        if value in arguments:
            return value
        raise UserError(f"{where}: expected one of {', '.join(map(str, arguments))}, found {shown(value)}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, arguments[0], where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(item, arguments[1], where) for key, item in value.items()}
    if hint is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # YAML reads 5e-4 as text
            return float(value)
    if hint is str and isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise UserError(f"{where}: expected at most {LONGEST_TEXT:,} characters, found {shown(value)}; shorten it")
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    quotes = "; write it in quotes" if hint is str and isinstance(value, bool | int | float | datetime.date) else ""
    expected = "list" if origin is tuple else getattr(hint, "__name__", hint)
    raise UserError(f"{where}: expected {expected}, found {shown(value)}{quotes}")


def add_options(parser: CommandParser, cls: type, *, skip: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of `cls` to its group.

    Only flags that are given reach the namespace: the rest stays with YAML.
    """
    hints, texts = typing.get_type_hints(cls), help_texts(cls)
    for entry in dataclasses.fields(cls):
        if entry.name in skip:
            continue
        hint = _without_none(hints[entry.name])
        if hint is bool:
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif typing.get_origin(hint) is Literal:
            kind = {"choices": typing.get_args(hint)}
        elif typing.get_origin(hint) is tuple:
            kind = {"nargs": "+", "metavar": "NAME"}
        elif typing.get_origin(hint) is dict:
            kind = {"nargs": "+", "metavar": "NAME=VALUE", "action": Settings}
        else:
            kind = {"type": hint, "metavar": hint.__name__.upper()}
        flags = [f"--{entry.name}"] + ([entry.metadata["alias"]] if entry.metadata["alias"] else [])
        group = parser.groups[entry.metadata["group"]]
        group.add_argument(*flags, default=argparse.SUPPRESS, help=texts[entry.name], **kind)


def help_texts(cls: type) -> dict[str, str]:
    """Help text of each field by name, as argparse takes it: its docstring with default and unit.

    Where the default is None or empty, the docstring itself says what is taken. Docstrings of fields exist in the
    source alone, which `inspect` reads; those of a base class hold where a field is declared there.
    """
    docstrings: dict[str, str] = {}
    for owner in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                docstrings[field.target.id] = " ".join(ast.literal_eval(below.value).split()).removesuffix(".")
    texts = {}
    for entry in dataclasses.fields(cls):
        # other flags' help begins with a small letter; a name (YAML, LoRA, DINOv3) stays as it is
        texts[entry.name] = re.sub(r"^[A-Z](?=[a-z]*\b)", lambda first: first[0].lower(), docstrings[entry.name])
        if entry.default not in (None, (), dataclasses.MISSING):
            default = " ".join(entry.default) if isinstance(entry.default, tuple) else entry.default
            unit = f" {entry.metadata['unit']}" if entry.metadata["unit"] else ""
            texts[entry.name] += f" (default: {default}{unit})"
    return {name: text.replace("%", "%%") for name, text in texts.items()}  # argparse fills in what follows a %


def _without_none(hint: Any) -> Any:
    """The type of a setting that may also be absent."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    return next(kind for kind in typing.get_args(hint) if kind is not type(None))


def resolve(cls: type[ConfigT], given: dict[str, Any], config_file: str | None = None) -> ConfigT:
    """Defaults < YAML file < command line; `given` may hold other commands' flags, which are left out.

    What the file sets is said: a later error about such a value, a data set that isn't there, has its place with it.
    """
    known = {entry.name: entry.default for entry in dataclasses.fields(cls)}
    values = read_yaml(Path(config_file)) if config_file else {}
    from_mapping(cls, values, config_file)  # names the file when a key is wrong
    if known.get("dataset") == DEFAULT_DATASET and "dataset" not in values | given:
        given = given | {"dataset": default_dataset()}
    if in_effect := [key for key in values if key not in given]:
        log.info("%s sets %s", config_file, ", ".join(in_effect))
    return from_mapping(cls, values | {key: value for key, value in given.items() if key in known}, OPTIONS)

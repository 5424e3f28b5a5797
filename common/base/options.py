"""Dataclass configurations filled from YAML, then from the command line; unknown keys are an error."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.base.runtime import UserError

ConfigT = TypeVar("ConfigT")


def option(default: Any, help_text: str) -> Any:
    """A dataclass field with the help text that the command line shows."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises `UserError` naming the file when it is missing, damaged or not a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such configuration file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    return content


def from_mapping(cls: type[ConfigT], values: dict[str, Any], source: object) -> ConfigT:
    """Build the dataclass `cls` from plain values, nested mappings included.

    Raises `UserError` naming `source` and the key: unknown (with the nearest known one), missing, or of a wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = {entry.name: entry for entry in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise UserError(
                f"{source}: unknown key {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
            )
    without_default = {
        name for name, entry in known.items() if entry.default is entry.default_factory is dataclasses.MISSING
    }
    required = sorted(without_default - values.keys())
    if required:
        raise UserError(f"{source}: missing key {required[0]!r}")
    return cls(**{key: _convert(value, hints[key], f"{source}, {key}") for key, value in values.items()})


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
        raise UserError(f"{where}: expected one of {', '.join(map(str, arguments))}, found {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, arguments[0], where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(item, arguments[1], where) for key, item in value.items()}
    if hint is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError):  # YAML reads 5e-4 as text
            return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {value!r}")


def add_options(parser: argparse.ArgumentParser, cls: type, *, skip: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of `cls`. Only flags that are given reach the namespace: the rest stays with YAML."""
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if entry.name in skip:
            continue
        default = "" if entry.default is None else f" (default: {entry.default})"
        common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": entry.metadata["help"] + default}
        hint = _without_none(hints[entry.name])
        if hint is bool:
            parser.add_argument(f"--{entry.name}", action=argparse.BooleanOptionalAction, **common)
        elif typing.get_origin(hint) is Literal:
            parser.add_argument(f"--{entry.name}", choices=typing.get_args(hint), **common)
        else:
            parser.add_argument(f"--{entry.name}", type=hint, metavar=hint.__name__.upper(), **common)


def _without_none(hint: Any) -> Any:
    """The type of a setting that may also be absent."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    return next(kind for kind in typing.get_args(hint) if kind is not type(None))


def resolve(cls: type[ConfigT], given: dict[str, Any], config_file: str | None = None) -> ConfigT:
    """Defaults < YAML file < command line; `given` may hold other commands' flags, which are left out."""
    known = {entry.name for entry in dataclasses.fields(cls)}
    values = read_yaml(Path(config_file)) if config_file else {}
    from_mapping(cls, values, config_file)  # names the file when a key is wrong
    return from_mapping(cls, values | {key: value for key, value in given.items() if key in known}, "options")

"""Every model's weights: what they are, under which licence, whether they are here; and their download."""

import argparse

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.find import find_weights, is_available
from common.encoders.weights.load import NONE

HEADINGS = ("model", "MB", "here", "licence", "weights")


def main(argv: list[str] | None = None) -> int:
    """`list`, or `prefetch MODEL...|all`; the exit code is 1 when something could not be fetched."""
    parser = CommandParser("common.weights", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    commands.add_parser("list", help="what each model needs, its licence, its size, whether it is here")
    prefetch = commands.add_parser("prefetch", help="download, for instance on a login node with internet")
    prefetch.add_argument("models", nargs="+", metavar="MODEL", help="folders under models/, or all")
    given = parser.parse_args(argv)
    if given.command == "list":
        print(table())
        return 0
    folders = paths.all_models() if "all" in given.models else [paths.model(name) for name in given.models]
    results = [fetch(folder.name, read_encoder_config(folder.config)) for folder in folders]
    return 0 if all(results) else 1


def table() -> str:
    """One line a model folder, in columns."""
    rows = [HEADINGS]
    for folder in paths.all_models():
        config = read_encoder_config(folder.config)
        here, _ = is_available(config)
        megabytes = str(config.weights_megabytes or "")
        rows.append((folder.name, megabytes, "yes" if here else "no", config.licence, config.weights))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def fetch(name: str, config: EncoderConfig) -> bool:
    """Make one model's weights present; says what happened, and whether they are here now."""
    if config.weights == NONE:
        print(f"{name}: needs none")
        return True
    try:
        source = find_weights(config.weights, config)
    except UserError as error:
        print(f"{name}: {error}")
        return False
    print(f"{name}: {source.path} (SHA-256 {source.sha256})")
    return True


if __name__ == "__main__":
    run_main(main)

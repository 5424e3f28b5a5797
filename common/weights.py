"""Every model's weights: what they are, under which licence, whether they are here; and their download."""

import argparse

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.find import find_weights, is_available
from common.encoders.weights.load import NONE

# of each kind one, from the floor to the study's adapted encoders
FIRST_TEN = (
    *("ColorHistogram", "EfficientNet-Lite0", "Base", "DinoV2-ViT-B14", "DinoV3-ViT-L16", "V-JEPA2-ViT-L"),
    *("EndoViT", "SurgeNet-CAFormer-S18", "SurgVISTA-ViT-B", "DinoV3-ViT-L16-CataractFT"),
)
OVERVIEW_STATES = {
    "public": "public", "gated": "after a licence is accepted", "announced": "announced", "gone": "gone",
    "none": "made by `pretrain/`",
}  # fmt: skip
HEADINGS = ("model", "MB", "here", "licence", "weights", "trained on (of public data sets)")


def main(argv: list[str] | None = None) -> int:
    """`list`, or `prefetch MODEL...|all`; the exit code is 1 when something could not be fetched."""
    parser = CommandParser("common.weights", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    listing = commands.add_parser("list", help="what each model needs, its licence, its size, whether it is here")
    listing.add_argument(
        "--markdown",
        choices=("docs", "readme"),
        nargs="?",
        const="docs",
        help="instead the table of docs/encoders.md, or that of README.md",
    )
    prefetch = commands.add_parser("prefetch", help="download, for instance on a login node with internet")
    prefetch.add_argument("models", nargs="+", metavar="MODEL", help="folders under models/, or all")
    prefetch.add_argument("--weights", metavar="NAME", help="one of the named weights instead of the model's own")
    given = parser.parse_args(argv)
    if given.command == "list":
        print({None: table, "docs": ledger, "readme": overview}[given.markdown]())
        return 0
    folders = paths.all_models() if "all" in given.models else [paths.model(name) for name in given.models]
    results = [fetch(folder.name, read_encoder_config(folder.config), given.weights) for folder in folders]
    return 0 if all(results) else 1


def table() -> str:
    """One line a model folder, in columns."""
    rows = [HEADINGS]
    for folder in paths.all_models():
        config = read_encoder_config(folder.config)
        here, _ = is_available(config)
        megabytes = str(config.weights_megabytes or "")
        rows.append((folder.name, megabytes, "yes" if here else "no", config.licence, config.weights, _seen(config)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _seen(config: EncoderConfig) -> str:
    """Public surgical videos that the weights are known to have seen; of general ones nobody asks."""
    if config.seen is None:
        return "not stated" if config.domain == "surgical" else ""
    return ", ".join(f"{dataset} {words}" for dataset, words in config.seen.items())


def ledger() -> str:
    """A Markdown row for each model folder: network, input, features, weights and what is known of them."""
    rows = ["| folder | network | input | features | weights | licence | run here with | read |", "|" + "---|" * 8]
    for folder in paths.all_models():
        config = read_encoder_config(folder.config)
        size, known = str(config.preprocessing.size), config.ledger
        seen = f"{config.clip_len} x {size}" if config.clip_len else size
        weights = f"`{config.weights}`"
        if config.named_weights:
            weights += f", also `{'`, `'.join(config.named_weights)}`"
        entries = (
            *(f"`{folder.name}`", f"{config.title} ({config.library or config.family})", seen, str(config.feature_dim)),
            *(f"{known.state}: {weights}" if known else weights, config.licence),
            *((known.tried, f"{known.checked}, {known.source}") if known else ("", "")),
        )
        rows.append(f"| {' | '.join(entries)} |")
    return "\n".join(rows)


def overview() -> str:
    """A Markdown row for each of `FIRST_TEN`, for README.md; real weights that the tests run are bold."""
    rows = ["| folder of `models/` | network | sees | trained on | features | weights |", "|" + "---|" * 6]
    for folder in map(paths.model, FIRST_TEN):
        config = read_encoder_config(folder.config)
        known = config.ledger
        is_run = known is not None and "real weights" in known.tried
        state = "come with a package" if is_run else OVERVIEW_STATES[known.state if known else "none"]
        state = {NONE: "none needed"}.get(config.weights, state)
        name = f"**{folder.name}**" if is_run else folder.name
        seen = f"{config.clip_len} frames" if config.clip_len else "a frame"
        domain = "nothing" if config.weights == NONE else f"{config.domain} pictures"
        rows.append(f"| {name} | {config.title} | {seen} | {domain} | {config.feature_dim} | {state} |")
    return "\n".join(rows)


def fetch(name: str, config: EncoderConfig, weights: str | None = None) -> bool:
    """Make one model's weights, or its named ones, present; says what happened, and whether they are here now."""
    if weights and weights not in config.named_weights:
        print(f"{name}: has no weights called {weights!r}; its names: {', '.join(config.named_weights) or 'none'}")
        return False
    config = config.with_weights(weights)
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

"""What a reader of a table must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.reports.results import EncoderResult
from common.scoring.protocols import CHALLENGE, Protocol, methods_sentence

# settings that make two encoders' rows comparable when they are equal
HEAD_SETTINGS = (
    "num_epochs", "num_layers_PG", "num_layers_R", "num_R", "num_f_maps", "bz", "lr", "loss_mse", "adaptive_mse",
    "window_mse", "loss_focal", "class_weights", "sample_rate", "causal", "precision",
)  # fmt: skip
SHORT_HASH = 10  # characters that tell two hashes apart to the eye


@dataclass(frozen=True)
class Remark:
    """A line below a table; an alarming one (a leak, results that are not comparable) is shown in red."""

    text: str
    alarming: bool = False

    def __str__(self) -> str:
        return self.text


def remarks(results: Sequence[EncoderResult], protocol: Protocol = CHALLENGE) -> list[Remark]:
    """Synthetic data, random weights, unequal heads, how the numbers are taken, and what identifies them."""
    lines = []
    if any(result.record["synthetic"] for result in results):
        lines.append(Remark("Synthetic data: drawn videos. These numbers say nothing about surgery."))
    if any(result.record["features"]["random_weights"] for result in results):
        lines.append(Remark("Rows marked 'random weights' come from untrained encoders."))
    lines += _unequal_heads(results)
    splits = len(results[0].splits)
    spread = f"Mean ± standard deviation (ddof 1) over {splits} folds" if splits > 1 else "One split"
    recognition = "Online" if results[0].record["config"]["causal"] else "Offline"
    lines.append(
        Remark(
            f"{spread}, in percent. {recognition} recognition; the last epoch is scored. {methods_sentence(protocol)}"
        )
    )
    lines.append(Remark(_weights(results)))
    lines.append(Remark(_identity(results)))
    return lines


def _unequal_heads(results: Sequence[EncoderResult]) -> list[Remark]:
    found = []
    for key in HEAD_SETTINGS:
        used = {result.name: result.record["config"].get(key) for result in results}
        if len(set(used.values())) > 1:
            values = ", ".join(f"{name} {value}" for name, value in used.items())
            found.append(Remark(f"Not a like-for-like comparison: {key} differs ({values}).", alarming=True))
    return found


def weights_source(result: EncoderResult) -> str:
    """Where an encoder's weights came from, an adapter included; `unknown` for features without a sidecar."""
    weights = (result.record["features"]["identity"] or {}).get("weights")
    if weights is None:
        return "unknown"
    adapter = weights.get("adapter")
    return f"{weights['source']} with the adapter {adapter['source']}" if adapter else weights["source"]


def _weights(results: Sequence[EncoderResult]) -> str:
    named = {result.model.name: weights_source(result) for result in results}
    return f"Weights: {'; '.join(f'{name}: {source}' for name, source in named.items())}."


def _identity(results: Sequence[EncoderResult]) -> str:
    """Seeds, folds and commits of all runs."""
    records = [split.record for result in results for split in result.splits]
    seeds = sorted({record["seed"] for record in records})
    folds = sorted({record["folds_hash"][:SHORT_HASH] for record in records if record["folds_hash"]})
    commits = sorted({commit_name(record["git"]) for record in records})
    parts = [
        f"Seeds {', '.join(map(str, seeds))}",
        f"folds {', '.join(folds) or 'none'}",
        f"commit {', '.join(commits)}",
    ]
    return "; ".join(parts) + "."


def commit_name(git: dict[str, str | bool | None]) -> str:
    """A record's commit, short, and whether anything was changed since."""
    return (git["commit"] or "unknown")[:SHORT_HASH] + (" with uncommitted changes" if git["dirty"] else "")

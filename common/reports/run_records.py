"""Records of runs in words: what identifies a run, and what it took."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.reports.results import EncoderResult, SplitResult

UNVERIFIED = "unverified"
SHORT_HASH = 10  # characters that tell two hashes apart to the eye


def weights_source(result: EncoderResult) -> str:
    """Where an encoder's weights came from, the network chosen in their file and an adapter included.

    Those that do not record what they were made on are called `UNVERIFIED`; features without a sidecar: `unknown`.
    """
    weights = (result.record["features"]["identity"] or {}).get("weights")
    if weights is None:
        return "unknown"
    words = _named(weights)
    return f"{words} with the adapter {_named(weights['adapter'])}" if weights.get("adapter") else words


def _named(weights: Mapping[str, Any]) -> str:
    """A record of weights or of an adapter in words."""
    said = [f"network {weights['network']}"] if weights.get("network") else []
    said += [UNVERIFIED] if weights.get("verified") is False else []
    return weights["source"] + (f" ({', '.join(said)})" if said else "")


def commit_name(git: dict[str, str | bool | None]) -> str:
    """A record's commit, short, and whether anything was changed since."""
    return (git["commit"] or "unknown")[:SHORT_HASH] + (" with uncommitted changes" if git["dirty"] else "")


def identity(results: Sequence[EncoderResult]) -> dict[str, str]:
    """Folds, seeds and commits of all runs, listed: `{"Seeds": "42, 43", ...}`."""
    records = [split.record for result in results for split in result.splits]
    return {
        # the validation part belongs to no fold
        "Folds": ", ".join(sorted({(record["folds_hash"] or "none")[:SHORT_HASH] for record in records})),
        "Seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "Commit": ", ".join(sorted({commit_name(record["git"]) for record in records})),
    }


def run_row(result: EncoderResult, split: SplitResult) -> dict[str, Any]:
    """One split's run as a row of typed values under their titles; None for what its record, an older one, lacks."""
    record = split.record
    features = record["features"]
    weights = (features["identity"] or {}).get("weights") or {}
    adapter = weights.get("adapter") or {}
    memory = record.get("peak_memory_bytes")
    yes_or_no = {True: "yes", False: "no", None: None}
    return {
        "Encoder": result.name,
        "Split": record["split"],
        "Seed": record["seed"],
        "Weights": weights.get("source"),
        "Network": weights.get("network"),
        "Weights SHA-256": weights.get("sha256"),
        "Adapter": adapter.get("source"),
        "Adapter SHA-256": adapter.get("sha256"),
        "Verified": yes_or_no[all(part.get("verified", True) for part in (weights, adapter))] if weights else None,
        "Random weights": yes_or_no[features["random_weights"]],
        "Folds hash": record["folds_hash"],
        "Test inputs hash": record.get("test_inputs_hash"),
        "Commit": record["git"]["commit"],
        "Uncommitted changes": yes_or_no[record["git"]["dirty"]],
        "Train seconds": record["train_seconds"],
        "Predict seconds": record.get("predict_seconds"),
        "Peak memory GB": memory / 1e9 if memory else None,
        "Threads": record.get("num_threads"),
        "Training videos": record.get("num_train_videos"),
        "Test videos": len(split.scores),
        "Epochs": record["config"].get("num_epochs"),
        "Device": record.get("device"),
        "Head parameters": record.get("num_parameters"),
    } | {f"Version of {package}": version for package, version in record["versions"].items()}

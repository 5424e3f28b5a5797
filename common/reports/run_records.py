"""Records of runs in words: what identifies a run, and what it took."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.base.wording import brief, without_detours
from common.reports.results import EncoderResult, SplitResult

UNVERIFIED = "unverified"
SHORT_SOURCE = 34  # characters of where weights are from, below a name
SHORT_HASH = 10  # characters that tell two hashes apart to the eye


def weights_source(result: EncoderResult) -> str:
    """Where an encoder's weights came from, the network chosen in their file and an adapter included.

    Those that do not record what they were made on are called `UNVERIFIED`; features without a sidecar: `unknown`.
    """
    if result.is_foreign:
        return "predictions made elsewhere"
    weights = (result.record["features"]["identity"] or {}).get("weights")
    if weights is None:
        return "unknown"
    words = _named(weights)
    return f"{words} with the adapter {_named(weights['adapter'])}" if weights.get("adapter") else words


def short_sources(results: Sequence[EncoderResult]) -> dict[str, str]:
    """The same for a column of a table, by row: of a path or an address so much of its end as tells it from the others.

    A file is called by its name, a folder by the one above it too (`vjepa2-l/best_lora`: every Stage 2 has a `best_lora`),
    a model of the hub as it is. With an adapter it is the adapter's: the network under it is one of few.
    """
    parts = {result.name: _source_parts(result) for result in results}
    short = {}
    for name, own in parts.items():
        others = [other for other in parts.values() if other != own]
        least = 1 if "." in own[-1] else 2
        enough = (n for n in range(least, len(own)) if own[-n:] not in {other[-n:] for other in others})
        short[name] = brief("/".join(own[-next(enough, len(own)) :]), SHORT_SOURCE)
    return short


def _source_parts(result: EncoderResult) -> tuple[str, ...]:
    """The folders and the file of a row's weights, or of the adapter on them; one part for what is no path."""
    weights = (result.record["features"]["identity"] or {}).get("weights")
    source = (
        weights_source(result) if result.is_foreign or weights is None else _named(weights.get("adapter") or weights)
    )
    kind, _, name = source.partition(":")
    if kind in ("hub", "torchvision", "pretrain"):  # names that are no paths
        return (name,)
    return tuple(filter(None, re.split(r"[/\\]", source))) or (source,)


def _named(weights: Mapping[str, Any]) -> str:
    """A record of weights or of an adapter in words."""
    said = [f"network {weights['network']}"] if weights.get("network") else []
    said += [UNVERIFIED] if weights.get("verified") is False else []
    return without_detours(weights["source"]) + (f" ({', '.join(said)})" if said else "")


@dataclass(frozen=True)
class WindowRecord:
    """The window of a clip encoder's features: `spacing` seconds between its `clip_len` frames, and whose choice it is."""

    clip_len: int
    spacing: float
    is_neighbours: bool
    """Whether frames are neighbours, whose spacing is the video's (median of the scored ones), or that of `--fps`."""
    ends_with_frame: bool
    recipe: str

    @property
    def seconds(self) -> float:
        """From its first to its last frame."""
        return (self.clip_len - 1) * self.spacing

    def __str__(self) -> str:
        apart = f"neighbouring ({self.spacing:.3g} s)" if self.is_neighbours else f"{self.spacing:.4g} s apart"
        place = ", the frame last" if self.ends_with_frame else ""
        return f"{self.clip_len} frames {apart}{place}, recipe {self.recipe}"


def window_record(record: Mapping[str, Any]) -> WindowRecord | None:
    """The window of a run's features; None for single frames, and where neither sidecar nor frame rate is known."""
    identity = record["features"]["identity"] or {}
    window = identity.get("window")
    rates = [fps for fps in record.get("fps", {}).values() if fps]
    if not window or not (rates or window.get("spacing")):
        return None
    spacing, sampled = window.get("spacing"), identity["sampling"]["fps"]
    return WindowRecord(
        window["clip_len"],
        spacing or 1 / (sampled or float(np.median(rates))),
        spacing is None,
        window.get("between") == "held",
        record["features"].get("recipe") or "study",  # earlier versions knew no other
    )


def commit_name(git: dict[str, str | bool | None]) -> str:
    """A record's commit, short, and whether anything was changed since."""
    return (git["commit"] or "unknown")[:SHORT_HASH] + (" with uncommitted changes" if git["dirty"] else "")


def identity(results: Sequence[EncoderResult]) -> dict[str, str]:
    """Folds, seeds and commits of all runs, listed: `{"Seeds": "42, 43", ...}`."""
    own = [result for result in results if not result.is_foreign] or results
    records = [split.record for result in own for split in result.splits]
    return {
        # the validation part belongs to no fold
        "Folds": ", ".join(sorted({(record["folds_hash"] or "none")[:SHORT_HASH] for record in records})),
        "Seeds": ", ".join(map(str, sorted({record["seed"] for record in records if record["seed"] is not None})))
        or "none",
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
        "Window": str(window) if (window := window_record(record)) else None,
        "Weights": without_detours(weights["source"]) if weights else None,
        "Network": weights.get("network"),
        "Weights SHA-256": weights.get("sha256"),
        "Adapter": without_detours(adapter["source"]) if adapter else None,
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


def head_seconds(record: Mapping[str, Any]) -> float:
    """Seconds that the answers of a run's head wait for what follows: 0 online, infinite for all of it."""
    config = record["config"]
    if (
        record.get("decode") or "argmax"
    ) != "argmax":  # a path is decoded from the end back, whatever the head has seen
        return math.inf
    return 0.0 if config["causal"] else config.get("lookahead") or math.inf


def run_families(results: Sequence[EncoderResult], *varying: str) -> list[list[EncoderResult]]:
    """Runs in groups of several that share everything, folds included, but the settings `varying` and their name."""
    found: dict[tuple, list[EncoderResult]] = {}
    for result in results:
        config = result.record["config"].items()
        shared = sorted((key, str(value)) for key, value in config if key not in (*varying, "run", "split"))
        folds = tuple(split.record["split"] for split in result.splits)
        found.setdefault((result.model.name, folds, *shared), []).append(result)
    return [members for members in found.values() if len(members) > 1]

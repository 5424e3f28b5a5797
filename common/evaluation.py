"""Score a folder of predictions against a folder of ground truths, under any of the field's protocols.

python -m common.evaluation GROUND_TRUTH_DIR PREDICTION_DIR --mapping_path M [--protocol challenge mstcn] [--json FILE]
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import paths
from common.further_measures import FURTHER_MEASURES, RELAXED_SECONDS, further_name, further_summary, per_phase
from common.metrics import MEASURES
from common.phases import PhaseMapping, read_labels, read_mapping, require_labels
from common.protocols import CHALLENGE, PROTOCOLS, Protocol, methods_sentence, summarise
from common.runtime import UserError, progress, run_main, write_json
from common.scoring import VideoScore

log = logging.getLogger(__name__)

# the official scorer's words; the rest follows its pattern
PRINTED = {"accuracy": "Accuracy", "f1_macro": "F1 Score", "edit": "Edit Score", "pr_auc": "PR AUC"}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.evaluation`."""
    parser = argparse.ArgumentParser(prog="python -m common.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH_DIR", help="folder of <video>.txt")
    parser.add_argument("predictions", type=Path, metavar="PREDICTION_DIR", help="folder of <video>.txt")
    parser.add_argument("--mapping_path", type=Path, help="phase names (default: the repository's mapping.txt)")
    parser.add_argument(
        "--probability_path", type=Path, help="folder of <video>.npy (default: PREDICTION_DIR where it has them)"
    )
    add_protocol_options(parser)
    parser.add_argument("--details", action="store_true", help="further measures and a row for each phase too")
    parser.add_argument("--fps", type=float, help="frames a second of the labels, for --details in seconds")
    parser.add_argument(
        "--relaxed_seconds", type=float, default=RELAXED_SECONDS,
        help="with --details: how far from a true change its phases are forgiven (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures as fractions of 1")
    given = parser.parse_args(argv)
    mapping = read_mapping(given.mapping_path or paths.default_mapping())
    labels = require_labels(given.ground_truth)
    scores = list(
        score_folder(
            labels, given.predictions, mapping, given.probability_path or given.predictions,
            fps=dict.fromkeys(labels, given.fps),
        ).values()
    )  # fmt: skip
    content: dict[str, Any] = {}
    for protocol in chosen_protocols(given.protocol, given.segments):
        summary = summarise(scores, protocol)
        content[protocol.name] = to_json(summary)
        _print_summary(summary, protocol)
    if given.details:
        content["details"] = _details(scores, mapping, given.relaxed_seconds)
    if given.json:
        write_json(given.json, content)
    return 0


def add_protocol_options(parser: argparse.ArgumentParser) -> None:
    """`--protocol` and `--segments`."""
    parser.add_argument(
        "--protocol", nargs="+", choices=PROTOCOLS, default=[CHALLENGE.name], metavar="NAME",
        help=f"one or more of {', '.join(PROTOCOLS)} (default: {CHALLENGE.name})",
    )  # fmt: skip
    parser.add_argument(
        "--segments", choices=("legacy", "fixed"),
        help="F1@k: end a video's last segment a frame early as the MS-TCN code does, or where it ends (default: the protocol's)",
    )  # fmt: skip


def chosen_protocols(names: Sequence[str], last_segment: str | None = None) -> list[Protocol]:
    """The protocols by name, each once, with another rule for the last segment where one is given."""
    chosen = [PROTOCOLS[name] for name in dict.fromkeys(names)]
    return [replace(protocol, last_segment=last_segment) for protocol in chosen] if last_segment else chosen


def _print_summary(summary: dict[str, float], protocol: Protocol) -> None:
    """The official scorer's lines for its own protocol; the others under their name, in their own scale."""
    if protocol.name != CHALLENGE.name:
        print(f"\n{protocol.name}{' (percent)' if protocol.scale == 100 else ''}")
    for key, name in MEASURES.items():
        label = f"Average {PRINTED.get(key, name)}" if protocol.name == CHALLENGE.name else name
        value = protocol.scale * summary[key]
        print(f"{label}: {'n/a' if math.isnan(value) else f'{value:.4f}'}")
    print(methods_sentence(protocol))


def _details(scores: list[VideoScore], mapping: PhaseMapping, relaxed_seconds: float) -> dict[str, Any]:
    """Print the further measures and the phases; returns them for the JSON file."""
    further = further_summary(scores, relaxed_seconds)
    print()
    for key, value in further.items():
        unit = FURTHER_MEASURES[key][1]
        shown = "n/a" if math.isnan(value) else f"{100 * value:.2f} %" if unit == "%" else f"{value:.2f} {unit}"
        print(f"{further_name(key, relaxed_seconds)}: {shown}")
    phases = per_phase(scores)
    width = max(map(len, mapping.names))
    print(f"\n{'phase'.ljust(width)}  {'  '.join(f'{key:>9}' for key in phases)}")
    rows = {}
    for index, name in enumerate(mapping.names):
        row = {key: float(values[index]) for key, values in phases.items()}
        rows[name] = to_json(row)
        cells = [f"{value:.0f}" if key in ("frames", "videos") else f"{100 * value:.2f}" for key, value in row.items()]
        print(f"{name.ljust(width)}  {'  '.join(cell.replace('nan', 'n/a').rjust(9) for cell in cells)}")
    return to_json(further) | {"phases": rows}


def to_json(summary: Mapping[str, float]) -> dict[str, float | None]:
    """Measures with null where one is not defined."""
    return {key: None if math.isnan(value) else value for key, value in summary.items()}


def score_folder(
    labels: Mapping[str, Path],
    predictions: Path,
    mapping: PhaseMapping,
    probabilities: Path,
    *,
    fps: Mapping[str, float | None] | None = None,
) -> dict[str, VideoScore]:
    """Score every video of `labels` (name -> file) against `<video>.txt` and, where it is there, `<video>.npy`.

    Raises `UserError` naming the video for a missing prediction, another length, or unsuitable probabilities.
    """
    scores = {}
    for name, path in progress(labels.items(), description="score", unit="videos"):
        true = read_labels(path, mapping)
        predicted_path = predictions / f"{name}.txt"
        predicted = read_labels(predicted_path, mapping)
        if len(predicted) != len(true):
            raise UserError(
                f"{predicted_path}: {len(predicted)} frames, but {len(true)} labels in {path}; predict again"
            )
        probability_path = probabilities / f"{name}.npy"
        shape = (len(true), mapping.num_classes)
        scores[name] = VideoScore(
            true.astype(np.int16),
            predicted.astype(np.int16),
            mapping.num_classes,
            background=mapping.ids.get("background"),
            fps=fps[name] if fps and name in fps else None,
            load_probabilities=partial(read_probabilities, probability_path, *shape)
            if probability_path.is_file()
            else None,
        )
    without = [name for name, score in scores.items() if score.load_probabilities is None]
    if 0 < len(without) < len(scores):
        log.warning("no PR-AUC: %d videos have no probabilities, for example %s", len(without), without[0])
    return scores


def read_probabilities(path: Path, num_frames: int, num_classes: int) -> np.ndarray:
    """Read `<video>.npy`, `(num_frames, num_classes)`.

    Raises `UserError` for another shape and for values that are not finite. Values outside 0..1 (raw logits) too:
    ranked within a class over frames, they give another PR-AUC than probabilities.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable .npy file ({error}); predict again") from error
    if values.shape != (num_frames, num_classes):
        raise UserError(f"{path}: expected shape {(num_frames, num_classes)} (frames, phases), found {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 + 1e-6:
        raise UserError(f"{path}: expected probabilities between 0 and 1, found {values.min():g} to {values.max():g}")
    return values


if __name__ == "__main__":
    run_main(main)

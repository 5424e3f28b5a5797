"""Score a folder of predictions against a folder of ground truths, under any of the field's protocols.

python -m common.evaluation GROUND_TRUTH_DIR PREDICTION_DIR --mapping_path mapping.txt
python -m common.evaluation GROUND_TRUTH_DIR PREDICTION_DIR --protocol challenge mstcn --json scores.json
"""

import argparse
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.files import write_json
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import UserError, run_main, shortened
from common.dataset.description import read_description
from common.dataset.phases import BACKGROUND, UNLABELLED, PhaseMapping, read_mapping, require_labels
from common.dataset.split_lists import open_splits
from common.head.run_record import read_run_record
from common.scoring.effort import EffortRule
from common.scoring.folder import score_folder, to_json
from common.scoring.further_measures import FURTHER_MEASURES, RELAXED_SECONDS, further_name, further_summary, per_phase
from common.scoring.metrics import MEASURES
from common.scoring.protocols import (
    CHALLENGE,
    Protocol,
    add_protocol_options,
    chosen_protocols,
    methods_sentence,
    summarise,
)
from common.scoring.video_score import VideoScore

# the official scorer's words; the rest follows its pattern
PRINTED = {"accuracy": "Accuracy", "f1_macro": "F1 Score", "edit": "Edit Score", "pr_auc": "PR AUC"}


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.evaluation`."""
    parser = CommandParser("common.evaluation", __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH_DIR", help="folder of <video>.txt")
    data.add_argument("predictions", type=Path, metavar="PREDICTION_DIR", help="folder of <video>.txt")
    data.add_argument(
        "--mapping_path",
        type=Path,
        help="phase names (default: the mapping.txt of the data set that GROUND_TRUTH_DIR lies in, else the repository's)",
    )
    data.add_argument(
        "--background",
        metavar="NAME",
        help=f"phase that counts as background (default: by dataset.yaml, or {BACKGROUND})",
    )
    data.add_argument(
        "--ignored", nargs="+", metavar="NAME", help="names in label files that do not count (default: by dataset.yaml)"
    )
    data.add_argument("--splits", metavar="NAME", help="named list whose videos are scored alone (default: all videos)")
    data.add_argument(
        "--split", type=int, default=1, metavar="K", help="with --splits: its number (default: %(default)s)"
    )
    data.add_argument("--part", choices=("test", "val"), default="test", help="with --splits (default: %(default)s)")
    data.add_argument(
        "--probability_path", type=Path, help="folder of <video>.npy (default: PREDICTION_DIR where it has them)"
    )
    data.add_argument("--fps", type=float, help="frames per second of the labels, for --details in seconds")
    add_protocol_options(parser)
    output.add_argument("--details", action="store_true", help="further measures and a row for each phase too")
    output.add_argument(
        "--relaxed_seconds",
        type=float,
        default=RELAXED_SECONDS,
        help="with --details: how far from a true change its phases are forgiven (default: %(default)s seconds)",
    )
    add_options(parser, EffortRule)
    output.add_argument("--json", type=Path, metavar="FILE", help="write the measures as fractions of 1")
    given = parser.parse_args(argv)
    dataset = _dataset_of(given.ground_truth)
    mapping = _read_phases(dataset, given)
    labels = require_labels(given.ground_truth)
    if given.splits:
        listed = open_splits(dataset, given.splits).videos(given.part, given.split)
        labels = {video: labels[video] for video in listed}
    probabilities, fps = given.probability_path or given.predictions, dict.fromkeys(labels, given.fps)
    unreached = _unreached(given.predictions)
    scores = list(
        score_folder(labels, given.predictions, mapping, probabilities, fps=fps, unreached=unreached).values()
    )
    content: dict[str, Any] = {}
    for protocol in chosen_protocols(given.protocol, given.segments):
        summary = summarise(scores, protocol)
        content[protocol.name] = to_json(summary)
        _print_summary(summary, protocol, mapping.background)
    if given.details:
        content["details"] = _details(scores, mapping, given.relaxed_seconds, resolve(EffortRule, vars(given)))
    if given.json:
        write_json(given.json, content)
    return 0


def _dataset_of(ground_truth: Path) -> paths.Dataset:
    """The data set that labels lie in, also by a link."""
    parents = (Path(os.path.abspath(ground_truth)).parent, ground_truth.resolve().parent)
    datasets = [paths.Dataset(folder) for folder in parents]
    return next((each for each in datasets if each.mapping.is_file()), datasets[0])


def _unreached(predictions: Path) -> dict[str, int]:
    """Labels past the last frame, by video, where the run's record is beside the predictions."""
    path = predictions / paths.RUN_RECORD
    return read_run_record(path)["unreached_labels"] if path.is_file() else {}


def _read_phases(dataset: paths.Dataset, given: argparse.Namespace) -> PhaseMapping:
    """The phases of a data set, where the command names no others."""
    mapping_path, background = given.mapping_path, given.background
    description = read_description(dataset)
    if mapping_path is None:
        mapping_path = dataset.mapping if dataset.mapping.is_file() else paths.default_mapping()
    mapping = read_mapping(mapping_path)
    if background is not None and background not in mapping.names:
        raise UserError(
            f"--background {shortened(background)}: expected a phase of {mapping_path}; {mapping.advice(background)}"
        )
    ignored = description.ignored if given.ignored is None else tuple(given.ignored)
    if unknown := [name for name in ignored if name not in (*mapping.names, UNLABELLED)]:
        raise UserError(f"--ignored {shortened(unknown[0])}: expected a phase of {mapping_path}, or {UNLABELLED}")
    return replace(mapping, background=background or description.background, ignored=ignored)


def _print_summary(summary: dict[str, float], protocol: Protocol, background: str | None) -> None:
    """The official scorer's lines for its own protocol; the others under their name, in their own scale."""
    if protocol.name != CHALLENGE.name:
        print(f"\n{protocol.name}{' (percent)' if protocol.scale == 100 else ''}")
    for key, name in MEASURES.items():
        label = f"Average {PRINTED.get(key, name)}" if protocol.name == CHALLENGE.name else name
        value = protocol.scale * summary[key]
        print(f"{label}: {'n/a' if math.isnan(value) else f'{value:.4f}'}")
    print(methods_sentence(protocol, background))


def _details(
    scores: list[VideoScore], mapping: PhaseMapping, relaxed_seconds: float, effort: EffortRule
) -> dict[str, Any]:
    """Print the further measures and the phases; returns them for the JSON file."""
    further = further_summary(scores, relaxed_seconds, effort)
    print()
    for key, value in further.items():
        unit = FURTHER_MEASURES[key].unit
        shown = "n/a" if math.isnan(value) else f"{100 * value:.2f} %" if unit == "%" else f"{value:.2f} {unit}"
        print(f"{further_name(key, relaxed_seconds)}: {shown}")
    print(effort.sentence)
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


if __name__ == "__main__":
    run_main(main)

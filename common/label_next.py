"""Which unlabelled videos to label next: ranked by a trained head's doubts or by what is like nothing labelled, with reasons.

python -m common.label_next --model EfficientNet-Lite0 --unlabelled theatre -n 10
python -m common.label_next --model EfficientNet-Lite0 --unlabelled theatre --minutes 120 --by clusters --output next.csv
python -m common.label_next --unlabelled theatre -n 5 --by disagreement --checkpoint seed42.pt seed43.pt seed44.pt

uncertainty     mean entropy of the head's answer, as a share of the highest (default with a trained head)
disagreement    of several heads, given by --checkpoint: of several seeds, or of several encoders
coverage        k-centre on mean features: farthest from all that is labelled or chosen (default, and alone offered, without a head)
clusters        groups of similar videos, as many as are wanted, by their share of the uncertainty: of each the middle one

Whether a rule is better than chance on your data: python -m common.run_k_folds --acquire random,coverage,uncertainty
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, counted, listed, run_main
from common.base.wording import display_width, format_table, text_cell
from common.head.acquisition.rules import NEED_HEAD, RULES, Suggestion, suggest, within_budget

if TYPE_CHECKING:
    from common.head.acquisition.pool import UnlabelledPool
    from common.head.new_videos import TrainedHead

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.label_next`; 1 when a video failed."""
    given = _parser().parse_args(argv)
    if given.number is None and given.minutes is None:
        raise UserError("how much is to be labelled? Give -n VIDEOS or --minutes MINUTES")
    if given.number is not None and given.number < 1:
        raise UserError(f"-n must be at least 1, found {given.number}")
    if given.output and os.path.lexists(given.output):
        raise UserError(f"{given.output} is there already and is not overwritten; choose another --output")
    if not given.unlabelled.is_dir():
        raise UserError(f"{given.unlabelled}: no such folder; expected one of videos")
    videos = paths.require_videos(given.unlabelled.resolve())
    if given.checkpoint is None:
        paths.model(given.model)  # a wrong name is an error at once

    heads = _heads(given)  # torch loads only now: --help is answered at once
    rule = _rule(given.by, heads)
    ranked, failed = _ranking(given, heads, rule, videos)
    chosen = within_budget(ranked, num_videos=given.number, minutes=given.minutes)
    _print(chosen, ranked, rule)
    if given.output and chosen:
        from common.base.files import write_text

        write_text(given.output, _as_csv(chosen))
    for name, reason in failed.items():
        log.error("error: %s: %s", name, reason)
    return 1 if failed else 0


def _parser() -> CommandParser:
    parser = CommandParser("common.label_next", __doc__)
    data, model, output = parser.groups["data"], parser.groups["model"], parser.groups["output"]
    data.add_argument(
        "--unlabelled", type=Path, required=True, metavar="FOLDER", help="folder of the videos to choose from"
    )
    data.add_argument("-n", type=int, dest="number", metavar="VIDEOS", help="how many videos can be labelled")
    data.add_argument(
        "--minutes", type=float, action=Positive, metavar="MINUTES", help="how many minutes of video can be labelled"
    )
    data.add_argument(
        "--dataset", help=f"data set of what is labelled already (default: the head's; else {paths.USUAL_DATASET})"
    )
    data.add_argument("--variant", metavar="NAME", help="without a head: feature variant of the data set")
    model.add_argument("--model", help="folder under models/ (default: that of --checkpoint, or the current one)")
    model.add_argument(
        "--checkpoint", type=Path, nargs="+", metavar="FILE", help="trained heads (default: one, found by the next two)"
    )
    model.add_argument(
        "--split", metavar="K", help="split that the head was trained on (default: val, else the first fold)"
    )
    model.add_argument("--run", metavar="NAME", help="name of its run (default: the run without a name)")
    model.add_argument("--weights", help="where the encoder's weights are on this machine (default: where they were)")
    model.add_argument("--by", choices=RULES, help="rule (default: uncertainty with a trained head, else coverage)")
    output.add_argument("--output", type=Path, metavar="FILE.csv", help="write the list too; never overwrites a file")
    parser.add_device()
    return parser


def _heads(given: argparse.Namespace) -> list[TrainedHead]:
    """The heads that were asked for; else the one that there is, or none."""
    from common.head.new_videos import find_head, open_head

    if given.checkpoint:
        return [open_head(path, given.model, is_named=True) for path in given.checkpoint]
    model = paths.model(given.model)
    try:
        found = find_head(model, given.dataset or paths.default_dataset(), split=given.split, run=given.run)
    except UserError:
        if given.split or given.run or given.by in NEED_HEAD:
            raise
        log.info("no trained head of %s on %s: by coverage alone", model.name, given.dataset or paths.default_dataset())
        return []
    # by coverage nothing is asked of the head but how its features are made
    return [open_head(found, given.model, is_named=given.by == "coverage")]


def _rule(asked: str | None, heads: Sequence[TrainedHead]) -> str:
    """The rule to go by. Raises `UserError` for one that has not got the heads it needs."""
    if asked == "disagreement" and len(heads) < 2:
        raise UserError(
            f"--by disagreement: expected several heads of other seeds or encoders, found {len(heads)}; name them behind "
            "--checkpoint (run_k_folds --seed 42,43,44 trains some)"
        )
    return asked or ("uncertainty" if heads else "coverage")


def _ranking(
    given: argparse.Namespace, heads: Sequence[TrainedHead], rule: str, videos: dict[str, Path]
) -> tuple[list[Suggestion], dict[str, str]]:
    """Every unlabelled video in the rule's order, and those that failed with the reason."""
    from common.head.acquisition.pool import labelled_names

    name = given.dataset or (heads[0].config.dataset if heads else paths.default_dataset())
    try:
        dataset = paths.dataset(name)
    except UserError:
        if not heads or given.dataset:
            raise
        log.warning("%s is not on this machine: what is labelled already is not known", name)
        dataset = None
    known = labelled_names(dataset) if dataset else set()
    if there := sorted(videos.keys() & known):
        log.info("labelled already in %s, and left out: %s", dataset.name, listed(there))
    waiting = {video: path for video, path in videos.items() if video not in known}
    if not waiting:
        raise UserError(f"{given.unlabelled}: all of its {counted(len(videos), 'video')} have labels in {dataset.name}")
    pool = _look_at(given, heads, waiting, dataset)
    # clusters need to know beforehand how many videos a budget in minutes will be
    usual = sum(each.minutes for each in pool.candidates.values()) / max(1, len(pool.candidates))
    wanted = given.number or max(1, round(given.minutes / max(usual, 1e-9)))
    return suggest(rule, pool.candidates, pool.labelled, min(wanted, max(1, len(pool.candidates)))), pool.failed


def _look_at(
    given: argparse.Namespace, heads: Sequence[TrainedHead], videos: dict[str, Path], dataset: paths.Dataset | None
) -> UnlabelledPool:
    from common.head.acquisition.pool import pool_by_heads, pool_without_head

    if heads:
        for remark in (heads[0].description, *heads[0].remarks):
            log.info("%s", remark)
        return pool_by_heads(heads, videos, dataset, device=given.device, weights=given.weights)
    return pool_without_head(paths.model(given.model), videos, dataset, given.variant, device=given.device)


def _print(chosen: Sequence[Suggestion], ranked: Sequence[Suggestion], rule: str) -> None:
    """The list with its reasons, and what it comes to."""
    if not chosen:
        shortest = min((each.minutes for each in ranked), default=0.0)
        print(f"nothing fits: the shortest of {counted(len(ranked), 'video')} has {shortest:.1f} minutes")
        return
    rows = [[f"{place}. {each.video}", f"{each.minutes:.1f}", each.reason] for place, each in enumerate(chosen, 1)]
    table = [["Video", "Minutes", "Why"], *rows]
    widest = max(display_width(row[-1]) for row in table)
    print(format_table([[*row, why + " " * (widest - display_width(why))] for *row, why in table]))
    minutes = sum(each.minutes for each in chosen)
    print(f"by {RULES[rule]}: {len(chosen)} of {counted(len(ranked), 'unlabelled video')}, {minutes:.1f} minutes")


def _as_csv(chosen: Sequence[Suggestion]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", "video", "minutes", "reason"])
    for place, each in enumerate(chosen, 1):
        rows.writerow([place, text_cell(each.video), f"{each.minutes:.3f}", text_cell(each.reason)])
    return text.getvalue()


if __name__ == "__main__":
    run_main(main)

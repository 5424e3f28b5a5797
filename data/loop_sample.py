"""The parts of `make demo-loop` that a person would do: label five sample videos, correct ten predictions, compare.

    python data/loop_sample.py prepare     # data/loop: five labelled sample videos, ten to label, the others to test on
    python data/loop_sample.py correct     # the files of common.prelabel, as the truth says, by the operations of the effort
    python data/loop_sample.py table       # accuracy and the labelling time saved, before and after

The sample is drawn, and a person is played by the truth: numbers say that the loop closes, and nothing of surgery.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import visible
from common.base.files import link_file, read_text, write_text
from common.base.options import CommandParser
from common.base.runtime import UserError, counted, run_main
from common.base.wording import format_table
from common.dataset.kfold import stratified_order
from common.dataset.phases import read_labels
from common.scoring.effort import DEFAULT_EFFORT, OPERATIONS, VideoEffort, saving, video_effort
from common.scoring.video_score import VideoScore

LABELLED, TO_LABEL = 5, 10  # videos; the others are tested on
RUNS = {"before": "labelled5", "after": "labelled15"}
# to the frame: a drawn phase lasts no longer than the usual tolerance, and the import then counts the same operations
RULE = replace(DEFAULT_EFFORT, tolerance_seconds=0)
NOTICE = "Synthetic: drawn videos of data/sample, dealt by `python data/loop_sample.py prepare`. No surgery.\n"


def main(argv: list[str] | None = None) -> int:
    """Do one of the parts."""
    parser = CommandParser(None, __doc__)
    parser.add_argument("part", choices=("prepare", "correct", "table"), help="what to do")
    parser.groups["model"].add_argument("--model", default="EfficientNet-Lite0", help="(default: %(default)s)")
    given = parser.parse_args(argv)
    sample = paths.dataset("sample")
    loop = paths.Dataset(sample.root.with_name("loop"))
    if given.part == "prepare":
        prepare(sample, loop)
    elif given.part == "correct":
        correct(sample, loop, given.model)
    else:
        print_table(sample, loop, paths.model(given.model))
    return 0


def unlabelled(loop: paths.Dataset) -> Path:
    """The folder of the videos to label."""
    return loop.root / "unlabelled"


def annotations(loop: paths.Dataset) -> Path:
    """The folder of the files that a person corrects."""
    return loop.root / "elan"


def prepare(sample: paths.Dataset, loop: paths.Dataset) -> None:
    """Deal the sample's videos; labels and annotation files of an earlier loop go, features stay.

    Raises `UserError` where the folder is somebody else's, or the sample is too small.
    """
    notice = loop.root / "README.txt"
    if visible(loop.root) and not (notice.is_file() and read_text(notice) == NOTICE):
        raise UserError(f"{loop.root}: is there already and no folder of this demo; move it away")
    labels = paths.label_paths(sample.ground_truth)
    order = stratified_order(list(labels))
    if len(order) <= LABELLED + TO_LABEL:
        raise UserError(f"{sample.root}: {len(order)} labelled videos, expected more than {LABELLED + TO_LABEL}")
    write_text(notice, NOTICE)
    for folder in (loop.videos, loop.ground_truth, loop.ground_truth_val, unlabelled(loop), annotations(loop)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    annotations(loop).rmdir()  # common.prelabel makes it
    for file in (sample.mapping, sample.sample_record):
        shutil.copyfile(file, loop.root / file.name)
    to_label, tests = order[LABELLED : LABELLED + TO_LABEL], order[LABELLED + TO_LABEL :]
    held_back = paths.label_paths(sample.ground_truth_val)
    videos = paths.find_videos(sample.videos)
    for name in order[:LABELLED]:
        link_file(labels[name], loop.ground_truth / f"{name}.txt")
    for name in (*tests, *held_back):
        link_file((labels | held_back)[name], loop.ground_truth_val / f"{name}.txt")
    for name in (*order[:LABELLED], *tests, *held_back):
        link_file(videos[name], loop.videos / videos[name].name)
    for name in to_label:
        link_file(videos[name], unlabelled(loop) / videos[name].name)
    print(f"{loop.root}: {LABELLED} videos labelled, {TO_LABEL} to label, {len(tests) + len(held_back)} to test on")


def correct(sample: paths.Dataset, loop: paths.Dataset, model: str) -> None:
    """Put every handed-out file right, to the frame."""
    from common.dataset.annotations.known_formats import annotation_texts
    from common.dataset.annotations.prelabelled import Prelabelled, PrelabelledSegment
    from common.dataset.description import read_phases
    from common.reports.pictures.style import phase_colours
    from common.video.timeline import Timeline, frame_edges

    mapping, corrected = read_phases(loop), []
    handed_out = predictions(sample, loop)
    videos, record = paths.find_videos(unlabelled(loop)), _record(loop)
    for name, score in handed_out.items():
        timeline = Timeline.from_json(record["videos"][name]["timeline"])
        true = score.segments[1]
        segments = tuple(PrelabelledSegment(start, end, mapping.names[phase], 1.0) for phase, start, end in true)
        corrected.append(Prelabelled(name, videos[name].name, frame_edges(timeline.seconds), segments))
    texts = annotation_texts(
        "elan",
        corrected,
        mapping.names,
        phase_colours(mapping),
        {name: f"../{unlabelled(loop).name}/{videos[name].name}" for name in handed_out},
        folder_name=unlabelled(loop).name,
        model=model,
        now=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )
    for file, text in texts.items():
        write_text(annotations(loop) / file, text)
    efforts = [video_effort(score, RULE) for score in handed_out.values()]
    counts = ", ".join(f"{sum(each.counts[kind] for each in efforts)} {kind}" for kind in OPERATIONS)
    print(f"{annotations(loop)}: {counted(len(corrected), 'video')} corrected by the truth: {counts}")


def predictions(sample: paths.Dataset, loop: paths.Dataset) -> dict[str, VideoScore]:
    """What was handed out, against the truth."""
    from common.dataset.description import read_phases
    from common.video.timeline import Timeline

    mapping, labels = read_phases(loop), paths.label_paths(sample.ground_truth)
    found = {}
    for name, video in _record(loop)["videos"].items():
        true, timeline = read_labels(labels[name], mapping), Timeline.from_json(video["timeline"])
        predicted = np.empty(timeline.num_frames, dtype=np.int64)
        for start, end, phase in video["segments"]:
            predicted[start:end] = mapping.ids[phase]
        found[name] = VideoScore(true, predicted, mapping.num_classes, mapping.background_id, timeline.fps)
    return found


def _record(loop: paths.Dataset) -> dict:
    from common.dataset.annotations.prelabelled import read_prelabel_record

    record = read_prelabel_record(annotations(loop))
    if record is None:
        raise UserError(f"{annotations(loop)}: nothing was handed out; run common.prelabel first")
    return record


def print_table(sample: paths.Dataset, loop: paths.Dataset, model: paths.Model) -> None:
    """Accuracy on the test videos before and after, and what the predictions saved, or would save, a person."""
    from common.reports.results import collect_one
    from common.scoring.protocols import CHALLENGE, summarise

    before, after = (collect_one(model, loop, "val", run=run) for run in RUNS.values())
    parts = {
        f"{LABELLED} videos, on the test videos": list(before.scores.values()),
        f"{LABELLED} videos, on the {TO_LABEL} that were corrected": list(predictions(sample, loop).values()),
        f"{LABELLED + TO_LABEL} videos, on the test videos": list(after.scores.values()),
    }
    rows = [["Learned from", "Accuracy", "Macro F1", "Edit", *OPERATIONS, "minutes", "without", "time saved"]]
    for title, scores in parts.items():
        summary = summarise(scores, CHALLENGE)
        measures = [f"{100 * summary[measure]:.1f}" for measure in ("accuracy", "f1_macro", "edit")]
        rows.append([title, *measures, *_work(scores)])
    print(format_table(rows))
    truth, imported = map(paths.label_paths, (sample.ground_truth, loop.ground_truth))
    asked = [name for name in _record(loop)["videos"] if name in imported]
    num_equal = sum(read_text(imported[name]) == read_text(truth[name]) for name in asked)
    print(
        f"labels that came back: {counted(len(asked), 'video')}, {num_equal} of them equal to the truth in every frame"
    )
    print(f"Synthetic data, a person played by the truth. {RULE.sentence}")


def _work(scores: list[VideoScore]) -> list[str]:
    """Operations, minutes with the predictions and without them, and the share saved."""
    efforts: list[VideoEffort] = [video_effort(score, RULE) for score in scores]
    found = saving(efforts, RULE)
    counts = [str(sum(each.counts[kind] for each in efforts)) for kind in OPERATIONS]
    minutes = [f"{seconds / 60:.1f}" for seconds in (found.with_prediction, found.from_nothing)]
    return [*counts, *minutes, f"{100 * found.share:.0f} %"]


if __name__ == "__main__":
    run_main(main)

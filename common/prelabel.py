"""Predicted phases of unlabelled videos as files of an annotation tool, for a person to correct.

python -m common.prelabel theatre --model EfficientNet-Lite0 --format elan
python -m common.prelabel theatre --checkpoint last.pt --format labelstudio --min_seconds 2 --output to_label

ELAN, csv and vtt: a file a video; BORIS, VIA and Label Studio: one project. Beside them todo.csv (videos with the most
doubtful segments first) and prelabel.json, by which the import says what was changed. Doubtful segments are marked: ELAN's
tier and VIA's attribute "look here", Label Studio's score, WebVTT's class, the table's column, BORIS' comment; the import
(python data/import_dataset.py annotations) passes over these marks. docs/labelling.md says how each tool opens them.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.entries import frame_files
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, counted, listed, progress, run_main
from common.dataset.annotations.known_formats import FORMATS, annotation_names

if TYPE_CHECKING:
    from common.dataset.annotations.prelabelled import Prelabelled
    from common.head.new_videos import Predictor, TrainedHead
    from common.video.timeline import Timeline

log = logging.getLogger(__name__)

PLAYABLE_SUFFIXES = (".mp4", ".m4v")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.prelabel`; 1 when a video failed."""
    given = _parser().parse_args(argv)
    if not given.folder.is_dir():
        raise UserError(f"{given.folder}: no such folder; expected one of videos")
    folder = given.folder.resolve()
    videos = paths.require_videos(folder)
    output = (given.output or Path(f"{folder.name}_{given.format}")).resolve()
    _require_free(output, annotation_names(given.format, list(videos)))
    for video in videos.values():
        with contextlib.suppress(UserError):  # one that is damaged is named when its turn comes
            _say_if_unplayable(video)

    # torch loads only now: --help is answered at once
    from common.dataset.description import frames_fps_of
    from common.head.new_videos import Predictor, find_head, open_head

    checkpoint = given.checkpoint or find_head(
        paths.model(given.model), given.dataset or paths.default_dataset(), split=given.split, run=given.run
    )
    head = open_head(checkpoint, given.model, is_named=given.checkpoint is not None)
    for remark in (head.description, *head.remarks):
        log.info("%s", remark)
    rates = [frames_fps_of(video) for video in videos.values() if video.is_dir()]
    predictor = Predictor(
        head,
        device=given.device,
        weights=given.weights,
        frames_fps=next(iter(rates), None),
        accept_damaged=given.accept_damaged,
    )
    handed_out, failed = _predicted(predictor, videos, folder, given.min_seconds)
    if handed_out:
        if given.format == "labelstudio":
            _say_what_moves([video for video, _ in handed_out.values()])
        _write_new(output, _texts(given.format, head, handed_out, videos, output))
        _print_summary(output, [video for video, _ in handed_out.values()])
    for name, reason in failed.items():
        log.error("error: %s: %s", name, reason)
    return 1 if failed else 0


def _parser() -> CommandParser:
    parser = CommandParser("common.prelabel", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the unlabelled videos")
    parser.add_trained_head()
    output = parser.groups["output"]
    output.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="annotation tool: ELAN, BORIS, VIA 3 or Label Studio; or csv, vtt",
    )
    output.add_argument(
        "--min_seconds",
        type=float,
        action=Positive,
        metavar="SECONDS",
        help="merge shorter segments into the neighbour whose phase has the higher mean probability there (default: none)",
    )
    output.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the files, which are never overwritten (default: <FOLDER>_<format>/ in the current folder)",
    )
    parser.add_device()
    return parser


def _require_free(output: Path, names: Sequence[str]) -> None:
    """Raise `UserError` where a file is there already, which somebody may have corrected."""
    targets = [output / name for name in names] + [paths.todo_list(output), paths.prelabel_record(output)]
    there = [path.name for path in targets if os.path.lexists(path)]
    if there:
        raise UserError(
            f"{output}: has {listed(there)} already, perhaps corrected by somebody; nothing is overwritten: choose another "
            "--output, or move them away"
        )


def _say_if_unplayable(video: Path) -> None:
    """Warn of a video that browsers and ELAN may not play, with the line that makes one that they do."""
    from common.video.probe import FRAMES, choose_stream, open_container, probe

    info = probe(video)
    reason = f"{info.codec} in {video.suffix or info.format}"
    if info.format != FRAMES and info.codec == "h264" and video.suffix.lower() in PLAYABLE_SUFFIXES:
        with open_container(video) as container:
            pixels = choose_stream(video, container)[0].codec_context.pix_fmt
        if pixels in ("yuv420p", "yuvj420p"):
            return
        reason = f"{reason} with {pixels} pixels"
    source = _images_in_words(video) if info.format == FRAMES else f"-i {shlex.quote(str(video))}"
    target = shlex.quote(f"./{video.stem if info.format != FRAMES else video.name}.mp4")
    # -enc_time_base -1: without it times are rounded to the mean rate, and frames of a variable one fall together
    log.warning(
        "%s: %s, which not every annotation tool plays (all play H.264 in .mp4). Convert it, put it into a folder of its own "
        "and name that instead; times stay:\n  ffmpeg %s -map 0:v:0 -fps_mode passthrough -enc_time_base -1 -c:v libx264 "
        "-crf 18 -pix_fmt yuv420p -vf 'crop=trunc(iw/2)*2:trunc(ih/2)*2' -movflags +faststart %s",
        video.name, reason, source, target,
    )  # fmt: skip


def _images_in_words(folder: Path) -> str:
    """What `ffmpeg` takes for the images of a folder: their rate, the first number, and how they are called."""
    from common.dataset.description import frames_fps_of

    files = frame_files(folder)
    before, first, behind = re.fullmatch(r"(.*?)(\d+)(\)?)", files[0].stem).groups()
    number = f"%0{len(first)}d" if first.startswith("0") else "%d"
    name = f"{before.replace('%', '%%')}{number}{behind}{files[0].suffix}"
    pattern = shlex.quote(f"{str(folder).replace('%', '%%')}/{name}")
    rate = frames_fps_of(folder)
    return f"{f'-framerate {rate:g} ' if rate else ''}-start_number {int(first)} -i {pattern}"


def _predicted(
    predictor: Predictor, videos: Mapping[str, Path], folder: Path, min_seconds: float | None
) -> tuple[dict[str, tuple[Prelabelled, Timeline]], dict[str, str]]:
    """The segments and times of each video, and the videos that failed with the reason."""
    from common.dataset.annotations.doubt import doubtful_segments, merge_flicker
    from common.dataset.annotations.prelabelled import Prelabelled
    from common.features.files import open_features

    head = predictor.trained
    target = head.model.unlabelled_results(head.dataset, folder.name, head.config.split, head.config.run_name)
    beside = paths.Dataset(target.parent).features(head.model.name, head.config.variant)
    features, failed = predictor.ready_features(dict(videos), beside)
    changes = _usual_changes(head)
    if changes is None:
        log.info("the labels that the head has learned from are not here: no change of phase is called unusual")
    handed_out = {}
    for name in progress([name for name in videos if name not in failed], description="predict", unit="videos"):
        try:
            phases = predictor.predict(videos[name], features[name], target).every_frame
            ids = phases.phase_ids
            if min_seconds is not None:
                ids = merge_flicker(ids, phases.probabilities, phases.edges, min_seconds)
            segments = doubtful_segments(ids, phases.probabilities, phases.edges, head.mapping.names, changes)
            timeline = open_features(features[name]).timeline
            handed_out[name] = (Prelabelled(name, videos[name].name, phases.edges, segments), timeline)
        except UserError as error:
            failed[name] = str(error)
    return handed_out, failed


def _usual_changes(head: TrainedHead) -> set[tuple[int, int]] | None:
    """The changes of phase in the labels that a head has learned from; None where they are not on this machine."""
    from common.dataset.annotations.doubt import changes_of
    from common.dataset.phases import read_labels
    from common.head.experiment import load_experiment

    try:
        experiment = load_experiment(head.config)
        return changes_of([read_labels(path, experiment.mapping) for path in experiment.train_labels.values()])
    except UserError:
        return None


def _say_what_moves(handed_out: Sequence[Prelabelled]) -> None:
    """Warn of segments that Label Studio's grid of one rate does not keep to the frame."""
    from common.dataset.annotations.formats.label_studio import worst_shift

    for video in handed_out:
        moved, furthest = worst_shift(video)
        if moved:
            log.warning(
                "%s: its frames lie at a variable rate and those of Label Studio do not: %s of %d come back as another frame, by "
                "up to %.3f s; ELAN, BORIS, VIA, csv and vtt are exact",
                video.name, counted(moved, "segment start"), len(video.segments), furthest,
            )  # fmt: skip


def _places(videos: Mapping[str, Path], output: Path) -> dict[str, str]:
    """The path of each video from the folder of the files; its bare name where the path would name a home folder."""
    places = {}
    for name, path in videos.items():
        common = Path(os.path.commonpath([path, output])) if path.drive == output.drive else None
        if common is None or _names_a_home(path, common):
            places[name] = path.name
        else:  # as in a link: with / on every system
            places[name] = Path(os.path.relpath(path, output)).as_posix()
    if any("/" not in place for place in places.values()) and output != next(iter(videos.values())).parent:
        log.warning(
            "links to videos are bare names, since their paths name a home folder: put the files beside the videos"
        )
    return places


def _names_a_home(path: Path, common: Path) -> bool:
    """Whether the path of a file from a folder above it, `common`, names the home folder of somebody."""
    home, depth = Path.home(), len(common.parts)
    if path.is_relative_to(home) and depth < len(home.parts):
        return True
    shared = home.parent  # /home, /Users: those of others are there too
    return len(shared.parts) > 1 and path.is_relative_to(shared) and depth <= len(shared.parts)


def _texts(
    format_name: str,
    head: TrainedHead,
    handed_out: Mapping[str, tuple[Prelabelled, Timeline]],
    videos: Mapping[str, Path],
    output: Path,
) -> dict[str, str]:
    """All files by name: the annotations, what waits, and the record, which names no folder of this machine."""
    from common.base.files import cached_fingerprint
    from common.dataset.annotations.known_formats import annotation_texts
    from common.dataset.annotations.prelabelled import todo_text
    from common.reports.pictures.style import phase_colours

    places = _places({name: videos[name] for name in handed_out}, output)
    prelabelled = [video for video, _ in handed_out.values()]
    texts = annotation_texts(
        format_name,
        prelabelled,
        head.mapping.names,
        phase_colours(head.mapping),
        places,
        folder_name=next(iter(videos.values())).parent.name,
        model=head.model.name,
        now=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )
    first = Path(next(iter(places.values())))
    record = {
        "format": 1,
        "head": head.description,
        "dataset": head.dataset,
        "phases": list(head.mapping.names),
        "background": head.mapping.background,
        "videos_folder": first.parent.as_posix() if len(first.parts) > 1 else None,
        "videos": {
            name: {
                "fingerprint": cached_fingerprint(videos[name]),
                "timeline": timeline.to_json(),
                "segments": [[one.start, one.end, one.phase] for one in video.segments],
            }
            for name, (video, timeline) in handed_out.items()
        },
    }
    texts[paths.todo_list(output).name] = todo_text(prelabelled)
    texts[paths.prelabel_record(output).name] = json.dumps(record, allow_nan=False) + "\n"
    return texts


def _write_new(output: Path, texts: Mapping[str, str]) -> None:
    """Write files that are not there yet, all or none of them."""
    from common.base.files import write_text
    from common.base.locks import hold

    written: list[Path] = []
    with hold(paths.prelabel_record(output)):
        _require_free(output, list(texts))
        try:
            for name, text in texts.items():
                written.append(output / name)
                write_text(output / name, text)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise


def _print_summary(output: Path, handed_out: Sequence[Prelabelled]) -> None:
    segments = sum(len(video.segments) for video in handed_out)
    doubtful = sum(video.num_doubtful for video in handed_out)
    print(
        f"{output}: {counted(len(handed_out), 'video')}, {counted(segments, 'segment')}, {doubtful} of them doubtful; "
        f"{paths.todo_list(output).name} says where to begin"
    )
    print(f"corrected: python data/import_dataset.py annotations {shlex.quote(str(output))}")


if __name__ == "__main__":
    run_main(main)

"""The phases of new videos by a trained head: tables, a picture, and on request the video with the phases written in.

python -m common.predict_video case_7.mp4 --model EfficientNet-Lite0 --overlay
python -m common.predict_video theatre/*.mp4 --checkpoint last.pt --output predictions
python -m common.predict_video case_7.mp4 --model EfficientNet-Lite0 --run causal --online            # frame by frame
python -m common.predict_video rtsp://theatre-2/live --checkpoint last.pt --online --json_lines       # a camera: 0, 1, ...

For each video: <video>.txt (the phase of every frame), <video>.npy (probabilities), <video>_segments.csv (end_frame and
end_seconds are where the next phase starts), <video>_ribbon.png and, with --overlay, <video>_phases.mp4. With --online
<video>_online.csv, a row as soon as a phase is known; docs/live.md. A camera or stream that ends makes the exit code 3.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.entries import is_frame_folder, reason_against, same_name, video_name_of
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, printable, run_main
from common.video.timeline import DEFAULT_FPS

if TYPE_CHECKING:
    from common.head.new_videos import Predictor
    from common.video.live import LiveSource

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.predict_video`; 1 when a video failed."""
    given = _parser().parse_args(argv)
    _require_together(given)
    source = _live_source(given) if given.online else None
    given.videos = [] if source else [Path(video) for video in given.videos]
    videos = {video: given.output or Path(f"{video_name_of(video)}_phases") for video in given.videos}
    _refuse_collisions(videos, overlay=given.overlay)

    # torch loads only now, matplotlib when there is something to draw: --help is answered at once
    from common.head.new_videos import Predictor, find_head, open_head

    checkpoint = given.checkpoint or find_head(
        paths.model(given.model), given.dataset or paths.default_dataset(), split=given.split, run=given.run
    )
    head = open_head(checkpoint, given.model, is_named=given.checkpoint is not None)
    log.info("%s: %s", checkpoint, head.description)
    for remark in head.remarks:
        log.warning("%s", remark)
    predictor = Predictor(
        head,
        device=given.device,
        weights=given.weights,
        frames_fps=given.frames_fps or _stated_frames_fps(given.videos),
        accept_damaged=given.accept_damaged,
    )
    if given.online:
        from common.head.live.session import require_online

        if remark := require_online(predictor, allow_future_features=given.allow_future_features):
            log.warning("%s", remark)
        return _predict_online(predictor, source or next(iter(videos)), given)
    failed = []
    for video, folder in videos.items():
        try:
            _predict(predictor, video, folder.resolve(), overlay=given.overlay)
            print(folder.resolve())
        except UserError as error:
            failed.append(video.name)
            log.error("error: %s", error)
    if failed and len(videos) > 1:
        log.error("error: %d of %d videos failed: %s", len(failed), len(videos), ", ".join(failed))
    return 1 if failed else 0


def _parser() -> CommandParser:
    parser = CommandParser("common.predict_video", __doc__)
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video files, or folders of numbered images; with --online one of these, a camera's number or an address",
    )
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument(
        "--frames_fps",
        type=float,
        action=Positive,
        metavar="FPS",
        help="images a second of folders of images (default: as the dataset.yaml beside videos/ says, else "
        f"{DEFAULT_FPS:g} frames per second)",
    )
    parser.add_trained_head()
    output.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of all results (default: <video>_phases/ in the current folder, for each video)",
    )
    output.add_argument("--overlay", action="store_true", help="also write the video with the phases written in")
    _add_online_options(parser)
    parser.add_device()
    return parser


def _add_online_options(parser: CommandParser) -> None:
    data, model, output = parser.groups["data"], parser.groups["model"], parser.groups["output"]
    data.add_argument(
        "--online", action="store_true", help="frame by frame, of a head that was trained with --causal or --lookahead"
    )
    data.add_argument(
        "--realtime", action="store_true", help="with --online: play a file at its own speed, as a camera would give it"
    )
    data.add_argument(
        "--input_format",
        metavar="FORMAT",
        help="with --online: FFmpeg's name of a device or container where the source does not tell it, such as v4l2, mpegts",
    )
    model.add_argument(
        "--allow_future_features",
        action="store_true",
        help="with --online: take features that have seen frames after their own; answers come so much later",
    )
    output.add_argument(
        "--json_lines",
        action="store_true",
        help="with --online: print a JSON object for each answer, with all probabilities",
    )


def _require_together(given: argparse.Namespace) -> None:
    """Raise `UserError` for options that are not for each other."""
    only_online = ("realtime", "input_format", "json_lines", "allow_future_features")
    named = [f"--{name}" for name in only_online if getattr(given, name)]
    if named and not given.online:
        raise UserError(f"{named[0]}: only with --online")
    if given.online and given.overlay:
        raise UserError("--overlay: not with --online; write it afterwards, without --online")
    if given.online and len(given.videos) > 1:
        raise UserError(f"--online: expected one video, camera or address, found {len(given.videos)}")


def _live_source(given: argparse.Namespace) -> LiveSource | None:
    """The camera or stream that is asked for; None for a file or a folder of images."""
    from common.video.live import LiveSource

    (address,) = given.videos
    if given.input_format is None and not address.isdecimal() and "://" not in address:
        return None
    if os.path.lexists(address) and given.input_format is None:
        return None  # a file that is called like a camera
    if given.realtime:
        raise UserError("--realtime: a camera or stream plays at its own speed; it is for files")
    return LiveSource(address, given.input_format)


def _predict_online(predictor: Predictor, source: LiveSource | Path, given: argparse.Namespace) -> int:
    """Print and write the phases of one source as they come; 3 when a camera or stream has ended."""
    from common.head.live.lines import json_line_of, line_of, tell
    from common.head.live.session import follow_file, follow_stream
    from common.video.probe import probe

    if isinstance(source, Path):
        _require_video(source)
        probe(source)  # before the head is there: what is no video is named at once
        name, answers = video_name_of(source), follow_file(predictor, source, at_own_speed=given.realtime)
    else:
        name = f"live_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
        answers = follow_stream(predictor, source)
    table = (given.output or Path(f"{name}_phases")).resolve() / f"{name}_online.csv"
    mapping = predictor.trained.mapping
    if sys.stdout.isatty() and not given.json_lines:
        from common.head.live.ribbon import TerminalRibbon
        from common.reports.pictures.style import phase_colours

        ribbon = TerminalRibbon(mapping, phase_colours(mapping), sys.stdout)
        return 3 if tell(answers, table, mapping, ribbon.add, at_end=ribbon.draw) else 0
    line = json_line_of if given.json_lines else line_of
    return 3 if tell(answers, table, mapping, lambda answer: print(line(answer, mapping), flush=True)) else 0


def _require_video(video: Path) -> None:
    if not (os.path.isfile(video) or is_frame_folder(video)):
        raise UserError(f"{video}: no such video file, nor a folder of numbered images")


def _stated_frames_fps(videos: list[Path]) -> float | None:
    """The rate of folders of images by the data set that they lie in; None where nothing says it."""
    from common.dataset.description import frames_fps_of

    return next((fps for video in videos if os.path.isdir(video) and (fps := frames_fps_of(video))), None)


def _predict(predictor: Predictor, video: Path, folder: Path, *, overlay: bool) -> None:
    """Write the files of one video into `folder`; its features stay there and are used again.

    Raises `UserError` when it is not a video, does not decode to its end, or `folder` cannot be written to.
    """
    from common.reports.pictures.overlay import write_overlay
    from common.reports.pictures.timeline import timeline_plot, write_segments
    from common.video.probe import probe

    _require_video(video)
    name = video_name_of(video)
    if reason := reason_against(name):
        raise UserError(f"{printable(str(video))}: results cannot be called so: {reason}")
    probe(video)  # before the folder: what is no video leaves nothing behind
    _require_writable(folder)
    head = predictor.trained
    features = paths.Dataset(folder).features(head.model.name, head.config.variant)
    summary = predictor.make_features({name: video}, features)
    if summary.failed:
        raise UserError(summary.failed[name])
    phases = predictor.predict(video, features / f"{name}.npy", folder)
    write_segments(folder / f"{name}_segments.csv", phases)
    timeline_plot(phases, folder / f"{name}_ribbon.png")
    if overlay:
        write_overlay(video, phases.every_frame, _overlay_path(video, folder), decoder=head.identity["decoder"])


def _refuse_collisions(videos: dict[Path, Path], *, overlay: bool) -> None:
    """Raise `UserError` where results of two videos would lie in one place, or a result upon a video."""
    names = Counter(same_name(video_name_of(video)) for video in videos)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"two videos are called {twice[0]!r}: predict them one at a time, each with its own --output")
    sources = {video.resolve() for video in videos}
    written = {_overlay_path(video, folder).resolve() for video, folder in videos.items()} if overlay else set()
    for path in written & sources:
        raise UserError(f"{path}: an overlay would replace this video; choose another --output")


def _overlay_path(video: Path, folder: Path) -> Path:
    return folder / f"{video_name_of(video)}_phases.mp4"


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror}); choose another --output") from error


if __name__ == "__main__":
    run_main(main)

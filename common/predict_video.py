"""The phases of new videos by a trained head: tables, a picture, and on request the video with the phases written in.

python -m common.predict_video case_7.mp4 --model EfficientNet-Lite0 --overlay
python -m common.predict_video theatre/*.mp4 --checkpoint last.pt --output predictions

For each video: <video>.txt (the phase of every frame), <video>.npy (probabilities), <video>_segments.csv (end_frame and
end_seconds are where the next phase starts), <video>_ribbon.png and, with --overlay, <video>_phases.mp4.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.runtime import UserError, atomic_path, choose_precision, keep_freed_memory, run_main, select_device
from common.dataset.phases import write_prediction
from common.encoders.build import build_encoder
from common.features.config import extraction_like, with_options
from common.features.files import identity_differences, is_extracted
from common.features.loop import ExtractionLoop, Summary
from common.head.batch_gen import open_video
from common.head.checkpoint import load_head
from common.head.new_videos import TrainedHead, VideoPhases, find_head, open_head
from common.head.prediction import phase_probabilities
from common.reports.pictures.overlay import write_overlay
from common.reports.pictures.timeline import timeline_plot, write_segments
from common.video.probe import probe

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.predict_video`; 1 when a video failed."""
    given = _parser().parse_args(argv)
    videos = {video: given.output or Path(f"{video.stem}_phases") for video in given.videos}
    _refuse_collisions(videos, overlay=given.overlay)
    keep_freed_memory()
    checkpoint = given.checkpoint or find_head(
        paths.model(given.model), given.dataset, split=given.split, run=given.run
    )
    head = open_head(checkpoint, given.model)
    log.info("%s: %s", checkpoint, head.description)
    for remark in head.remarks:
        log.warning("%s", remark)
    predictor = Predictor(head, device=given.device, weights=given.weights)
    failed = []
    for video, folder in videos.items():
        try:
            predictor.predict(video, folder.resolve(), overlay=given.overlay)
            print(folder.resolve())
        except UserError as error:
            failed.append(video.name)
            log.error("error: %s", error)
    if failed and len(videos) > 1:
        log.error("error: %d of %d videos failed: %s", len(failed), len(videos), ", ".join(failed))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    purpose, _, details = __doc__.partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m common.predict_video", description=purpose, epilog=details.strip(), formatter_class=raw
    )
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO", help="video files")
    add("--model", help="folder under models/ (default: that of --checkpoint, or the current one)")
    add("--checkpoint", type=Path, metavar="FILE", help="the trained head (default: found by the next three)")
    add("--dataset", default=paths.DEFAULT_DATASET, help="data set that it was trained on (default: %(default)s)")
    add(
        "--split",
        metavar="K",
        help="split that it was trained on (default: val, which learned from all of groundTruth/, if it is trained, "
        "else the first fold that is)",
    )
    add("--run", metavar="NAME", help="name of its run, such as causal or seed7 (default: the run without a name)")
    add("--weights", help="where the encoder's weights are on this machine (default: where they were at training)")
    add("--output", type=Path, metavar="DIR", help="folder of all results (default: <video>_phases/ for each video)")
    add("--overlay", action="store_true", help="also write the video with the phases written in")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:0 ... (default: the best there is)")
    return parser


def _refuse_collisions(videos: dict[Path, Path], *, overlay: bool) -> None:
    """Raise `UserError` where results of two videos would lie in one place, or a result upon a video."""
    twice = [name for name, count in Counter(video.stem for video in videos).items() if count > 1]
    if twice:
        raise UserError(f"two videos are called {twice[0]!r}: predict them one at a time, each with its own --output")
    sources = {video.resolve() for video in videos}
    written = {_overlay_path(video, folder).resolve() for video, folder in videos.items()} if overlay else set()
    for path in written & sources:
        raise UserError(f"{path}: an overlay would replace this video; choose another --output")


def _overlay_path(video: Path, folder: Path) -> Path:
    return folder / f"{video.stem}_phases.mp4"


class Predictor:
    """A head and, as soon as a video needs it, its encoder."""

    def __init__(self, trained: TrainedHead, *, device: str = "auto", weights: str | None = None):
        self.trained, self.weights = trained, weights
        self.device = select_device(device)
        self.head = load_head(trained.path, trained.config, trained.mapping.num_classes).to(self.device)

    def predict(self, video: Path, folder: Path, *, overlay: bool = False) -> VideoPhases:
        """Write the files of one video into `folder`; its features stay there and are used again.

        Raises `UserError` when it is not a video, does not decode to its end, or `folder` cannot be written to.
        """
        if not video.is_file():
            raise UserError(f"{video}: no such video file")
        probe(video)
        _require_writable(folder)
        phases = self._phases(video, self._features(video, folder))
        write_prediction(folder / f"{video.stem}.txt", phases.phase_ids, phases.mapping)
        with atomic_path(folder / f"{video.stem}.npy") as temporary:
            np.save(temporary, phases.probabilities)
        write_segments(folder / f"{video.stem}_segments.csv", phases)
        timeline_plot(phases, folder / f"{video.stem}_ribbon.png")
        if overlay:
            write_overlay(video, phases, _overlay_path(video, folder), decoder=self.trained.identity["decoder"])
        return phases

    def _phases(self, video: Path, features: Path) -> VideoPhases:
        trained = self.trained
        opened = open_video(features, trained.config.features_dim, sample_rate=trained.config.sample_rate)
        probabilities = phase_probabilities(self.head, opened)
        rows = probabilities[opened.timeline.nearest_sample(opened.num_labels)]
        return VideoPhases(
            video.name, opened.timeline.seconds, rows, trained.mapping, trained.description, trained.remarks
        )

    def _features(self, video: Path, folder: Path) -> Path:
        """The features of a video, made in the way of the training's, or found finished from an earlier call."""
        target = paths.Dataset(folder).features(self.trained.model.name, self.trained.config.variant)
        features = target / f"{video.stem}.npy"
        if not self._is_reusable(features, video):
            summary = Summary()
            self.extraction.run({video.stem: video}, target, summary)
            if summary.failed:
                raise UserError(summary.failed[video.stem])
        return features

    def _is_reusable(self, features: Path, video: Path) -> bool:
        try:
            return is_extracted(features, self.trained.identity, video.stat().st_size)
        except UserError as error:  # another run's, or damaged: the folder is this command's own
            log.info("made again: %s", str(error).partition(";")[0])
            return False

    @cached_property
    def extraction(self) -> ExtractionLoop:
        """The extraction that made the head's training features.

        Raises `UserError` when it cannot be repeated here, naming what differs.
        """
        trained = self.trained
        options = extraction_like(trained.identity, trained.encoder, self.weights)
        encoder = build_encoder(with_options(trained.encoder, options), options.weights)
        identity = trained.identity | {
            "weights": encoder.weights.to_json(),
            "pooling": encoder.config.pooling,
            "preprocessing": encoder.config.preprocessing.to_json(),
        }
        differences = identity_differences(trained.identity, identity)
        if encoder.feature_dim != trained.config.features_dim:
            differences.append(f"feature_dim: {trained.config.features_dim} in the file, {encoder.feature_dim} now")
        if differences:
            raise UserError(
                f"{trained.path}: {trained.model.name} makes other features here than the head learned from: "
                f"{'; '.join(differences)}"
            )
        encoder.prepare(self.device, choose_precision(options.precision, self.device))
        return ExtractionLoop(encoder, options, identity)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror}); choose another --output") from error


if __name__ == "__main__":
    run_main(main)

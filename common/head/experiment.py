"""One encoder, one split, one seed: what is trained on, what is predicted, and where it goes."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.base import paths
from common.base.entries import on_disk, visible
from common.base.files import sha256_of_file, sha256_of_json
from common.base.paths import find_videos
from common.base.runtime import UserError, listed, progress
from common.dataset.description import DatasetDescription, features_owner, read_description, read_phases
from common.dataset.kfold import nested_subset
from common.dataset.phases import PhaseMapping, read_labels, require_labels
from common.dataset.split_lists import Part, SplitLists, open_splits, resolve_name
from common.features.files import identity_differences, open_features, sidecar_path
from common.head.batch_gen import VideoFeatures, open_split, open_video
from common.head.config import TrainConfig
from common.video.label_grid import LabelGrid

if TYPE_CHECKING:
    from common.encoders.config import EncoderConfig

log = logging.getLogger(__name__)

VALIDATION = "val"
ROUNDING = 1e-9  # of a rate that comes from times
Decoding = Literal["argmax", "viterbi"]


@dataclass(frozen=True)
class Experiment:
    """A resolved `TrainConfig` with the files that belong to it; make one with `load_experiment`."""

    config: TrainConfig
    dataset: paths.Dataset
    model: paths.Model
    encoder: EncoderConfig
    mapping: PhaseMapping
    verify: bool = True
    """Whether features are held to the hashes of their sidecars before they are used."""
    part: Part = "test"
    """The list that is predicted and scored: `val`, where a named list has one, for a look before the test."""

    decode: Decoding = "argmax"
    """How phases are read off the head's output; `viterbi` is a run of its own beside the plain one."""
    held_out: frozenset[str] = frozenset()
    """Training videos that are kept aside: not learned from, to choose or to measure on."""
    asked: TrainConfig | None = None
    """What was asked for, where some of `config` was chosen inside the training part."""
    choice: dict[str, Any] | None = None
    """What was chosen and among what, as the run's record says it (`controls.choice`)."""
    acquired: dict[str, Any] | None = None
    """Which videos a rule chose to learn from, as the run's record says it (`acquisition.simulation`)."""

    @property
    def run_name(self) -> str | None:
        """The run's name, the decoding included: what is trained has `config.run_name`."""
        return self.config.decoded_name(self.decode)

    @property
    def recorded_config(self) -> TrainConfig:
        """The configuration as the run's record has it."""
        return replace(self.asked or self.config, run=self.run_name)

    def with_settings(self, settings: Mapping[str, Any]) -> Experiment:
        """The same run with other settings, as they were chosen; its record has what was asked for."""
        config = replace(self.config, **settings, run=self.config.run_name)
        if "variant" in settings:  # another pooling may be wider
            folder = features_owner(self.dataset).features(self.model.name, config.variant)
            config = replace(config, features_dim=open_features(visible(folder, "*.npy")[0]).array.shape[0])
        return replace(self, config=config, asked=self.asked or self.config)

    def with_choice(self, choice: dict[str, Any]) -> Experiment:
        """The same run with what was chosen for it."""
        return replace(self.with_settings(choice["chosen"]), choice=choice)

    def with_acquired(self, acquired: dict[str, Any], run: str | None = None) -> Experiment:
        """The same on those of its training videos alone that a rule chose, under another name of its run."""
        others = self.train_labels.keys() - set(acquired["videos"])
        config = replace(self.config, run=run or self.config.run_name)
        return replace(self, config=config, held_out=frozenset(others), acquired=acquired)

    @property
    def checkpoint(self) -> Path:
        return self.model.checkpoint(self.dataset.name, self.config.split, self.config.run_name)

    @property
    def results(self) -> Path:
        folder = self.model.split_results(self.dataset.name, self.config.split, self.run_name)
        return folder if self.part == "test" else folder / f"part_{self.part}"

    @property
    def features(self) -> Path:
        return features_owner(self.dataset).features(self.model.name, self.config.variant)

    @cached_property
    def label_grid(self) -> LabelGrid:
        description = read_description(self.dataset)
        return LabelGrid(description.label_fps, description.label_every)

    @cached_property
    def splits(self) -> SplitLists | None:
        """Verified splits; generated folds with each patient in one. None for the validation split, which needs none."""
        if self.config.split == VALIDATION:
            return None
        splits = open_splits(self.dataset, self.config.splits)
        if os.path.lexists(self.dataset.patients):
            from common.dataset.patients import check_patients

            for shared in check_patients(self.dataset, splits, [int(self.config.split)]):
                log.warning("%s", shared)
        return splits

    @property
    def folds_hash(self) -> str | None:
        return self.splits.hash if self.splits else None

    @cached_property
    def train_labels(self) -> dict[str, Path]:
        """Label files of the training videos, of the chosen share of them."""
        labels = require_labels(self.dataset.ground_truth)
        videos = list(labels)
        if self.splits is not None:
            videos = self.splits.videos("train", int(self.config.split))
        chosen = nested_subset(videos, self.config.train_fraction)
        return {name: labels[name] for name in chosen if name not in self.held_out}

    @property
    def held_out_labels(self) -> dict[str, Path]:
        """Label files of the videos that are kept aside."""
        labels = require_labels(self.dataset.ground_truth)
        return {name: labels[name] for name in sorted(self.held_out)}

    @cached_property
    def test_labels(self) -> dict[str, Path]:
        """Label files of the videos that are scored.

        Raises `UserError` when the split does not exist.
        """
        if self.splits is None:
            folder = self.dataset.ground_truth_val
            if not folder.is_dir():
                raise UserError(
                    f"{folder}: no such folder, whose videos `--split {VALIDATION}` predicts and scores; put labels there, or predict new "
                    "videos (--videos DIR, common.predict_video)"
                )
            return require_labels(folder)
        labels = require_labels(self.dataset.ground_truth)
        return {name: labels[name] for name in self.splits.videos(self.part, int(self.config.split))}

    def open(self, labels: dict[str, Path]) -> list[VideoFeatures]:
        """Open features and labels; all features must have been made in the same way, and be what was written."""
        videos = open_split(
            self.features,
            labels,
            self.mapping,
            feature_dim=self.config.features_dim,
            grid=self.label_grid,
            sample_rate=self.config.sample_rate,
            feature_strides=self._feature_strides(list(labels)),
            length_tolerance=self.config.length_tolerance,
        )
        for video in progress(videos, description="check features", unit="files") if self.verify else ():
            video.source.verify()
        if damaged := [video.name for video in videos if video.damage]:
            log.warning("features of damaged videos, taken as they were: %s", listed(damaged))
        ahead = max(video.look_ahead_seconds for video in videos)
        if self.config.sees_past_only and ahead:
            self._require_allowed(ahead)
        first = videos[0].source.identity()
        for video in videos:
            if identity_differences(video.source.identity(), first):
                raise UserError(
                    f"{video.source.path} and {videos[0].source.path} were made in different ways (see their .json); "
                    "extract both again with the same options and --force"
                )
        return videos

    def _require_allowed(self, ahead: float) -> None:
        """Raise `UserError` where a head that must not see later frames has features that have, unless that is allowed."""
        what = f"features of {self.model.name} look ahead by {ahead:g} s (windows around each frame)"
        flag = f"--lookahead {self.config.lookahead:g}" if self.config.lookahead else "--causal"
        if not self.config.allow_future_features:
            raise UserError(
                f"{flag}: expected features that have seen nothing after their frame, but {what}; extract them with --anchor end, "
                "or add --allow_future_features: every table will then say so, with the seconds"
            )
        log.warning("%s: %s, so its answers come that much later", flag, what)

    def with_lookahead_frames(self) -> Experiment:
        """The same with its look-ahead in features: so many as the slowest of the test videos has in these seconds.

        Where no videos are kept for validation it is the slowest of those that it learns from.

        Raises `UserError` where features are missing, or how many there are in a second is not known.
        """
        is_scored = self.splits is not None or self.dataset.ground_truth_val.is_dir()
        asked = self.test_labels if is_scored else self.train_labels
        rates, strides = {}, self._feature_strides(list(asked))
        for name, labels in asked.items():
            video = open_video(
                self.features / f"{name}.npy",
                self.config.features_dim,
                grid=self.label_grid,
                sample_rate=self.config.sample_rate,
                feature_stride=strides.get(name, 1),
                num_labels=len(read_labels(labels, self.mapping)),
            )
            rates[name] = video.features_per_second
            if rates[name] is None:
                raise UserError(
                    f"--lookahead {self.config.lookahead:g}: {video.source.path} does not say how many features a second it has; "
                    "write `label_fps: N` into dataset.yaml, or extract the features here"
                )
        # a product that is a whole number may come out a little less
        frames = math.floor(self.config.lookahead * min(rates.values()) * (1 + ROUNDING))
        return replace(self, config=replace(self.config, lookahead_frames=frames))

    def _feature_strides(self, names: list[str]) -> dict[str, float]:
        """Frames from one feature to the next of videos without sidecars, where flag or `dataset.yaml` says it.

        Raises `UserError` where a rate of features is said, but that of the labels is not known.
        """
        if self.config.feature_stride != 1:
            return dict.fromkeys(names, self.config.feature_stride)
        description = read_description(self.dataset)
        if description.feature_fps is None:
            return {}
        strides, videos = {}, find_videos(features_owner(self.dataset).videos)
        for name in names:
            is_own = sidecar_path(on_disk(self.features / f"{name}.npy")).is_file()  # it says which frames it has
            if not is_own:
                strides[name] = self._label_fps(name, videos.get(name), description) / description.feature_fps
            if strides.get(name, 1) < 1:
                raise UserError(
                    f"{self.dataset.description}: feature_fps {description.feature_fps:g} is more than the "
                    f"{strides[name] * description.feature_fps:g} labels a second of {name}; thin the features out"
                )
        return strides

    def _label_fps(self, name: str, video: Path | None, description: DatasetDescription) -> float:
        """Labels a second of a video: as `dataset.yaml` says, or one a frame at the rate of the video's header."""
        if description.label_fps is not None:
            return description.label_fps
        from common.video.probe import VideoError, probe  # opens videos, which no other training does

        try:
            fps = probe(video).fps if video else None
        except VideoError:
            fps = None
        if not fps:
            raise UserError(
                f"{self.dataset.description}: feature_fps is there, but not how many labels a second {name} has, and no "
                f"video in {self.dataset.videos} tells; add label_fps, or give --feature_stride in place of feature_fps"
            )
        return fps

    def inputs_hash(self, videos: list[VideoFeatures], labels: dict[str, Path]) -> str:
        """Identity of features and labels: SHA-256 over the content of every file, and what was said of them."""
        of_all = [] if self.label_grid.is_every_frame else [str(self.label_grid)]
        of_all += [list(self.mapping.ignored)] if self.mapping.ignored else []
        said = {video.name: [video.feature_stride] if video.feature_stride != 1 else [] for video in videos}
        return sha256_of_json(
            {v.name: [v.source.digest(), sha256_of_file(labels[v.name]), *said[v.name], *of_all] for v in videos}
        )


def load_experiment(
    config: TrainConfig, *, verify: bool = True, part: Part = "test", is_scored: bool = True
) -> Experiment:
    """Resolve a configuration: the model (default: the current folder), its feature_dim, portable paths.

    `is_scored`: videos of the split will be predicted, and not only learned from.

    Raises `UserError` when the model, the data set, its mapping or the split does not exist.
    """
    from common.encoders.config import read_encoder_config  # of all that it says, a head asks for the width alone

    dataset, model = paths.dataset(config.dataset), paths.model(config.model)
    # a variant that is called as named weights are has their width
    encoder = read_encoder_config(model.config).with_weights(config.variant)
    inside = dataset.root.parent == (paths.repository_root() / "data").resolve()
    weights = config.class_weights
    config = replace(config, splits=config.splits and resolve_name(dataset, config.splits))
    resolved = replace(
        config,
        dataset=dataset.name if inside else str(dataset.root),
        model=model.name,
        run=config.run_name,
        features_dim=config.features_dim or encoder.feature_dim,
        class_weights=weights if weights in ("none", "inverse") else os.path.abspath(weights),
    )
    experiment = Experiment(resolved, dataset, model, encoder, read_phases(dataset), verify, part)
    _ = experiment.train_labels  # looked up now, so that a wrong split is an error at once
    if is_scored:
        _ = experiment.test_labels
    if resolved.lookahead and resolved.lookahead_frames is None:
        return experiment.with_lookahead_frames()
    return experiment

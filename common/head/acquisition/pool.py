"""What rules look at: of each unlabelled video the mean of its features, its length, and what trained heads say of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import visible
from common.base.runtime import UserError, listed, progress
from common.dataset.description import features_owner
from common.encoders.config import read_encoder_config
from common.features.config import ExtractionConfig, extraction_like, variant_of
from common.features.files import identity_differences, open_features
from common.head.acquisition.rules import Candidate, mean_disagreement, mean_uncertainty
from common.head.new_videos import Predictor, TrainedHead

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class UnlabelledPool:
    """Unlabelled videos, the mean features of the labelled ones, and the videos that failed with the reason."""

    candidates: dict[str, Candidate]
    labelled: dict[str, np.ndarray]
    failed: dict[str, str]


def pool_by_heads(
    heads: Sequence[TrainedHead],
    videos: dict[str, Path],
    dataset: paths.Dataset | None,
    *,
    device: str,
    weights: str | None,
) -> UnlabelledPool:
    """Have trained heads answer for videos; the features are those of the first head's encoder.

    Answers and features stay beside other predictions for this folder, so that a second look is quick. Raises `UserError`
    for heads of other phases, and where features cannot be made.
    """
    first = heads[0]
    for head in heads[1:]:
        if head.mapping.names != first.mapping.names or head.grid != first.grid:
            raise UserError(f"{head.path}: expected the phases and the rate of labels of {first.path}, found others")
    folder = next(iter(videos.values())).parent
    predictors = [Predictor(head, device=device, weights=weights if head is first else None) for head in heads]
    targets, files, failed = [], [], {}
    places: dict[tuple[str, str | None], Path] = {}  # heads of several seeds share their features
    for head, predictor in zip(heads, predictors, strict=True):
        target = head.model.unlabelled_results(head.dataset, folder.name, head.config.split, head.config.run_name)
        beside = paths.Dataset(target.parent).features(head.model.name, head.config.variant)
        beside = places.setdefault((head.model.name, head.config.variant), beside)
        found, without = predictor.ready_features(videos, beside)
        targets.append(target)
        files.append(found)
        failed |= without
    candidates = {}
    for name in progress([name for name in videos if name not in failed], description="predict", unit="videos"):
        try:
            answers = [
                predictor.predict(videos[name], of_head[name], target).probabilities
                for predictor, of_head, target in zip(predictors, files, targets, strict=True)
            ]
        except UserError as error:
            failed[name] = str(error)
            continue
        doubt = float(np.mean([mean_uncertainty(answer) for answer in answers]))
        several = mean_disagreement(answers) if len(answers) > 1 else None
        candidates[name] = Candidate(*_look(files[0][name]), doubt, several)
    example = files[0][next(iter(candidates))] if candidates else None
    folder_of_labelled = dataset and features_owner(dataset).features(first.model.name, first.config.variant)
    return UnlabelledPool(candidates, _labelled(dataset, folder_of_labelled, example), failed)


def pool_without_head(
    model: paths.Model, videos: dict[str, Path], dataset: paths.Dataset, variant: str | None, *, device: str
) -> UnlabelledPool:
    """Look at features alone, made as those of the data set are, or as the model's config says where it has none.

    Raises `UserError` where they cannot be made.
    """
    from common.features.extract import extract

    owner, folder = features_owner(dataset), next(iter(videos.values())).parent
    labelled_folder = owner.features(model.name, variant)
    published = read_encoder_config(model.config)
    options = ExtractionConfig()
    for file in visible(labelled_folder, "*.npy")[:1]:
        if (identity := open_features(file).identity()) is None:
            raise UserError(
                f"{labelled_folder}: features without sidecars, so it is unknown how to make those of {folder}; extract them "
                f"again with python -m common.extract_features --model {model.name} --dataset {dataset.name} --force"
            )
        options = extraction_like(identity, published)
    if folder.resolve() == owner.videos.resolve():  # its own videos: where its features belong
        root, options = owner.root, replace(options, variant=variant)
    else:
        root = model.unlabelled_results(dataset.name, folder.name, 1).parent
        root.mkdir(parents=True, exist_ok=True)
    options = replace(options, dataset=str(root), videos=str(folder))
    summary = extract(model, options, device=device)
    made = paths.Dataset(root).features(model.name, variant_of(published, options))
    failed = {name: reason for name, reason in (summary.failed | summary.busy).items() if name in videos}
    candidates = {name: Candidate(*_look(made / f"{name}.npy")) for name in videos if name not in failed}
    example = made / f"{next(iter(candidates))}.npy" if candidates else None
    return UnlabelledPool(candidates, _labelled(dataset, labelled_folder, example), failed)


def labelled_names(dataset: paths.Dataset) -> set[str]:
    """The videos of a data set that have labels."""
    return {*paths.label_paths(dataset.ground_truth), *paths.label_paths(dataset.ground_truth_val)}


def _look(features: Path) -> tuple[np.ndarray, float]:
    """The mean feature `(D,)` of a video, and its minutes."""
    found = open_features(features)
    seconds = found.timeline.seconds
    return np.asarray(found.array).mean(axis=1, dtype=float), float(seconds[-1] - seconds[0]) / 60


def _labelled(dataset: paths.Dataset | None, folder: Path | None, example: Path | None) -> dict[str, np.ndarray]:
    """The mean features of the labelled videos that have features like those of `example`."""
    if dataset is None or example is None:
        return {}
    vectors: dict[str, np.ndarray] = {}
    without: list[str] = []
    reference: Mapping | None = open_features(example).identity()
    for name in sorted(labelled_names(dataset)):
        file = folder / f"{name}.npy"
        if not file.is_file():
            without.append(name)
            continue
        if differences := identity_differences(open_features(file).identity(), reference):
            raise UserError(
                f"{file} and {example} were made in different ways ({'; '.join(differences)}); extract both in the same way"
            )
        vectors[name] = _look(file)[0]
    if without:
        log.warning("labelled videos without features, passed over: %s", listed(without))
    return vectors

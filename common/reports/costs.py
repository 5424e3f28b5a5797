"""Costs of an encoder: parameters, seconds to extract a video, space of its features."""

import logging

import numpy as np

from common.base import paths
from common.base.entries import on_disk
from common.base.runtime import UserError
from common.dataset.description import features_owner
from common.features.files import open_features
from common.reports.results import EncoderResult

log = logging.getLogger(__name__)


# kind of cost -> its name and unit
COSTS = {
    "parameters": "parameters of the encoder, millions",
    "seconds_per_video": "extraction, seconds a video (as it was run)",
    "megabytes_per_video": "features on disk, MB a video",
}


def encoder_costs(result: EncoderResult, dataset: paths.Dataset) -> dict[str, float]:
    """The costs of `COSTS` of one encoder; NaN where unknown (features without sidecars, or no longer on this disk)."""
    parameters = result.record["features"]["num_parameters"]
    folder = features_owner(dataset).features(result.model.name, result.record["config"]["variant"])
    seconds, sizes = [], []
    for name in result.scores:
        path = on_disk(folder / f"{name}.npy")
        if not path.is_file():
            continue
        sizes.append(path.stat().st_size / 1e6)
        try:
            sidecar = open_features(path).sidecar
        except UserError as error:
            log.warning("%s", error)
            continue
        if sidecar and "seconds" in sidecar:
            seconds.append(sidecar["seconds"])
    return {
        "parameters": parameters / 1e6 if parameters else np.nan,
        "seconds_per_video": float(np.mean(seconds)) if seconds else np.nan,
        "megabytes_per_video": float(np.mean(sizes)) if sizes else np.nan,
    }

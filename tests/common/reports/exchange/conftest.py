"""A data set of six videos in two folds, and folders of predictions for it as others would hand them in."""

from pathlib import Path

import numpy as np
import pytest

from common.base import paths
from common.dataset.kfold import write_folds

PHASES = ("background", "incision", "wash")
FOLDS = [["BL_1", "SD_1", "SD_2"], ["BL_2", "BN_1", "SD_3"]]
VIDEOS = [video for fold in FOLDS for video in fold]
TRUE = np.repeat([0, 1, 2], [20, 30, 50])


def predicted(wrong: int, video: str) -> np.ndarray:
    """The truth, but for `wrong` frames of the wash and a few more in later videos."""
    phases = TRUE.copy()
    phases[50 : 50 + wrong + VIDEOS.index(video)] = 1
    return phases


@pytest.fixture
def dataset(workspace) -> paths.Dataset:
    made = paths.Dataset(workspace / "data" / "set")
    made.ground_truth.mkdir(parents=True)
    made.mapping.write_text("".join(f"{index} {phase}\n" for index, phase in enumerate(PHASES)))
    for video in VIDEOS:
        (made.ground_truth / f"{video}.txt").write_text("".join(f"{PHASES[phase]}\n" for phase in TRUE))
    write_folds(made, FOLDS, seed=42, stratify="prefix", patients={})
    return made


@pytest.fixture
def predictions(tmp_path):
    """`predictions(wrong, probabilities=True)` -> a folder of `<video>.txt` and, if asked for, `<video>.npy`."""

    def write(wrong: int, *, probabilities: bool = True) -> Path:
        folder = tmp_path / f"made_elsewhere_{wrong}"
        folder.mkdir()
        for video in VIDEOS:
            phases = predicted(wrong, video)
            (folder / f"{video}.txt").write_text("".join(f"{PHASES[phase]}\n" for phase in phases))
            if probabilities:
                likely = np.eye(len(PHASES), dtype=np.float32)[phases] * 0.8 + 0.05
                np.save(folder / f"{video}.npy", likely)
        return folder

    return write

"""The sheet of masks: what is painted, which images are chosen, what stands on it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from common.base.runtime import UserError
from common.dataset.masks import MaskedImage
from common.reports.pictures.mask_sheet import coloured, mask_sheet, save_mask_sheet
from common.scoring.masks import MaskScores, confusion

CLASSES = ("background", "disc")


def test_classes_are_painted_and_what_has_no_label_or_colour_stays():
    image = np.full((3, 4, 3), 100, np.uint8)
    ids = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 1, 1]], np.uint8)
    painted = coloured(image, ids, [None, (1.0, 0.0, 0.0)])
    assert (painted[:, :2] == 100).all()
    assert (painted[:, 2:, 0] > 150).all()
    assert painted[1, 2, 0] > painted[1, 3, 0]  # an edge is stronger than the inside


@pytest.fixture
def evaluation(tmp_path):
    """Five images of which the first is predicted worst and the last perfectly."""
    images, matrices = [], []
    for number in range(5):
        truth = np.zeros((10, 12), np.uint8)
        truth[:, :5] = 1
        predicted = np.zeros_like(truth)
        predicted[:, : number + 1] = 1
        for folder, pixels in (("images", np.full((10, 12, 3), 90, np.uint8)), ("masks", truth), ("run/split_1", predicted)):  # fmt: skip
            path = tmp_path / folder / "g" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        place = f"g/{number}.png"
        images.append(MaskedImage("g", str(number), tmp_path / "images" / place, tmp_path / "masks" / place))
        matrices.append(confusion(truth, predicted, 2))
    scores = MaskScores(CLASSES, [one.key for one in images], ["g"] * 5, np.stack(matrices))
    segmentation = SimpleNamespace(
        background=0,
        ignored=(),
        encoder=SimpleNamespace(title="An encoder", named_weights={}, seen=None, seen_source=None),
        dataset=SimpleNamespace(name="made", is_synthetic=True, patients=tmp_path / "patients.csv"),
        splits=[1],
        config=SimpleNamespace(weights="mine"),
        truth=lambda image: np.asarray(Image.open(image.mask)),
    )
    return SimpleNamespace(
        segmentation=segmentation, scores=scores, images=images, folders=[tmp_path / "run" / "split_1"] * 5,
        left_out=None, hashes=("a",), numbers=(1,), random_weights=False,
    )  # fmt: skip


def test_images_are_spread_from_the_worst_to_the_best(evaluation):
    figure = mask_sheet(evaluation, 3)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert [title for title in titles if title.startswith("g/")] == ["g/0", "g/2", "g/4"]
    assert titles[-1] == "prediction, mean Dice 100.0 %"
    words = " ".join(text.get_text() for text in figure.texts) + figure.get_suptitle()
    assert "An encoder on made: 5 test images, IoU, pooled" in words
    assert "synthetic data" in words
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["disc"]


def test_the_sheet_lies_beside_the_splits_of_a_run(evaluation, tmp_path):
    assert save_mask_sheet(evaluation, 99 - 59) == tmp_path / "run" / "overlays.png"
    with pytest.raises(UserError, match="--overlays must lie between 1 and 40, found 0"):
        save_mask_sheet(evaluation, 0)

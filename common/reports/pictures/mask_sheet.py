"""A sheet of test images from the worst to the best: each beside its true and its predicted mask, drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.base.runtime import UserError
from common.base.wording import brief, readable
from common.dataset.masks import MASK_SUFFIX, UNLABELLED_PIXEL, read_colour_image, read_mask
from common.dataset.phases import PhaseMapping
from common.reports.caveats import Remark
from common.reports.pictures.style import phase_colours, save, write_remarks, write_title
from common.scoring.masks import MASK_HEADLINE, MASK_MEASURES
from common.tasks.segmentation.evaluation import MaskEvaluation, notes

MOST_ROWS = 40
WIDTH_INCHES = 3.2  # of one picture
LONGEST_SIDE = 640  # pixels of a picture on the sheet
STRENGTH = 0.45  # of a class's colour over the picture
EDGE = 0.95  # the same on the edges of its areas
COLUMNS = ("image", "truth", "prediction")
LEGEND_COLUMNS = 5


def save_mask_sheet(found: MaskEvaluation, count: int) -> Path:
    """Write the sheet beside the run's splits (of masks made elsewhere, beside these); returns its path.

    Images are spread evenly from the worst to the best by their mean Dice over the classes that they have.
    """
    if not 1 <= count <= MOST_ROWS:
        raise UserError(f"--overlays must lie between 1 and {MOST_ROWS}, found {count}")
    path = (found.folders[0].parent if found.hashes else found.folders[0]) / "overlays.png"
    save(mask_sheet(found, count), path)
    return path


def mask_sheet(found: MaskEvaluation, count: int) -> Figure:
    """The sheet as a figure: `count` rows at most, a legend below."""
    means = found.scores.image_means("dice", found.left_out)
    order = np.argsort(np.nan_to_num(means, nan=2.0), kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]
    background = found.segmentation.background
    mapping = PhaseMapping(found.scores.classes, None if background is None else found.scores.classes[background])
    colours = [None if k == background else to_rgb(colour) for k, colour in enumerate(phase_colours(mapping))]
    first = read_colour_image(found.images[chosen[0]].image)
    height = WIDTH_INCHES * first.shape[0] / first.shape[1]
    figure = Figure(figsize=(WIDTH_INCHES * len(COLUMNS), (height + 0.22) * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), len(COLUMNS), squeeze=False)
    seen: set[int] = set()
    for row, place in zip(axes, chosen, strict=True):
        image, truth, predicted = _three(found, int(place))
        seen |= {int(value) for ids in (truth, predicted) for value in np.unique(ids)} - {UNLABELLED_PIXEL}
        for axis, picture in zip(
            row, (image, coloured(image, truth, colours), coloured(image, predicted, colours)), strict=True
        ):
            axis.imshow(picture)
            axis.axis("off")
        value = "n/a" if np.isnan(means[place]) else f"{100 * means[place]:.1f} %"
        row[0].set_title(brief(found.images[place].key), fontsize=8, loc="left")
        row[2].set_title(f"prediction, mean Dice {value}", fontsize=8, loc="left")
        row[1].set_title("truth", fontsize=8, loc="left")
    patches = [
        Patch(color=colours[k], label=brief(readable(found.scores.classes[k]))) for k in sorted(seen - {background})
    ]
    # between title and pictures, where it needs no place of theirs
    legend = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    figure.legend(handles=patches, ncols=LEGEND_COLUMNS, fontsize=8, frameon=False, **legend)
    lines = -(-len(patches) // LEGEND_COLUMNS)
    _write_title(found, figure, gap=0.1 + 0.18 * lines)
    return figure


def _write_title(found: MaskEvaluation, figure: Figure, gap: float) -> None:
    value, count = found.scores.mean(MASK_HEADLINE, found.left_out)
    title = (
        f"{found.segmentation.encoder.title} on {found.segmentation.dataset.name}: {len(found.images)} test images, "
        f"{MASK_MEASURES[MASK_HEADLINE]} {100 * value:.1f} % over {count} classes; from the worst to the best"
    )
    write_title(figure, title, gap=gap)
    write_remarks(figure, [Remark(note) for note in notes(found)])


def _three(found: MaskEvaluation, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with its true and predicted ids, made smaller by leaving out rows and columns where it is large."""
    one = found.images[place]
    image, truth = read_colour_image(one.image), found.segmentation.truth(one)
    predicted = read_mask(found.folders[place] / f"{one.key}{MASK_SUFFIX}", found.scores.classes, unlabelled=False)
    step = -(-max(image.shape[:2]) // LONGEST_SIDE)
    return tuple(pixels[::step, ::step] for pixels in (image, truth, predicted))


def coloured(image: np.ndarray, ids: np.ndarray, colours: Sequence[tuple[float, float, float] | None]) -> np.ndarray:
    """An image `(H, W, 3)` uint8 under the colours of its classes, stronger on their edges.

    Pixels without a label, and those of a class without a colour (the background), stay as they are.
    """
    table = np.array([*(colour or (0.0, 0.0, 0.0) for colour in colours), (0.0, 0.0, 0.0)])
    painted = np.array([*(colour is not None for colour in colours), False])
    places = np.where(ids == UNLABELLED_PIXEL, len(colours), ids)
    edges = np.zeros(ids.shape, dtype=bool)
    edges[1:] |= ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    weight = np.where(edges, EDGE, STRENGTH) * painted[places]
    mixed = image * (1 - weight[..., None]) + 255 * table[places] * weight[..., None]
    return mixed.round().astype(np.uint8)

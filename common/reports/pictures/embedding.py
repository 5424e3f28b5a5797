"""Frame features in two dimensions: do an encoder's phases lie apart before any head is trained?"""

import contextlib
import hashlib
import logging
import math
from importlib.metadata import version

import numpy as np
from matplotlib.figure import Figure

from common.base import paths
from common.base.files import atomic_path, map_array
from common.base.runtime import UserError
from common.base.wording import brief
from common.dataset.description import features_owner, read_description
from common.dataset.phases import IGNORED
from common.features.files import open_features
from common.reports.caveats import Remark
from common.reports.comparison import Report
from common.reports.pictures.style import GRID, phase_colours, phase_patches, write_remarks, write_title
from common.reports.results import EncoderResult
from common.video.label_grid import EVERY_FRAME, LabelGrid

log = logging.getLogger(__name__)

MOST_ENCODERS = 8
FRAMES_PER_PHASE, MOST_FRAMES = 100, 5000  # of all phases together; t-SNE takes longer than its frames are more
MOST_VIDEOS = 40
NUM_COMPONENTS = 50  # of the principal components that t-SNE starts from
SEED = 42


def feature_map(report: Report) -> Figure | None:
    """t-SNE (van der Maaten and Hinton 2008) of frames drawn evenly over phases, in their colours, a panel per encoder.

    An encoder whose features are no longer on this disk has no panel; None without any.
    """
    panels = {}
    for result in report.results[:MOST_ENCODERS]:
        try:
            panels[result.name] = _embed(*sample_frames(result, report))
        except UserError as error:
            log.warning("no feature map of %s: %s", result.name, error)
    if not panels:
        return None
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.4 * columns + 2, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    colours = phase_colours(report.mapping)
    for axes, (name, (points, phases)) in zip(grid.flat, panels.items(), strict=False):
        axes.scatter(*points.T, c=[colours[phase] for phase in phases], s=5, linewidths=0)
        axes.set_title(f"{brief(name)}: {len(points):,} frames", loc="left", fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")  # panels of one size, whatever the shape of the cloud
        axes.spines[:].set_color(GRID)
    shown = (phase for _, phases in panels.values() for phase in phases.tolist())
    figure.legend(handles=phase_patches(report.mapping, shown), loc="outside right center", fontsize=7.5, frameon=False)
    write_title(figure, f"{report.title}: frame features before the head (t-SNE)")
    note = (
        f"At most {FRAMES_PER_PHASE} frames of each phase, drawn and placed with seed {SEED}. Axes have no unit; distances "
        "between clusters mean little."
    )
    write_remarks(figure, [*report.warnings, Remark(note)])
    return figure


def sample_frames(result: EncoderResult, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Features `(N, feature_dim)` and true phases `(N,)` of frames drawn evenly over phases; the same at every call.

    Raises `UserError` when a feature file is missing or damaged.
    """
    random = np.random.default_rng(SEED)
    config, description = result.record["config"], read_description(report.dataset)
    folder = features_owner(report.dataset).features(result.model.name, config["variant"])
    grid = LabelGrid(description.label_fps, description.label_every)
    names = sorted(result.scores)
    places = np.linspace(0, len(names) - 1, min(MOST_VIDEOS, len(names))).round().astype(int)
    chosen = [names[place] for place in places]
    of_phase = min(FRAMES_PER_PHASE, max(1, MOST_FRAMES // report.mapping.num_classes))
    per_video = math.ceil(of_phase / len(chosen))
    features, phases = [], []
    for name in chosen:
        true = result.scores[name].true
        file = open_features(folder / f"{name}.npy", config["features_dim"])
        # as `batch_gen.open_video` and `VideoFeatures.rows_of_labels`, which come with torch: no other report needs it
        labelled = (grid if file.sidecar else EVERY_FRAME).frames(file.timeline.seconds)[: len(true)]
        row_of = file.timeline.nearest_sample(labelled)
        row_of = np.pad(row_of, (0, len(true) - len(row_of)), mode="edge")
        for phase in np.unique(true[true != IGNORED]):
            frames = np.flatnonzero(true == phase)
            frames = np.sort(random.choice(frames, min(per_video, len(frames)), replace=False))
            features.append(np.asarray(file.array.T[row_of[frames]], dtype=np.float32))
            phases.append(np.full(len(frames), phase))
    features, phases = np.concatenate(features), np.concatenate(phases)
    if len(phases) > MOST_FRAMES:  # one of each phase and video is the least, and may be too many
        kept = np.sort(random.choice(len(phases), MOST_FRAMES, replace=False))
        features, phases = features[kept], phases[kept]
    return features, phases


def _embed(features: np.ndarray, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places `(N, 2)` of the features, and the phases.

    Remembered in the user's cache folder by what they are computed from; where that cannot be written, computed anew.
    """
    note = None
    with contextlib.suppress(RuntimeError):  # a user without a home
        settings = f"{features.shape} {NUM_COMPONENTS} {SEED} {version('scikit-learn')}".encode()
        key = hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").tobytes() + settings).hexdigest()
        note = paths.user_cache() / "tsne" / f"{key}.npy"
    with contextlib.suppress(UserError, OSError):  # none yet, or damaged: as good as none
        if note and note.is_file() and (points := np.array(map_array(note, "delete it"))).shape == (len(features), 2):
            return points, phases
    points = _places(features)
    if note:
        with contextlib.suppress(OSError), atomic_path(note) as temporary:  # a home folder that is full, or read-only
            np.save(temporary, points)
    return points, phases


def _places(features: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    # PCA first, for speed and against noise; both are seeded, as a picture must not change from call to call
    components = min(NUM_COMPONENTS, *features.shape)
    reduced = PCA(components, random_state=SEED).fit_transform(features)
    # 30 is the usual one; scikit-learn wants it below the frames' number
    perplexity = min(30.0, (len(reduced) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(reduced)

"""Group the clips of a corpus by what they show, for `--clusters` of the pretraining commands.

python pretrain/cluster_videos.py --dataset Cataracts-1K --encoder EfficientNet-Lite0

The features are those that `models/<Encoder>/extract_features.py --dataset NAME` has made (`--fps 1` is enough).
"""

from pathlib import Path

import numpy as np

from common.base import paths
from common.base.entries import video_name_of, visible
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, progress, run_main
from common.features.files import open_features
from pretrain.video_data.clusters import LEVELS, Clip, cluster_features, segments_of, write_clusters


def main(argv: list[str] | None = None) -> int:
    """Write the clusters of one or several data sets; print where and how even they are."""
    given = _parser().parse_args(argv)
    levels = _levels(given.levels)
    clips: list[Clip] = []
    features: list[np.ndarray] = []
    for name in given.dataset:
        dataset = paths.dataset(name)
        files = feature_files(dataset, given.encoder)
        for path in progress(files, description=dataset.name, unit="videos"):
            add_clips(f"{dataset.name}/{video_name_of(path)}", path, given.clip_seconds, clips, features)
    labels = cluster_features(np.stack(features), levels, seed=given.seed)
    output = given.output or paths.clusters()
    made_by = {"encoder": given.encoder, "clip_seconds": given.clip_seconds, "levels": levels, "seed": given.seed}
    write_clusters(output, segments_of(clips, labels), made_by)
    sizes = np.bincount(labels, minlength=levels[-1])
    print(f"{len(clips)} clips in {levels[-1]} clusters of {sizes.min()} to {sizes.max()}: {output}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(None, __doc__)
    data, training = parser.groups["data"], parser.groups["training"]
    data.add_argument("--dataset", nargs="+", required=True, metavar="NAME", help="data sets with features")
    data.add_argument("--encoder", required=True, help="whose features, a folder name below features/")
    data.add_argument(
        "--clip_seconds",
        type=float,
        action=Positive,
        default=4.0,
        help="length of a clip (default: %(default)s seconds)",
    )
    training.add_argument(
        "--levels",
        default=",".join(map(str, LEVELS)),
        help="numbers of clusters, the finest first; the last level balances (default: %(default)s)",
    )
    training.add_argument("--seed", type=int, default=42, help="of k-means (default: %(default)s)")
    parser.groups["output"].add_argument(
        "--output", type=Path, help="file to write (default: pretrain/checkpoints/clusters.json)"
    )
    return parser


def _levels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--levels {text}: expected whole numbers separated by commas, such as 1024,64") from error


def feature_files(dataset: paths.Dataset, encoder: str) -> list[Path]:
    """The feature files of a data set, by name.

    Raises `UserError` when there is none, or a video has none.
    """
    folder = dataset.features(encoder)
    files = visible(folder, "*.npy")
    missing = sorted(paths.find_videos(dataset.videos).keys() - {video_name_of(path) for path in files})
    if not files or missing:
        what = f"no features of {len(missing)} videos, such as {missing[0]}" if missing else "no features"
        raise UserError(
            f"{folder}: {what}; run: python models/{encoder}/extract_features.py --dataset {dataset.name} --fps 1"
        )
    return files


def add_clips(video: str, path: Path, clip_seconds: float, clips: list[Clip], features: list[np.ndarray]) -> None:
    """Append a video's clips of `clip_seconds`, end to end from its first frame on, and their mean features `(D,)`."""
    source = open_features(path)
    seconds = source.timeline.seconds - source.timeline.seconds[0]
    places = (seconds[source.timeline.sampled] // clip_seconds).astype(int)
    for place in np.unique(places):
        start = float(place * clip_seconds)
        clips.append(Clip(video, start, start + clip_seconds))
        features.append(np.asarray(source.array[:, places == place], dtype=np.float32).mean(axis=1))


if __name__ == "__main__":
    run_main(main)

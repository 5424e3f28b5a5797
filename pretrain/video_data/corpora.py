"""The videos that a pretraining learns from: corpora, what is kept out of them, and the record of what was seen."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.base import paths
from common.base.entries import VIDEOS_IN_WORDS, is_frame_folder
from common.base.files import cached_fingerprint, video_bytes, write_json
from common.base.runtime import UserError, counted, listed, progress
from common.dataset import manifest as manifests
from common.dataset.description import features_owner, frames_fps_of
from common.dataset.kfold import read_bundle
from common.video.probe import VideoError
from common.video.timeline import DEFAULT_FPS
from pretrain.video_data.packed import OpenPacked, is_packed, is_shard, read_packed_corpus, read_shard
from pretrain.video_data.video_index import VideoEntry, probe_videos

log = logging.getLogger(__name__)

Files = dict[str, dict[str, Path]]
"""Corpus -> video -> file."""


@dataclass(frozen=True)
class Corpus:
    """Videos that share a weight in sampling."""

    name: str
    videos: tuple[VideoEntry, ...]

    @property
    def seconds(self) -> float:
        """Seconds of video."""
        return sum(video.duration_seconds for video in self.videos)


def read_corpora(
    sources: Sequence[str], index: Path, *, exclude: Sequence[str] = (), num_processes: int | None = None
) -> list[Corpus]:
    """The corpora that `sources` name: folders with all below them, packed or not, or data sets (their `videos/`).

    Left out with a warning are videos that cannot be read, that `exclude` names (see `excluded_fingerprints`), and
    copies of earlier ones. The file `index` keeps what was found; of several processes of a training one calls this
    first. `num_processes` look into new videos (default: one a core, at most 8; 0: this process). Raises `UserError`
    for a source without videos, two corpora of one name, and a corpus of which nothing is left.
    """
    files = find_corpora(sources)
    every = [path for videos in files.values() for path in videos.values()]
    entries = probe_videos([path for path in every if not is_shard(path)], index, num_processes)
    entries |= packed_entries([path for path in every if is_shard(path)])
    # what is excluded counts as seen already, so that its copies in any corpus are left out as repetitions are
    seen = excluded_fingerprints(exclude, {entry.size_bytes for entry in entries.values()})
    corpora = []
    for name, videos in files.items():
        kept, repeated = [], []
        for video, path in videos.items():
            if path in entries:  # else it cannot be read
                entry = dataclasses.replace(entries[path], name=video)
                (repeated if entry.fingerprint in seen else kept).append(entry)
                seen.add(entry.fingerprint)
        unknown = [video.name for video in kept if video.path.is_dir() and not frames_fps_of(video.path)]
        if unknown:
            log.warning(
                "%s: %s of images of an unknown rate, taken for %g a second: %s; write frames_fps: N to a dataset.yaml beside",
                name,
                counted(len(unknown), "folder"),
                DEFAULT_FPS,
                listed(unknown),
            )
        if repeated:
            names = ", ".join(entry.name for entry in repeated)
            log.warning("%s: %d left out, excluded or copies of others: %s", name, len(repeated), names)
        if not kept:
            raise UserError(
                f"corpus {name}: none of its {len(videos)} videos is left to learn from; see the warnings above"
            )
        corpora.append(Corpus(name, tuple(kept)))
    return corpora


def find_corpora(sources: Sequence[str]) -> Files:
    """The video files of each source, by corpus and by video, sorted by video.

    A corpus is called as its folder, `videos` as the folder above, a packed one as the corpus that was packed. Raises
    `UserError` for a source without videos, one that does not exist, and two of one name.
    """
    files: Files = {}
    for source in sources:
        folder = _video_folder(source)
        name, videos = _packed_videos(folder) if is_packed(folder) else _videos(folder)
        if name in files:
            raise UserError(
                f"--videos: two corpora are called {name!r}, the second is {folder}; rename or link a folder"
            )
        files[name] = videos
        if not videos:
            raise UserError(f"{folder}: no videos in this folder; expected {VIDEOS_IN_WORDS}")
    if not files:
        raise UserError("--videos: name at least one folder of videos, or a data set under data/")
    return files


def _videos(folder: Path) -> tuple[str, dict[str, Path]]:
    return folder.parent.name if folder.name == "videos" else folder.name, paths.videos_below(folder)


def _packed_videos(folder: Path) -> tuple[str, dict[str, Path]]:
    """The name and the shards of a packed corpus; videos that were to be packed and are not are named."""
    corpus = read_packed_corpus(folder)
    shards = corpus.shards()
    if missing := [video for video in corpus.videos if video not in shards]:
        log.warning(
            "%s: %d of %d videos are not packed: %s; wait for pack_videos.py, or run it again",
            folder,
            len(missing),
            len(corpus.videos),
            listed(missing),
        )
    return corpus.name, shards


def packed_entries(shards: Sequence[Path]) -> dict[Path, VideoEntry]:
    """What is known of packed videos by their shards, if the first and the last frame can be read; others are warned of."""
    entries = {}
    for path in progress(shards, description="packed videos", unit="videos"):
        try:
            video = OpenPacked(path)
            try:
                video.span()
            finally:
                video.close()
            entries[path] = read_shard(path).entry
        except VideoError as error:
            log.warning("left out: %s", error)
    return entries


def _video_folder(source: str) -> Path:
    """A folder as given, or that of the data set; `videos/` below it where there is one."""
    folder = Path(source).expanduser()
    folder = folder if folder.is_dir() else paths.dataset(source).root
    folder = Path(os.path.abspath(folder))  # a link keeps its name
    if is_packed(folder):
        return folder
    folder = features_owner(paths.Dataset(folder)).root if (folder / "mapping.txt").is_file() else folder
    return folder / "videos" if (folder / "videos").is_dir() else folder


def check_packed(corpora: Sequence[Corpus], *, fps: float | None, crop_size: int) -> None:
    """Hold what was kept of packed videos against what a recipe looks at: clips of `fps` (None: single frames) and crops.

    Raises `UserError` for packed videos of fewer frames a second; warns where clips would be unevenly spaced, or frames are
    smaller than their crops.
    """
    for corpus in corpora:
        shard = next((video.path for video in corpus.videos if is_shard(video.path)), None)
        if shard is None:
            continue
        kept = read_shard(shard).settings
        if fps and kept.fps and kept.fps < fps:
            raise UserError(
                f"corpus {corpus.name}: packed with {kept.fps:g} frames a second, expected at least the {fps:g} of the clips; "
                f"pack it again with pack_videos.py --fps {fps:g}"
            )
        if fps and kept.fps and abs(kept.fps / fps - round(kept.fps / fps)) > 1e-6:
            log.warning(
                "corpus %s: clips of %g frames a second cannot be evenly spaced among the %g that were packed; pack a "
                "multiple",
                corpus.name,
                fps,
                kept.fps,
            )
        if kept.short_side and kept.short_side < crop_size:
            log.warning(
                "corpus %s: packed frames have a shorter side of %d pixels, the crops %d: they are enlarged",
                corpus.name,
                kept.short_side,
                crop_size,
            )


def excluded_fingerprints(exclude: Sequence[str], sizes: set[int]) -> set[str]:
    """Fingerprints of the videos that must not be learned from, as far as a video of the same size could be one.

    Each of `exclude` is a data set or a folder of videos, a `.bundle` of a data set's split (the videos that it lists),
    or a `manifest.json` of pretraining. Raises `UserError` when it names no video or one that is not there.
    """
    fingerprints: set[str] = set()
    for source in exclude:
        if source.endswith(".json"):
            fingerprints |= {video.fingerprint for video in manifests.read_manifest(Path(source)).videos}
            continue
        videos = _bundled_videos(Path(source)) if source.endswith(".bundle") else find_corpora([source]).values()
        for path in (path for files in videos for path in files.values()):
            if is_shard(path):
                fingerprints.add(read_shard(path).entry.fingerprint)
                continue
            if not (path.is_file() or is_frame_folder(path)):
                raise UserError(f"{path}: to be excluded, but a link to nothing, or not a file; put the video back")
            # equal videos have equal sizes: most files need not be read
            if video_bytes(path) in sizes:
                fingerprints.add(cached_fingerprint(path))
    return fingerprints


def _bundled_videos(bundle: Path) -> list[dict[str, Path]]:
    parents = bundle.resolve().parents  # a named list is a folder deeper
    dataset = features_owner(paths.Dataset(parents[1] if parents[0].name == "splits" else parents[2]))
    files = paths.find_videos(dataset.videos)
    names = read_bundle(bundle)
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(
            f"{bundle}: no file in {dataset.videos} for {', '.join(missing)}; nothing can be compared with them"
        )
    return [{name: files[name] for name in names}]


def write_manifest(
    path: Path, stage: str, model: str, *, corpora: Iterable[Corpus], based_on: Sequence[Path | str] = ()
) -> None:
    """Record what a stage (`ssl` or `lora`) of a model (long name) has seen; `common.checks.leaks` reads it.

    `based_on` are the manifests of earlier stages, absolute, or relative to this one or to the repository.
    """
    videos = [
        {"corpus": corpus.name, "name": video.name, "size_bytes": video.size_bytes, "fingerprint": video.fingerprint}
        for corpus in corpora
        for video in corpus.videos
    ]
    sources = [Path(source).as_posix() for source in based_on]
    write_json(
        path, {"format": manifests.FORMAT, "stage": stage, "model": model, "videos": videos, "based_on": sources}
    )

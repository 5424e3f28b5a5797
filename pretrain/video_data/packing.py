"""Pack videos: decode each once, keep some frames, small, and write them as a shard (`pretrain.video_data.packed`)."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from common.base import locks, paths
from common.base.entries import is_frame_folder
from common.base.files import atomic_path, sha256_of_file, video_fingerprint, write_json
from common.base.runtime import UserError, prefetch
from common.dataset.description import frames_fps_of
from common.video.decode import Decoding
from common.video.probe import VideoError
from common.video.timeline import DEFAULT_FPS, Timeline, sample_at_fps
from pretrain.video_data.packed import (
    FORMAT,
    SHARD_RECORD,
    PackedCorpus,
    PackSettings,
    Shard,
    is_packed,
    member_name,
    read_packed_corpus,
    read_shard,
    record_of,
    table_of,
)
from pretrain.video_data.processes import KILLED, in_processes_of_their_own
from pretrain.video_data.video_index import probe_video

log = logging.getLogger(__name__)


class PackingTask(NamedTuple):
    """A video to pack, and the shard to write."""

    video: str
    path: Path
    shard: Path
    settings: PackSettings
    force: bool
    decoder: str = "pyav"


@dataclass(frozen=True)
class Packed:
    """What became of a video: its shard, or the error in its place; `is_new` where it was packed just now."""

    shard: Shard | None
    is_new: bool = False
    error: UserError | None = None


def describe_corpus(corpus: PackedCorpus) -> None:
    """Write `packed.json`; every task of a job array writes the same.

    Raises `UserError` when the folder holds videos that were packed otherwise, or of another corpus.
    """
    folder, settings = corpus.folder, corpus.settings
    if is_packed(folder):
        present = read_packed_corpus(folder)
        if present == corpus:
            return
        if present.name != corpus.name:
            raise UserError(
                f"{folder / paths.PACKED}: expected the corpus {corpus.name}, found {present.name}; give --output another "
                "folder"
            )
        if present.settings != settings:
            raise UserError(
                f"{folder / paths.PACKED}: expected {settings}, found {present.settings}; give the same options, or "
                "--output another folder"
            )
    record = {"format": FORMAT, "corpus": corpus.name, "settings": settings.to_json(), "videos": list(corpus.videos)}
    write_json(folder / paths.PACKED, record)


def pack_corpus(
    corpus: PackedCorpus, videos: Mapping[str, Path], *, num_processes: int, force: bool = False, decoder: str = "pyav"
) -> Iterator[tuple[str, Packed]]:
    """Pack `videos` of a corpus that are not packed yet, in several processes; what became of each, as it is finished.

    Packed are those whose shard is whole and of the same content and settings, unless `force`.
    """
    tasks = [
        PackingTask(name, path, corpus.shard(name), corpus.settings, force, decoder) for name, path in videos.items()
    ]
    waiting = []
    for task in tasks:  # before processes are started, which takes seconds
        if not force and (present := _present(task)):
            yield task.video, Packed(present)
        else:
            waiting.append(task)
    for task, packed in in_processes_of_their_own(pack_video, waiting, num_processes, _killed):
        yield task.video, packed


def _killed(task: PackingTask) -> Packed:
    return Packed(None, error=VideoError(task.path, KILLED))


def pack_video(task: PackingTask) -> Packed:
    """Pack one video, unless it is packed already, or another process is at it."""
    try:
        if not (task.path.is_file() or is_frame_folder(task.path)):  # a pipe would be waited for
            raise VideoError(task.path, "a link to nothing, or not a file")
        with locks.hold(task.shard):
            if not task.force and (present := _present(task)):
                return Packed(present)
            return Packed(_write_shard(task), is_new=True)
    except UserError as error:  # of this video, `locks.Held` included: the others go on
        return Packed(None, error=error)


def _present(task: PackingTask) -> Shard | None:
    """The shard that is there, if it is whole, of the same video, and made by the same settings."""
    if not record_of(task.shard).is_file():
        return None
    with suppress(VideoError, OSError):  # what cannot be read is packed again, and that says why it cannot
        shard = read_shard(task.shard)
        is_same = shard.entry.fingerprint == video_fingerprint(task.path)
        if task.path.is_dir():  # whose length in time is told by a file that may change
            is_same = is_same and shard.entry.fps == (frames_fps_of(task.path) or DEFAULT_FPS)
        if is_same and shard.settings == task.settings:
            return shard
    return None


def _write_shard(task: PackingTask) -> Shard:
    """Decode a video and write its shard, its table and, when both are there, its record."""
    torch.set_num_threads(1)  # processes share the cores
    entry = replace(probe_video(task.path), name=task.video)
    frames_fps = frames_fps_of(task.path) if task.path.is_dir() else None
    # as the training reads them: what decodes of a damaged video counts
    frames = Decoding(task.path, task.decoder, accept_damaged=True, frames_fps=frames_fps)
    record_of(task.shard).unlink(missing_ok=True)  # while the two others are replaced, it is of neither
    times: list[float] = []

    def pictures() -> Iterator[tuple[float, bytes]]:
        for _, frame, chosen in sample_at_fps(frames, task.settings.fps):
            times.append(frame.seconds)
            if chosen:
                yield frame.seconds, encode_jpeg_file(frame.image, task.settings)

    with atomic_path(task.shard) as temporary, temporary.open("wb") as stream:
        rows = _write_tar(stream, entry.fingerprint, prefetch(pictures()))
        stream.flush()
        sha256, size = sha256_of_file(temporary), temporary.stat().st_size
    with atomic_path(table_of(task.shard)) as temporary:
        np.save(temporary, rows)
        table_sha256 = sha256_of_file(temporary)
    shard = Shard(replace(entry, path=task.shard), task.settings, len(rows), size, sha256, table_sha256)
    source = {key: value for key, value in asdict(entry).items() if key in SHARD_RECORD["source"]}
    record = {
        "format": FORMAT, "name": task.video, "settings": task.settings.to_json(), "num_frames": shard.num_frames,
        "bytes": size, "sha256": sha256, "table_sha256": table_sha256, "source": source,
        "timeline": Timeline(np.array(times), np.arange(len(times))).to_json(),
    }  # fmt: skip
    write_json(record_of(task.shard), record)
    return shard


def _write_tar(stream: BinaryIO, fingerprint: str, pictures: Iterator[tuple[float, bytes]]) -> np.ndarray:
    """Write the files of `(seconds, content)` to a tar; their table `(N, 3)`: seconds, first byte, bytes."""
    rows = []
    # of GNU's form: names of this length and sizes below 8 GB take one block, in any tar reader
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, (seconds, content) in enumerate(pictures):
            member = tarfile.TarInfo(member_name(fingerprint, number))
            member.size = len(content)
            rows.append((seconds, archive.offset + tarfile.BLOCKSIZE, len(content)))
            archive.addfile(member, io.BytesIO(content))
    return np.array(rows, dtype=np.float64)


def encode_jpeg_file(image: np.ndarray, settings: PackSettings) -> bytes:
    """A picture `(H, W, 3)` uint8 as a JPEG file, its shorter side resized, antialiased, never enlarged."""
    from PIL import Image

    height, width = image.shape[:2]
    short_side = settings.short_side
    if short_side and short_side < min(height, width):
        scale = short_side / min(height, width)
        size = round(height * scale), round(width * scale)
        batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True)
        image = resized[0].permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, "JPEG", quality=settings.quality)
    return content.getvalue()

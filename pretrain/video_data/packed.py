"""Packed videos: frames that were decoded once, small, as JPEG files in tar files, and how they are read again.

A packed folder stands for a corpus (`pretrain.video_data.packing` writes it):

    packed.json              the corpus, the settings, and the names of its videos
    2019/case_0012.tar       a shard: all frames kept of one video, in order
    2019/case_0012.npy       (N, 3) float64: presentation time in seconds, first byte in the shard, bytes
    2019/case_0012.json      written last: the video's name, length and fingerprint, and the SHA-256 of both files

The shard is laid out as WebDataset reads it: one file a sample, `<key>/<number>.jpg`, where the key is the beginning of the
video's fingerprint, so that no two videos share one. Nothing is ever extracted: a frame is read from its place in the
table, and its tar header must name it.
"""

import io
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import nfc, reason_against, same_name
from common.base.files import map_array, misfit, read_json, sha256_of_file
from common.base.runtime import UserError, naming, printable, shown
from common.video.preprocess import fitted
from common.video.probe import VideoError
from common.video.timeline import EQUALLY_NEAR_SECONDS, Timeline, nearest_in_time
from pretrain.video_data.video_index import VideoEntry

FORMAT = 1
PACK_AGAIN = "pack this video again: python pretrain/pack_videos.py --force"
KEY_CHARACTERS = 16
MOST_JPEG_BYTES, MOST_PIXELS = 1 << 26, 1 << 26  # of a frame: no camera comes near
SETTINGS = {"fps": float | None, "short_side": int | None, "quality": int}
FOLDER_RECORD = {"format": int, "corpus": str, "settings": SETTINGS, "videos": [str]}
# of a shard; `source` is the video that was packed, `timeline` says when all its frames are shown (not in the first versions)
SHARD_RECORD = {
    "format": int, "name": str, "settings": SETTINGS, "num_frames": int, "bytes": int, "sha256": str, "table_sha256": str,
    "timeline?": dict,
    "source": {
        "duration_seconds": float, "start_seconds": float, "fps": float | None, "num_frames": int | None, "size_bytes": int,
        "fingerprint": str,
    },
}  # fmt: skip


@dataclass(frozen=True)
class PackSettings:
    """What is kept of a video."""

    fps: float | None
    """Frames of a second of video; None: every frame."""
    short_side: int | None
    """Pixels of the shorter side, of larger frames; None: as they are."""
    quality: int
    """Of the JPEG files, 1 to 100."""

    def __post_init__(self) -> None:
        fits = (self.fps is None or self.fps > 0) and (self.short_side is None or self.short_side > 0)
        if not fits or not 1 <= self.quality <= 100:
            raise UserError(
                f"expected a rate and a side above 0 and a JPEG quality from 1 to 100, found {asdict(self)}"
            )

    def __str__(self) -> str:
        rate = f"{self.fps:g} frames a second" if self.fps else "every frame"
        size = f"shorter side {self.short_side}" if self.short_side else "full size"
        return f"{rate}, {size}, JPEG quality {self.quality}"

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class PackedCorpus:
    """What `packed.json` says: of a corpus `name`, the `videos` that were to be packed, by `settings`."""

    folder: Path
    name: str
    settings: PackSettings
    videos: tuple[str, ...]

    def shard(self, video: str) -> Path:
        """The tar file of a video."""
        return self.folder / f"{video}.tar"

    def shards(self) -> dict[str, Path]:
        """The tar files of the videos that are packed, whole or damaged, by video, sorted."""
        return {video: self.shard(video) for video in sorted(self.videos) if record_of(self.shard(video)).is_file()}


def record_of(shard: Path) -> Path:
    """The record beside a shard, which completes it."""
    return shard.with_name(f"{shard.name.removesuffix('.tar')}.json")


def table_of(shard: Path) -> Path:
    """The table of frames beside a shard."""
    return shard.with_name(f"{shard.name.removesuffix('.tar')}.npy")


def member_name(fingerprint: str, number: int) -> str:
    """A frame's name in the shard of the video with this fingerprint."""
    return f"{fingerprint[:KEY_CHARACTERS]}/{number:08d}.jpg"


def is_packed(folder: Path) -> bool:
    """Whether a folder holds packed videos."""
    return (folder / paths.PACKED).is_file()


def is_shard(path: Path) -> bool:
    """Whether the path of a video is that of a packed one."""
    return path.suffix == ".tar"


def read_packed_corpus(folder: Path) -> PackedCorpus:
    """Read `packed.json`.

    Raises `UserError` naming the file when it is damaged, of another format, or names a video as none may be called.
    """
    path = folder / paths.PACKED
    record = read_json(path, "pack the videos again")
    if wrong := misfit(record, FOLDER_RECORD) or _other_format(record):
        raise UserError(f"{path}: not the record of packed videos ({wrong}); pack the videos again")
    for name in (record["corpus"], *(part for video in record["videos"] for part in video.split("/"))):
        if reason := reason_against(name):
            raise UserError(f"{path}: expected names of videos, found {shown(name)} ({reason}); pack the videos again")
    if len({same_name(video) for video in record["videos"]}) < len(record["videos"]):
        raise UserError(f"{path}: expected each video once, found one twice; pack the videos again")
    try:
        settings = PackSettings(**{key: record["settings"][key] for key in SETTINGS})
    except UserError as error:
        raise UserError(naming(path, error)) from error
    return PackedCorpus(folder, nfc(record["corpus"]), settings, tuple(record["videos"]))


def _other_format(record: dict[str, Any]) -> str:
    return "" if record["format"] == FORMAT else f"format {record['format']}, expected {FORMAT}"


@dataclass(frozen=True)
class Shard:
    """A packed video: what its record says. `entry` is of the video that was packed, with the shard's path."""

    entry: VideoEntry
    settings: PackSettings
    num_frames: int
    size_bytes: int
    sha256: str
    table_sha256: str


def read_shard(path: Path) -> Shard:
    """Read the record of the shard `path`, and hold the shard's size against it.

    Raises `VideoError` for a record that is damaged or absent, and a shard that is shorter or longer than it says.
    """
    try:
        record = read_json(record_of(path), PACK_AGAIN)
        if wrong := misfit(record, SHARD_RECORD) or _other_format(record):
            raise UserError(f"{record_of(path)}: not the record of a packed video ({wrong})")
        settings = PackSettings(**{key: record["settings"][key] for key in SETTINGS})
        size = path.stat().st_size
    except UserError as error:
        raise VideoError(path, error, advice=PACK_AGAIN) from error
    except OSError as error:
        raise VideoError(path, error, advice=PACK_AGAIN) from error
    if size != record["bytes"]:
        raise VideoError(path, f"expected {record['bytes']:,} bytes, found {size:,}", advice=PACK_AGAIN)
    source = record["source"]
    if not source["duration_seconds"] >= 0 or len(source["fingerprint"]) < KEY_CHARACTERS or record["num_frames"] < 1:
        raise VideoError(path, "its record names no frame, no length or no fingerprint", advice=PACK_AGAIN)
    entry = VideoEntry(path=path, name=nfc(record["name"]), **{key: source[key] for key in SHARD_RECORD["source"]})
    return Shard(entry, settings, record["num_frames"], size, record["sha256"], record["table_sha256"])


def seconds_of_shard(path: Path) -> np.ndarray:
    """Times `(T,)` of all frames of the video that was packed, as decoding gave them.

    Raises `VideoError` for a shard whose record does not say them.
    """
    read_shard(path)  # whole, and of this format
    try:
        return Timeline.from_json(read_json(record_of(path), PACK_AGAIN).get("timeline") or {}).seconds
    except UserError as error:
        reason = f"its record does not say when the frames of its video are shown ({error})"
        raise VideoError(path, reason, advice=PACK_AGAIN) from error


class OpenPacked:
    """An open packed video, with the methods of `common.video.seek.OpenVideo` that reading clips needs."""

    def __init__(self, path: Path):
        """Raises `VideoError` for a shard, a table or a record that do not belong together."""
        self.path, self._shard = path, read_shard(path)
        try:
            table = np.array(map_array(table_of(path), PACK_AGAIN), dtype=np.float64)
            self._stream = path.open("rb")
        except (UserError, OSError) as error:
            raise VideoError(path, error, advice=PACK_AGAIN) from error
        if wrong := _wrong_table(table, self._shard):
            self._stream.close()
            raise VideoError(path, f"{table_of(path).name}: {wrong}", advice=PACK_AGAIN)
        self.seconds = table[:, 0]
        """`(N,)` presentation times of the frames kept."""
        self._offsets, self._sizes = table[:, 1].astype(np.int64), table[:, 2].astype(np.int64)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """The frames `(T, H, W, 3)` nearest to the times `(T,)`, of two equally near the earlier.

        Times are rounded to the grid on which the frames lie, so that a clip holds frames as evenly spaced as it asks
        for: what the video itself gives for times on this grid.
        """
        numbers = nearest_in_time(self.seconds, self.on_grid(seconds)).tolist()
        images = {number: self.image(number) for number in sorted(set(numbers))}
        size = images[numbers[0]].shape[:2]
        return np.stack([fitted(images[number], size) for number in numbers])

    def span(self) -> tuple[float, float]:
        """Times of the first and the last frame, which are read for it."""
        last = len(self.seconds) - 1
        for number in {0, last}:
            self.image(number)
        return float(self.seconds[0]), float(self.seconds[last])

    def on_grid(self, seconds: np.ndarray) -> np.ndarray:
        """Times rounded to the grid of the packed rate, of two equally near points the earlier."""
        fps, start = self._shard.settings.fps, self.seconds[0]
        if fps is None:
            return seconds
        return start + np.ceil((seconds - start - EQUALLY_NEAR_SECONDS) * fps - 0.5) / fps

    def image(self, number: int) -> np.ndarray:
        """Frame `number` of those kept, `(H, W, 3)` uint8. Raises `VideoError` when it is not there as the table says."""
        offset, size = int(self._offsets[number]), int(self._sizes[number])
        self._stream.seek(offset - tarfile.BLOCKSIZE)
        block = self._stream.read(tarfile.BLOCKSIZE + size)
        name = member_name(self._shard.entry.fingerprint, number)
        try:
            header = tarfile.TarInfo.frombuf(block[: tarfile.BLOCKSIZE], tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            raise VideoError(self.path, f"expected {name}, found no file ({error})", advice=PACK_AGAIN) from error
        if not header.isreg() or (header.name, header.size) != (name, size) or len(block) < tarfile.BLOCKSIZE + size:
            found = f"{printable(header.name)} of {header.size:,} bytes"
            raise VideoError(self.path, f"expected {name} of {size:,} bytes, found {found}", advice=PACK_AGAIN)
        try:
            return decode_jpeg_file(block[tarfile.BLOCKSIZE :])
        except ValueError as error:
            raise VideoError(self.path, f"{name}: not a readable JPEG file ({error})", advice=PACK_AGAIN) from error


def decode_jpeg_file(content: bytes) -> np.ndarray:
    """The picture `(H, W, 3)` uint8 RGB of a JPEG file; raises `ValueError` for what is none, or a huge one.

    Pillow reads the header, OpenCV the picture: the same pixels in two thirds of Pillow's time.
    """
    import cv2
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            width, height = image.size
    except Exception as error:  # whatever a damaged header raises, huge sizes included
        raise ValueError(str(error)) from error
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels, expected at most {MOST_PIXELS:,}")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    if picture is None:
        raise ValueError("its header is whole, the rest is not")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _wrong_table(table: np.ndarray, shard: Shard) -> str:
    """What is wrong with a table of frames; empty where nothing is."""
    if table.shape != (shard.num_frames, 3):
        return f"expected {shard.num_frames} rows of 3 numbers, found {' x '.join(map(str, table.shape))}"
    seconds, offsets, sizes = table.T
    if not np.isfinite(table).all() or (np.diff(seconds) <= 0).any():
        return "expected rising times, found others"
    fit = (
        (offsets >= tarfile.BLOCKSIZE)
        & (sizes > 0)
        & (sizes <= MOST_JPEG_BYTES)
        & (offsets + sizes <= shard.size_bytes)
    )
    if not fit.all():
        return f"expected places inside the shard's {shard.size_bytes:,} bytes, found row {int(np.argmin(fit))} outside"
    return ""


def verify_shard(path: Path) -> Shard:
    """Hold a shard and its table against their hashes. Raises `VideoError` for one that has changed."""
    shard = read_shard(path)
    for file, expected in ((path, shard.sha256), (table_of(path), shard.table_sha256)):
        try:
            found = sha256_of_file(file)
        except OSError as error:
            raise VideoError(path, error, advice=PACK_AGAIN) from error
        if found != expected:
            reason = f"{file.name}: expected SHA-256 {expected[:12]}..., found {found[:12]}..."
            raise VideoError(path, reason, advice=PACK_AGAIN)
    return shard

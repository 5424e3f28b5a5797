"""Feature files: `<video>.npy` `(feature_dim, T)` and the sidecar `<video>.json` that says how it was made.

The array is in Fortran order, so a frame's vector is contiguous: frames are appended as they come, in constant memory,
and the header is written last. A pair counts as finished only when both files are there and agree.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.entries import on_disk
from common.base.files import (
    cached_fingerprint,
    map_array,
    misfit,
    new_temporary,
    publish,
    read_json,
    sha256_of_file,
    video_bytes,
    write_json,
)
from common.base.runtime import UserError, describe_os_error
from common.video.timeline import Timeline

log = logging.getLogger(__name__)

# numpy fills the header up to a multiple of 64: any length of a video fits, so it can be written last
HEADER_BYTES = 128
# what must agree before a feature file is used again; the rest of a sidecar is information
IDENTITY = ("encoder", "weights", "pooling", "window", "preprocessing", "sampling", "dtype", "decoder")
WEIGHTS = {"source": str, "sha256?": str, "file?": str, "network?": str, "verified?": bool, "branch_scales?": float}
# the shape of that part, in a sidecar or in a checkpoint (`common.base.files.misfit`)
IDENTITY_SHAPE = {
    "encoder": str, "weights": WEIGHTS | {"adapter?": WEIGHTS}, "pooling?": str, "preprocessing": {"crop?": str},
    "window?": {"mode?": str, "clip_len": int, "stride?": int, "spacing?": float, "anchor?": str, "between?": str},
    "sampling": {"fps?": float, "every?": int}, "dtype": str, "decoder": str,
}  # fmt: skip
SIDECAR = IDENTITY_SHAPE | {
    "shape": [int], "sha256": str, "timeline": dict, "fingerprint?": str, "video_bytes?": int, "frames_fps?": float,
    "num_parameters?": int, "precision?": str, "recipe?": str, "decoding?": {"damage?": str, "header_frames?": float, "times_mended?": {str: int}, "notes?": [str]},
}  # fmt: skip
# what versions that did not record it took out of a file of weights that holds several networks
EARLIER_NETWORKS = ("teacher", "state_dict", "model", "model_state", "encoder", "module")


def sidecar_path(features: Path) -> Path:
    """`<video>.json` of `<video>.npy`."""
    return features.with_suffix(".json")


class FeatureWriter:
    """Append feature rows to a temporary file beside `path`; `finish` publishes the pair, leaving early discards it.

    Holds the lock of `path` meanwhile. Raises `locks.Held` when another process is extracting the same video.
    """

    def __init__(self, path: Path, feature_dim: int, dtype: str):
        self.path, self.feature_dim, self.dtype = path, feature_dim, np.dtype(dtype)
        self.num_rows = 0
        from common.base.locks import hold  # here: who only reads features holds none

        with contextlib.ExitStack() as kept:
            kept.enter_context(hold(path))
            self._temporary, handle = new_temporary(path)
            kept.callback(os.close, handle)  # after the stream, and after the file has its name
            kept.callback(self._temporary.unlink, missing_ok=True)
            # to close writes what is still buffered: on a full disk this fails again
            self._stream = kept.enter_context(open(self._temporary, "wb"))
            self._stream.write(self._header())
            self._kept = kept.pop_all()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Give up: remove the temporary file and release the lock. Does nothing after `finish`."""
        with contextlib.suppress(OSError):  # a full disk was told before
            self._kept.close()

    def _header(self) -> bytes:
        stream = io.BytesIO()
        shape = (self.feature_dim, self.num_rows)
        description = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": True, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, description)
        header = stream.getvalue()
        if len(header) != HEADER_BYTES:
            raise AssertionError(f"numpy wrote a header of {len(header)} bytes, not {HEADER_BYTES}")
        return header

    def append(self, rows: np.ndarray) -> None:
        """Append the vectors of the next frames, `(n, feature_dim)`.

        Raises `UserError` naming the file when a value is not finite, or not in the range of `dtype`.
        """
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is reported below
            stored = np.ascontiguousarray(rows, dtype=self.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"{self.path}: the encoder gave a value that is not finite in {self.dtype} near frame {self.num_rows}; "
                "try --precision fp32 and --dtype float32"
            )
        # rows one after the other are the columns of a Fortran-ordered (feature_dim, T) array
        self._stream.write(stored)
        self.num_rows += len(rows)

    def finish(self, sidecar: dict[str, Any]) -> None:
        """Publish the sidecar, then the features.

        In this order a features file without a sidecar is never ours: it was put there by hand and is not overwritten.
        """
        self._stream.seek(0)
        self._stream.write(self._header())
        self._stream.close()
        digest = sha256_of_file(self._temporary)
        # old features go first: killed here, none are left rather than old ones beside the new sidecar
        self.path.unlink(missing_ok=True)
        write_json(sidecar_path(self.path), sidecar | {"shape": [self.feature_dim, self.num_rows], "sha256": digest})
        publish(self._temporary, self.path)
        self._kept.close()


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """An opened feature file: `array` `(feature_dim, T)` on disk, sidecar (None if it came without), timeline."""

    path: Path
    array: np.ndarray
    sidecar: dict[str, Any] | None
    timeline: Timeline

    def identity(self) -> dict[str, Any] | None:
        """The part of the sidecar that says how the features were made."""
        return {key: self.sidecar.get(key) for key in IDENTITY} if self.sidecar else None

    def digest(self) -> str:
        """SHA-256 of the features: of the sidecar where there is one, which `verify` holds the content to."""
        return self.sidecar["sha256"] if self.sidecar else self._content_sha256()

    def verify(self) -> None:
        """Hold the content to the sidecar's hash, read once a file and machine; nothing to hold to without a sidecar.

        Raises `UserError` naming the file when it is not what was written.
        """
        if self.sidecar and self._content_sha256() != self.sidecar["sha256"]:
            raise UserError(
                f"{self.path}: its content is not what was written (another SHA-256 than its sidecar says): damaged on the "
                "disk or by a copy; extract this video again with --force"
            )

    def _content_sha256(self) -> str:
        from common.base.content import known_sha256  # not needed to make features

        try:
            return known_sha256(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {describe_os_error(error)}") from error


def open_features(path: Path, feature_dim: int | None = None) -> FeatureFile:
    """Open a feature file without reading it into memory.

    Raises `UserError` naming the file when it is missing, truncated, of another shape than `(feature_dim, T)` or than
    its sidecar says.
    """
    path = on_disk(path)
    if not path.is_file():
        if (note := paths.quarantine_note(path.parent, path.stem)).is_file():
            raise UserError(
                f"{path}: no features for this video, since its extraction failed ({note} says why); replace the video and extract "
                "again, or remove its label file and make the folds again"
            )
        raise UserError(
            f"{path}: no features for this video; run extract_features.py for this encoder and data set; "
            "`python -m common.audit` names labels that have no video"
        )
    array = map_array(path, "extract this video again with --force")
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(
            f"{path}: expected an array (feature_dim, T) with at least one frame, found shape {array.shape}"
        )
    if feature_dim is not None and array.shape[0] != feature_dim:
        raise UserError(
            f"{path}: expected feature_dim {feature_dim}, found {array.shape[0]} (shape {array.shape}); features of "
            "another encoder, or wrong --features_dim"
        )
    sidecar = _read_sidecar(sidecar_path(path))
    if sidecar and list(array.shape) != sidecar["shape"]:
        raise UserError(
            f"{path}: shape {list(array.shape)}, but its sidecar says {sidecar['shape']}; extract this video again "
            "with --force"
        )
    timeline = _timeline(path, sidecar) if sidecar else Timeline.every_frame(array.shape[1])
    return FeatureFile(path, array, sidecar, timeline)


def _timeline(path: Path, sidecar: dict[str, Any]) -> Timeline:
    try:
        timeline = Timeline.from_json(sidecar["timeline"])
    except UserError as error:
        raise UserError(f"{sidecar_path(path)}: {error}; extract this video again with --force") from error
    if len(timeline.sampled) != sidecar["shape"][1]:
        raise UserError(
            f"{sidecar_path(path)}: its timeline has {len(timeline.sampled)} sampled frames for {sidecar['shape'][1]} "
            "features; extract this video again with --force"
        )
    return timeline


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    if not os.path.lexists(path):
        return None
    sidecar = read_json(path, "extract this video again with --force")
    if wrong := misfit(sidecar, SIDECAR):
        raise UserError(f"{path}: not a sidecar of this project ({wrong}); move it away")
    return sidecar


def identity_differences(was: dict[str, Any] | None, now: dict[str, Any] | None) -> list[str]:
    """`key: ... in the file, ... now` for each part of `IDENTITY` in which two features differ; [] = made alike.

    Weights are compared by their hashes: the same file under another path is the same. None: features without sidecar.
    """
    if was is None or now is None:
        return [] if was is now else ["one has a sidecar, the other has none"]
    return [
        f"{key}: {was.get(key)!r} in the file, {now[key]!r} now"
        for key in IDENTITY
        if not (_are_same_weights(was.get(key), now[key]) if key == "weights" else _said(was, key) == _said(now, key))
    ]


def _said(identity: dict[str, Any], key: str) -> Any:
    """A part of an identity, with what an earlier version did and did not say."""
    value = identity.get(key)
    return {"spacing": None} | value if key == "window" and isinstance(value, dict) else value


def _are_same_weights(was: Any, now: Any) -> bool:
    """Whether two records of weights are equal by their hashes, and of the same network in the file.

    Weights without a hash (random, none) are compared whole, by the words that asked for them. A record of an earlier
    version names no network: that version took one of `EARLIER_NETWORKS`, and today's choice may be another.
    """
    if not isinstance(was, dict) or not isinstance(now, dict) or was.get("sha256") is None:
        return was == now
    networks = was.get("network"), now.get("network")
    if None in networks:
        same_network = all(part in EARLIER_NETWORKS for name in networks if name for part in name.split("."))
    else:
        same_network = networks[0] == networks[1]
    return (
        was["sha256"] == now.get("sha256")
        and same_network
        and _are_same_weights(was.get("adapter"), now.get("adapter"))
    )


def is_extracted(
    path: Path, identity: dict[str, Any], video: Path | None = None, *, frames_fps: float | None = None
) -> bool:
    """Whether the pair at `path` is complete, and made in the way that `identity` describes.

    Features of other content than that of `video`, known by its fingerprint, count as unfinished, and so do those of
    images at another rate than `frames_fps`. A video that cannot be read is not finished either: who reads it says why.

    Raises `UserError` when it was made in another way (naming the difference), or came without a sidecar.
    """
    path = on_disk(path)
    if not path.is_file():
        return False
    if not sidecar_path(path).is_file():
        raise UserError(
            f"{path}: has no sidecar, so it is unknown how it was made; move it away, or replace it with --force"
        )
    sidecar = open_features(path).sidecar
    differences = identity_differences(sidecar, identity)
    if differences:
        raise UserError(
            f"{path}: made in another way: {'; '.join(differences)}. Use --variant NAME to keep both, or --force to "
            "replace"
        )
    if video is None:
        return True
    try:
        change = video_change(sidecar, video)
    except OSError:
        return False
    if change is None and video.is_dir() and sidecar.get("frames_fps") != frames_fps:
        change = f"made at {sidecar.get('frames_fps')} images a second, now {frames_fps}"
    if change:
        log.warning("%s: %s; made again", path, change)
    return change is None


def video_change(sidecar: dict[str, Any], video: Path) -> str | None:
    """How a video differs from the one that features were made from, by its fingerprint; None where it does not.

    Sidecars of earlier versions hold its size alone, or nothing. Raises `OSError` for a video that cannot be read.
    """
    fingerprint, size = sidecar.get("fingerprint"), sidecar.get("video_bytes")
    if fingerprint is not None:
        changed = cached_fingerprint(video) != fingerprint
        return f"made from another file than {video.name} is now" if changed else None
    now = video_bytes(video)
    return None if size in (None, now) else f"made from a file of {size:,} bytes, the video has {now:,} now"

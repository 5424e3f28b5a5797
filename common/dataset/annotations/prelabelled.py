"""A video with predicted phases, as a person is to correct them; and the record of what was handed out."""

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.files import misfit, read_json, read_text, write_text
from common.base.runtime import UserError
from common.dataset.tables import csv_rows

RECORD_SHAPE = {
    "format": int, "head": str, "dataset": str, "phases": [str], "background?": str, "videos_folder?": str,
    "videos": {str: {"fingerprint": str, "timeline": dict, "segments": list}},
}  # fmt: skip


@dataclass(frozen=True)
class PrelabelledSegment:
    """A predicted phase from frame `start` to before `end`: its mean probability, and why it is doubtful ("" = it is not)."""

    start: int
    end: int
    phase: str
    confidence: float
    doubt: str = ""


@dataclass(frozen=True, eq=False)
class Prelabelled:
    """The predicted segments of a video, which tile it; `edges` `(T + 1,)` are its frames' times and its end."""

    name: str
    file_name: str
    edges: np.ndarray
    segments: tuple[PrelabelledSegment, ...]

    @property
    def fps(self) -> float:
        """The frames' mean rate."""
        return (len(self.edges) - 1) / float(self.edges[-1] - self.edges[0])

    @property
    def num_doubtful(self) -> int:
        return sum(bool(segment.doubt) for segment in self.segments)

    def seconds(self, segment: PrelabelledSegment) -> tuple[float, float]:
        """Start and end of a segment in the video."""
        return float(self.edges[segment.start]), float(self.edges[segment.end])


def read_prelabel_record(folder: Path) -> Mapping[str, Any] | None:
    """What `common.prelabel` has noted in a folder; None where it has not written there.

    Raises `UserError` for a damaged record.
    """
    path = paths.prelabel_record(folder)
    if not path.is_file():
        return None
    advice = "remove it, and nothing is known of what was handed out"
    record = read_json(path, advice)
    if wrong := misfit(record, RECORD_SHAPE):
        raise UserError(f"{path}: not a record of common.prelabel ({wrong}); {advice}")
    for name, video in record["videos"].items():
        if any(
            misfit(segment, list) or misfit([*segment[:2]], [int]) or len(segment) != 3 for segment in video["segments"]
        ):
            raise UserError(
                f"{path}: {name}: expected segments of first frame, frame after the last and phase; {advice}"
            )
    return record


def todo_text(videos: Iterable[Prelabelled]) -> str:
    """A table of what waits: a row for each video, those with the most doubtful segments first."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["video", "doubtful", "segments", "lowest_confidence", "done"])
    for video in sorted(videos, key=lambda video: (-video.num_doubtful, video.name)):
        lowest = min(segment.confidence for segment in video.segments)
        writer.writerow([video.name, video.num_doubtful, len(video.segments), f"{lowest:.3f}", "no"])
    return content.getvalue()


def mark_done(path: Path, videos: Collection[str]) -> None:
    """Say of `videos` in the table that they are done; nothing where there is no such table, or it has other columns."""
    if not path.is_file():
        return
    rows = [cells for _, cells in csv_rows(path, read_text(path), ",")]
    if not rows or not {"video", "done"} <= set(rows[0]):
        return
    name, done = rows[0].index("video"), rows[0].index("done")
    for cells in rows[1:]:
        if len(cells) == len(rows[0]) and cells[name] in videos:
            cells[done] = "yes"
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    write_text(path, content.getvalue())

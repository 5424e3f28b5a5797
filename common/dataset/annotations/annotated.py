"""What an annotation file holds: for each video and annotator the phases in time, under the names that the file has.

Readers give `Annotated`; whatever the format, `phases_of` then holds the phases to the same rules. Nothing here opens a
video: how its frames lie in time, the command knows (`tiling`).
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.base.entries import same_name, video_named
from common.base.runtime import UserError, listed, shown
from common.dataset.importing.label_tables import PhaseInterval
from common.dataset.importing.release import Phases, letters

MOST_SECONDS = 1e8  # three years
NOT_PHASES_ADVICE = "--leave_out NAME leaves out what is no phase"


@dataclass(frozen=True)
class KnownPhases:
    """The phases that may stand in an annotation, and the names `left_out`: other things that were annotated."""

    names: tuple[str, ...]
    left_out: Collection[str] = ()

    @property
    def phases(self) -> Phases:
        return Phases(self.names)

    def has(self, text: object) -> bool:
        """Whether a text is a phase's name, whatever its case, blanks and punctuation."""
        return isinstance(text, str) and letters(text) in {letters(name) for name in self.names}

    def leaves_out(self, text: str) -> bool:
        return letters(text) in {letters(name) for name in self.left_out}


@dataclass(frozen=True, eq=False)
class Annotated:
    """The phases of one video by one annotator. `read()` may raise `UserError`: then this video alone is left out.

    Its intervals are in seconds of the file's own time, in any order, with names as they stand there.
    """

    source: Path
    where: str
    """The file and the place in it, in words."""
    media: Mapping[str, float]
    """Media as the file names them, each with the second of it at which the file's time begins; the first that is known
    counts."""
    read: Callable[[], Iterable[PhaseInterval]]
    annotator: str = ""
    """Tier, subject or person."""
    fps: float | None = None
    """Frames a second as the file has them."""
    is_in_frames: bool = False
    """Whether its times are whole frames of `fps`."""
    work_seconds: float | None = None
    """Time that the tool measured at work."""
    notes: list[str] = field(default_factory=list)


def media_name(text: str) -> str:
    """The name of the video that a path, a link or an address of a media file ends with.

    Label Studio's local files have the path in their query (`?d=videos/case_1.mp4`).
    """
    parts = urlsplit(text.strip()) if "://" in text or text.startswith("/data/local-files/") else None
    if parts is not None:
        text = unquote(parts.query.partition("d=")[2].partition("&")[0] if "d=" in parts.query else parts.path)
    return video_named(text)


def known_media(
    annotated: Annotated, videos: Iterable[str], spellings: Callable[[str], Sequence[str]]
) -> tuple[str, float]:
    """The video that is annotated, of those at hand, and the second of it at which the file's time begins.

    `spellings` gives the names that a medium may have here, the likelier first. Raises `UserError` naming the medium.
    """
    at_hand = {same_name(video): video for video in videos}
    stored = [(_as_stored(name), video) for name, video in at_hand.items()]
    # of names that a server makes one of, none is meant for sure
    uploaded = {name: video for name, video in stored if [other for other, _ in stored].count(name) == 1}
    for names in (at_hand, uploaded):
        for medium, start in annotated.media.items():
            for name in map(same_name, spellings(medium)):
                if name in names:
                    return names[name], start
    if not annotated.media:
        raise UserError(
            f"{annotated.where}: has no media: expected the video file that it is of, found none; leave it out"
        )
    found = listed([shown(medium) for medium in annotated.media])
    raise UserError(
        f"{annotated.where}: annotates {found}, and no such video is at hand ({listed(sorted(at_hand.values())) or 'none'}); "
        "name the folder that has it with --videos"
    )


def _as_stored(name: str) -> str:
    """A name as servers store an upload (Django's `get_valid_filename`): without blanks and most marks."""
    return re.sub(r"[^-\w.]", "", name.replace(" ", "_"))


def phases_of(annotated: Annotated, known: KnownPhases) -> list[PhaseInterval]:
    """The intervals of an annotation in order of time, under the names of the mapping.

    Raises `UserError` naming file, place and time for an empty name, an end before its start, and an event without duration;
    for unknown names, all of them and the place of the first; and for no interval at all.
    """
    phases, kept, unknown = known.phases, [], {}
    for interval in annotated.read():
        where, text = interval.where, interval.phase.strip()
        if known.leaves_out(text):
            continue
        if not text:
            raise UserError(f"{where}: no phase is named at {_time(interval.start)}; choose one in the annotation tool")
        if max(abs(interval.start), abs(interval.end)) > MOST_SECONDS:
            raise UserError(
                f"{where}: {shown(text)} from {interval.start:g} to {interval.end:g} s, which no video lasts; correct the times"
            )
        if interval.end < interval.start:
            raise UserError(
                f"{where}: {shown(text)} ends at {_time(interval.end)}, before it starts at {_time(interval.start)}; "
                "swap or correct the times"
            )
        if interval.end == interval.start:
            raise UserError(
                f"{where}: {shown(text)} at {_time(interval.start)} is an event without duration; a phase needs an end"
            )
        try:
            name = phases.named(text, where)
        except UserError as error:
            unknown.setdefault(text, error)
            continue
        kept.append(PhaseInterval(where, interval.start, interval.end, name))
    if unknown:
        first, *others = unknown
        also = f"; unknown here too: {listed([shown(name) for name in others])}" if others else ""
        raise UserError(f"{unknown[first]}{also}; {NOT_PHASES_ADVICE}")
    if not kept:  # all of the video would be a gap
        raise UserError(
            f"{annotated.where}: annotates no phase of {listed(list(annotated.media))}; finish it, or leave it out"
        )
    return sorted(kept, key=lambda interval: (interval.start, interval.end))


def _time(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"

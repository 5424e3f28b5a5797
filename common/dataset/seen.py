"""What published weights were trained on, of public data sets: `seen` of a `config.yaml` against the `ids` of a `dataset.yaml`.

seen: {cholec80: "1-40", multibypass140: all, autolaparo: "21 of 80"}
ids: {video41: cholec80/41}
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.base.runtime import UserError, counted, listed, shown

EVERYTHING = "all"
SOME = re.compile(r"(\d+) of (\d+)")  # how many, but not which
RANGE = re.compile(r"(\d+)-(\d+)")
MOST_VIDEOS = 100_000


@dataclass(frozen=True)
class SeenPart:
    """The videos of a public data set that weights have seen, in the words of a configuration."""

    dataset: str
    words: str

    def __post_init__(self) -> None:
        for first, last in RANGE.findall(self.words):
            if not int(first) <= int(last) < MOST_VIDEOS:
                raise UserError(
                    f"seen, {self.dataset}: expected a range such as 1-40, found {shown(f'{first}-{last}')}"
                )
        if not self.words.strip():
            raise UserError(
                f"seen, {self.dataset}: expected all, names or ranges such as '1-40', or '76 of 80', found nothing"
            )

    @property
    def is_counted_only(self) -> bool:
        """Whether it is known how many were seen, but not which."""
        return SOME.fullmatch(self.words.strip()) is not None

    def has(self, video_id: str) -> bool:
        """Whether a video was seen; where it is not known which were, each may have been."""
        if self.words.strip() == EVERYTHING or self.is_counted_only:
            return True
        number = int(video_id) if video_id.isdecimal() else None
        for word in re.split(r"[\s,]+", self.words.strip()):
            if match := RANGE.fullmatch(word):
                if number is not None and int(match[1]) <= number <= int(match[2]):
                    return True
            elif word == video_id or (word.isdecimal() and number == int(word)):
                return True
        return False


def seen_of(words: Mapping[str, str] | None) -> list[SeenPart]:
    """The parts of a configuration's `seen`. Raises `UserError` for words that say nothing."""
    return [SeenPart(dataset, text) for dataset, text in (words or {}).items()]


@dataclass(frozen=True)
class PublishedLeak:
    """Scored videos that published weights have seen; `part.is_counted_only`: that they may have seen."""

    part: SeenPart
    videos: tuple[str, ...]
    num_scored: int
    source: str | None

    def __str__(self) -> str:
        said = f" ({self.source})" if self.source else ""
        if self.part.is_counted_only:
            return (
                f"its weights saw {self.part.words} videos of {self.part.dataset}, and nobody states which{said}: any of "
                f"the {counted(self.num_scored, 'scored video')} may be among them"
            )
        return (
            f"its weights saw {len(self.videos)} of the {counted(self.num_scored, 'scored video')} in training"
            f"{said}: {listed(list(self.videos))}"
        )


def published_leaks(
    ids: Mapping[str, str] | None, scored: Iterable[str], seen: Mapping[str, str] | None, source: str | None = None
) -> list[PublishedLeak]:
    """What weights have `seen` of the `scored` videos, whose public ids are `<set>/<id>`."""
    of_set: dict[str, dict[str, str]] = {}
    for video in scored:
        name, slash, video_id = (ids or {}).get(video, "").partition("/")
        if slash:
            of_set.setdefault(name, {})[video] = video_id
    found = []
    for part in seen_of(seen):
        videos = of_set.get(part.dataset, {})
        leaked = tuple(video for video, video_id in videos.items() if part.has(video_id))
        if leaked:
            found.append(PublishedLeak(part, leaked, len(videos), source))
    return found

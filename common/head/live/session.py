"""From the frames of a source to the phase of each, as they come: decoding in a thread, the encoder and the head here.

A file is read as fast as the encoder takes it, and every frame is waited for. A camera or a stream does not wait: of what came
while the encoder was busy the newest frame is taken, and the head is told once more of the last one for each point of its grid
in between.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.base.runtime import UserError, prefetch
from common.head.batch_gen import look_ahead_of
from common.head.live.online import OnlineHead, online_head
from common.head.live.timing import Choice, Rule
from common.video.decode import Decoding
from common.video.live import LiveFrame, LiveSource
from common.video.preprocess import Preprocessing, resize
from common.video.timeline import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from common.features.extract import ExtractionLoop
    from common.features.streams import FeatureStream
    from common.head.new_videos import Predictor

FRAMES_AHEAD = 4  # of a file
LATE_SECONDS = 0.05  # at most between two looks at a clock that runs with a file


@dataclass(frozen=True, eq=False)
class OnlinePhase:
    """The answer for one point of the head's grid: its time in the source, and probabilities `(num_classes,)`.

    `delay` is how many seconds after its frame it came, whatever it waited for. `is_held`: no frame could be taken in time, so that
    the head was told of the one before.
    """

    seconds: float
    probabilities: np.ndarray
    delay: float
    is_held: bool

    @property
    def phase_id(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())


@dataclass(frozen=True, eq=False)
class _Item:
    """A frame on its way to the encoder: `(1, 3, size, size)`, its time, its place for the head, and when it came."""

    pixels: Tensor
    seconds: float
    is_sampled: bool
    point: int | None
    arrived: float | None
    """None for a file that waits: when it is asked for."""


def follow_file(predictor: Predictor, video: Path, *, at_own_speed: bool = False) -> Iterator[OnlinePhase]:
    """The phases of a file or of a folder of images, as they would have come; `at_own_speed`: played like a camera's.

    Raises `UserError` when the encoder cannot be had here, the head depends on what follows, or the video cannot be read.
    """
    session, loop = _Session(predictor), predictor.extraction
    decoding = Decoding(
        video, loop.config.decoder, accept_damaged=predictor.accept_damaged, frames_fps=predictor.frames_fps
    )
    choices = session.rule.of_file(_paced(decoding) if at_own_speed else iter(decoding))
    if at_own_speed:
        yield from session.phases(_newest(session.items(choices), session.span))
    else:
        yield from session.phases([item] for item in prefetch(session.items(choices), FRAMES_AHEAD))


def follow_stream(predictor: Predictor, source: LiveSource) -> Iterator[OnlinePhase]:
    """The phases of a camera or stream, until it ends: then `StreamError` is raised, after all that came.

    Raises `UserError` as `follow_file`.
    """
    session = _Session(predictor)
    choices = session.rule.of_live(source.frames(), predictor.trained.features_per_second)
    yield from session.phases(_newest(session.items(choices), session.span), rate=predictor.trained.features_per_second)


class _Session:
    """One source, one encoder, one head with state."""

    def __init__(self, predictor: Predictor):
        self._head: OnlineHead = online_head(predictor.head)
        self._loop: ExtractionLoop = predictor.extraction
        trained, config = predictor.trained, predictor.extraction.config
        self.rule = Rule(config.fps, config.every or 1, trained.grid, trained.config.sample_rate)
        # where an encoder evaluates some of what is sampled alone, it must be told of all of it
        self._is_selective = config.stride > 1 or config.mode == "tokens"
        self._keeps_all = self._loop.plan.keep_all

    @property
    def span(self) -> Callable[[Sequence[_Item]], int]:
        """Of frames that wait, the first that the newest one's window may hold."""
        encoder = self._loop.encoder
        clip_len = getattr(encoder, "clip_len", 0)
        # twice the window: one whose middle is its frame still waits for what follows
        span = 2 * clip_len, 2 * clip_len * (encoder.config.clip_spacing or 0)

        def first_needed(items: Sequence[_Item]) -> int:
            asked = max((place for place, item in enumerate(items) if item.point is not None), default=len(items) - 1)
            if not span[1]:
                return max(0, asked - span[0])
            return next(place for place, item in enumerate(items) if item.seconds >= items[asked].seconds - span[1])

        return first_needed

    def items(self, choices: Iterable[Choice[Frame | LiveFrame]]) -> Iterator[_Item]:
        """What goes to the encoder, resized."""
        rule: Preprocessing = self._loop.encoder.preprocessing
        for choice in choices:
            if choice.point is None and not (self._keeps_all or (choice.is_sampled and self._sees_others)):
                continue
            frame = choice.frame
            pixels = resize(torch.from_numpy(np.ascontiguousarray(frame.image))[None], rule)
            arrived = frame.arrived if isinstance(frame, LiveFrame) else None
            yield _Item(pixels, frame.seconds, choice.is_sampled, choice.point, arrived)

    @property
    def _sees_others(self) -> bool:
        """Whether a feature depends on more than its own frame."""
        return hasattr(self._loop.encoder, "clip_len")

    def phases(self, batches: Iterable[list[_Item]], *, rate: float | None = None) -> Iterator[OnlinePhase]:
        """The answers to frames that come in `batches`, of each of which the newest that is for the head is taken.

        `rate` is that of the grid's points, whose times are then theirs; else they have the times of their frames.
        """
        stream: FeatureStream = self._loop.stream(batch_size=1)
        asked: deque[tuple[int | None, float]] = deque()  # points and times of rows that are on their way
        feed = _Feed(self._head, rate)
        for batch in batches:
            newest = max((place for place, item in enumerate(batch) if item.point is not None), default=None)
            wanted = [place == newest or (self._is_selective and item.is_sampled) for place, item in enumerate(batch)]
            points = [item.point if place == newest else None for place, item in enumerate(batch)]
            asked += [
                (point, item.seconds) for point, item, is_wanted in zip(points, batch, wanted, strict=True) if is_wanted
            ]
            last = batch[-1].seconds, batch[-1].arrived or time.monotonic()
            rows = stream.push(torch.cat([item.pixels for item in batch]), [item.seconds for item in batch], wanted)
            for row in rows:
                yield from feed.take(row, *asked.popleft(), last)
        for row in stream.finish():
            yield from feed.take(row, *asked.popleft(), last)
        if feed.newest is not None:
            yield from feed.finish(last)


class _Feed:
    """Rows to the head, one for each point of its grid, and its answers with their times."""

    def __init__(self, head: OnlineHead, rate: float | None):
        self._head, self._rate = head, rate
        self._start = 0.0  # of the grid
        self.newest: int | None = None
        self._row: np.ndarray | None = None
        self._time = 0.0  # of the frame of that row
        self._waiting: deque[tuple[float, bool]] = deque()  # times of the points whose answers are to come

    def take(
        self, row: np.ndarray, point: int | None, seconds: float, last: tuple[float, float]
    ) -> Iterator[OnlinePhase]:
        """A row that has come, with its point and time; `last` is of the newest frame that the encoder has seen: its time, and when
        it came."""
        if point is None:  # sampled, but not for the head
            return
        if self.newest is None:
            self._start = seconds - point / self._rate if self._rate else 0.0
        else:
            for missed in range(self.newest + 1, point):
                share = (missed - self.newest) / (point - self.newest)
                at = self._start + missed / self._rate if self._rate else self._time + share * (seconds - self._time)
                yield from self._push(self._row, at, last, is_held=True)
        at = self._start + point / self._rate if self._rate else seconds
        self.newest, self._row, self._time = point, row, seconds
        yield from self._push(row, at, last, is_held=False)

    def finish(self, last: tuple[float, float]) -> Iterator[OnlinePhase]:
        """What a look-ahead has held back."""
        for probabilities in self._head.finish():
            yield self._answer(probabilities, last)

    def _push(
        self, row: np.ndarray, seconds: float, last: tuple[float, float], *, is_held: bool
    ) -> Iterator[OnlinePhase]:
        self._waiting.append((seconds, is_held))
        if (probabilities := self._head.push(row)) is not None:
            yield self._answer(probabilities, last)

    def _answer(self, probabilities: np.ndarray, last: tuple[float, float]) -> OnlinePhase:
        seconds, is_held = self._waiting.popleft()
        # what it waited for in the source's time, and what was spent since that came
        delay = max(0.0, last[0] - seconds) + time.monotonic() - last[1]
        return OnlinePhase(seconds, probabilities, delay, is_held)


def _paced(frames: Iterable[Frame]) -> Iterator[LiveFrame]:
    """Frames of a file at the times at which a camera would have given them."""
    started = start = None
    for frame in frames:
        if started is None:
            started, start = time.monotonic(), frame.seconds
        due = started + frame.seconds - start
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, LATE_SECONDS))
        yield LiveFrame(frame.image, frame.seconds, due)


def _newest(items: Iterable[_Item], first_needed: Callable[[Sequence[_Item]], int]) -> Iterator[list[_Item]]:
    """What has come since the last look, in order, without what is no longer needed; never more waits than one window holds.

    An error of the source is raised after all that came before it.
    """
    waiting: deque[_Item] = deque()
    changed = threading.Condition()
    ended: list[BaseException | None] = []
    stop = threading.Event()

    def read() -> None:
        """What the thread does."""
        error = None
        try:
            for item in items:
                with changed:
                    waiting.append(item)
                    for _ in range(max(0, first_needed(waiting))):
                        waiting.popleft()
                    changed.notify()
                if stop.is_set():
                    return
        except BaseException as raised:  # handed to whoever reads, who raises it
            error = raised
        with changed:
            ended.append(error)
            changed.notify()

    threading.Thread(target=read, name="read the source", daemon=True).start()
    try:
        while True:
            with changed:
                while not waiting and not ended:
                    changed.wait(0.5)  # with a limit, so that an interruption is heard
                batch = list(waiting)
                waiting.clear()
            if batch:
                yield batch
            elif ended[0] is not None:
                raise ended[0]
            else:
                return
    finally:
        stop.set()


def require_online(predictor: Predictor, *, allow_future_features: bool) -> str | None:
    """What must be known of a head that is asked for the phase now: that its features have seen what follows; None for nothing.

    Raises `UserError` when it cannot answer then, or its features have and that is not allowed.
    """
    trained = predictor.trained
    if not trained.config.sees_past_only:
        raise UserError(
            f"{trained.path}: its answers depend on all that follows; expected a head that was trained with --causal or "
            "--lookahead SECONDS; train one, or leave --online out"
        )
    window, rate = (trained.identity or {}).get("window"), trained.features_per_second
    # where the rate is not known a step of a second shows whether there is anything to say
    ahead = look_ahead_of(window, 1 / (rate * trained.config.sample_rate) if rate else 1.0)
    if not ahead:
        return None
    by = f" by {ahead:g} s" if rate or window.get("spacing") else ""
    what = f"features of {trained.model.name} look ahead{by} (windows around each frame)"
    if not (allow_future_features or trained.config.allow_future_features):
        raise UserError(
            f"{trained.path}: expected features that have seen nothing after their frame, but {what}; extract them with --anchor end "
            "and train again, or add --allow_future_features: answers come so much later"
        )
    return f"{what}: answers come so much later"

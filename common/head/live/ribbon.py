"""The course of an operation in a terminal while it goes on: a bar of phases, and below it the phase now."""

from __future__ import annotations

import shutil
import time
from bisect import bisect_right
from typing import TYPE_CHECKING, TextIO

from common.base.wording import brief, clock, display_width, readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.dataset.phases import PhaseMapping
    from common.head.live.session import OnlinePhase

REDRAWN_SECONDS = 0.1
UP, CLEAR, RESET = "\x1b[1A", "\r\x1b[2K", "\x1b[0m"
NARROWEST = 20  # columns


class TerminalRibbon:
    """Two lines that are drawn over again; `colours` of the phases as `#RRGGBB`."""

    def __init__(self, mapping: PhaseMapping, colours: Sequence[str], out: TextIO):
        self._names, self._colours, self._out = [readable(name) for name in mapping.names], colours, out
        self._starts: list[float] = []  # of the runs of one phase
        self._phases: list[int] = []
        self._first: float | None = None
        self._newest: OnlinePhase | None = None
        self._held, self._drawn_at, self._is_there = 0, 0.0, False

    def add(self, answer: OnlinePhase) -> None:
        """Take an answer in; drawn a few times a second at most."""
        self._first = answer.seconds if self._first is None else self._first
        if not self._phases or answer.phase_id != self._phases[-1]:
            self._starts.append(answer.seconds)
            self._phases.append(answer.phase_id)
        self._held += answer.is_held
        self._newest = answer
        if time.monotonic() - self._drawn_at >= REDRAWN_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw what is known now, over what was drawn before."""
        if self._newest is None:
            return
        width = max(NARROWEST, shutil.get_terminal_size().columns - 1)
        self._out.write(
            (UP + UP if self._is_there else "") + CLEAR + self.bar(width) + "\n" + CLEAR + self.caption(width) + "\n"
        )
        self._out.flush()
        self._drawn_at, self._is_there = time.monotonic(), True

    def bar(self, width: int) -> str:
        """The phases of all that has come, over `width` columns: each shows the phase in the middle of its time."""
        length = self._newest.seconds - self._first
        cells, former = [], None
        for column in range(width):
            moment = self._first + length * (column + 0.5) / width
            phase = self._phases[max(0, bisect_right(self._starts, moment) - 1)]
            if phase != former:
                red, green, blue = bytes.fromhex(self._colours[phase].removeprefix("#"))
                cells.append(f"\x1b[48;2;{red};{green};{blue}m")
                former = phase
            cells.append(" ")
        return "".join(cells) + RESET

    def caption(self, width: int) -> str:
        """The phase now, in at most `width` columns."""
        answer = self._newest
        red, green, blue = bytes.fromhex(self._colours[answer.phase_id].removeprefix("#"))
        rest = f"  {100 * answer.confidence:.0f} %  delay {answer.delay:.1f} s" + (
            f"  {self._held} held" if self._held else ""
        )
        start = f"{clock(answer.seconds)} "
        name = self._names[answer.phase_id]
        room = max(4, width - display_width(start + rest) - 2)
        name = name if display_width(name) <= room else brief(name, room)
        return f"{start}\x1b[48;2;{red};{green};{blue}m \x1b[0m {name}{rest}"

"""What waiting is worth: an encoder's measures against the seconds that a head may wait, from online to offline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.head.config import TrainConfig
from common.head.networks.catalogue import DEFAULT_HEAD, HEADS
from common.reports.leaderboard import Cell, Leaderboard
from common.reports.results import EncoderResult
from common.reports.run_records import head_seconds, run_families

DIAL = (
    "causal",
    "lookahead",
    "lookahead_frames",
    "allow_future_features",
)  # settings that say how long a head may wait


@dataclass(frozen=True)
class WaitingPoint:
    """One run; `seconds` that its answers wait for what follows (infinite: for all of it), `cells` those of the leaderboard."""

    name: str
    seconds: float
    cells: dict[str, Cell]

    @property
    def label(self) -> str:
        """`causal`, `2.5 s` or `offline`."""
        return {0.0: "causal", math.inf: "offline"}.get(self.seconds, f"{self.seconds:g} s")


def waiting_curves(board: Leaderboard) -> dict[str, list[WaitingPoint]]:
    """Encoder -> points by rising seconds, for runs that differ in how long they may wait alone."""
    own = [result for result in board.results if not result.is_foreign]
    plain = [result for result in own if (result.record.get("decode") or "argmax") == "argmax"]
    curves = {}
    for members in run_families(plain, *DIAL):
        # what features have seen is waited for too
        points = [
            WaitingPoint(
                member.name,
                head_seconds(member.record) + (member.record.get("look_ahead_seconds") or 0.0),
                board.cells[member.name],
            )
            for member in members
        ]
        points.sort(key=lambda point: point.seconds)
        if points[0].seconds < points[-1].seconds:
            curves[_name(members[0])] = points
    return dict(sorted(curves.items()))


def _name(result: EncoderResult) -> str:
    """The encoder, and what else tells its runs from those of other curves."""
    config = result.record["config"]
    marks = [config.get("variant"), HEADS[config["head"]].title if config["head"] != DEFAULT_HEAD else None]
    marks += ["standardised" if config.get("standardise") == "train" else None]
    marks += [f"seed {config['seed']}" if config["seed"] != TrainConfig.seed else None]
    marks += ["random weights" if result.record["features"]["random_weights"] else None]
    given = ", ".join(filter(None, marks))
    return result.model.name + (f" ({given})" if given else "")

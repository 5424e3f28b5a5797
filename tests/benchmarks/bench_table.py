"""Rows of `bench.py`: ours against a reference in interleaved repeats, the ratio with a bootstrap interval, the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS, SEED, CONFIDENCE = 2000, 42, 0.95
HEAD = "| what | ours | reference | ratio | 95 % interval | limit | |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of ours and of the `reference` `(repeats,)`, each pair measured one after the other."""

    what: str
    reference: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    limit: float | None = None

    @property
    def ratios(self) -> np.ndarray:
        """Ours over the reference in each repeat: what slows the machine for both falls out."""
        return np.array(self.ours) / np.array(self.theirs)

    @property
    def ratio(self) -> float:
        """The median over the repeats."""
        return float(np.median(self.ratios))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Percentile bootstrap of the median ratio over the repeats; None for fewer than two, which tell no spread."""
        if len(self.ours) < 2:
            return None
        drawn = np.random.default_rng(SEED).choice(self.ratios, (DRAWS, len(self.ours)))
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(np.median(drawn, axis=1), [tail, 100 - tail])
        return float(low), float(high)

    @property
    def verdict(self) -> str:
        """`held` or `missed`, by the ratio; unclear where the interval holds the limit."""
        if self.limit is None:
            return ""
        if self.interval is not None and self.interval[0] <= self.limit < self.interval[1]:
            return "unclear"
        return "held" if self.ratio <= self.limit else "missed"

    def to_json(self) -> dict[str, Any]:
        """The row as a record, with every repeat."""
        record = {"what": self.what, "reference": self.reference, "ours_seconds": list(self.ours)}
        record |= {"reference_seconds": list(self.theirs), "ratio": self.ratio, "interval": self.interval}
        return record | {"limit": self.limit, "verdict": self.verdict}

    def line(self) -> str:
        """The row of a Markdown table."""
        low_high = "" if self.interval is None else "{:.2f} to {:.2f}".format(*self.interval)
        limit = "" if self.limit is None else f"{self.limit:.2f}"
        ours, theirs = (seconds(float(np.median(each))) for each in (self.ours, self.theirs))
        return f"| {self.what} | {ours} | {theirs} ({self.reference}) | {self.ratio:.2f} | {low_high} | {limit} | {self.verdict} |"


def seconds(value: float) -> str:
    """A duration with three digits that count: `12.3 s`, `0.0412 s`."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{max(0, digits)}f} s"


def document(record: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The page of a run: date, machine, versions, commit, the table, and what was measured of growth."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    commit = record["git"]["commit"] or "unknown"
    changed = " with uncommitted changes" if record["git"]["dirty"] else ""
    lines = [
        f"Measured {record['date']} by `make {record['command']}` on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB{', ' + machine['gpu'] if machine['gpu'] else ', no GPU'}; load {machine['load']:.1f} at the start.",
        f"Commit {commit[:12]}{changed}; {versions}.",
        "",
        f"Both sides of a row run in turn, {record['repeats']} times, each in a process of its own; made inputs, random weights where a model's",
        "own are not at hand. The ratio is the median over the turns, the interval a bootstrap over them.",
        "",
        HEAD,
        *(row.line() for row in rows),
    ]
    if record["growth"]:
        lines += [
            "",
            "Growth: the exponent of processor seconds at 1, 4 and 16 times the work.",
            "",
            "```text",
            record["growth"].rstrip(),
            "```",
        ]
    for name, printed in record["scripts"].items():
        lines += ["", f"`{name}`", "", "```text", printed.rstrip(), "```"]
    return "\n".join([*lines, ""])

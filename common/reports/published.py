"""Numbers quoted from other people's tables, for a look beside ours; always marked as quoted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.base.files import read_yaml
from common.scoring.metrics import MEASURES

PUBLISHED = Path(__file__).with_name("published.yaml")
MARK = "quoted"


@dataclass(frozen=True)
class PublishedRow:
    """One encoder as published: `values` holds measure -> (mean, std) as fractions of 1; std is NaN where not given."""

    name: str
    model: str
    source: str
    values: dict[str, tuple[float, float]]

    @property
    def label(self) -> str:
        return f"{self.name} ({MARK})"


def read_published() -> list[PublishedRow]:
    """The quoted rows, in the order of the file."""
    content = read_yaml(PUBLISHED)
    rows = []
    for row in content["rows"]:
        values = {}
        for measure in MEASURES:
            if measure in row:
                mean, std = (*row[measure], math.nan)[:2]  # a source may give no spread
                values[measure] = mean / 100, std / 100
        rows.append(PublishedRow(row["name"], row["model"], content["sources"][row["source"]], values))
    return rows


def quotation(rows: Sequence[PublishedRow]) -> str:
    """The remark that belongs below any table or chart with quoted rows."""
    sources = "; ".join(dict.fromkeys(row.source for row in rows))
    return (
        f"Rows marked '{MARK}' are copied from {sources}. They were not computed here and may follow another protocol."
    )

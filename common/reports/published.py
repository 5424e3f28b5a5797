"""Numbers quoted from other people's tables, for a look beside ours; always marked as quoted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.base.options import read_yaml
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


def read_published(path: Path = PUBLISHED) -> list[PublishedRow]:
    """The quoted rows, in the order of the file."""
    content = read_yaml(path)
    rows = []
    for row in content["rows"]:
        values = {key: _fractions(row[key]) for key in MEASURES if key in row}
        rows.append(PublishedRow(row["name"], row["model"], content["sources"][row["source"]], values))
    return rows


def _fractions(percents: list[float]) -> tuple[float, float]:
    mean, std = percents if len(percents) == 2 else (percents[0], float("nan"))
    return mean / 100, std / 100


def quotation(rows: list[PublishedRow]) -> str:
    """The remark that belongs below any table or chart with quoted rows."""
    sources = "; ".join(dict.fromkeys(row.source for row in rows))
    return (
        f"Rows marked '{MARK}' are copied from {sources}. They were not computed here and may follow another protocol."
    )

"""The floors under the rows of a comparison, from their runs, and how far above them a row is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.base import paths
from common.base.options import from_mapping
from common.base.runtime import UserError
from common.head.config import FLOORS, TrainConfig
from common.reports.results import (
    Collection,
    EncoderResult,
    Floors,
    Present,
    Unscored,
    check_split,
    finished_splits,
    score_runs,
)
from common.scoring.protocols import Protocol

if TYPE_CHECKING:
    from common.reports.comparison import Report


def with_floors(found: Collection, dataset: paths.Dataset, splits: str | None = None) -> Collection:
    """The same with the floors under its runs, of the same splits, features and labels, where they were written.

    Runs of one training part share its majority class, whatever their encoder.
    """
    present = Present(dataset, splits)
    wanted: dict[tuple[str, str | None], EncoderResult] = {}  # model and name of a floor -> one of the runs above it
    floor_of: dict[tuple[str, str], tuple[str, str | None]] = {}  # name of a run and kind of a floor -> the floor
    for result in sorted(found.results, key=lambda result: result.is_foreign):
        config = from_mapping(TrainConfig, result.record["config"], result.name)
        for kind in FLOORS if not result.is_foreign else ("majority",):  # of the others' training nothing is known
            name = config.of_floor(kind).run_name
            folders = finished_splits(result.model, dataset, name, [split.record["split"] for split in result.splits])
            shared = next((key for key in wanted if kind == "majority" and key[1] == name), None)
            if shared or len(folders) == len(result.splits):
                floor_of[result.name, kind] = key = shared or (result.model.name, name)
                wanted.setdefault(key, result)

    def check(model: paths.Model, run: str | None) -> list[Unscored]:
        """The splits of a floor; refused where they were not made of what the run above it was made of."""
        above = wanted[model.name, run]
        names = [split.record["split"] for split in above.splits]
        checked = [
            check_split(folder, name, present) for name, folder in finished_splits(model, dataset, run, names).items()
        ]
        for split, own in zip(checked, above.splits, strict=True):
            if split.record.get("test_inputs_hash") != own.record.get("test_inputs_hash"):
                raise UserError(f"{split.folder}: of other features or labels than {above.name}; run its folds again")
        return checked

    pairs = [(result.model, name) for (_, name), result in wanted.items()]
    floors, left_out = score_runs(pairs, present, check)
    there = {(floor.model.name, floor.run): floor for floor in floors}
    grouped: Floors = {}
    for (run, kind), key in floor_of.items():
        if key in there:
            grouped.setdefault(run, {})[kind] = there[key]
    return replace(found, left_out=[*found.left_out, *left_out], floors=grouped)


def points_above(result: EncoderResult, floors: Floors, measure: str, protocol: Protocol) -> dict[str, float]:
    """Kind of floor -> how far a row is above it in a measure, as a fraction of 1; NaN where there is no such floor."""
    own, under = result.mean(measure, protocol), floors.get(result.name, {})
    return {kind: own - under[kind].mean(measure, protocol) if kind in under else float("nan") for kind in FLOORS}


@dataclass(frozen=True, eq=False)
class FloorRow:
    """A floor as a row of its own, and the rows of the comparison that it is under."""

    kind: str
    title: str
    result: EncoderResult
    above: list[EncoderResult]

    def points(self, result: EncoderResult, measure: str, protocol: Protocol) -> float:
        """How far a row is above it in a measure, a fraction of 1."""
        return result.mean(measure, protocol) - self.result.mean(measure, protocol)


def floor_rows(report: Report) -> list[FloorRow]:
    """Each floor once, the majority class first."""
    found: dict[str, FloorRow] = {}
    for kind, title in FLOORS.items():
        for result in report.results:
            if (floor := report.floors.get(result.name, {}).get(kind)) is not None:
                name = title[:1].upper() + title[1:]
                name += f", {floor.model.name}" if kind != "majority" else ""
                name += f" ({floor.record['config']['variant']})" if floor.record["config"].get("variant") else ""
                found.setdefault(floor.name, FloorRow(kind, name, floor, [])).above.append(result)
    return list(found.values())

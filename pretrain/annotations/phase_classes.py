"""The class of Stage 2 that each phase of the annotated data sets belongs to: the table `phase_classes.yaml`, read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.base.files import read_yaml
from common.base.options import from_mapping
from common.base.runtime import UserError, nearest_name, shown
from common.dataset.phases import PhaseMapping

TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class _Table:
    """The file as it is written: class names, and the class of each phase of each data set."""

    classes: tuple[str, ...]
    datasets: dict[str, dict[str, str | None]]


@dataclass(frozen=True)
class PhaseClasses:
    """The classes that Stage 2 learns (`names[i]` is class i) and how the data sets' phases map to them."""

    names: tuple[str, ...]
    datasets: dict[str, dict[str, str | None]]
    source: Path = TABLE

    def phases(self, dataset: str) -> tuple[str, ...]:
        """The phases of a data set as its release spells them, in the order of the table.

        Raises `UserError` for a data set that the table does not have.
        """
        if dataset not in self.datasets:
            raise UserError(f"{self.source}: no data set {dataset!r}; known: {', '.join(self.datasets)}")
        return tuple(self.datasets[dataset])

    def mapping(self, dataset: str) -> PhaseMapping:
        """The phases in `mapping.txt` of an imported data set: `phases(dataset)` with `_` for blanks."""
        return PhaseMapping(tuple("_".join(phase.split()) for phase in self.phases(dataset)))

    def phase_index(self, dataset: str, phase: str) -> int:
        """Position in `phases(dataset)` of a phase, whatever its case, blanks and punctuation.

        Raises `UserError` with the nearest known name.
        """
        phases = self.phases(dataset)
        by_letters = {_letters(name): index for index, name in enumerate(phases)}
        if _letters(phase) in by_letters:
            return by_letters[_letters(phase)]
        near = nearest_name(_letters(phase), by_letters)
        hint = f"nearest known phase: {phases[by_letters[near]]!r}" if near else f"known: {', '.join(phases)}"
        raise UserError(f"unknown phase {shown(phase)} of {dataset}; {hint}; {self.source.name} holds the known ones")

    def class_of(self, dataset: str, phase: str) -> int | None:
        """The class of a phase, None where it is not learned from.

        Raises `UserError` for an unknown data set or phase.
        """
        index = self.phase_index(dataset, phase)
        name = self.datasets[dataset][self.phases(dataset)[index]]
        return None if name is None else self.names.index(name)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def read_phase_classes(path: Path = TABLE) -> PhaseClasses:
    """Read the table of classes and phases.

    Raises `UserError` naming the file for a damaged table, a class that is used but not listed or listed twice, and for
    two phases of a data set whose names differ in case and punctuation only.
    """
    table = from_mapping(_Table, read_yaml(path), path)
    _refuse_repeated(table.classes, f"{path}, classes")
    for dataset, classes in table.datasets.items():
        _refuse_repeated(map(_letters, classes), f"{path}, {dataset}")
        for phase, name in classes.items():
            if name is not None and name not in table.classes:
                raise UserError(f"{path}, {dataset}, {phase}: class {shown(name)} is not listed under 'classes'")
    return PhaseClasses(table.classes, table.datasets, path)


def _refuse_repeated(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: {shown(name)} is there twice")
        seen.add(name)

"""The releases that can be imported, by name: every module of `common/dataset/releases/` has some, of phases or of a task."""

import functools
import importlib
import pkgutil
from pathlib import Path

from common.base.runtime import UserError, nearest_name, shown
from common.dataset import releases
from common.dataset.importing.lists import ReleaseLists, read_lists
from common.dataset.importing.release import Release, letters
from common.dataset.importing.task_release import TaskRelease


@functools.cache
def known_releases() -> dict[str, tuple[Release, ReleaseLists]]:
    """Every release with its lists, by title, in the order of titles."""
    found = {}
    for module in pkgutil.iter_modules(releases.__path__):
        for release in getattr(importlib.import_module(f"{releases.__name__}.{module.name}"), "RELEASES", ()):
            found[release.title] = (release, _lists(release.lists or module.name))
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


@functools.cache
def known_task_releases() -> dict[str, tuple[TaskRelease, ReleaseLists]]:
    """Every release whose labels are not phases, as `known_releases`."""
    found = {}
    for module in pkgutil.iter_modules(releases.__path__):
        for release in getattr(importlib.import_module(f"{releases.__name__}.{module.name}"), "TASK_RELEASES", ()):
            found[release.title] = (release, _lists(release.lists or module.name))
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def _lists(stem: str) -> ReleaseLists:
    return read_lists(Path(releases.__path__[0]) / f"{stem}.yaml")


def release_called(name: str) -> tuple[Release | TaskRelease, ReleaseLists]:
    """The release of a name, whatever its case and punctuation. Raises `UserError` with those that are known."""
    known = [*known_releases().items(), *known_task_releases().items()]
    by_name = {letters(spelling): pair for title, pair in known for spelling in (title, *pair[0].aliases)}
    if letters(name) in by_name:
        return by_name[letters(name)]
    near = nearest_name(letters(name), by_name)
    hint = f"did you mean {by_name[near][0].title}?" if near else "--list shows those that are"
    raise UserError(f"no reader of a release called {shown(name)}; {hint}")


def releases_table() -> str:
    """Every release as a row of a table in Markdown, for data/README.md."""
    head = "| release | videos | phases | hours | lists (official in bold) | ask | licence | tried on |\n|---|---|---|---|---|---|---|---|"
    rows = []
    for title, (release, lists) in known_releases().items():
        named = [f"**{one}**" if name == lists.official else str(one) for name, one in lists.lists.items()]
        phases = str(release.num_phases or len(release.phases.names)) + (", steps" if release.steps else "")
        hours = f"{release.hours:g}" if release.hours else "-"
        cells = (release.num_videos, phases, hours, ", ".join(named) or "none")
        rows.append(" | ".join(map(str, (title, *cells, release.ask, release.licence, release.tried))))
    return "\n".join([head, *(f"| {row} |" for row in rows)])


def task_releases_table() -> str:
    """Every release of a task as a row of a table in Markdown, for docs/tasks.md."""
    head = "| release | task | videos | lists (official in bold) | ask | licence | tried on |\n|---|---|---|---|---|---|---|"
    rows = []
    for title, (release, lists) in known_task_releases().items():
        named = [f"**{one}**" if name == lists.official else str(one) for name, one in lists.lists.items()]
        cells = (
            title,
            release.task,
            release.num_videos,
            ", ".join(named) or "none",
            release.ask,
            release.licence,
            release.tried,
        )
        rows.append(" | ".join(map(str, cells)))
    return "\n".join([head, *(f"| {row} |" for row in rows)])

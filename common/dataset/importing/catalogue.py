"""The releases that can be imported, by name: every module of `common/dataset/releases/` has some."""

import difflib
import functools
import importlib
import pkgutil
from pathlib import Path

from common.base.runtime import SHOWN, UserError, shown
from common.dataset import releases
from common.dataset.importing.lists import ReleaseLists, read_lists
from common.dataset.importing.release import Release, letters


@functools.cache
def known_releases() -> dict[str, tuple[Release, ReleaseLists]]:
    """Every release with its lists, by title, in the order of titles."""
    found = {}
    for module in pkgutil.iter_modules(releases.__path__):
        for release in importlib.import_module(f"{releases.__name__}.{module.name}").RELEASES:
            lists = Path(releases.__path__[0]) / f"{release.lists or module.name}.yaml"
            found[release.title] = (release, read_lists(lists))
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def release_called(name: str) -> tuple[Release, ReleaseLists]:
    """The release of a name, whatever its case and punctuation. Raises `UserError` with those that are known."""
    by_name = {
        letters(spelling): pair for title, pair in known_releases().items() for spelling in (title, *pair[0].aliases)
    }
    if letters(name) in by_name:
        return by_name[letters(name)]
    near = difflib.get_close_matches(letters(name)[:SHOWN], by_name, n=1)
    hint = f"did you mean {by_name[near[0]][0].title}?" if near else "--list shows those that are"
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

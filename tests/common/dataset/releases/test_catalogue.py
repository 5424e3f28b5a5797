"""What is said of the releases that can be read."""

import importlib
import pkgutil
import re
from pathlib import Path

from common.dataset import releases
from common.dataset.importing.catalogue import known_releases
from common.dataset.importing.release import letters


def test_every_release_has_its_row_in_the_readme(checkout: Path):
    lines = (checkout / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.count(" | ") == 7}
    known = known_releases()
    assert rows.keys() - {"release"} == known.keys(), "run python docs/make_encoders.py, which writes the table"
    for title, (release, lists) in known.items():
        assert f"| {release.num_videos} |" in rows[title]
        assert release.licence in rows[title]
        assert f"| {release.tried} |" in rows[title]
        for one in lists.lists.values():
            assert str(one) in rows[title]


def test_every_release_is_read_by_a_test(reference_data: Path):
    """Of each module one release at least: by a name of it in a test of this folder, or by its folder in the reference data."""
    tests = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    named = {letters(word) for text in tests for word in re.findall(r'"([^"\n]*)"', text)}
    named |= {letters(folder.name) for folder in (reference_data / "cases" / "releases").iterdir()}
    for module in pkgutil.iter_modules(releases.__path__):
        loaded = importlib.import_module(f"{releases.__name__}.{module.name}")
        those = [*getattr(loaded, "RELEASES", ()), *getattr(loaded, "TASK_RELEASES", ())]
        names = {letters(name) for release in those for name in (release.title, *release.aliases)}
        said = f"{loaded.__file__}: no test reads one; add a miniature, such as that of Cholec80 in test_releases_of_frames.py"
        assert not those or names & named, said

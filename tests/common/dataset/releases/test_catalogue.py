"""What is said of the releases that can be read."""

from pathlib import Path

from common.dataset.importing.catalogue import known_releases


def test_every_release_has_its_row_in_the_readme(checkout: Path):
    lines = (checkout / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.count(" | ") == 7}
    known = known_releases()
    assert rows.keys() - {"release"} == known.keys()
    for title, (release, lists) in known.items():
        assert f"| {release.num_videos} |" in rows[title]
        assert release.licence in rows[title]
        assert f"| {release.tried} |" in rows[title]
        for one in lists.lists.values():
            assert str(one) in rows[title]

"""A data set that is a table, read by a description and no code of its own; videos a and b have 10 frames at 5 a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.description import read_description
from common.dataset.importing.release import Extent

INTERVALS = "columns: {video: case, start: from, end: to, label: phase}"


@pytest.fixture
def described(command, release, workspace, tmp_path, capsys, monkeypatch) -> Callable[..., tuple[Dataset, str]]:
    """`described(description, table)`: the data set made of `labels.csv`, and what was printed."""
    monkeypatch.setattr(command, "promised", lambda video: Extent(10, 5))
    (release / "videos").mkdir()
    for video in ("a", "b"):
        (release / "videos" / f"{video}.mp4").write_text(video)

    def run(description: str, table: str) -> tuple[Dataset, str]:
        (release / "labels.csv").write_text(table)
        file = tmp_path / "mine.yaml"
        file.write_text(f"title: Mine\ntable: labels.csv\n{description}\n")
        command.main(["--description", str(file), str(release), "--no_probe"])
        return Dataset(workspace / "data" / "Mine"), capsys.readouterr().out

    return run


def labels(dataset: Dataset, video: str) -> str:
    """The first letter of each label, `-` where there is none."""
    words = (dataset.ground_truth / f"{video}.txt").read_text().split()
    return "".join("-" if word == "unlabelled" else word[0] for word in words)


def test_intervals_in_seconds_at_every_frame(described):
    dataset, _ = described(INTERVALS, "case;from;to;phase\na.mp4;0.4;1.0;cut\na.mp4;0.8;1.4;sew it\nb;0;9;cut\n")
    assert labels(dataset, "a") == "--ccsss---"
    assert labels(dataset, "b") == "c" * 10
    assert dataset.mapping.read_text() == "0 cut\n1 sew_it\n"
    description = read_description(dataset)
    assert (description.release_names, description.ignored) == ({"sew_it": "sew it"}, ("unlabelled",))


def test_intervals_of_frames_with_a_phase_between_them(described):
    keys = f"{INTERVALS}\nunit: frames\nfirst: 1\ngap: idle\nphases: [sew, cut, idle]\nbackground: idle"
    dataset, _ = described(keys, "case,from,to,phase\na,2,4,cut\na,6,8,sew\nb,1,11,sew\n")
    assert labels(dataset, "a") == "-cciiss---"
    assert dataset.mapping.read_text() == "0 sew\n1 cut\n2 idle\n"
    assert read_description(dataset).background == "idle"


def test_times_where_phases_start_at_a_rate_of_labels(described):
    keys = "columns: {video: v, time: t, label: phase}\nlabel_fps: 1"
    dataset, _ = described(keys, "v,t,phase\na,0.2,cut\na,1,sew\nb,0,cut\nb,0.6,\n")
    assert (labels(dataset, "a"), labels(dataset, "b")) == ("-s", "c-")
    assert read_description(dataset).label_fps == 1


def test_a_row_for_each_label(described):
    keys = "columns: {video: v, frame: f, label: phase}\nlabel_every: 5\nfirst: 1"
    dataset, printed = described(keys, "v,f,phase\na,1,cut\na,6,sew\nb,1,cut\nb,2,cut\n")
    assert labels(dataset, "a") == "cs"
    assert "labels.csv, line 5: expected the label of 6, found 2; rows must not be missing" in printed
    assert not (dataset.ground_truth / "b.txt").exists()


def test_frames_where_phases_start(described):
    keys = "columns: {video: v, frame: f, label: phase}\nrows: starts"
    dataset, printed = described(keys, "v,f,phase\na,3,cut\na,7,sew\nb,4,cut\nb,4,sew\n")
    assert labels(dataset, "a") == "---ccccsss"
    assert "labels.csv, line 5: frame 4 after 4; expected ascending rows" in printed


def test_what_is_wrong_is_named_and_the_other_video_imported(described):
    dataset, printed = described(f"{INTERVALS}\nphases: [cut]", "case,from,to,phase\na,0,1,cut\nc,0,1,cut\nd,1,0,cut\n")
    assert labels(dataset, "a") == "ccccc-----"
    for words in ("b.mp4: no row of b in labels.csv", "labels of c, but no video", "labels of d, but no video"):
        assert words in printed


def test_a_made_release_is_imported_again_and_a_damaged_record_of_it_is_named(described, release):
    table = "case,from,to,phase\na,0,1,cut\nb,0,1,sew\n"
    (release / "sample.json").write_text('{"version": 1}')
    dataset, _ = described(INTERVALS, table)
    assert dataset.is_synthetic
    described(INTERVALS, table.replace("sew", "cut"))
    assert dataset.mapping.read_text() == "0 cut\n"
    (release / "sample.json").write_text("{")
    with pytest.raises(UserError, match=r"sample\.json: not a readable JSON file"):
        described(INTERVALS, table)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("columns: {video: v, label: p}", r"mine.yaml: columns: expected label and frame, or time, or start and end"),
        ("columns: {frame: f, time: t, label: p}", r"mine.yaml: columns: expected"),
        (f"{INTERVALS}\nlabel_fps: 1\nlabel_every: 2", r"mine.yaml: expected label_fps or label_every, found both"),
        (f"{INTERVALS}\nrow: starts", r"mine.yaml: unknown key 'row'; did you mean 'rows'"),
        (f"{INTERVALS}\nvideos: ''", r"mine.yaml: videos: expected a place in the release"),
        (
            f"{INTERVALS}\nvideos: ../other/*",
            r"mine.yaml: videos: expected a place in the release .* found '\.\./other/\*'",
        ),
        (f"{INTERVALS}\nvideos: /dev/*", r"mine.yaml: videos: expected a place in the release"),
        (f"{INTERVALS}\nrows: all", r"mine.yaml, rows: expected one of labels, starts, found 'all'"),
    ],
)
def test_a_wrong_description_is_named(described, description, message):
    with pytest.raises(UserError, match=message):
        described(description, "v,f,p\n")

"""Which videos to label next, end to end: with a trained head, with several, and with features alone."""

import csv
import shutil

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.extract_features import main as extract_main
from common.label_next import main
from common.train import main as train_main

COLOURS = np.array([(200, 40, 40), (40, 180, 60), (40, 60, 200)], dtype=np.uint8)
PHASES = ("background", "wash", "suture")
LAYERS = ["--num_layers_PG", "2", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "4"]
HEAD = [
    "--dataset",
    "clips",
    "--model",
    "ColorHistogram",
    "--split",
    "val",
    "--device",
    "cpu",
    *LAYERS,
    "--num_epochs",
    "15",
]
LENGTHS = {"like_known": 24, "strange": 36, "twin_a": 48, "twin_b": 48}


def coloured(phase_ids, shift=0):
    noise = np.random.default_rng(len(phase_ids)).integers(0, 20, (len(phase_ids), 32, 48, 3), dtype=np.uint8)
    return list(np.roll(COLOURS[phase_ids], shift, axis=1)[:, None, None] + noise)


@pytest.fixture(scope="module")
def built(tmp_path_factory, checkout, make_clip):
    """Two labelled videos of red and green, and four unlabelled ones of which one looks like no other."""
    root = tmp_path_factory.mktemp("next")
    (root / "models" / "ColorHistogram").mkdir(parents=True)
    shutil.copy(checkout / "models" / "ColorHistogram" / "config.yaml", root / "models" / "ColorHistogram")
    dataset = paths.Dataset(root / "data" / "clips")
    for name, order in (("known_a", [0, 1]), ("known_b", [1, 0])):
        phase_ids = np.repeat(order, [20, 16])
        make_clip(dataset.videos / f"{name}.mp4", coloured(phase_ids))
        for folder in (dataset.ground_truth, dataset.ground_truth_val):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text("".join(f"{PHASES[phase]}\n" for phase in phase_ids))
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    for name, length in LENGTHS.items():
        phase_ids = np.repeat([2, 2] if name == "strange" else [0, 1], length // 2)
        make_clip(root / "theatre" / f"{name}.mp4", coloured(phase_ids, shift=1 if name == "strange" else 0))
    return root


@pytest.fixture
def theatre(built, tmp_path, monkeypatch):
    """A root of its own, and the folder of unlabelled videos."""
    root = tmp_path / "root"
    shutil.copytree(built, root)
    monkeypatch.setenv("SICS155_ROOT", str(root))
    return root / "theatre"


def words(theatre, *more: str) -> list[str]:
    return ["--model", "ColorHistogram", "--dataset", "clips", "--unlabelled", str(theatre), "--device", "cpu", *more]


def learned(*more: str) -> str:
    assert extract_main(["--dataset", "clips", "--device", "cpu"], model="ColorHistogram") == 0
    train_main([*HEAD, *more])
    run = f"seed{more[1]}" if more else None
    return str(paths.model("ColorHistogram").checkpoint("clips", "val", run))


def test_without_a_head_what_is_like_nothing_labelled_comes_first(theatre, tmp_path, capsys):
    extract_main(["--dataset", "clips", "--device", "cpu"], model="ColorHistogram")
    table = tmp_path / "next.csv"
    assert main(words(theatre, "-n", "2", "--output", str(table))) == 0
    printed = capsys.readouterr().out
    assert "1. strange" in printed
    assert "2 of 4 unlabelled videos" in printed
    rows = list(csv.DictReader(table.open()))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert "known_" in rows[0]["reason"]
    with pytest.raises(UserError, match=r"next\.csv is there already and is not overwritten"):
        main(words(theatre, "-n", "2", "--output", str(table)))


def test_without_a_head_only_coverage_is_offered(theatre):
    with pytest.raises(UserError, match="no such checkpoint"):
        main(words(theatre, "-n", "2", "--by", "uncertainty"))
    with pytest.raises(UserError, match="expected several heads of other seeds or encoders, found 0"):
        main(words(theatre, "-n", "2", "--by", "disagreement"))


def test_with_heads_every_rule_answers_and_features_are_made_once(theatre, capsys, extracted):
    heads = [learned(), learned("--seed", "43")]
    extracted.clear()
    main(words(theatre, "-n", "4"))
    assert "by the head's mean uncertainty: 4 of 4" in capsys.readouterr().out
    assert sorted(extracted) == sorted(LENGTHS)
    main(words(theatre, "-n", "2", "--by", "clusters"))
    assert "similar videos" in capsys.readouterr().out
    two = ["--unlabelled", str(theatre), "-n", "1", "--checkpoint", *heads, "--by", "disagreement", "--device", "cpu"]
    assert main(two) == 0
    assert "by how much several heads disagree: 1 of 4" in capsys.readouterr().out
    assert len(extracted) == len(LENGTHS)


def test_a_budget_in_minutes_takes_whole_videos_that_fit(theatre, capsys):
    learned()
    main(words(theatre, "--minutes", "0.0001"))
    assert "nothing fits: the shortest of 4 videos" in capsys.readouterr().out
    main(words(theatre, "--minutes", "1000"))
    assert "4 of 4 unlabelled videos" in capsys.readouterr().out


def test_what_is_labelled_already_is_left_out(theatre, capsys):
    extract_main(["--dataset", "clips", "--device", "cpu"], model="ColorHistogram")
    dataset = paths.dataset("clips")
    shutil.copy(theatre / "strange.mp4", dataset.videos / "strange.mp4")
    main(words(dataset.videos, "-n", "5"))
    printed = capsys.readouterr().out
    assert "1 of 1 unlabelled video," in printed
    assert dataset.features("ColorHistogram").joinpath("strange.npy").is_file()  # one of the data set's own videos
    (dataset.ground_truth / "strange.txt").write_text("wash\n" * 36)
    with pytest.raises(UserError, match="all of its 3 videos have labels in clips"):
        main(words(dataset.videos, "-n", "5"))


def test_a_video_that_cannot_be_read_is_named_and_the_others_are_ranked(theatre, capsys):
    (theatre / "broken.mp4").write_bytes(b"no video")
    assert main(words(theatre, "-n", "9")) == 1
    assert "4 of 4 unlabelled videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "Give -n VIDEOS or --minutes MINUTES"),
        (["-n", "0"], "-n must be at least 1, found 0"),
        (["--minutes", "nan"], "--minutes must be greater than 0"),
    ],
)
def test_a_budget_that_is_none_is_refused(theatre, more, message):
    with pytest.raises(UserError, match=message):
        main(words(theatre, *more))


def test_a_folder_that_is_not_there_is_named(theatre):
    with pytest.raises(UserError, match="no such folder; expected one of videos"):
        main(words(theatre / "absent", "-n", "1"))

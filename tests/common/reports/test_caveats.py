"""What stands below a table: heads with a recipe of their own, what decoded runs saw, videos that belong together."""

import pytest

from common.base import paths
from common.head.config import TrainConfig
from common.reports.caveats import data_remarks, remarks
from tests.common.reports.rows import row

GOOD = [0.8, 0.9]


def config(**settings) -> TrainConfig:
    return TrainConfig(model="A", features_dim=8, **settings)


def lines(*results) -> str:
    return "\n".join(map(str, remarks(results)))


def test_a_head_whose_authors_train_it_otherwise_is_named_once():
    text = lines(row("A", GOOD, config=config(head="tecno")), row("B", GOOD, config=config(head="tecno")))
    assert text.count("TeCNO is trained as all heads here; its authors': ") == 1
    assert "lr 7e-5" in text


def test_heads_without_a_recipe_of_their_own_are_not_named():
    assert "its authors'" not in lines(row("A", GOOD), row("B", GOOD, config=config(head="linear")))


def test_an_earlier_record_that_knows_no_heads_names_none():
    old = row("A", GOOD)
    del old.record["config"]["head"]
    assert "its authors'" not in lines(old)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{}], "Offline recognition; the last epoch is scored."),
        ([{"config": config(causal=True)}], "Online recognition; the last epoch is scored."),
        ([{"config": config(causal=True), "decode": "viterbi"}], "Offline recognition; the last epoch is scored."),
        ([{"config": config(causal=True), "decode": "argmax"}], "Online recognition; the last epoch is scored."),
        ([{"config": config(lookahead=2.5)}], "Recognition with a look-ahead of 2.5 s; the last epoch is scored."),
    ],
)
def test_a_decoded_path_is_offline_whatever_its_head(rows, expected):
    assert expected in lines(*(row("A", GOOD, **changes) for changes in rows))


def test_online_rows_are_named_beside_their_decoded_ones():
    causal = config(causal=True)
    text = lines(
        row("A", GOOD, config=causal, run="causal"),
        row("A", GOOD, config=causal, run="causal-viterbi", decode="viterbi"),
    )
    assert "Online recognition: A (causal); offline: all others; the last epoch is scored." in text


def test_pieces_of_one_recording_are_named_until_patients_are_stated(tmp_path):
    dataset = paths.Dataset(tmp_path / "made")
    videos = [f"case{case}_{piece}" for case in (3, 8) for piece in (1, 2, 3)]
    dataset.ground_truth.mkdir(parents=True)
    for video in videos:
        (dataset.ground_truth / f"{video}.txt").write_text("wash\n")
    results = [row("A", [0.8] * 6, videos=videos)]
    (said,) = [str(line) for line in data_remarks(dataset, results) if "pieces" in str(line)]
    assert said.startswith("6 videos look like pieces of 2 recordings (case3, case8): they are not independent, and ")
    assert "intervals and tests over them are too sure; state it in" in said
    dataset.patients.write_text("video,patient\n" + "".join(f"{video},{video[:5]}\n" for video in videos))
    assert not any("pieces" in str(line) for line in data_remarks(dataset, results))

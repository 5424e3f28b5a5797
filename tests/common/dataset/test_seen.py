"""What published weights have seen, in the words of a configuration, against the public ids of videos."""

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.seen import SeenPart, published_leaks
from common.encoders.config import read_encoder_config


@pytest.mark.parametrize(
    ("words", "seen", "not_seen"),
    [
        ("1-40", ["1", "40", "007"], ["41", "0", "a"]),
        ("all", ["1", "anything"], []),
        ("1 3, 5-7", ["1", "03", "6"], ["2", "8"]),
        ("CASE001 CASE004", ["CASE001"], ["CASE002", "1"]),
        ("76 of 80", ["1", "80"], []),
    ],
)
def test_words_for_videos(words, seen, not_seen):
    part = SeenPart("set", words)
    assert [name for name in [*seen, *not_seen] if part.has(name)] == seen


@pytest.mark.parametrize("words", ["", " ", "40-1", "1-999999999"])
def test_words_that_say_nothing_are_refused(words):
    with pytest.raises(UserError, match="seen, set: expected"):
        SeenPart("set", words)


IDS = {f"video{number}": f"cholec80/{number}" for number in range(38, 44)} | {"other": "m2cai16/1", "own": "x"}


def test_scored_videos_that_were_seen_are_named():
    (leak,) = published_leaks(IDS, [*IDS, "unknown"], {"cholec80": "1-40", "pitvis": "all"}, "a table")
    assert leak.videos == ("video38", "video39", "video40")
    assert str(leak) == ("its weights saw 3 of the 6 scored videos in training (a table): video38, video39, video40")
    assert published_leaks(IDS, ["video43"], {"cholec80": "1-40"}) == []
    assert published_leaks(None, ["video38"], {"cholec80": "all"}) == []
    assert published_leaks(IDS, ["video38"], None) == []


def test_where_it_is_not_known_which_each_may_have_been():
    (leak,) = published_leaks(IDS, ["video38", "video43"], {"cholec80": "76 of 80"})
    assert str(leak) == (
        "its weights saw 76 of 80 videos of cholec80, and nobody states which: any of the 2 scored videos may be among them"
    )


def test_named_weights_have_not_seen_what_the_folder_s_own_have():
    config = read_encoder_config(paths.CHECKOUT / "models" / "SurgeNet-CAFormer-S18" / "config.yaml")
    assert config.seen["cholec80"] == "76 of 80"
    assert config.with_weights("imagenet1k").seen is None
    assert config.with_weights("surgenetxl").seen == config.seen  # the same weights by name


def test_every_folder_that_says_what_was_seen_says_where_it_was_read():
    for path in sorted((paths.CHECKOUT / "models").glob("*/config.yaml")):
        config = read_encoder_config(path)
        assert (config.seen is None) == (config.seen_source is None), path
        for name, words in (config.seen or {}).items():
            SeenPart(name, words)


def test_a_report_says_so_in_red(made, workspace):
    """ColorHistogram has no weights; its made configuration claims to have seen a test video."""
    import json

    from common.reports.caveats import data_remarks, exclude_seen
    from common.reports.results import collect_all
    from common.run_k_folds import main

    head = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "1"]
    main(["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu", *head])
    config = workspace / "models" / "ColorHistogram" / "config.yaml"
    source = json.loads((workspace / "models/ColorHistogram/results/made/split_1/run.json").read_text())["features"]
    assert source["identity"]["weights"]["source"] == read_encoder_config(config).weights
    config.write_text(config.read_text() + 'seen: {public: "2-3"}\nseen_source: a test\n')
    made.dataset.description.write_text("ids: {BL_1: public/1, BL_2: public/2, SD_1: public/9}\n")
    remarks = data_remarks(made.dataset, collect_all(made.dataset, 2).results)
    found = [str(remark) for remark in remarks if remark.alarming]
    assert len(found) == 1
    assert found[0].startswith("Leak: ColorHistogram: its weights saw 1 of the ")
    assert found[0].endswith(" in training (a test): BL_2")

    rest = exclude_seen(made.dataset, collect_all(made.dataset, 2))
    assert sorted(name for name, _ in rest.results[0].tests) == ["BL_1", "BL_3", "SD_1", "SD_2", "SD_3"]
    assert rest.left_out == ["1 video that some weights were trained on (BL_2), by --exclude_seen"]
    assert [remark for remark in data_remarks(made.dataset, rest.results) if remark.alarming] == []
    config.write_text(
        config.read_text().replace("2-3", "1 of 3")
    )  # which, nobody says: all stay, and so does the remark
    rest = exclude_seen(made.dataset, collect_all(made.dataset, 2))
    assert len(rest.results[0].tests) == 6
    assert any(remark.alarming for remark in data_remarks(made.dataset, rest.results))
    config.write_text(config.read_text().replace('"1 of 3"', "all"))
    ids = ", ".join(f"{path.stem}: public/{number}" for number, path in enumerate(made.dataset.ground_truth.iterdir()))
    made.dataset.description.write_text(f"ids: {{{ids}}}\n")
    with pytest.raises(UserError, match="--exclude_seen: some weights have seen all videos that ColorHistogram was"):
        exclude_seen(made.dataset, collect_all(made.dataset, 2))

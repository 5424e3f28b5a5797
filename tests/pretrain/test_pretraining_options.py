"""Options about data that all pretraining commands have."""

import pytest

from common.base.runtime import UserError
from pretrain.ssl_config import PretrainingOptions, find_model, read_weights
from pretrain.video_data.clusters import Segment, write_clusters
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.video_index import VideoEntry


def corpus(name: str, seconds: float) -> Corpus:
    entry = VideoEntry(f"/{name}.mp4", "case", seconds, 25.0, 100, 1000, f"print of {name}")
    return Corpus(name, (entry,))


CORPORA = [corpus("small", 100.0), corpus("large", 10_000.0)]


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 100 / 10_100), (0.5, 1 / 11), (0.0, 1 / 2)])
def test_corpora_are_drawn_by_a_power_of_their_size(alpha, share):
    found = PretrainingOptions(corpus_alpha=alpha).sampling(CORPORA).corpus_shares
    assert found == pytest.approx({"small": share, "large": 1 - share})


def test_weights_replace_sizes():
    found = PretrainingOptions(corpus_weights="large=1, small=3").sampling(CORPORA).corpus_shares
    assert found == {"small": 0.75, "large": 0.25}


def test_clusters_come_from_their_file(tmp_path):
    segments = {"small/case": [Segment(0, 90, 0), Segment(90, 100, 1)], "large/case": [Segment(0, 10_000, 0)]}
    write_clusters(tmp_path / "clusters.json", segments, {})
    given = PretrainingOptions(clusters=str(tmp_path / "clusters.json"), cluster_alpha=0.0, corpus_alpha=0.0)
    assert [pool.share for pool in given.sampling(CORPORA).pools] == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,a=2", "a=one", "a=1,,b=2", ","])
def test_weights_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="expected NAME=WEIGHT,NAME=WEIGHT"):
        read_weights(text)


def test_a_corpus_may_have_any_name():
    assert read_weights("a=b=1,c d=0.5") == {"a=b": 1.0, "c d": 0.5}


@pytest.mark.parametrize(
    ("name", "value"), [("corpus_alpha", -1.0), ("cluster_alpha", float("nan")), ("crop_size", 0), ("open_videos", 0)]
)
def test_options_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must .*found {value}"):
        PretrainingOptions(**{name: value})


def test_the_model_says_what_options_do_not():
    model = find_model("vjepa2-l")
    assert PretrainingOptions().crop_size_of(model) == 256
    assert PretrainingOptions(crop_size=128).crop_size_of(model) == 128
    assert PretrainingOptions().clip_len_of(model) == 16


def test_the_study_s_corpus_is_the_default():
    assert PretrainingOptions().videos == ("Cataracts-1K",)

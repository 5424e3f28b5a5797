"""The failure atlas, hand-computed."""

import numpy as np
import pytest

from common.base import paths
from common.reports import failure_atlas as failures
from common.reports.failure_atlas import change_distances, confused_pairs, failure_atlas, video_accuracies
from common.reports.results import EncoderResult, SplitResult
from common.scoring.video_score import VideoScore

FPS = 10


def encoder(name, videos, fps=FPS):
    """An encoder of `videos`: name -> (true, predicted)."""
    scores = {
        video: VideoScore(np.array(true), np.array(predicted), num_classes=3, fps=fps)
        for video, (true, predicted) in videos.items()
    }
    record = {"features": {"random_weights": False}}
    return EncoderResult(paths.Model(paths.repository_root() / "models" / name), None, [SplitResult(record, scores)])


@pytest.fixture
def two():
    """Two encoders on the same two videos; the first has 3 wrong frames of 20, the second 10."""
    true = {"BL_1": [0] * 5 + [1] * 5, "SD_1": [1] * 4 + [2] * 6}
    first = {"BL_1": (true["BL_1"], [0] * 4 + [1] * 6), "SD_1": (true["SD_1"], [1] * 6 + [2] * 4)}
    second = {name: (labels, [1] * 10) for name, labels in true.items()}
    return [encoder("First", first), encoder("Second", second | {"BL_1": (true["BL_1"], [0] * 10)})]


def test_accuracies_of_every_video(two):
    found = {video.name: video for video in video_accuracies(two)}
    assert found["BL_1"].accuracies == pytest.approx({"First": 0.9, "Second": 0.5})
    assert found["SD_1"].accuracies == pytest.approx({"First": 0.8, "Second": 0.4})
    assert found["SD_1"].mean == pytest.approx(0.6)


def test_the_worst_videos_come_first_and_are_limited(two, monkeypatch):
    assert [video.name for video in failure_atlas(two).worst] == ["SD_1", "BL_1"]
    monkeypatch.setattr(failures, "NUM_WORST", 1)
    assert [video.name for video in failure_atlas(two).worst] == ["SD_1"]


def test_confused_pairs_are_of_the_first_encoder_by_frames(two):
    pairs = confused_pairs(two)
    assert [(pair.true, pair.predicted, pair.frames) for pair in pairs] == [(2, 1, 2), (0, 1, 1)]
    worst = pairs[0]
    assert worst.seconds == pytest.approx(0.2)
    assert worst.share_of_phase == pytest.approx(2 / 6)
    assert worst.share_of_errors == pytest.approx(2 / 3)
    assert worst.share_elsewhere == pytest.approx((2 / 6 + 1) / 2)


def test_no_pairs_without_errors_and_no_seconds_without_a_rate():
    assert confused_pairs([encoder("First", {"BL_1": ([0, 1], [0, 1])})]) == []
    assert np.isnan(confused_pairs([encoder("First", {"BL_1": ([0, 1], [0, 2])}, fps=None)])[0].seconds)


def test_errors_by_prefix(two):
    strata = failure_atlas(two).by_prefix
    assert strata.groups == ["BL (1)", "SD (1)"]
    assert strata.frames.tolist() == [10, 10]
    assert strata.errors["First"] == pytest.approx([0.1, 0.2])
    assert strata.errors["Second"] == pytest.approx([0.5, 0.6])


def test_errors_by_length_of_the_true_segment():
    true = [0] * 10 + [1] * 20 + [0] * 30 + [1] * 40 + [2] * 50
    predicted = np.array(true)
    predicted[:5] = 2  # half of the shortest segment
    predicted[-10:] = 0  # a fifth of the longest
    strata = failure_atlas([encoder("First", {"BL_1": (true, predicted)})]).by_length
    assert strata.groups == ["under 1.8 s", "1.8 to 2.6 s", "2.6 to 3.4 s", "3.4 to 4.2 s", "4.2 s and more"]
    assert strata.frames.tolist() == [10, 20, 30, 40, 50]
    assert strata.errors["First"] == pytest.approx([0.5, 0, 0, 0, 0.2])


def test_equal_segments_make_two_groups_one_empty():
    strata = failure_atlas([encoder("First", {"BL_1": ([0] * 10 + [1] * 10, [0] * 20)})]).by_length
    assert strata.groups == ["under 1 s", "1 s and more"]
    assert np.isnan(strata.errors["First"][0])
    assert strata.errors["First"][1] == 0.5


def test_errors_by_distance_to_a_change():
    true = np.repeat([0, 1], 60)
    predicted = true.copy()
    predicted[55:60] = 1  # within half a second before the change
    strata = failure_atlas([encoder("First", {"BL_1": (true, predicted)})]).by_distance
    assert strata.groups[:2] == ["under 1 s", "1 to 2 s"]
    assert strata.groups[-1] == "40 s and more"
    assert strata.frames.tolist() == [20, 20, 60, 20, 0, 0, 0]
    assert strata.errors["First"][:4] == pytest.approx([0.25, 0, 0, 0])
    assert np.isnan(strata.errors["First"][4:]).all()


def test_groups_are_in_frames_where_a_rate_is_unknown():
    atlas = failure_atlas([encoder("First", {"BL_1": ([0] * 10 + [1] * 1500, [0] * 1510)}, fps=None)])
    assert atlas.by_distance.groups[0] == "under 10 frames"
    assert all(group.endswith(("frames", "frames and more")) for group in atlas.by_length.groups)


def test_distances_agree_with_a_search_through_all_changes():
    true = np.random.default_rng(3).integers(0, 2, 50)
    changes = [place for place in range(1, 50) if true[place] != true[place - 1]]
    expected = [min(abs(frame + 0.5 - change) for change in changes) for frame in range(50)]
    assert change_distances(true).tolist() == expected
    assert np.isinf(change_distances(np.zeros(4, dtype=int))).all()


def test_groups_that_no_frame_lies_in_can_be_left_out():
    strata = failure_atlas([encoder("First", {"BL_1": ([0] * 10 + [1] * 10, [0] * 20)})]).by_length
    assert strata.filled.groups == ["1 s and more"]
    assert strata.filled.frames.tolist() == [20]
    assert strata.filled.errors["First"].tolist() == [0.5]

"""Batches: labels at the features' frames, padding, order, bad input."""

import logging

import numpy as np
import pytest
import torch

from common.base.paths import label_paths
from common.base.runtime import UserError
from common.dataset.phases import IGNORED, read_mapping
from common.head import batch_gen
from common.head.batch_gen import BatchGenerator, feature_statistics, open_split, pad_batch
from common.head.experiment import load_experiment
from common.video.label_grid import LabelGrid


@pytest.fixture
def open_all(made):
    def opened(**options):
        labels = label_paths(made.dataset.ground_truth)
        return open_split(made.features, labels, read_mapping(made.dataset.mapping), **({"feature_dim": 48} | options))

    return opened


def test_targets_are_the_labels_of_the_sampled_frames(made, open_all):
    phase_ids = np.repeat([0, 1, 2, 3, 0], 20)
    sampled = np.array([0, 13, 26, 39, 52, 65, 78, 91])
    made.write_labels("BL_1", phase_ids)
    made.write_features("BL_1", np.zeros((len(sampled), 48)), sampled=sampled, num_frames=100)
    video = open_all()[0]
    assert video.target.tolist() == phase_ids[sampled].tolist()
    assert video.num_labels == 100


def test_sample_rate_takes_every_nth_feature_and_its_label(made, open_all):
    every, third = open_all()[0], open_all(sample_rate=3)[0]
    assert np.array_equal(third.rows, every.rows[::3])
    assert np.array_equal(third.target, every.target[::3])


def resize(made, name: str, num_frames: int, num_labels: int) -> None:
    """A video of so many frames with so many labels."""
    made.write_features(name, np.zeros((num_frames, 48)))
    made.write_labels(name, np.zeros(num_labels, dtype=int))


@pytest.mark.parametrize("extra_labels", [3, -3])
def test_small_length_difference_is_trimmed_at_the_end_with_one_warning(made, open_all, caplog, extra_labels):
    for name in ("BL_1", "SD_2"):
        resize(made, name, 400, 400 + extra_labels)
    with caplog.at_level(logging.WARNING):
        videos = open_all(length_tolerance=3)
    assert len(caplog.records) == 1
    assert "BL_1" in caplog.text
    assert "SD_2" in caplog.text
    assert len(videos[0].target) == min(400, 400 + extra_labels)


@pytest.mark.parametrize(
    ("num_frames", "difference", "options", "is_refused"),
    [
        (90, 1, {}, False),  # one frame always
        (90, 2, {}, True),
        (90, 2, {"length_tolerance": 50}, True),  # never more than 1 %, whatever is asked for
        (90, 1, {"length_tolerance": 0}, True),
        (999, -9, {}, False),
        (999, 10, {}, True),
        (5000, 16, {}, False),
        (5000, -17, {}, True),
        (5000, 50, {"length_tolerance": 60}, False),
        (5000, 51, {"length_tolerance": 60}, True),
    ],
)
def test_lengths_may_differ_by_a_hundredth_at_most(made, open_all, num_frames, difference, options, is_refused):
    resize(made, "BL_2", num_frames, num_frames + difference)
    if not is_refused:
        assert open_all(**options)
        return
    with pytest.raises(
        UserError, match=rf"BL_2: {num_frames} decoded frames at 25\.000 fps.*{num_frames + difference} labels"
    ):
        open_all(**options)


def test_a_length_error_names_a_whole_ratio_and_counts_the_others(made, open_all):
    resize(made, "BL_2", 750, 30)
    resize(made, "SD_1", 750, 30)
    with pytest.raises(UserError) as error:
        open_all()
    assert "(1 label every 25 frames?)" in str(error.value)
    assert "may differ by 7 frames (--length_tolerance 16, and at most 1 % of a video)" in str(error.value)
    assert "(and 1 other video like this)" in str(error.value)


# --- features made elsewhere, of every n-th frame ------------------------------------------------------------------


def from_elsewhere(made, stride: int) -> dict[str, int]:
    """Every `stride`-th feature of each video without a sidecar; returns their numbers."""
    counts = {}
    for path in made.features.glob("*.npy"):
        array = np.load(path)[:, ::stride]
        path.with_suffix(".json").unlink()
        np.save(path, array)
        counts[path.stem] = array.shape[1]
    return counts


@pytest.mark.parametrize("stride", [2, 3, 7])
def test_every_nth_feature_from_elsewhere_learns_the_label_of_its_frame(made, open_all, stride):
    every = open_all()
    counts = from_elsewhere(made, stride)
    for whole, thin in zip(every, open_all(feature_strides=dict.fromkeys(counts, stride)), strict=True):
        assert thin.target.tolist() == whole.target[::stride].tolist()
        assert thin.num_labels == thin.timeline.num_frames == whole.num_labels
        assert len(thin.rows) == counts[thin.name]


def test_without_a_word_on_the_stride_the_error_names_it(made, open_all):
    from_elsewhere(made, 5)
    with pytest.raises(UserError, match=r"5 labels a frame\?\).* of every n-th frame, n = 5, add --feature_stride 5"):
        open_all()


def test_a_wrong_stride_is_an_error_too(made, open_all):
    counts = from_elsewhere(made, 5)
    with pytest.raises(UserError, match="may differ by 1 frame"):
        open_all(feature_strides=dict.fromkeys(counts, 4))


def test_a_stride_of_features_with_a_sidecar_is_refused(made, open_all):
    with pytest.raises(UserError, match=r"its sidecar says which frames .* --feature_stride 2 is not"):
        open_all(feature_strides={"BL_1": 2})


def test_missing_features_name_the_file_and_the_command(made, open_all):
    (made.features / "SD_1.npy").unlink()
    with pytest.raises(UserError, match=r"SD_1\.npy: no features.*extract_features"):
        open_all()


def test_features_of_another_dimension_are_an_error_with_both_numbers(open_all):
    with pytest.raises(UserError, match="expected feature_dim 2048, found 48"):
        open_all(feature_dim=2048)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_feature_names_video_and_frame(made, open_all, bad):
    path = made.features / "BL_3.npy"
    array = np.lib.format.open_memmap(path, mode="r+")
    array[5, 7] = bad
    array.flush()
    with pytest.raises(UserError, match=r"feature of frame 7 of BL_3"):
        list(BatchGenerator(open_all(), batch_size=6, seed=0).epoch(0))


def test_every_video_is_in_an_epoch_once_and_the_order_depends_on_seed_and_epoch(open_all):
    videos = open_all()

    def order(seed, epoch):
        return [name for batch in BatchGenerator(videos, 4, seed).epoch(epoch) for name in batch.names]

    assert sorted(order(0, 0)) == sorted(video.name for video in videos)
    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in range(4)}) > 4


def test_unequal_videos_are_padded_and_masked():
    rows = [torch.ones(2, 3), 2 * torch.ones(4, 3)]
    targets = [np.array([1, 1]), np.array([0, 0, 2, 2])]
    batch = pad_batch([("a", rows[0], targets[0]), ("b", rows[1], targets[1])])
    assert batch.features.shape == (2, 3, 4)
    assert batch.features[0, :, 2:].abs().max() == 0
    assert batch.target.tolist() == [[1, 1, IGNORED, IGNORED], [0, 0, 2, 2]]
    assert batch.mask.tolist() == [[[1, 1, 0, 0]], [[1, 1, 1, 1]]]


def test_equal_videos_need_no_mask_and_a_single_one_no_copy():
    rows = torch.randn(5, 3)
    batch = pad_batch([("a", rows, np.zeros(5, dtype=int))])
    assert batch.mask is None
    assert batch.features.data_ptr() == rows.data_ptr()


def test_features_are_read_from_disk_once_when_they_fit_into_memory(made, open_all):
    generator = BatchGenerator(open_all(), 1, seed=0)
    first = {batch.names: batch.features.clone() for batch in generator.epoch(0)}
    for path in made.features.glob("*.npy"):
        path.write_bytes(b"")
    second = {batch.names: batch.features for batch in generator.epoch(1)}
    assert generator.in_memory
    assert all(torch.equal(first[names], second[names]) for names in first)


# --- labels at a rate of their own, and labels that do not count ----------------------------------------------------


GRID = LabelGrid(label_every=10)
LABELS = np.array([0, 1, 1, 2, 3, 3, 0, 2, 2, 1])  # of frames 0, 10, ..., 90


def on_grid(made, sampled=None, **options):
    made.write_labels("BL_1", LABELS)
    frames = np.arange(100) if sampled is None else np.asarray(sampled)
    made.write_features("BL_1", np.repeat(frames[:, None], 48, axis=1), sampled=sampled, num_frames=100)
    labels = {"BL_1": made.dataset.ground_truth / "BL_1.txt"}
    mapping = read_mapping(made.dataset.mapping)
    return open_split(made.features, labels, mapping, **({"feature_dim": 48, "grid": GRID} | options))[0]


@pytest.mark.parametrize("sampled", [None, np.arange(0, 100, 10), np.arange(0, 100, 5)])
def test_a_head_sees_the_frames_that_carry_labels_whatever_was_extracted(made, sampled):
    video = on_grid(made, sampled)
    assert video.rows[:, 0].tolist() == list(range(0, 100, 10))
    assert video.target.tolist() == LABELS.tolist()
    assert video.num_labels == 10
    assert video.rows_of_labels().tolist() == list(range(10))
    assert video.label_fps == pytest.approx(2.5)


def test_features_between_the_labels_learn_the_nearest_and_stand_for_the_nearest(made):
    video = on_grid(made, np.array([0, 24, 55, 86]))
    assert video.target.tolist() == [LABELS[0], LABELS[2], LABELS[5], LABELS[9]]  # of 50 and 60 the earlier
    assert video.rows_of_labels().tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert video.rows_of_labels(causal=True).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_every_third_of_them(made):
    video = on_grid(made, sample_rate=3)
    assert video.rows[:, 0].tolist() == [0, 30, 60, 90]
    assert video.target.tolist() == LABELS[::3].tolist()
    assert video.rows_of_labels().tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


def test_a_label_that_no_frame_reaches_has_no_feature_and_a_row_all_the_same(made, caplog):
    made.write_labels("BL_1", [*LABELS, 3])
    made.write_features("BL_1", np.zeros((100, 48)))
    labels = {"BL_1": made.dataset.ground_truth / "BL_1.txt"}
    (video,) = open_split(made.features, labels, read_mapping(made.dataset.mapping), feature_dim=48, grid=GRID)
    assert (len(video.target), video.num_labels, len(video.label_frames)) == (10, 11, 10)
    assert video.rows_of_labels().tolist() == [*range(10), 9]
    assert "BL_1 (10 labels that a frame reaches, 11 labels)" in caplog.text


def test_far_more_labels_than_frames_to_carry_them_are_an_error(made):
    made.write_labels("BL_1", np.zeros(100, dtype=int))
    made.write_features("BL_1", np.zeros((100, 48)))
    labels = {"BL_1": made.dataset.ground_truth / "BL_1.txt"}
    with pytest.raises(
        UserError, match=r"10 labels that a frame reaches .* but 100 labels .*dataset.yaml says label_every 10"
    ):
        open_split(made.features, labels, read_mapping(made.dataset.mapping), feature_dim=48, grid=GRID)


def test_the_mask_is_of_padding_alone():
    ignored = np.array([IGNORED, 1, IGNORED])
    batch = pad_batch([("a", torch.zeros(3, 4), ignored), ("b", torch.zeros(5, 4), np.zeros(5, dtype=int))])
    assert batch.mask[:, 0].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.target[0].tolist() == [IGNORED, 1, IGNORED, IGNORED, IGNORED]


# --- statistics ---------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_labelled_frames_at_once(made, monkeypatch):
    monkeypatch.setattr(batch_gen, "STATISTICS_ROWS", 7)
    random = np.random.default_rng(5)
    for name, seed in (("BL_1", 1), ("SD_1", 2)):
        rows = 1e4 + random.normal(
            0, 1, (len(made.write_video(name, seed)), 48)
        )  # a mean that eats the digits of squares
        rows[:, 3] = 0.1  # does not vary
        rows[:, 4] = 0
        made.write_features(name, rows)
    experiment = load_experiment(made.config())
    labels = experiment.train_labels | experiment.test_labels
    videos = experiment.open({name: labels[name] for name in ("BL_1", "SD_1")})
    mean, deviation = feature_statistics(videos)
    joined = np.concatenate([video.rows[: len(video.target)] for video in videos]).astype(np.float64)
    assert mean.numpy() == pytest.approx(joined.mean(axis=0), rel=1e-7)
    varying = np.delete(np.arange(48), [3, 4])
    assert deviation.numpy()[varying] == pytest.approx(joined.std(axis=0)[varying], rel=1e-6)
    assert deviation[[3, 4]].tolist() == [1, 1]

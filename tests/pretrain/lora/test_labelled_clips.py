"""Labelled clips: the split by video, class-balanced sampling, the validation grid, the pixels that are asked for."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from common.base.paths import Dataset
from common.base.runtime import UserError
from common.video.decode import decode
from common.video.preprocess import Preprocessing
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.lora.labelled_videos import choose_validation, read_labelled_videos
from pretrain.video_data.augment import LabelledView
from pretrain.video_data.clips import ClipReader

FPS = 10
CLASSES = PhaseClasses(
    ("cut", "rinse", "never"),
    {"Made": {"unlabelled": None, "Cut": "cut", "Rinse": "rinse"}, "Other": {"Cutting": "cut", "Rinsing": "rinse"}},
)
SMALL = Preprocessing(size=8)


class CountingReader:
    """Frames whose every pixel is their number in a video of 10 frames a second; remembers what it was asked for."""

    def __init__(self):
        self.asked: list[tuple[Path, np.ndarray]] = []

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        self.asked.append((path, seconds))
        numbers = np.round(seconds * FPS).astype(np.uint8)
        return np.broadcast_to(numbers[:, None, None, None], (len(seconds), 16, 16, 3)).copy()


def write_dataset(
    root: Path, labels: dict[str, list[str]], *, release: str = "Made", strata: dict[str, str] | None = None
) -> Dataset:
    """A data set as the importers write it, its videos files of a byte."""
    dataset = Dataset(root)
    for folder in (dataset.videos, dataset.ground_truth):
        folder.mkdir(parents=True)
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(CLASSES.phases(release))))
    for video, names in labels.items():
        (dataset.videos / f"{video}.mp4").write_bytes(b"x")
        (dataset.ground_truth / f"{video}.txt").write_text("\n".join(names) + "\n")
    entries = {video: {"fps": float(FPS), "stratum": (strata or {}).get(video, "")} for video in labels}
    (dataset.root / "manifest.json").write_text(json.dumps({"release": release, "videos": entries}))
    return dataset


# 5 frames that nobody learns from, 60 of cut, 20 of rinse, 15 of cut: 10 s
OPERATION = ["unlabelled"] * 5 + ["Cut"] * 60 + ["Rinse"] * 20 + ["Cut"] * 15


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "Made", {f"case_{number}": OPERATION for number in range(10)})


@pytest.fixture
def clips(dataset: Dataset) -> Callable[..., LabelledClips]:
    """`clips(split, ...)`: the clips of the made data set, by a reader that counts."""

    def build(split: str = "train", *, datasets: list[Dataset] | None = None, **options) -> LabelledClips:
        given = {"reader": CountingReader(), "preprocessing": SMALL, "grid_seconds": 1.0} | options
        return LabelledClips(datasets or [dataset], CLASSES, split, **given)

    return build


# --- the split ------------------------------------------------------------------------------------------------------


def test_no_video_is_on_both_sides_and_none_is_lost(clips):
    sides = [{video.name for video in clips(split).videos} for split in ("train", "validation")]
    assert sides[0] & sides[1] == set()
    assert sides[0] | sides[1] == {f"Made/case_{number}" for number in range(10)}
    assert len(sides[1]) == 2


def test_the_split_depends_on_names_alone(dataset, clips):
    videos = read_labelled_videos(dataset, CLASSES)
    assert choose_validation(videos[::-1], 0.3) == choose_validation(videos, 0.3)
    assert [video.name for video in clips(seed=1).videos] == [video.name for video in clips(seed=2).videos]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.29, 0.5])
def test_every_stratum_gives_its_share(tmp_path, share):
    strata = {f"case_{number}": "abc"[number % 10 // 4] for number in range(100)}  # 40, 40, 20
    dataset = write_dataset(tmp_path / "Made", {name: ["Cut"] for name in strata}, strata=strata)
    videos = read_labelled_videos(dataset, CLASSES)
    chosen = choose_validation(videos, share)
    assert len(chosen) == round(100 * share)
    by_stratum = Counter(video.stratum for video in videos if video.name in chosen)
    for stratum, size in {"a": 40, "b": 40, "c": 20}.items():
        assert abs(by_stratum[stratum] - share * size) < 1 + 1e-9


def test_each_data_set_is_split_on_its_own(tmp_path, dataset, clips):
    other = write_dataset(tmp_path / "Other", {f"case_{n}": ["Cutting"] * 40 for n in range(5)}, release="Other")
    names = [video.name for video in clips("validation", datasets=[dataset, other]).videos]
    assert Counter(name.split("/")[0] for name in names) == {"Made": 2, "Other": 1}


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_an_empty_side_is_an_error(clips, share):
    with pytest.raises(UserError, match=r"validation share .* of 10 videos leaves one side without a video"):
        clips(validation_share=share)


# --- training samples -----------------------------------------------------------------------------------------------


def test_a_sample(clips):
    sample = clips(clip_len=4, fps=2)[0]
    assert sample.keys() == {"clip", "label", "video"}
    assert (sample["clip"].shape, sample["clip"].dtype) == ((4, 3, 8, 8), torch.uint8)
    assert sample["label"] in (0, 1)
    assert sample["video"].startswith("Made/case_")


def test_samples_depend_on_seed_and_number_alone(clips):
    first, again, other = clips(seed=1), clips(seed=1), clips(seed=2)
    backwards = [again.draw(number) for number in range(49, -1, -1)][::-1]
    assert [first.draw(number) for number in range(50)] == backwards
    assert [first.draw(number) for number in range(50)] != [other.draw(number) for number in range(50)]
    assert first.draw(10**12) == again.draw(10**12)


def test_workers_change_nothing(clips):
    batches = []
    for workers in (0, 2):
        loader = DataLoader(clips(clip_len=2), batch_size=5, sampler=range(100, 120), num_workers=workers)
        batches.append(list(loader))
    for alone, shared in zip(*batches, strict=True):
        assert torch.equal(alone["clip"], shared["clip"])
        assert torch.equal(alone["label"], shared["label"])
        assert alone["video"] == shared["video"]


def test_classes_are_equally_likely_and_so_are_the_frames_of_a_class(clips):
    """Cut has 75 of 95 labelled frames. Bounds are 5 standard deviations of the binomial counts."""
    train = clips()
    count = 4000
    drawn = [train.draw(number) for number in range(count)]
    labels = Counter(moment.label for moment in drawn)
    assert labels.keys() == {0, 1}
    assert abs(labels[0] - count / 2) < 5 * np.sqrt(count / 4)
    cut = [moment.frame for moment in drawn if moment.label == 0]
    share = 15 / 75  # the last segment
    late = sum(frame >= 85 for frame in cut)
    assert abs(late - len(cut) * share) < 5 * np.sqrt(len(cut) * share * (1 - share))
    videos = Counter(moment.video for moment in drawn)
    assert videos.keys() == set(range(8))
    assert all(abs(videos[index] - count / 8) < 5 * np.sqrt(count * 7 / 64) for index in videos)


def test_every_frame_of_a_class_is_drawn_and_none_of_another(clips):
    train = clips()
    drawn = [train.draw(number) for number in range(6000)]
    frames = {label: {moment.frame for moment in drawn if moment.label == label} for label in (0, 1)}
    assert frames == {0: {*range(5, 65), *range(85, 100)}, 1: set(range(65, 85))}


def test_two_data_sets_share_classes(tmp_path, dataset, clips):
    other = write_dataset(tmp_path / "Other", {f"case_{n}": ["Rinsing"] * 40 for n in range(5)}, release="Other")
    train = clips(datasets=[dataset, other])
    drawn = [train.draw(number) for number in range(400)]
    from_other = {moment.label for moment in drawn if train.videos[moment.video].name.startswith("Other/")}
    assert from_other == {1}


def test_a_class_without_frames_is_left_out_and_said(clips, caplog):
    with caplog.at_level(logging.WARNING):
        train = clips()
    assert "train split: no frame of never" in caplog.text
    assert {train.draw(number).label for number in range(100)} == {0, 1}


# --- validation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["label_fps: 2", "label_every: 5"])
def test_labels_at_a_rate_of_their_own_are_those_of_the_nearest_frames(tmp_path, words):
    """A label for every fifth frame of 10 a second: frame 2 is nearest to the first label, 3 to the second."""
    dataset = write_dataset(tmp_path / "set", {"a": ["Cut", "Rinse", "unlabelled", "Cut"]})
    dataset.description.write_text(f"{words}\nignored: [unlabelled]\n")
    (video,) = read_labelled_videos(dataset, CLASSES)
    assert video.num_frames == 20
    found = [(label, start, end) for label, start, end in video.segments]
    assert found == [(0, 0, 3), (1, 3, 8), (-1, 8, 13), (0, 13, 20)]


def test_validation_is_a_fixed_grid_over_labelled_frames(clips):
    """Ten points a second apart in each of two videos of 10 s; all of them have a class: 0.5 s is frame 5, the first of cut."""
    validation = clips("validation")
    assert len(validation) == 20
    assert [moment.frame for moment in validation.grid[:10]] == list(range(5, 100, 10))
    assert [moment.label for moment in validation.grid[:10]] == [0] * 6 + [1] * 2 + [0] * 2
    assert [sample["label"] for sample in validation] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0] * 2
    assert clips("validation", seed=9).grid == validation.grid
    with pytest.raises(IndexError):
        validation[20]


def test_grid_points_without_a_class_are_left_out(clips):
    validation = clips("validation", grid_seconds=0.5)  # frames 2, 7, 12 ...; 2 is unlabelled
    assert len(validation) == 2 * 19
    assert validation.grid[0].frame == 7


def test_an_epoch_of_training_has_as_many_clips_as_its_grid(clips):
    assert len(clips()) == 8 * 10
    assert len(clips(grid_seconds=0.5)) == 8 * 19


# --- frames ---------------------------------------------------------------------------------------------------------


def test_the_labelled_frame_stands_where_encoders_look(clips):
    """Frame t at position clip_len // 2, a quarter of a second (2.5 frames) between neighbours, edges repeated."""
    validation = clips("validation", clip_len=4, fps=5)
    for number in range(len(validation)):
        frame = validation.grid[number].frame
        expected = np.clip(np.arange(-2, 2) * 2 + frame, 0, 99)
        assert validation[number]["clip"][:, 0, 0, 0].tolist() == expected.tolist()


def test_single_frames(clips):
    validation = clips("validation", clip_len=1)
    sample = validation[3]
    assert sample["clip"].shape == (1, 3, 8, 8)
    assert (sample["clip"] == 35).all()
    path, seconds = validation.reader.asked[-1]
    assert (path.parent.name, seconds.tolist()) == ("videos", [3.5])


def test_pixels_follow_the_encoders_own_rule(clips):
    class Halves:
        def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
            image = np.zeros((len(seconds), 20, 40, 3), dtype=np.uint8)
            image[:, :, 20:] = 200
            return image

    square = clips("validation", reader=Halves())[0]["clip"]
    middle = clips("validation", reader=Halves(), preprocessing=Preprocessing(size=8, crop="center", short_side=20))
    assert square[0, 0, 4].tolist()[:3] == [0, 0, 0]
    assert middle[0]["clip"][0, 0, 4].tolist() == [0, 0, 0, 0, 200, 200, 200, 200]


class DecodeAll:
    """A slow reader that follows the definition: all frames decoded, the nearest in time taken."""

    def read(self, path: Path, seconds: np.ndarray) -> np.ndarray:
        frames = list(decode(path))
        times = np.array([frame.seconds for frame in frames])
        return np.stack([frames[np.abs(times - second).argmin()].image for second in seconds])


@pytest.fixture
def real_dataset(tmp_path, make_clip) -> Dataset:
    """Two videos of 60 grey frames, each lighter than the one before."""
    dataset = write_dataset(tmp_path / "films", {"case_1": ["Cut"] * 60, "case_2": ["Rinse"] * 60})
    for path in dataset.videos.iterdir():
        make_clip(path, [np.full((32, 32, 3), 4 * number, dtype=np.uint8) for number in range(60)], fps=FPS)
    return dataset


def check_greys(clips: LabelledClips) -> None:
    for number in range(len(clips)):
        frame = clips.grid[number].frame
        wanted = np.clip(frame + np.array([-1, 0]), 0, 59) * 4
        greys = clips[number]["clip"].float().mean(dim=(1, 2, 3)).numpy()
        np.testing.assert_allclose(greys, wanted, atol=1.6)  # limited-range video has 219 levels


def test_frames_of_real_videos(real_dataset, clips):
    check_greys(
        clips("validation", datasets=[real_dataset], validation_share=0.5, clip_len=2, fps=FPS, reader=DecodeAll())
    )


def test_frames_of_real_videos_by_the_clip_reader(real_dataset, clips):
    reader = ClipReader(open_videos=1)
    check_greys(clips("validation", datasets=[real_dataset], validation_share=0.5, clip_len=2, fps=FPS, reader=reader))


def test_training_clips_are_augmented_by_their_number_and_validation_clips_are_not(clips):
    view = LabelledView(16, flip_chance=0.5)
    plain, augmented, again = clips("train"), clips("train", view=view), clips("train", view=view)
    assert all(torch.equal(augmented[number]["clip"], again[number]["clip"]) for number in range(4))
    assert [augmented[number]["label"] for number in range(4)] == [plain[number]["label"] for number in range(4)]
    assert any(not torch.equal(augmented[number]["clip"], plain[number]["clip"]) for number in range(4))
    for number in range(3):
        assert torch.equal(clips("validation", view=view)[number]["clip"], clips("validation")[number]["clip"])


def test_a_video_that_does_not_decode_is_named(clips):
    with pytest.raises(UserError, match=r"case_\d.mp4: cannot be decoded"):
        clips(reader=DecodeAll())[0]


# --- data sets that cannot be used ----------------------------------------------------------------------------------


def test_videos_without_a_file(dataset, clips):
    for number in (3, 4):
        (dataset.videos / f"case_{number}.mp4").unlink()
    with pytest.raises(
        UserError, match=r"videos: 2 annotated videos have no file: case_3, case_4; .*--annotations_only"
    ):
        clips()


def test_phases_without_a_class(dataset, clips):
    dataset.mapping.write_text(dataset.mapping.read_text().replace("Rinse", "Rince"))
    with pytest.raises(UserError, match=r"unknown phase 'Rince' of Made; nearest known phase: 'Rinse'"):
        clips()


def test_a_side_without_a_labelled_frame(tmp_path, clips):
    dataset = write_dataset(tmp_path / "empty", {f"case_{n}": ["unlabelled"] * 40 for n in range(5)})
    with pytest.raises(UserError, match=r"train split: no labelled clip in 4 videos"):
        clips(datasets=[dataset])

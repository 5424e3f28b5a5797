"""Samples by number: the same under any workers, restarts and processes; what cannot be read is skipped alike."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.video.decode import decode
from common.video.probe import VideoError
from pretrain.ssl_dataset import VideoSamples, loader
from pretrain.video_data.augment import MultiCrop, MultiScaleCrop, VideoCrop
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import Corpus, read_corpora
from pretrain.video_data.sampling import BalancedSampling, SampleOrder
from pretrain.video_data.video_index import VideoEntry

SMALL_CROPS = MultiCrop(global_size=32, local_size=16, num_local=3)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, make_clip) -> list[Corpus]:
    """Two corpora of three and one videos of 4 and 2 seconds; a frame's grey level is its number."""
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in {"eyes/a": 40, "eyes/b": 40, "eyes/c": 40, "knees/d": 20}.items():
        random = np.random.default_rng(len(name) + ord(name[-1]))
        texture = random.integers(0, 80, (48, 64, 3), dtype=np.uint8)
        frames = [texture + np.uint8(4 * index) for index in range(num_frames)]
        make_clip(folder / f"{name}.mp4", frames, fps=10, options={"g": "15", "crf": "10"})
    return read_corpora([str(folder / "eyes"), str(folder / "knees")], folder / "videos.json", num_processes=0)


@pytest.fixture
def sampling(corpora) -> BalancedSampling:
    return BalancedSampling(corpora)


@pytest.fixture
def frames(sampling) -> VideoSamples:
    return VideoSamples(sampling, SMALL_CROPS, seed=1)


def with_broken(corpora: list[Corpus], folder: Path, seconds: float) -> list[Corpus]:
    """The corpora and a third whose one video became unreadable after it was looked into."""
    (folder / "gone.mp4").write_text("not a video")
    gone = VideoEntry(folder / "gone.mp4", "gone", seconds, 10.0, None, 11, "f")
    return [*corpora, Corpus("broken", (gone,))]


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def take(dataset, count: int, num_workers: int = 0, **order) -> list[dict]:
    batches = loader(dataset, SampleOrder(**{"batch_size": 4} | order), 4, num_workers=num_workers)
    return list(islice(iter(batches), count))


# --- what a sample is ---------------------------------------------------------------------------------------------


def test_frame_samples(frames):
    sample = frames[7]
    shapes = {name: tuple(value.shape) for name, value in sample.items() if name != "skipped"}
    assert shapes == {"global_crops": (2, 3, 32, 32), "local_crops": (3, 3, 16, 16), "number": ()}
    assert sample["global_crops"].dtype == torch.uint8
    assert sample["number"] == 7
    assert sample["skipped"] == []


def test_clip_samples(sampling):
    sample = VideoSamples(sampling, VideoCrop(size=32), seed=1, clip_len=8, fps=4)[0]
    assert sample["clip"].shape == (8, 3, 32, 32)
    assert sample["clip"].dtype == torch.uint8


def test_mae_samples(sampling):
    crop = MultiScaleCrop(size=32, teacher_size=48)
    sample = VideoSamples(sampling, crop, seed=1, clip_len=8, fps=4)[0]
    assert sample["clip"].shape == (8, 3, 32, 32)
    assert sample["teacher_frames"].shape == (4, 3, 48, 48)


class RawFrames(VideoSamples):
    """Clips as they are."""

    def views(self, clip, random):
        return {"clip": clip}


@pytest.mark.parametrize(("clip_len", "fps"), [(1, 4.0), (8, 4.0), (5, 10.0), (16, 3.0)])
def test_a_clip_holds_the_frames_nearest_to_its_times(corpora, clip_len, fps):
    """Against sequential decoding; the longest clips are longer than the videos, whose last frame is repeated."""
    decoded = {entry.path: list(decode(entry.path)) for corpus in corpora for entry in corpus.videos}
    dataset = RawFrames(BalancedSampling(corpora), VideoCrop(), seed=1, clip_len=clip_len, fps=fps)
    for number in range(10):
        clip = dataset[number]["clip"].permute(0, 2, 3, 1).numpy()
        found = [which(image, decoded) for image in clip]
        assert len({path for path, _ in found}) == 1
        times = np.array([seconds for _, seconds in found])
        last = decoded[found[0][0]][-1].seconds
        wanted = np.minimum(times[0] + np.arange(clip_len) / fps, last)
        assert np.abs(times - wanted).max() <= 0.1 + 1e-6  # a frame's duration: half for the start, half for the rest


def which(image: np.ndarray, decoded: dict) -> tuple[Path, float]:
    for path, frames in decoded.items():
        for frame in frames:
            if np.array_equal(frame.image, image):
                return path, frame.seconds
    raise AssertionError("not a decoded frame")


@pytest.mark.parametrize("wrong", [{"clip_len": 0}, {"fps": 0}])
def test_impossible_clips_are_refused(sampling, wrong):
    with pytest.raises(ValueError, match="not a clip"):
        VideoSamples(sampling, VideoCrop(), seed=1, **wrong)


# --- repeatable ---------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_seed_and_number_alone(sampling, frames):
    again = VideoSamples(sampling, SMALL_CROPS, seed=1, open_videos=1)
    for number in (5, 3, 99, 3):  # in any order, with any decoders open
        first, second = frames[number], again[number]
        assert torch.equal(first["global_crops"], second["global_crops"])
        assert torch.equal(first["local_crops"], second["local_crops"])
    other_seed = VideoSamples(sampling, SMALL_CROPS, seed=2)[3]
    assert not torch.equal(other_seed["global_crops"], frames[3]["global_crops"])
    assert not torch.equal(frames[4]["global_crops"], frames[3]["global_crops"])


def test_the_global_generators_do_not_count(frames):
    torch.manual_seed(1)
    first = frames[3]["global_crops"]
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(frames[3]["global_crops"], first)


@pytest.mark.slow
def test_batches_do_not_depend_on_the_number_of_workers(frames):
    in_this_process = take(frames, 4)
    assert [batch["number"].tolist() for batch in in_this_process] == [list(range(k, k + 4)) for k in (0, 4, 8, 12)]
    for number, batch in enumerate(take(frames, 4, num_workers=2)):
        assert equal(batch, in_this_process[number])


def test_a_resumed_run_goes_on_with_the_same_batches(frames):
    whole = take(frames, 5)
    resumed = take(frames, 2, start=3 * 4)
    assert all(equal(first, second) for first, second in zip(whole[3:], resumed, strict=True))


def test_two_processes_see_what_one_sees(frames):
    ranks = [take(frames, 2, rank=rank, world_size=2) for rank in range(2)]
    one = list(islice(iter(loader(frames, SampleOrder(8), 8, num_workers=0)), 2))
    for step in range(2):
        for name in one[step]:
            assert torch.equal(torch.cat([ranks[rank][step][name] for rank in range(2)]), one[step][name])


def test_micro_batches_cut_the_batch_of_a_step(frames):
    order = SampleOrder(4, rank=1, world_size=2)
    batches = list(islice(iter(loader(frames, order, 2, num_workers=0)), 4))
    assert [batch["number"].tolist() for batch in batches] == [[4, 5], [6, 7], [12, 13], [14, 15]]


# --- neighbours ---------------------------------------------------------------------------------------------------


@pytest.fixture
def neighbours(sampling) -> VideoSamples:
    return VideoSamples(sampling, SMALL_CROPS, seed=1, samples_per_seek=4, neighbour_seconds=1.0)


class CountingReader(ClipReader):
    """Counts the reads."""

    reads = 0

    def read(self, path, seconds):
        self.reads += 1
        return super().read(path, seconds)


def test_neighbours_are_read_in_one_go_and_are_what_each_is_alone(neighbours):
    alone = [neighbours[number] for number in range(8)]
    neighbours.reader = CountingReader()
    batch = neighbours.__getitems__(range(8))
    assert neighbours.reader.reads == 2
    for one, other in zip(alone, batch, strict=True):
        assert one.pop("skipped") == other.pop("skipped")
        assert equal(one, other)


def test_neighbours_do_not_depend_on_where_batches_are_cut(neighbours):
    whole = neighbours.__getitems__(range(8))
    cut = [*neighbours.__getitems__(range(3)), *neighbours.__getitems__(range(3, 8))]
    assert all(torch.equal(one["global_crops"], other["global_crops"]) for one, other in zip(whole, cut, strict=True))


def test_neighbours_lie_near_each_other(neighbours):
    for group in range(0, 40, 4):
        moments = [neighbours.draw(number)[0] for number in range(group, group + 4)]
        starts = [moment.start_seconds for moment in moments]
        assert len({moment.video.path for moment in moments}) == 1
        assert 0 < max(starts) - min(starts) <= 1


def test_clips_of_neighbours_are_those_of_each(sampling):
    clips = VideoSamples(sampling, VideoCrop(size=32), seed=1, clip_len=6, fps=4, samples_per_seek=3)
    assert all(
        torch.equal(clips[number]["clip"], sample["clip"]) for number, sample in enumerate(clips.__getitems__(range(6)))
    )


def test_damage_that_one_neighbour_meets_is_not_the_others(neighbours):
    """Reading fails beyond a time: alone or together, the same samples are drawn again."""

    class Damaged(ClipReader):
        def read(self, path, seconds):
            if max(seconds) > 1.2:
                raise VideoError(path, "damaged")
            return super().read(path, seconds)

    neighbours.reader = Damaged()
    together = neighbours.__getitems__(range(16))
    assert 0 < sum(bool(sample["skipped"]) for sample in together) < 16
    for number, sample in enumerate(together):
        assert torch.equal(sample["global_crops"], neighbours[number]["global_crops"])


# --- what cannot be read ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_video_that_cannot_be_read_is_skipped_alike_and_counted(corpora, tmp_path, caplog):
    sampling = BalancedSampling(with_broken(corpora, tmp_path, seconds=5.0))
    dataset = VideoSamples(sampling, SMALL_CROPS, seed=1)
    here = loader(dataset, SampleOrder(4), 4, num_workers=0)
    there = loader(dataset, SampleOrder(4), 4, num_workers=1)
    assert all(equal(first, second) for first, second in islice(zip(here, there, strict=True), 10))
    assert here.skipped == there.skipped
    assert set(here.skipped) == {"broken/gone"}
    assert here.skipped["broken/gone"] >= 5  # a share near one third
    assert sum("broken/gone" in record.getMessage() for record in caplog.records) == 2  # once a loader


def test_other_samples_are_not_moved_by_a_skipped_video(corpora, tmp_path):
    """The next attempt draws anew; sample numbers stay where they are."""
    sampling = BalancedSampling(with_broken(corpora, tmp_path, seconds=5.0))
    dataset = VideoSamples(sampling, SMALL_CROPS, seed=1)
    assert [batch["number"].tolist() for batch in take(dataset, 3)] == [list(range(k, k + 4)) for k in (0, 4, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_when_nothing_can_be_read_it_is_an_error(tmp_path, num_workers):
    dataset = VideoSamples(BalancedSampling(with_broken([], tmp_path, seconds=5.0)), SMALL_CROPS, seed=1)
    with pytest.raises(
        UserError, match=r"^sample 0: 10 clips in a row cannot be read, of broken/gone; the last: .*gone\.mp4"
    ):
        take(dataset, 1, num_workers)


@dataclass
class Deadly(torch.utils.data.Dataset):
    """Its sample 5 takes the process down, as a decoder can."""

    def __getitem__(self, number: int) -> dict:
        if number == 5:
            os.kill(os.getpid(), 9)
        return {"number": torch.tensor(number), "skipped": []}


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_with_advice():
    with pytest.raises(UserError, match=r"a process that reads videos died .*fewer --num_workers"):
        take(Deadly(), 8, num_workers=1)


class Wrong(Deadly):
    """A mistake in the program."""

    def __getitem__(self, number: int) -> dict:
        raise RuntimeError("a mistake")


def test_mistakes_in_the_program_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a mistake"):
        take(Wrong(), 1)

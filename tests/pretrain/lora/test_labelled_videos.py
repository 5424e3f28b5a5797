"""Labelled videos of any data set: their times, the table of classes, packed folders, patients, what is left out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.video.preprocess import Preprocessing
from pretrain.annotations.phase_classes import PhaseClasses
from pretrain.lora.data import check_labelled_packs, excluded_videos
from pretrain.lora.labelled_clips import LabelledClips
from pretrain.lora.labelled_videos import choose_validation, read_labelled_videos
from pretrain.pack_videos import main as pack
from pretrain.video_data.clips import ClipReader

CLASSES = PhaseClasses(("cut", "rinse"), {"Eyes": {"Cut": "cut", "Rinse": "rinse", "Talk": None}}, Path("table.yaml"))
LEVELS = {"Cut": 40, "Rinse": 120, "Talk": 200}
PHASES = ["Talk"] * 4 + ["Cut"] * 12 + ["Rinse"] * 14  # of frames
NAMES = ("a_1", "a_2", "b_1", "b_2")


@pytest.fixture
def eyes(workspace, make_clip):
    """`eyes(seconds=None)`: a data set without a record of an import, whose frames are as bright as their phase says."""

    def make(seconds=None) -> paths.Dataset:
        dataset = paths.Dataset(workspace / "data" / "Eyes")
        dataset.ground_truth.mkdir(parents=True)
        dataset.mapping.write_text("0 Cut\n1 Rinse\n2 Talk\n")
        for number, name in enumerate(NAMES):
            frames = [np.full((32, 32, 3), LEVELS[phase] + number, np.uint8) for phase in PHASES]
            make_clip(dataset.videos / f"{name}.mp4", frames, fps=10, seconds=seconds)
            (dataset.ground_truth / f"{name}.txt").write_text("\n".join(PHASES) + "\n")
        return dataset

    return make


def clips_of(dataset: paths.Dataset, **settings) -> LabelledClips:
    """The training side of it, a frame a clip."""
    given = {"reader": ClipReader(), "preprocessing": Preprocessing(size=32), "validation_share": 0.25} | settings
    return LabelledClips([dataset], CLASSES, "train", grid_seconds=0.5, **given)


def classes_seen(clips: LabelledClips, count: int = 40) -> list[tuple[int, str]]:
    """The label of the first training samples beside the phase that their pixels show."""
    samples = [clips[number] for number in range(count)]
    levels = [float(sample["clip"].float().mean()) for sample in samples]
    shown = [min(LEVELS, key=lambda phase: abs(LEVELS[phase] - level)) for level in levels]
    return [(sample["label"], phase) for sample, phase in zip(samples, shown, strict=True)]


@pytest.mark.parametrize("steps", [None, [0.02, 0.5]], ids=["constant rate", "variable rate"])
def test_clips_show_the_phase_of_their_label_whatever_the_rate(eyes, steps):
    """Frames at 0.02 and 0.5 s in turns: their mean rate leads to others."""
    seconds = None if steps is None else np.cumsum([steps[number % 7 == 0] for number in range(len(PHASES))])
    clips = clips_of(eyes(seconds))
    assert set(classes_seen(clips)) == {(0, "Cut"), (1, "Rinse")}


def test_labels_at_a_rate_of_their_own(eyes):
    dataset = eyes()
    (dataset.root / "dataset.yaml").write_text("label_fps: 2\n")
    for name in NAMES:  # at 0, 0.5, 1, 1.5, 2, 2.5 s, of frames at 10 a second
        (dataset.ground_truth / f"{name}.txt").write_text("\n".join(PHASES[::5]) + "\n")
    (video, *_) = read_labelled_videos(dataset, CLASSES)
    # a frame takes the label nearest in time, of two equally near the earlier: frames 0 to 2 that of frame 0, 3 to 7 that of 5
    assert [video.class_at(frame) for frame in range(9)] == [-1] * 3 + [0] * 6
    assert video.num_frames == len(PHASES)


def test_a_record_of_the_importers_without_rates_will_do(eyes):
    dataset = eyes()
    record = {"format": 1, "release": "Eye surgery 2026", "videos": {name: {"frames": 30} for name in NAMES}}
    dataset.import_record.write_text(json.dumps(record))
    assert [video.name for video in read_labelled_videos(dataset, CLASSES)] == [f"Eyes/{name}" for name in NAMES]


def test_a_data_set_that_the_table_lacks_is_told_what_to_write(eyes):
    dataset = eyes()
    table = PhaseClasses(("cut",), {"Made": {"Cut": "cut"}}, Path("table.yaml"))
    with pytest.raises(
        UserError, match=r"table.yaml: expected the phases of Eyes, found only those of Made; .*--classes"
    ):
        read_labelled_videos(dataset, table)


def test_labels_of_another_length_are_refused(eyes):
    dataset = eyes()
    (dataset.ground_truth / "a_2.txt").write_text("Cut\n" * 60)
    with pytest.raises(UserError, match=r"a_2.txt: expected a label for each of 30 frames .*a_2.mp4, found 60"):
        read_labelled_videos(dataset, CLASSES)


def test_a_folder_that_is_no_data_set(workspace):
    (workspace / "data" / "Eyes").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"Eyes: expected a data set with labels, found neither manifest.json nor mapping.txt"
    ):
        read_labelled_videos(paths.Dataset(workspace / "data" / "Eyes"), CLASSES)


def test_the_videos_of_a_patient_are_on_one_side(eyes):
    dataset = eyes()
    dataset.patients.write_text("video,patient\na_1,P\nb_2,P\n")
    videos = read_labelled_videos(dataset, CLASSES)
    for share in (0.34, 0.5, 0.67):
        chosen = choose_validation(videos, share)
        assert ("Eyes/a_1" in chosen) == ("Eyes/b_2" in chosen)


# --- packed ---------------------------------------------------------------------------------------------------------


def packed(workspace: Path, fps: str = "10") -> Path:
    assert pack(["--videos", "Eyes", "--fps", fps, "--num_processes", "0"]) == 0
    return workspace / "data" / "packed" / "Eyes"


def test_packed_videos_give_the_same_clips_without_the_videos(eyes, workspace):
    dataset = eyes()
    folder = packed(workspace)
    expected = clips_of(dataset)
    found = clips_of(dataset, packed=[folder])
    assert [video.num_frames for video in found.videos] == [len(PHASES)] * 3
    for number in range(8):
        assert found[number]["label"] == expected[number]["label"]
        difference = found[number]["clip"].float() - expected[number]["clip"].float()
        assert difference.abs().max() <= 3  # JPEG
    for video in dataset.videos.iterdir():
        video.unlink()
    assert set(classes_seen(clips_of(dataset, packed=[folder]), 12)) == {(0, "Cut"), (1, "Rinse")}


def test_packed_videos_of_a_rate_that_varies_keep_their_times(eyes, workspace):
    seconds = np.cumsum([0.5 if number % 7 == 0 else 0.02 for number in range(len(PHASES))])
    dataset = eyes(seconds)
    folder = packed(workspace, fps="0")
    shutil.rmtree(dataset.videos)
    (video, *_) = read_labelled_videos(dataset, CLASSES, [folder])
    assert video.seconds == pytest.approx(seconds, abs=1e-5)


def test_what_an_earlier_version_packed_does_not_say_the_times(eyes, workspace):
    dataset = eyes()
    record = packed(workspace) / "a_1.json"
    content = json.loads(record.read_text())
    del content["timeline"]
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a_1.tar: .*does not say when the frames .* pack this video again"):
        read_labelled_videos(dataset, CLASSES, [record.parent])


def test_packed_folders_are_held_against_the_clips(eyes, workspace, make_clip):
    dataset = eyes()
    folder = packed(workspace, fps="2")
    with pytest.raises(
        UserError, match=r"corpus Eyes: packed with 2 frames a second, expected at least the 4 of the clips"
    ):
        check_labelled_packs([dataset], [folder], fps=4.0, size=32)
    check_labelled_packs([dataset], [folder], fps=None, size=32)
    other = paths.Dataset(workspace / "data" / "Others")
    with pytest.raises(UserError, match=r"expected videos of Others, found those of Eyes"):
        check_labelled_packs([other], [folder], fps=None, size=32)


# --- what is left out -----------------------------------------------------------------------------------------------


def test_the_videos_of_a_list_are_left_out(eyes, workspace):
    dataset = eyes()
    bundle = dataset.root / "splits" / "test.split1.bundle"
    bundle.parent.mkdir()
    bundle.write_text("a_2.txt\nb_1.txt\n")
    for folders in ([], [packed(workspace)]):
        left_out = excluded_videos([dataset], CLASSES, [str(bundle)], folders)
        assert left_out == {"Eyes/a_2", "Eyes/b_1"}
    clips = clips_of(dataset, left_out=left_out, validation_share=0.5)
    assert {video.name for video in clips.videos} < {"Eyes/a_1", "Eyes/b_2"}

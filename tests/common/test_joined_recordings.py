"""A recording whose timestamps start again in the middle, from the file to its phases: the same as without that."""

import csv
import shutil

import numpy as np
import pytest

from common.base import paths
from common.extract_features import main as extract_main
from common.predict_video import main as predict_main
from common.train import main as train_main
from tests.common import odd_videos

pytestmark = pytest.mark.slow

RED, BLUE = (200, 30, 30), (30, 30, 200)
LENGTH, HALF = 150, 75
TRAINING = {"train1": (50, 125), "train2": (75, 100), "train3": (100, 75), "train4": (125, 50)}  # frames red, blue
SIZES = ["--num_layers_PG", "5", "--num_layers_R", "5", "--num_R", "1", "--num_f_maps", "32"]
HEAD = [*SIZES, "--num_epochs", "60", "--lr", "2e-3"]


def coloured(path, *parts):
    """A video of so many frames of each colour."""
    pictures = [np.full((*odd_videos.SIZE, 3), colour, np.uint8) for colour, count in parts for _ in range(count)]
    return odd_videos.write_pictures(path, pictures)


def make_data_set(root):
    """Training videos that turn from red to blue, and two to predict: one whole, one of two joined parts."""
    for folder in ("videos", "groundTruth", "groundTruth_val"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 red\n1 blue\n")

    def labels(folder, name, red, blue):
        (root / folder / f"{name}.txt").write_text("red\n" * red + "blue\n" * blue)

    for name, (red, blue) in TRAINING.items():
        coloured(root / "videos" / f"{name}.mp4", (RED, red), (BLUE, blue))
        labels("groundTruth", name, red, blue)
    coloured(root / "videos" / "plain.mp4", (RED, HALF), (BLUE, HALF))
    parts = [coloured(root / "red.ts", (RED, HALF)), coloured(root / "blue.ts", (BLUE, HALF))]
    odd_videos.joined(*parts, root / "videos" / "joined.ts")
    for name in ("plain", "joined"):
        labels("groundTruth_val", name, HALF, HALF)


@pytest.fixture(scope="module", params=["made", "case"])
def red_and_blue(request, tmp_path_factory, checkout):
    """The data set with a head that has learned and predicted it; the variable that names its root stays set."""
    root = tmp_path_factory.mktemp("root")
    (root / "models" / "ColorHistogram").mkdir(parents=True)
    shutil.copy(checkout / "models" / "ColorHistogram" / "config.yaml", root / "models" / "ColorHistogram")
    dataset = paths.Dataset(root / "data" / "redblue")
    if request.param == "made":
        make_data_set(dataset.root)
    else:
        case = request.getfixturevalue("reference_data") / "cases" / "video" / "redblue"
        if not case.is_dir():
            pytest.skip(f"no {case}")
        shutil.copytree(case, dataset.root, copy_function=shutil.copyfile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root))
        words = ["--dataset", "redblue", "--device", "cpu"]
        assert extract_main(words, model="ColorHistogram") == 0
        for action in ("train", "predict"):
            head = HEAD if action == "train" else []
            assert train_main([*words, "--model", "ColorHistogram", "--split", "val", "--action", action, *head]) == 0
        yield dataset


@pytest.mark.parametrize("name", ["plain", "joined"])
def test_both_have_as_many_frames_of_each_phase(red_and_blue, name):
    folder = paths.model("ColorHistogram").split_results("redblue", "val")
    phases = (folder / f"{name}.txt").read_text().splitlines()[1].split()
    assert phases == ["red"] * HALF + ["blue"] * HALF
    assert np.load(folder / f"{name}.npy").shape == (LENGTH, 2)


@pytest.mark.parametrize("name", ["plain.mp4", "joined.ts"])
def test_segments_follow_each_other_in_time(red_and_blue, tmp_path, name):
    video = red_and_blue.videos / name
    words = ["--model", "ColorHistogram", "--dataset", "redblue", "--device", "cpu", "--output", str(tmp_path)]
    assert predict_main([str(video), *words]) == 0
    with (tmp_path / f"{video.stem}_segments.csv").open(newline="") as stream:
        red, blue = csv.DictReader(stream)
    start = float(red["start_seconds"])
    assert [red["phase"], blue["phase"]] == ["red", "blue"]
    edges = [red["start_seconds"], red["end_seconds"], blue["start_seconds"], blue["end_seconds"]]
    assert [float(edge) - start for edge in edges] == pytest.approx([0, 3, 3, 6], abs=2e-3)

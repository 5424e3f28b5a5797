"""From feature files to a file of clusters that balanced sampling reads."""

import unicodedata

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.features.files import FeatureWriter
from common.video.timeline import Timeline
from pretrain.cluster_videos import main
from pretrain.video_data.clusters import read_clusters

FPS = 2.0


@pytest.fixture
def dataset(workspace) -> paths.Dataset:
    """Two videos of 16 s whose halves look different, the second video the other way round."""
    made = paths.Dataset(workspace / "data" / "made")
    made.root.mkdir()
    for name, halves in (("a", (0, 1)), ("b", (1, 0))):
        rows = np.random.default_rng(ord(name)).normal(0, 0.05, (32, 8)).astype(np.float32)
        rows[np.arange(32), np.repeat(halves, 16)] += 1
        weights = {"source": "none", "file": None, "sha256": None}
        sidecar = {
            "encoder": "X", "weights": weights, "pooling": "made", "window": None, "preprocessing": {},
            "sampling": {"fps": None}, "dtype": "float32", "decoder": "pyav",
            "timeline": Timeline(3.0 + np.arange(32) / FPS, np.arange(32)).to_json(),
        }  # fmt: skip
        with FeatureWriter(made.features("X") / f"{name}.npy", 8, "float32") as writer:
            writer.append(rows)
            writer.finish(sidecar)
    return made


def run(*words: str) -> int:
    return main(["--dataset", "made", "--encoder", "X", "--levels", "4,2", "--clip_seconds", "4", *words])


def test_clips_that_look_alike_share_a_cluster_and_neighbours_are_one_segment(dataset, capsys):
    assert run() == 0
    clusters = read_clusters(paths.pretraining_checkpoints() / "clusters.json")
    (first, second), (third, fourth) = clusters["made/a"], clusters["made/b"]
    assert [(segment.start_seconds, segment.end_seconds) for segment in (first, second)] == [(0, 8), (8, 16)]
    assert first.cluster == fourth.cluster != second.cluster == third.cluster
    assert "8 clips in 2 clusters of 4 to 4" in capsys.readouterr().out


def test_the_file_can_be_named(dataset, tmp_path):
    run("--output", str(tmp_path / "mine.json"))
    assert set(read_clusters(tmp_path / "mine.json")) == {"made/a", "made/b"}


def test_without_features_it_says_how_to_make_them(dataset):
    with pytest.raises(UserError, match=r"no features; run: python models/Y/extract_features\.py --dataset made"):
        main(["--dataset", "made", "--encoder", "Y"])


def test_features_belong_to_a_video_however_its_accents_are_encoded(dataset, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    folder = dataset.features("X")
    for suffix in (".npy", ".json"):
        (folder / f"a{suffix}").rename(folder / f"{decomposed}{suffix}")
    (folder / "._b.npy").write_bytes(b"\x00\x05\x16\x07")
    dataset.videos.mkdir()
    (dataset.videos / f"{composed}.mp4").touch()
    run("--output", str(tmp_path / "mine.json"))
    assert set(read_clusters(tmp_path / "mine.json")) == {f"made/{composed}", "made/b"}


def test_a_video_without_features_is_named(dataset):
    dataset.videos.mkdir()
    (dataset.videos / "c.mp4").touch()
    with pytest.raises(UserError, match="no features of 1 videos, such as c"):
        run()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--levels", "4,x"], "--levels 4,x: expected whole numbers"), (["--clip_seconds", "0"], "clip_seconds must be")],
)
def test_bad_options_are_named(dataset, words, message):
    with pytest.raises(UserError, match=message):
        run(*words)


def test_more_clusters_than_clips_is_an_error(dataset):
    with pytest.raises(UserError, match="each must be fewer"):
        run("--levels", "100,2")

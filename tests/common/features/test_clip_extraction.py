"""Clip encoders through the whole extraction, on tiny networks of the real classes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.extract_features import main
from common.features import files as features
from common.head.batch_gen import open_video
from common.train import main as train_main
from common.video.decode import decode
from common.video.preprocess import resize

TINY = {
    "I3D": {
        "architecture: i3d_r50": "architecture: tiny",
        "feature_dim: 2048": "feature_dim: 128",
        "size: 224": "size: 64",
    },
    "V-JEPA2-ViT-L": {
        "architecture: vjepa2-vitl": "architecture: tiny",
        "feature_dim: 1024": "feature_dim: 48",
        "size: 256": "size: 32",
        "clip_len: 64": "clip_len: 8",
    },
}


@pytest.fixture
def clips(workspace, make_clip):
    """A data set of two videos (21 frames, and 3: shorter than any window), and model folders with tiny networks."""
    random = np.random.default_rng(0)
    for name, count in (("BL_0", 21), ("BL_1", 3)):
        images = random.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        make_clip(workspace / "data" / "clips" / "videos" / f"{name}.mp4", list(images))
    for model, changes in TINY.items():
        path = workspace / "models" / model / "config.yaml"
        text = path.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
    return paths.dataset("clips")


def run(model, *options):
    return main(["--dataset", "clips", "--device", "cpu", "--weights", "random", *options], model=model)


def rows(clips, model, variant=None, name="BL_0"):
    return features.open_features(clips.features(model, variant) / f"{name}.npy").array.T


def windows_by_hand(clips, model, clip_len, centres):
    window = np.arange(clip_len) - clip_len // 2
    return clips_by_hand(clips, model, clip_len, [np.clip(window + centre, 0, 20) for centre in centres])


def clips_by_hand(clips, model, clip_len, windows):
    """Features of clips of these frames of the first video, each encoded alone."""
    config = replace(read_encoder_config(paths.model(model).config), clip_len=clip_len)
    encoder = build_encoder(config, "random")
    encoder.prepare(torch.device("cpu"))
    images = [torch.from_numpy(frame.image)[None] for frame in decode(clips.videos / "BL_0.mp4")]
    frames = torch.cat([resize(image, config.preprocessing) for image in images])
    return np.concatenate([encoder.encode(frames[window][None]).numpy() for window in windows])


@pytest.mark.parametrize("model", TINY)
def test_every_frame_has_the_feature_of_the_window_around_it(clips, model):
    assert run(model, "--clip_len", "8") == 0
    expected = windows_by_hand(clips, model, 8, range(21))
    assert rows(clips, model) == pytest.approx(expected, abs=1e-5)
    assert rows(clips, model, name="BL_1").shape == (3, expected.shape[1])


def test_stride_evaluates_every_nth_frame_and_the_last_and_interpolates(clips):
    run("I3D", "--clip_len", "8", "--stride", "6")
    found = rows(clips, "I3D")
    evaluated = [0, 6, 12, 18, 20]
    expected = windows_by_hand(clips, "I3D", 8, evaluated)
    assert found[evaluated] == pytest.approx(expected, abs=1e-5)
    assert found[9] == pytest.approx((found[6] + found[12]) / 2, abs=1e-5)
    assert found[19] == pytest.approx((found[18] + found[20]) / 2, abs=1e-5)


def test_the_sidecar_describes_the_window(clips):
    run("I3D", "--clip_len", "8", "--stride", "6")
    window = features.open_features(clips.features("I3D") / "BL_0.npy").sidecar["window"]
    assert window == {
        "clip_len": 8, "dilation": 1, "padding": "edge frames repeated", "mode": "window", "stride": 6,
        "spacing": None, "anchor": "clip_len // 2", "between": "linear",
    }  # fmt: skip


def test_tokens_give_one_row_a_frame_and_pairs_of_frames_share_a_token(clips):
    run("V-JEPA2-ViT-L", "--mode", "tokens")
    found = rows(clips, "V-JEPA2-ViT-L")
    assert found.shape == (21, 48)
    assert found[0] == pytest.approx(found[1])  # only the first clip covers them, as one tubelet
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert features.open_features(clips.features("V-JEPA2-ViT-L") / "BL_0.npy").sidecar["window"]["tubelet"] == 2


def test_windows_of_frames_that_lie_apart_in_time(clips):
    """8 frames 0.25 s apart out of 21 at 25 a second; the folder carries the spacing."""
    run("I3D", "--clip_len", "8", "--clip_spacing", "0.25")
    steps = [round(25 * 0.25 * (index - 4) - 1e-6) for index in range(8)]  # of two equally near frames the earlier
    frames = [[min(max(frame + step, 0), 20) for step in steps] for frame in range(21)]
    assert rows(clips, "I3D", "spacing0.25") == pytest.approx(clips_by_hand(clips, "I3D", 8, frames), abs=1e-5)
    sidecar = features.open_features(clips.features("I3D", "spacing0.25") / "BL_0.npy").sidecar
    assert (sidecar["window"]["spacing"], sidecar["recipe"]) == (0.25, "own")


def test_spacing_does_not_depend_on_which_frames_get_a_feature(clips):
    """At 5 a second every fifth frame has one; its window still holds the frames between."""
    words = ("--clip_len", "8", "--clip_spacing", "0.04")
    run("I3D", *words, "--fps", "5", "--variant", "some")
    run("I3D", *words, "--variant", "every")
    some = features.open_features(clips.features("I3D", "some") / "BL_0.npy")
    assert some.timeline.sampled.tolist() == [0, 5, 10, 15, 20]
    assert pytest.approx(rows(clips, "I3D", "every")[some.timeline.sampled], abs=1e-5) == some.array.T


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["--clip_spacing", "0.1"], ["--clip_spacing", "0.1", "--anchor", "end", "--stride", "4"], ["--clip_spacing", "0.1", "--mode", "tokens"]],
    ids=["centre", "end", "tokens"],
)  # fmt: skip
def test_spaced_features_depend_on_no_batch_and_no_share_of_the_work(clips, words):
    run("V-JEPA2-ViT-L", *words, "--variant", "whole")
    for variant, options in (("one", [["--batch_size", "1"]]), ("shards", [["--shard", "1/2"], ["--shard", "2/2"]])):
        for given in options:
            run("V-JEPA2-ViT-L", *words, *given, "--variant", variant)
        for name in ("BL_0", "BL_1"):
            expected = rows(clips, "V-JEPA2-ViT-L", "whole", name)
            assert rows(clips, "V-JEPA2-ViT-L", variant, name) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_spacing_of_the_video_itself_gives_the_windows_of_neighbours(clips):
    for model in TINY:
        for mode in ["window"] if model == "I3D" else ["window", "tokens"]:
            words = ("--clip_len", "8", "--mode", mode)
            run(model, *words, "--variant", f"near-{mode}")
            run(model, *words, "--clip_spacing", "0.04", "--variant", f"apart-{mode}")
            near, apart = (rows(clips, model, f"{variant}-{mode}") for variant in ("near", "apart"))
            assert near.tobytes() == apart.tobytes()


def test_a_window_that_ends_with_its_frame_sees_nothing_later(clips, make_clip, workspace):
    random = np.random.default_rng(0)  # the frames of BL_0, but for the last ten
    images = random.integers(0, 255, (21, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    images[11:] = 255 - images[11:]
    make_clip(clips.videos / "BL_2.mp4", list(images))
    for spacing in ([], ["--clip_spacing", "0.1"]):
        variant = "ends" + "".join(spacing[1:])
        run("I3D", "--clip_len", "4", "--anchor", "end", *spacing, "--variant", variant)
        one, other = (rows(clips, "I3D", variant, name) for name in ("BL_0", "BL_2"))
        # equal up to what the codec carries back from later frames
        assert one[:8] == pytest.approx(other[:8], abs=float(1e-2 * np.abs(one).max()))
        assert np.abs(one[13:] - other[13:]).max() > 10 * np.abs(one[:8] - other[:8]).max()
        video = open_video(clips.features("I3D", variant) / "BL_0.npy", 128)
        assert video.look_ahead_seconds == 0


@pytest.mark.slow
def test_seconds_of_looking_ahead(clips):
    """Of windows of 8 frames, 3 lie after the one in the middle; of a clip's tokens the first sees all others."""
    for model, words, seconds in (
        ("I3D", ["--clip_len", "8"], 3 / 25),
        ("I3D", ["--clip_len", "8", "--clip_spacing", "0.2"], 0.6),
        ("I3D", ["--clip_len", "8", "--clip_spacing", "0.2", "--stride", "5"], 0.6 + 4 / 25),
        ("V-JEPA2-ViT-L", ["--mode", "tokens"], 7 / 25),
        ("V-JEPA2-ViT-L", ["--mode", "tokens", "--clip_spacing", "0.2"], 7 * 0.2 + 0.1),
    ):
        run(model, *words, "--variant", "v", "--force")
        video = open_video(clips.features(model, "v") / "BL_0.npy", 128 if model == "I3D" else 48)
        assert video.look_ahead_seconds == pytest.approx(seconds, abs=1e-3)


def test_the_authors_windows_have_a_folder_of_their_own(clips):
    run("V-JEPA2-ViT-L")
    run("V-JEPA2-ViT-L", "--recipe", "published")
    study, published = (
        features.open_features(clips.features("V-JEPA2-ViT-L", variant) / "BL_0.npy").sidecar
        for variant in (None, "published")
    )
    assert (study["window"]["spacing"], study["recipe"]) == (None, "study")
    assert (published["window"]["spacing"], published["recipe"]) == (0.25, "published")
    with pytest.raises(UserError, match="the authors of I3D-R50 publish no other window"):
        run("I3D", "--recipe", "published")


def test_tokens_have_no_window_that_ends_with_its_frame(clips):
    with pytest.raises(UserError, match="--anchor end is for --mode window alone"):
        run("V-JEPA2-ViT-L", "--mode", "tokens", "--anchor", "end")


def test_features_of_before_there_was_a_spacing_are_used_again(clips, caplog):
    caplog.set_level("INFO")
    run("I3D", "--clip_len", "8")
    path = clips.features("I3D") / "BL_0.json"
    sidecar = json.loads(path.read_text())
    del sidecar["window"]["spacing"], sidecar["recipe"]
    path.write_text(json.dumps(sidecar))
    assert run("I3D", "--clip_len", "8") == 0
    assert "0 extracted, 2 already there" in caplog.text


def test_tokens_need_an_encoder_that_has_them(clips):
    with pytest.raises(UserError, match="I3D-R50 gives no features over time"):
        run("I3D", "--mode", "tokens")


def test_another_window_is_not_mixed_with_finished_features(clips):
    run("I3D", "--clip_len", "8")
    with pytest.raises(UserError, match="window: "):
        run("I3D", "--clip_len", "4")


def test_new_videos_are_predicted_from_features_made_like_the_training_ones(clips, make_clip, tmp_path):
    run("I3D", "--clip_len", "8", "--stride", "5", "--variant", "strided")
    (clips.root / "mapping.txt").write_text("0 background\n1 wash\n")
    for folder in (clips.ground_truth, clips.ground_truth_val):
        folder.mkdir()
        (folder / "BL_0.txt").write_text("background\n" * 9 + "wash\n" * 12)
    words = ["--dataset", "clips", "--model", "I3D", "--device", "cpu", "--split", "val", "--variant", "strided"]
    words += ["--num_layers_PG", "2", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "4", "--num_epochs", "1"]
    train_main(words)
    images = np.random.default_rng(3).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    make_clip(tmp_path / "new" / "case.mp4", list(images))
    assert train_main([*words, "--action", "predict", "--videos", str(tmp_path / "new")]) == 0
    results = paths.model("I3D").unlabelled_results("clips", "new", "val", "strided")
    own = paths.Dataset(results.parent).features("I3D", "strided") / "case.npy"
    made = features.open_features(own)
    trained = features.open_features(clips.features("I3D", "strided") / "BL_0.npy")
    assert made.identity() == trained.identity()
    assert made.identity()["window"]["stride"] == 5
    predicted = (results / "case.npy").read_bytes()

    # features with another window, under the same name in the data set's folder: neither used nor replaced
    run("I3D", "--clip_len", "8", "--stride", "2", "--variant", "strided", "--videos", str(tmp_path / "new"), "--force")
    other = (clips.features("I3D", "strided") / "case.npy").read_bytes()
    own.unlink()
    assert train_main([*words, "--action", "predict", "--videos", str(tmp_path / "new")]) == 0
    assert (results / "case.npy").read_bytes() == predicted
    assert (clips.features("I3D", "strided") / "case.npy").read_bytes() == other

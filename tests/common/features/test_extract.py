"""Extraction on real video files: contents, sidecars, reuse, and every kind of bad video."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import av
import numpy as np
import pytest
import torch

from common.base import content, paths
from common.base.failures import read_failure
from common.base.files import sha256_of_file
from common.base.paths import failure_note
from common.base.runtime import UserError
from common.encoders.base import ImageEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.weights import load as load_module
from common.extract_features import main
from common.features import files as features
from common.features.config import extraction_like
from common.head.experiment import load_experiment
from common.video.decode import decode
from common.video.preprocess import resize
from tests.common import odd_videos
from tests.common.work import counting


@pytest.fixture
def clips(workspace, make_clip):
    """A data set `clips` of three short videos whose colours change over time."""
    folder = workspace / "data" / "clips" / "videos"
    random = np.random.default_rng(0)
    for index, num_frames in enumerate((37, 20, 5)):
        images = random.integers(0, 255, (num_frames, 1, 1, 3), dtype=np.uint8).repeat(48, 1).repeat(64, 2)
        make_clip(folder / f"BL_{index}.mp4", list(images))
    return paths.dataset("clips")


def run(*options, model="ColorHistogram"):
    return main(["--dataset", "clips", "--device", "cpu", *options], model=model)


def opened(clips, name, model="ColorHistogram", variant=None):
    return features.open_features(clips.features(model, variant) / f"{name}.npy")


def test_one_vector_a_decoded_frame_equal_to_encoding_each_frame_alone(clips):
    assert run() == 0
    file = opened(clips, "BL_0")
    encoder = build_encoder(read_encoder_config(paths.model("ColorHistogram").config))
    encoder.prepare(torch.device("cpu"), "fp32")
    frames = [torch.from_numpy(frame.image) for frame in decode(clips.videos / "BL_0.mp4")]
    alone = [encoder.encode(resize(frame[None], encoder.preprocessing))[0].numpy() for frame in frames]
    assert file.array.shape == (48, 37)
    assert file.array.dtype == np.float32
    assert np.array_equal(file.array.T, np.stack(alone))


def test_an_extraction_builds_its_encoder_once_with_values_and_a_finished_one_starts_no_process(clips):
    with counting() as first:
        run("--num_decoders", "1")
    assert sum(first.built.values()) == 2, "without values, which tells what the features are, and with them"
    assert not first.processes_but_git
    with counting() as again:
        run()
    assert sum(again.built.values()) == 1
    assert not again.processes


def test_the_sidecar_says_how_features_were_made(clips):
    run()
    sidecar = opened(clips, "BL_1").sidecar
    assert sidecar["encoder"] == "ColorHistogram"
    assert sidecar["weights"]["source"] == "none"
    assert sidecar["preprocessing"]["size"] == 112
    assert sidecar["decoder_version"].startswith("av ")
    assert sidecar["timeline"]["num_frames"] == 20
    assert sidecar["timeline"]["fps"] == pytest.approx(25)
    assert sidecar["batch_size"] == 16
    assert sidecar["sha256"] == sha256_of_file(clips.features("ColorHistogram") / "BL_1.npy")
    assert {"commit", "dirty"} == sidecar["git"].keys()


def test_finished_files_are_skipped_and_force_makes_them_again(clips):
    run()
    path = clips.features("ColorHistogram") / "BL_0.npy"
    before = path.stat().st_mtime_ns
    run()
    assert path.stat().st_mtime_ns == before
    run("--force")
    assert path.stat().st_mtime_ns > before


@pytest.mark.slow
def test_where_everything_is_finished_no_weights_are_read(clips):
    """7B are minutes of reading; that a video is finished is known from the hash of its weights."""
    model = "EfficientNet-Lite0"
    assert run(model=model) == 0
    reading = {"hashes": (content, "sha256_of_file"), "checksums": (zipfile.ZipFile, "testzip")}
    with counting(loads=(load_module, "load_strictly"), **reading) as finished:
        assert run(model=model) == 0
    assert not finished.calls, "the file is read for its names, and its hash is remembered"
    (clips.features(model) / "BL_2.npy").unlink()
    with counting(loads=(load_module, "load_strictly")) as one_left:
        assert run(model=model) == 0
    assert one_left.calls["loads"] == 1


def test_features_of_a_video_that_was_replaced_are_made_again(clips, make_clip, solid, caplog):
    run()
    make_clip(clips.videos / "BL_1.mp4", solid((200, 10, 30), 9))
    assert run() == 0
    assert "BL_1.npy: made from another file than BL_1.mp4 is now; made again" in caplog.text
    assert opened(clips, "BL_1").array.shape[1] == 9


def test_reuse_under_other_options_is_an_error_that_names_the_difference(clips):
    run()
    with pytest.raises(UserError, match=r"sampling: \{'fps': None\} in the file, \{'fps': 5.0\} now.*--variant"):
        run("--fps", "5")
    run("--fps", "5", "--variant", "5fps")
    assert opened(clips, "BL_0").array.shape[1] == 37
    assert opened(clips, "BL_0", variant="5fps").array.shape[1] < 10


def test_fps_takes_the_frames_nearest_to_the_grid(clips):
    run()
    run("--fps", "5", "--variant", "5fps")
    every, sampled = opened(clips, "BL_0"), opened(clips, "BL_0", variant="5fps")
    # 25 fps video, a grid point each 0.2 s = each fifth frame
    assert sampled.timeline.sampled.tolist() == list(range(0, 37, 5))
    assert np.array_equal(sampled.array, every.array[:, ::5])
    assert sampled.timeline.num_frames == 37


def test_float16_files(clips):
    run("--dtype", "float16")
    assert opened(clips, "BL_0").array.dtype == np.float16


@pytest.mark.slow
def test_random_weights_are_recorded(clips):
    run("--weights", "random", "--variant", "random", model="EfficientNet-Lite0")
    assert opened(clips, "BL_2", "EfficientNet-Lite0", "random").sidecar["weights"]["source"] == "random"


@pytest.fixture
def two_widths(workspace, tmp_path):
    """A model folder `Mine` of 64 values whose named weights `wide` are of another network, of 192; both as files."""
    import timm

    networks = {"small": "test_vit.r160_in1k", "wide": "vit_tiny_patch16_224"}
    for name, architecture in networks.items():
        torch.save(timm.create_model(architecture, num_classes=0, img_size=64).state_dict(), tmp_path / f"{name}.pth")
    (workspace / "models" / "Mine").mkdir()
    (workspace / "models" / "Mine" / "config.yaml").write_text(
        f"""
family: timm
timm: {networks["small"]}
weights: {tmp_path}/small.pth
preprocessing: {{size: 64}}
named_weights:
  wide: {{timm: {networks["wide"]}, weights: {tmp_path}/wide.pth}}
  same: {tmp_path}/small.pth
"""
    )
    return "Mine"


def test_named_weights_bring_their_network_and_go_into_a_folder_of_their_name(clips, two_widths, tmp_path):
    run(model=two_widths)
    run("--weights", "wide", "--pooling", "mean", model=two_widths)
    assert opened(clips, "BL_2", two_widths).array.shape == (64, 5)
    wide = opened(clips, "BL_2", two_widths, "wide")
    assert wide.array.shape == (192, 5)
    assert (wide.sidecar["pooling"], wide.sidecar["weights"]["source"]) == ("mean", f"{tmp_path}/wide.pth")


@pytest.mark.slow
def test_a_file_of_ones_own_for_the_network_of_named_weights(clips, two_widths, tmp_path):
    """The record keeps the name, so that the same options come out of it again."""
    own = tmp_path / "own.pth"
    torch.save({"student": torch.load(tmp_path / "wide.pth", weights_only=True), "teacher": {"x": torch.ones(1)}}, own)
    run("--weights", "wide", model=two_widths)
    expected = opened(clips, "BL_2", two_widths, "wide").array
    run("--weights", f"wide={own}::student", "--variant", "own", model=two_widths)
    made = opened(clips, "BL_2", two_widths, "own")
    assert np.array_equal(made.array, expected)
    again = extraction_like(made.sidecar, read_encoder_config(paths.model(two_widths).config))
    assert again.weights == f"wide={own}::student"
    run("--weights", again.weights, "--variant", "own", model=two_widths)


def test_without_a_variant_it_shares_the_folder_of_the_name_and_is_not_mixed(clips, two_widths, tmp_path):
    run("--weights", f"wide={tmp_path}/wide.pth", model=two_widths)
    assert opened(clips, "BL_2", two_widths, "wide").array.shape == (192, 5)
    run("--weights", "wide", model=two_widths)  # the same file
    other = {key: value + 1 for key, value in torch.load(tmp_path / "wide.pth", weights_only=True).items()}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"weights: .*wide\.pth"):
        run("--weights", f"wide={tmp_path}/other.pth", model=two_widths)


@pytest.mark.parametrize(
    ("given", "complaint"), [("random", "expected wide=FILE, found 'random'"), ("", "no such file")]
)
def test_what_is_no_file_for_named_weights_is_said(clips, two_widths, given, complaint):
    with pytest.raises(UserError, match=complaint):
        run("--weights", f"wide={given}", model=two_widths)


def test_a_variant_that_is_asked_for_and_the_models_own_weights_keep_their_folder(clips, two_widths):
    run("--weights", "wide", "--variant", "mine", model=two_widths)
    run("--weights", "same", model=two_widths)
    made = sorted(folder.name for folder in (clips.root / "features").iterdir())
    assert made == ["Mine", "Mine@mine"]


def test_a_head_knows_the_width_of_a_variant_by_its_name(made, two_widths):
    """Of every other one it is that of the model's own weights."""
    widths = {
        variant: load_experiment(made.config(model=two_widths, variant=variant, features_dim=None)).config.features_dim
        for variant in (None, "wide", "other")
    }
    assert widths == {None: 64, "wide": 192, "other": 64}


def test_unreadable_videos_are_named_others_go_on_and_the_exit_code_is_1(clips, caplog):
    caplog.set_level("INFO")
    (clips.videos / "BN_bad.mp4").write_bytes(b"not a video" * 100)
    whole = (clips.videos / "BL_0.mp4").read_bytes()
    (clips.videos / "BN_cut.mp4").write_bytes(whole[: len(whole) // 3])
    assert run() == 1
    assert "3 extracted, 0 already there, 2 failed" in caplog.text
    assert "BN_bad.mp4: cannot be decoded" in caplog.text
    assert "BN_cut.mp4: cannot be decoded" in caplog.text
    assert sorted(path.name for path in clips.features("ColorHistogram").glob("BN*")) == []


def test_the_exit_code_is_3_when_every_video_fails(clips):
    for path in clips.videos.glob("*.mp4"):
        path.write_bytes(b"")
    assert run() == 3


def test_a_bad_video_is_quarantined_with_its_reason_until_it_is_put_right(clips, make_clip, solid):
    (clips.videos / "BN_bad.mp4").write_bytes(b"not a video")
    run()
    note = clips.features("ColorHistogram") / "quarantine" / "BN_bad.json"
    assert json.loads(note.read_text())["frames_given"] == 0
    make_clip(clips.videos / "BN_bad.mp4", solid((10, 20, 30), 4))
    assert run() == 0
    assert not note.exists()


def damaged_copy(clips, name="BL_7"):
    """A damaged video among the others: a place in it does not decode."""
    whole = odd_videos.write(clips.root / "whole.mp4", options={"x264-params": "keyint=30:bframes=0", "qp": "20"})
    return odd_videos.overwritten(whole, clips.videos / f"{name}.mp4", length=6000)


def test_a_damaged_video_is_quarantined_with_both_numbers_and_the_others_go_on(clips):
    damaged_copy(clips)
    assert run() == 1
    folder = clips.features("ColorHistogram")
    note = json.loads((folder / "quarantine" / "BL_7.json").read_text())
    assert note["frames_promised"] == 60
    assert 0 < note["frames_given"] < 60
    assert "60 frames promised" in note["reason"]
    assert sorted(path.name for path in folder.glob("*.npy")) == ["BL_0.npy", "BL_1.npy", "BL_2.npy"]
    assert list(folder.glob("*.partial")) == []


def test_a_damaged_video_is_extracted_where_that_is_asked_for_and_marked(clips):
    damaged_copy(clips)
    assert run("--accept_damaged") == 0
    file = opened(clips, "BL_7")
    record = file.sidecar["decoding"]
    assert file.array.shape[1] == file.timeline.num_frames < record["promised_frames"] == 60
    assert record["decode_errors"] > 0
    assert "60 frames promised" in record["damage"]
    assert opened(clips, "BL_0").sidecar["decoding"]["damage"] is None


@pytest.mark.parametrize("options", [(), ("--shard", "1/1")], ids=["all", "shard"])
def test_what_is_no_file_is_named_and_stops_no_other_video(clips, caplog, options):
    (clips.videos / "BN_gone.mp4").symlink_to(clips.root / "disk_that_moved" / "BN_gone.mp4")
    os.mkfifo(clips.videos / "BN_pipe.mp4")
    (clips.videos / "BN_codec.mkv").write_bytes(
        odd_videos.write(clips.root / "whole.mkv").read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX")
    )
    for _ in range(2):  # those that are finished are skipped by their fingerprints
        assert run(*options) == 1
    assert sorted(path.name for path in clips.features("ColorHistogram").glob("*.npy")) == [
        "BL_0.npy",
        "BL_1.npy",
        "BL_2.npy",
    ]
    for reason in (
        r"BN_gone\.mp4: .*a link to .*disk_that_moved",
        r"BN_pipe\.mp4: .*not a regular file",
        r"BN_codec\.mkv",
    ):
        assert re.search(reason, caplog.text)


@pytest.mark.slow
def test_what_may_not_be_read_is_named_and_stops_no_other_video(clips):
    """A file, a folder of images, and a link into a folder: neither extraction nor audit ends at them."""
    hidden = clips.root / "hidden"
    hidden.mkdir()
    for name, folder in (("BN_file", clips.videos), ("behind", hidden)):
        shutil.copy(clips.videos / "BL_0.mp4", folder / f"{name}.mp4")
    (clips.videos / "BN_link.mp4").symlink_to(hidden / "behind.mp4")
    odd_videos.frame_folder(clips.videos / "BN_images", range(3))
    forbidden = (clips.videos / "BN_file.mp4", clips.videos / "BN_images", hidden)
    # whoever runs the tests may be allowed everything
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if powerless and not shutil.which("setpriv"):
        pytest.skip("no setpriv, which takes rights away")

    def command(module, *words):
        return subprocess.run(
            [*powerless, sys.executable, "-m", module, *words], capture_output=True, text=True, cwd=paths.CHECKOUT
        )

    for path in forbidden:
        path.chmod(0)
    try:
        words = ["--dataset", "clips", "--device", "cpu", "--model", "ColorHistogram"]
        extraction, again = (command("common.extract_features", *words) for _ in range(2))
        audit = command("common.audit", str(clips.root))
    finally:
        for path in forbidden:
            path.chmod(0o700)
    for done in (extraction, again):
        assert done.returncode == 1, done.stderr
        assert "BN_images (no right to look into it)" in done.stderr
        for name in ("BN_file", "BN_link"):
            assert re.search(rf"{name}\.mp4: .*Permission denied.*get the right to read it", done.stderr)
    assert sorted(path.stem for path in clips.features("ColorHistogram").glob("*.npy")) == ["BL_0", "BL_1", "BL_2"]
    assert "BN_link.mp4 is a link to nothing, no file, or not to be read" in " ".join(audit.stdout.split()), (
        audit.stderr
    )


def test_a_video_of_the_same_size_under_the_same_name_is_another_one(clips, solid):
    def raw(path, colour):
        """Uncompressed: equal numbers of pixels are equal numbers of bytes."""
        with av.open(str(path), "w") as made:
            stream = made.add_stream("rawvideo", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for image in solid(colour, 9):
                made.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")))
            made.mux(stream.encode())

    path = clips.videos / "BL_9.avi"
    raw(path, (200, 0, 0))
    run()
    red, size, status = opened(clips, "BL_9").array.copy(), path.stat().st_size, path.stat()
    raw(path, (0, 0, 200))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == size
    run()
    assert not np.array_equal(opened(clips, "BL_9").array, red)


def test_features_of_an_earlier_version_know_their_video_by_its_size(clips):
    run()
    sidecar = clips.features("ColorHistogram") / "BL_1.json"
    record = {
        key: value for key, value in json.loads(sidecar.read_text()).items() if key not in ("fingerprint", "decoding")
    }
    sidecar.write_text(json.dumps(record))
    before = sidecar.stat().st_mtime_ns
    assert run() == 0
    assert sidecar.stat().st_mtime_ns == before


def test_a_folder_of_numbered_images_is_a_video(clips):
    odd_videos.frame_folder(clips.videos / "BL_7", range(20), suffix=".png")
    assert run() == 0
    file = opened(clips, "BL_7")
    assert file.array.shape[1] == 20
    assert "25 a second assumed" in file.sidecar["decoding"]["notes"][0]
    assert run("--fps", "5", "--variant", "5fps") == 1  # the other videos have times
    note = clips.features("ColorHistogram", "5fps") / "quarantine" / "BL_7.json"
    assert "--fps 5: it is unknown how many images a second" in json.loads(note.read_text())["reason"]
    assert opened(clips, "BL_0", variant="5fps").array.shape[1] == 8
    clips.description.write_text("frames_fps: 10\n")
    assert run("--fps", "5", "--variant", "5fps") == 0
    assert opened(clips, "BL_7", variant="5fps").timeline.sampled.tolist() == list(range(0, 20, 2))
    run()  # at another rate it is another timeline
    assert opened(clips, "BL_7").timeline.fps == pytest.approx(10)


def test_images_have_the_features_of_a_lossless_video_of_them(clips):
    pictures = [odd_videos.numbered(number) for number in range(10)]
    odd_videos.frame_folder(clips.videos / "BL_7", range(10))
    with av.open(str(clips.videos / "BL_8.mkv"), "w") as made:
        stream = made.add_stream("libx264rgb", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "rgb24"
        stream.options = {"qp": "0"}
        for picture in pictures:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode())
    run()
    assert np.array_equal(opened(clips, "BL_7").array, opened(clips, "BL_8").array)


def test_shards_cover_every_video_once(clips):
    seen = []
    for index in (1, 2):
        run("--shard", f"{index}/2", "--variant", f"part{index}")
        seen += [path.stem for path in clips.features("ColorHistogram", f"part{index}").glob("*.npy")]
    assert sorted(seen) == ["BL_0", "BL_1", "BL_2"]


def test_a_slurm_array_shares_the_videos_without_being_told(clips, monkeypatch):
    for name, value in {"ID": "3", "MIN": "3", "MAX": "4", "COUNT": "2", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    run()
    first = {path.stem for path in clips.features("ColorHistogram").glob("*.npy")}
    assert first == {"BL_0"}  # 37 frames against 20 and 5


@pytest.mark.slow
def test_several_decoder_processes_give_the_same_bytes(clips):
    run()
    run("--num_decoders", "2", "--variant", "processes")
    for name in ("BL_0", "BL_1", "BL_2"):
        one, two = (clips.features("ColorHistogram", v) / f"{name}.npy" for v in (None, "processes"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_bf16_features_agree_with_fp32_on_real_weights_and_a_real_video(workspace, reference_data):
    videos = workspace / "data" / "clips" / "videos"
    videos.mkdir(parents=True)
    shutil.copy(reference_data / "data" / "videos" / "vi_v_GGSY1Qvo990.mp4", videos / "real.mp4")
    run("--fps", "3", model="EfficientNet-Lite0")
    run("--fps", "3", "--precision", "bf16", "--variant", "bf16", model="EfficientNet-Lite0")
    exact, fast = (opened(paths.dataset("clips"), "real", "EfficientNet-Lite0", v).array.T for v in (None, "bf16"))
    cosine = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert len(cosine) > 50
    assert cosine.min() >= 0.999
    assert not np.array_equal(exact, fast)


@pytest.mark.parametrize("options", [("--stride", "4"), ("--clip_len", "8"), ("--mode", "tokens")])
def test_window_options_are_refused_for_an_encoder_of_single_frames(clips, options):
    with pytest.raises(UserError, match="sees single frames"):
        run(*options)


def test_another_pooling_than_the_encoders_is_refused(clips):
    with pytest.raises(UserError, match="--pooling cls: EfficientNet-Lite0 has average only"):
        run("--pooling", "cls", model="EfficientNet-Lite0")


def test_a_ground_truth_without_its_video_is_reported(clips, caplog):
    clips.ground_truth.mkdir()
    (clips.ground_truth / "SD_9.txt").write_text("background\n")
    assert run() == 1
    assert "SD_9: " in caplog.text
    assert "a ground truth without a video of this name" in caplog.text


def test_an_empty_videos_folder_is_an_error(workspace):
    (workspace / "data" / "clips" / "videos").mkdir(parents=True)
    with pytest.raises(UserError, match="no video files here"):
        run()


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(clips, monkeypatch):
    append = features.FeatureWriter.append

    def until_full(writer, rows):
        if writer.path.stem == "BL_1":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(writer, rows)

    monkeypatch.setattr(features.FeatureWriter, "append", until_full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        run()
    folder = clips.features("ColorHistogram")
    assert sorted(path.name for path in folder.iterdir()) == ["BL_0.json", "BL_0.npy", failure_note(folder).name]
    assert "No space left on device" in read_failure(folder).message
    monkeypatch.setattr(features.FeatureWriter, "append", append)
    run()
    assert read_failure(folder) is None


def test_a_network_that_gives_nan_stops_with_the_files_name(clips, monkeypatch):
    monkeypatch.setattr(
        ImageEncoder, "encode", lambda self, frames: frames.float().mean((2, 3)).repeat(1, 16) * float("nan")
    )
    with pytest.raises(UserError, match=r"BL_0\.npy: the encoder gave a value that is not finite"):
        run()


def test_every_model_folder_has_the_same_thin_script_and_it_shows_its_help(checkout):
    scripts = sorted((checkout / "models").glob("*/extract_features.py"))
    assert len(scripts) == len(list((checkout / "models").glob("*/config.yaml")))
    assert len({script.read_text() for script in scripts}) == 1
    shown = subprocess.run(
        [sys.executable, "extract_features.py", "--help"], cwd=scripts[0].parent, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "--force" in shown.stdout

"""Extraction on real video files: contents, sidecars, reuse, and every kind of bad video."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError, sha256_of_file
from common.encoders.base import ImageEncoder, build_encoder
from common.encoders.config import read_encoder_config
from common.extract_features import main
from common.features import decode_ahead as decoding
from common.features import files as features
from common.video.decode import decode
from common.video.preprocess import resize
from common.video.probe import VideoError


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


def test_features_of_a_video_that_was_replaced_are_made_again(clips, make_clip, solid, caplog):
    run()
    make_clip(clips.videos / "BL_1.mp4", solid((200, 10, 30), 9))
    assert run() == 0
    assert "BL_1.npy: made from a file of" in caplog.text
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


def test_random_weights_are_recorded(clips):
    run("--weights", "random", "--variant", "random", model="EfficientNet-Lite0")
    assert opened(clips, "BL_2", "EfficientNet-Lite0", "random").sidecar["weights"]["source"] == "random"


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


def test_a_failure_in_the_middle_gives_the_frames_it_gave_and_no_features(clips, monkeypatch):
    def breaks_off(path, decoder):
        for count, frame in enumerate(decode(path, decoder)):
            if path.stem == "BL_0" and count == 21:
                raise VideoError(path, "broken stream", count)
            yield frame

    monkeypatch.setattr(decoding, "decode", breaks_off)
    assert run() == 1
    folder = clips.features("ColorHistogram")
    assert json.loads((folder / "quarantine" / "BL_0.json").read_text())["frames_given"] == 21
    assert sorted(path.name for path in folder.glob("*.npy")) == ["BL_1.npy", "BL_2.npy"]
    assert list(folder.glob("*.partial")) == []


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
    assert sorted(path.name for path in folder.iterdir()) == ["BL_0.json", "BL_0.npy"]
    monkeypatch.undo()


def test_a_network_that_gives_nan_stops_with_the_files_name(clips, monkeypatch):
    monkeypatch.setattr(
        ImageEncoder, "encode", lambda self, frames: frames.float().mean((2, 3)).repeat(1, 16) * float("nan")
    )
    with pytest.raises(UserError, match=r"BL_0\.npy: the encoder gave a value that is not finite"):
        run()


@pytest.mark.slow
def test_kill_minus_nine_then_run_again_gives_the_same_bytes(clips, workspace, make_clip):
    random = np.random.default_rng(1)
    noise = random.integers(0, 255, (300, 48, 64, 3), dtype=np.uint8)
    make_clip(clips.videos / "SD_long.mp4", list(noise))
    script = "from common.extract_features import main; main(['--dataset', 'clips', '--device', 'cpu'], model='EfficientNet-Lite0')"
    command = [sys.executable, "-c", script]
    folder = clips.features("EfficientNet-Lite0")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / ".SD_long.partial").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (folder / "BL_0.npy").is_file()
    assert not (folder / "SD_long.npy").exists()
    subprocess.run(command, check=True, capture_output=True)
    resumed = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    for path in folder.iterdir():
        path.unlink()
    subprocess.run(command, check=True, capture_output=True)
    assert resumed == {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    assert len(resumed) == 4


def test_every_model_folder_has_the_same_thin_script_and_it_shows_its_help(checkout):
    scripts = sorted((checkout / "models").glob("*/extract_features.py"))
    assert len(scripts) == len(list((checkout / "models").glob("*/config.yaml")))
    assert len({script.read_text() for script in scripts}) == 1
    shown = subprocess.run(
        [sys.executable, "extract_features.py", "--help"], cwd=scripts[0].parent, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "--force" in shown.stdout

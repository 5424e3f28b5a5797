"""The glue of all pretraining commands: corpora, record of what was seen, plan, probe, resume."""

import shutil

import numpy as np
import pytest
import torch
import torch.distributed as dist

from common.base.runtime import UserError, read_json
from common.dataset.manifest import read_manifest
from pretrain.engine.distributed import Processes
from pretrain.engine.reporting import read_metrics
from pretrain.engine.run_folder import RunFolder
from pretrain.methods.dinov3 import DINOv3Options
from pretrain.methods.self_distillation import build_frames
from pretrain.methods.vjepa2 import VJEPA2Options
from pretrain.ssl_config import find_model
from pretrain.ssl_pretrain import PretrainingCommand, first_alone
from pretrain.ssl_pretrain_dinov3 import main


@pytest.fixture
def videos(workspace, make_clip):
    """A corpus of three videos, a link to which is a data set with labels for two of them."""
    folder = workspace / "eyes"
    for number in range(3):
        frame = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        make_clip(folder / f"case_{number}.mp4", [np.roll(frame, 3 * shift, 1) for shift in range(20)], fps=10)
    return folder


@pytest.fixture
def labelled(workspace, videos):
    """`data/Labelled`: a copy of case_1 under another name, with labels."""
    root = workspace / "data" / "Labelled"
    for name in ("videos", "groundTruth"):
        (root / name).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 wash\n")
    shutil.copy(videos / "case_1.mp4", root / "videos" / "BL_7.mp4")
    (root / "groundTruth" / "BL_7.txt").write_text("wash\n" * 20)
    return root


def train(videos, output, *more: str) -> int:
    return main(
        [
            "--model", "dinov3-tiny", "--init", "random", "--videos", str(videos), "--output", str(output),
            "--num_workers", "0", "--num_local", "1", "--batch_size", "2", "--freeze_backbone_epochs", "0",
            "--max_steps", "2", "--monitor_every", "0", "--device", "cpu", *more,
        ]
    )  # fmt: skip


def command(options=None, processes=None) -> PretrainingCommand:
    options = options or DINOv3Options(model="dinov3-tiny", batch_size=2, init="random")
    return PretrainingCommand(options, find_model(options.model), processes or Processes(0, 1, torch.device("cpu")))


# what a training leaves


def test_a_training_leaves_its_files_and_says_what_it_does(workspace, videos, tmp_path, caplog):
    caplog.set_level("INFO")
    assert train(videos, tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()} - {"workspace"}
    assert names == {"export", "final.pt", "manifest.json", "metrics.jsonl"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        "config.json", "model.safetensors", "provenance.json"
    }  # fmt: skip
    assert "DINOv3 of dinov3-tiny" in caplog.text
    assert "corpus      eyes: 3 videos, 0.0 h, 100% of the samples" in caplog.text
    assert "2 steps (0.6667 epochs of 3) of 2 samples" in caplog.text
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert (workspace / "pretrain" / "checkpoints" / "video_index.json").is_file()


def test_without_an_output_the_model_s_own_folder_is_used(workspace, videos):
    train(videos, "")
    assert (workspace / "pretrain" / "checkpoints" / "ssl" / "dinov3-tiny" / "final.pt").is_file()


def test_the_manifest_lists_the_videos_and_provenance_names_it(workspace, videos, tmp_path):
    train(videos, tmp_path)
    manifest = read_manifest(tmp_path / "manifest.json")
    assert (manifest.stage, manifest.model, manifest.based_on) == ("ssl", "dinov3-tiny", ())
    assert [(video.corpus, video.name) for video in manifest.videos] == [("eyes", f"case_{n}") for n in range(3)]
    assert read_json(tmp_path / "export" / "provenance.json")["manifest_sha256"]


def test_a_training_on_an_earlier_one_s_export_names_its_manifest(workspace, videos, tmp_path):
    train(videos, tmp_path / "first")
    train(videos, tmp_path / "second", "--init", str(tmp_path / "first" / "export"), "--gram_weight", "0")
    manifest = read_manifest(tmp_path / "second" / "manifest.json")
    assert [path.resolve() for path in manifest.based_on] == [(tmp_path / "first" / "manifest.json").resolve()]
    start, end = (read_json(tmp_path / name / "export" / "provenance.json") for name in ("second", "first"))
    assert start["init"]["source"] == str(tmp_path / "first" / "export")
    assert end["init"]["source"] == "random"


# videos that must not be seen


def test_videos_with_labels_are_named_with_the_way_to_leave_them_out(workspace, videos, labelled, tmp_path, caplog):
    train(videos, tmp_path)
    assert "Labelled: 1 video of it with labels will be learned from (BL_7)" in caplog.text
    assert "--exclude Labelled, or the .bundle of a test fold" in caplog.text


def test_excluded_videos_are_left_out_under_any_name(workspace, videos, labelled, tmp_path, caplog):
    train(videos, tmp_path, "--exclude", "Labelled")
    assert [video.name for video in read_manifest(tmp_path / "manifest.json").videos] == ["case_0", "case_2"]
    assert "will be learned from" not in caplog.text


def test_a_training_does_not_go_on_with_other_videos(workspace, videos, labelled, tmp_path):
    train(videos, tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    message = r"learns from 3 videos, of which 1 are not in the corpora now, and 0 are new; give the same --videos"
    with pytest.raises(UserError, match=message):
        train(videos, tmp_path, "--max_steps", "4", "--exclude", "Labelled")
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_it_goes_on_with_the_same_videos_wherever_they_lie_now(workspace, videos, tmp_path):
    train(videos, tmp_path)
    moved = videos.rename(workspace / "moved")
    assert train(moved, tmp_path, "--max_steps", "4") == 0
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_manifest_without_a_checkpoint_is_of_a_training_that_never_was(workspace, videos, labelled, tmp_path):
    with pytest.raises(UserError, match="KoLeo"):
        train(videos, tmp_path, "--batch_size", "1")
    assert len(read_manifest(tmp_path / "manifest.json").videos) == 3
    train(videos, tmp_path, "--exclude", "Labelled")
    assert len(read_manifest(tmp_path / "manifest.json").videos) == 2


# steps, batches


def test_an_epoch_of_frames_is_one_a_second_and_of_clips_one_a_duration():
    assert command().seconds_per_sample == 1.0
    clips = VJEPA2Options(model="vjepa2-l", clip_len=16, fps=4.0)
    assert command(clips).seconds_per_sample == 4.0


def test_the_global_batch_counts_all_micro_batches_and_processes():
    options = DINOv3Options(model="dinov3-tiny", batch_size=3, accumulate=5)
    assert command(options, Processes(1, 7, torch.device("cpu"))).global_batch == 3 * 5 * 7


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_reads_its_run_of_every_micro_batch(workspace, videos, rank):
    options = DINOv3Options(model="dinov3-tiny", batch_size=2, num_local=1, num_workers=0, videos=(str(videos),))
    one = command(options, Processes(rank, 2, torch.device("cpu")))
    alone = command(options)
    dataset = build_frames(options, one.model, options.sampling(alone.read_corpora()))
    batches = iter(one.batches(dataset)(8))
    numbers = [next(batches)["number"].tolist() for _ in range(3)]
    first = 8 + 2 * rank
    assert numbers == [[first, first + 1], [first + 4, first + 5], [first + 8, first + 9]]


# the probe


def test_the_probe_decides_what_is_best(workspace, videos, cataract101, tmp_path):
    flags = ["--monitor_every", "1", "--monitor_samples", "2", "--probe", "Cataract-101", "--batch_size", "4"]
    assert train(videos, tmp_path, *flags) == 0
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [0, 1, 2]
    assert all(0 <= record["probe/balanced_accuracy"] <= 1 for record in records)


def test_a_probe_without_checks_is_refused(workspace, videos, cataract101, tmp_path):
    with pytest.raises(UserError, match="--probe with --monitor_every 0"):
        train(videos, tmp_path, "--probe", "Cataract-101")
    assert not RunFolder(tmp_path).manifest.exists()


def test_a_probe_of_an_absent_data_set_is_an_error(workspace, videos, tmp_path):
    with pytest.raises(UserError, match="no data set 'Nowhere'"):
        train(videos, tmp_path, "--probe", "Nowhere", "--monitor_every", "1")


# several processes


def test_what_the_first_process_cannot_do_stops_all(run):
    assert run(done_alone, None) == ["done", None]
    assert run(done_alone, "no videos") == ["no videos", "the first process cannot start, for the reason that it gives"]


def done_alone(failure: str | None) -> str | None:
    """What `first_alone` gives or raises here."""

    def action() -> str:
        assert dist.get_rank() == 0
        if failure:
            raise UserError(failure)
        return "done"

    try:
        return first_alone(Processes(dist.get_rank(), 2, torch.device("cpu")), action)
    except UserError as error:
        return str(error)

"""The glue of all pretraining commands: corpora, record of what was seen, plan, probe, resume."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from common.base.files import read_json
from common.base.runtime import UserError
from common.dataset.manifest import read_manifest
from common.encoders.weights.load import WeightSource
from pretrain.engine.checkpoints.run_folder import RunFolder
from pretrain.engine.distributed import Processes
from pretrain.engine.reporting import read_metrics
from pretrain.methods.options import DINOv3Options, VJEPA2Options
from pretrain.methods.self_distillation import frame_views
from pretrain.pack_videos import main as pack_videos
from pretrain.ssl_config import TrainingOptions, find_model
from pretrain.ssl_dataset import VideoSamples
from pretrain.ssl_pretrain import (
    balanced_sampling,
    describe_corpora,
    describe_saving,
    describe_training,
    first_alone,
    host_bytes,
    keeping_the_batch,
    known_corpora,
    micro_batches,
    read_weights,
    require_host_memory,
    state_bytes,
)
from pretrain.ssl_pretrain_dinov3 import main
from pretrain.video_data.clusters import Segment, write_clusters
from pretrain.video_data.corpora import Corpus
from pretrain.video_data.video_index import VideoEntry

CPU = torch.device("cpu")


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
    assert re.search(
        r"data +\d+ ms of a core for each of 16 images; \d+ a second by this process, in turn", caplog.text
    )
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert (workspace / "pretrain" / "checkpoints" / "video_index.json").is_file()


def test_packed_videos_train_and_are_recorded_as_the_videos_that_they_were(
    workspace, videos, labelled, tmp_path, caplog
):
    pack = ["--videos", str(videos), "--fps", "0", "--short_side", "0", "--quality", "100", "--num_processes", "0"]
    assert pack_videos(pack) == 0
    assert train(videos, tmp_path / "direct") == 0
    assert train("data/packed/eyes", tmp_path / "packed") == 0
    # labelled videos are found by their content, whatever holds it
    assert caplog.text.count("Labelled: 1 video of it with labels will be learned from (BL_7)") == 2
    direct, packed = (read_manifest(tmp_path / name / "manifest.json").videos for name in ("direct", "packed"))
    assert direct == packed
    losses = [
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("direct", "packed")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # the same samples within JPEG's error


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


@pytest.mark.slow
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
    assert DINOv3Options().seconds_per_sample(find_model("dinov3-tiny")) == 1.0
    assert VJEPA2Options(clip_len=16, fps=4.0).seconds_per_sample(find_model("vjepa2-l")) == 4.0


def test_the_global_batch_counts_all_micro_batches_and_processes():
    options = DINOv3Options(model="dinov3-tiny", batch_size=3, accumulate=5)
    assert options.global_batch(world_size=7) == 3 * 5 * 7


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_reads_its_run_of_every_micro_batch(workspace, videos, rank):
    options = DINOv3Options(model="dinov3-tiny", batch_size=2, num_local=1, num_workers=0, videos=(str(videos),))
    options = options.completed(on_gpu=False, world_size=1)
    sampling = balanced_sampling(options, known_corpora(options, Processes(0, 1, CPU)))
    dataset = VideoSamples(sampling, frame_views(options, find_model("dinov3-tiny")), seed=options.seed)
    batches = iter(micro_batches(options, dataset, Processes(rank, 2, CPU))(8))
    numbers = [next(batches)["number"].tolist() for _ in range(3)]
    first = 8 + 2 * rank
    assert numbers == [[first, first + 1], [first + 4, first + 5], [first + 8, first + 9]]


# which corpus is drawn how often


def corpus(name: str, seconds: float) -> Corpus:
    return Corpus(name, (VideoEntry(f"/{name}.mp4", "case", seconds, 25.0, 100, 1000, f"print of {name}"),))


CORPORA = [corpus("small", 100.0), corpus("large", 10_000.0)]


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 100 / 10_100), (0.5, 1 / 11), (0.0, 1 / 2)])
def test_corpora_are_drawn_by_a_power_of_their_size(alpha, share):
    found = balanced_sampling(TrainingOptions(corpus_alpha=alpha), CORPORA).corpus_shares
    assert found == pytest.approx({"small": share, "large": 1 - share})


def test_weights_replace_sizes():
    found = balanced_sampling(TrainingOptions(corpus_weights="large=1, small=3"), CORPORA).corpus_shares
    assert found == {"small": 0.75, "large": 0.25}


def test_clusters_come_from_their_file(tmp_path):
    segments = {"small/case": [Segment(0, 90, 0), Segment(90, 100, 1)], "large/case": [Segment(0, 10_000, 0)]}
    write_clusters(tmp_path / "clusters.json", segments, {})
    given = TrainingOptions(clusters=str(tmp_path / "clusters.json"), cluster_alpha=0.0, corpus_alpha=0.0)
    assert [pool.share for pool in balanced_sampling(given, CORPORA).pools] == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,a=2", "a=one", "a=1,,b=2", ","])
def test_weights_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="expected NAME=WEIGHT,NAME=WEIGHT"):
        read_weights(text)


def test_a_corpus_may_have_any_name():
    assert read_weights("a=b=1,c d=0.5") == {"a=b": 1.0, "c d": 0.5}


# the plan


def method_of(student: nn.Module, teacher: nn.Module) -> nn.Module:
    return nn.ModuleDict({"student": student, "teacher": teacher.requires_grad_(False)})


def test_every_subject_of_the_plan_has_its_numbers():
    options = TrainingOptions(model="dinov3-tiny", epochs=3, batch_size=4, accumulate=2, output="/out", sharding="ddp")
    entry = VideoEntry("/a.mp4", "a", 7200.0, 25.0, None, 10, "print")
    corpora = describe_corpora([Corpus("eyes", (entry,) * 2)], {"eyes": 1.0})
    method = method_of(nn.Linear(1000, 1000), nn.Linear(1000, 1000))
    plan = describe_training(options, method, WeightSource("random"), corpora, 1000, Processes(0, 8, CPU))
    assert plan == [
        ("start", "random (untrained)"),
        ("corpus", "eyes: 2 videos, 4.0 h, 100% of the samples"),
        ("training", "3,000 steps (3 epochs of 1,000) of 64 samples (4 x 2 micro-batches x 8 processes)"),
        ("parameters", "1 M trained, 1 M averaged or frozen"),
        ("computing", "cpu, processes 8, auto, sharding ddp, recomputed blocks auto"),
        ("memory", "0.0 GB a process for weights, gradients and averages; activations come on top"),
        ("host memory", "42 GB of the first node"),
        (
            "saving",
            "0.0 GB a checkpoint, the first process all of it: 0.00013 GB a second and node, to be done in the 120 s of a warning",
        ),
        ("output", "/out"),
    ]


def test_memory_is_that_of_fp32_values_gradients_and_two_moments():
    method = method_of(nn.Linear(1000, 1000), nn.Linear(1000, 1000))
    values = 1000 * 1000 + 1000
    assert state_bytes(method, num_shards=1) == 20 * values
    assert state_bytes(method, num_shards=8) == 20 * values / 8


def test_host_memory_is_that_of_processes_readers_and_one_checkpoint(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with torch.device("meta"):
        method = method_of(*(nn.Linear(1000, 1_000_000, bias=False) for _ in range(2)))
    options = TrainingOptions(model="dinov3-tiny", num_workers=3, sharding="fsdp")
    on_gpu = Processes(0, 4, torch.device("cuda"))
    processes, exported = 2 * (2e9 + 3 * 0.8e9), 4e9
    # of 16 GB that are saved two of four processes have half
    assert host_bytes(options, method, on_gpu) == pytest.approx(processes + 8e9 + exported)
    alone = replace(options, sharding="ddp")
    assert host_bytes(alone, method, on_gpu) == pytest.approx(processes + 16e9 + exported)
    # on a CPU the shards of both processes besides
    assert host_bytes(options, method, Processes(0, 4, CPU)) == pytest.approx(processes + 8e9 + exported + 2 * 20e9 / 4)


def test_a_warning_must_leave_time_to_save(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with torch.device("meta"):
        method = method_of(*(nn.Linear(1000, 1_000_000, bias=False) for _ in range(2)))
    options, four = TrainingOptions(model="dinov3-tiny", sharding="fsdp"), Processes(0, 4, torch.device("cuda"))
    assert describe_saving(options, method, four).startswith(
        "16.0 GB a checkpoint, each process its part: 0.067 GB a second and node"
    )
    assert "the first process all of it: 0.13 GB a second" in describe_saving(
        replace(options, sharding="ddp"), method, four
    )


def test_a_job_with_too_little_memory_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "131072")
    require_host_memory(120e9)
    with pytest.raises(
        UserError, match=r"--mem of the job: expected at least 180 GB .* found 137 GB; submit it with --mem=168G"
    ):
        require_host_memory(180e9)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    require_host_memory(1e15)


def test_the_7b_network_s_weights_gradients_moments_and_average_are_134_gigabytes():
    with torch.device("meta"):
        method = method_of(*(nn.Linear(6716, 1_000_000, bias=False) for _ in range(2)))
    assert state_bytes(method, num_shards=1) == pytest.approx(134e9, rel=0.01)


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


def test_what_the_first_process_cannot_do_stops_all(two):
    assert two(done_alone, None) == ["done", None]
    assert two(done_alone, "no videos") == ["no videos", "the first process cannot start, for the reason that it gives"]


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


@pytest.mark.parametrize(
    ("before", "given", "processes", "kept"),
    [
        ((2, 1), 1, 1, 2),  # processes and micro-batches before, the flag, processes now: a node less
        ((1, 2), 1, 2, 1),  # and back again
        ((4, 1), 1, 3, 1),  # 4 batches do not divide among 3: as given
        ((2, 2), 2, 4, 1),
        ((2, 1), 3, 2, 3),  # as many processes as before: the flag counts
    ],
)
def test_other_processes_keep_the_samples_of_a_step(monkeypatch, before, given, processes, kept):
    world_size, accumulate = before
    old = SimpleNamespace(world_size=world_size, config={"batch_size": 8, "accumulate": accumulate})
    monkeypatch.setattr("pretrain.ssl_pretrain.newest_state", lambda folder: old)
    options = DINOv3Options(model="dinov3-tiny", batch_size=8, accumulate=given)
    found = keeping_the_batch(options, Processes(0, processes, torch.device("cpu")))
    assert found == replace(options, accumulate=kept)

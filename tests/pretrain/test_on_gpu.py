"""Both stages of pretraining on a GPU, with the settings that it chooses there; skipped where there is none."""

import math

import numpy as np
import pytest
import torch

from pretrain.engine.reporting import read_metrics
from pretrain.finetune_lora import main as finetune
from pretrain.pack_videos import main as pack
from pretrain.ssl_pretrain_dinov3 import main as pretrain_dinov3
from pretrain.ssl_pretrain_videomae import main as pretrain_videomae
from pretrain.ssl_pretrain_vjepa2 import main as pretrain_vjepa2
from pretrain.video_data.packed import OpenPacked

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture
def films(workspace, make_clip):
    """A folder of two videos of two seconds."""
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        start = random.integers(0, 200, (48, 64, 3))
        make_clip(workspace / "films" / f"{name}.mp4", [(start + time).astype(np.uint8) for time in range(50)])
    return workspace / "films"


@pytest.mark.parametrize(
    ("main", "model", "options"),
    [
        (pretrain_dinov3, "dinov3-tiny", ["--freeze_backbone_epochs", "0"]),
        (pretrain_vjepa2, "vjepa2-tiny", ["--fps", "8"]),
        (pretrain_videomae, "videomae-tiny", ["--fps", "8"]),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stage_1_trains_and_exports(films, workspace, main, model, options, precision):
    words = ["--model", model, "--init", "random", "--device", "cuda", "--precision", precision, "--num_workers", "1"]
    words += ["--videos", str(films), "--output", str(workspace / "run"), "--monitor_every", "2", "--save_every", "2"]
    words += ["--monitor_samples", "4", *options]
    assert main([*words, "--max_steps", "4"]) == 0
    records = [record for record in read_metrics(workspace / "run" / "metrics.jsonl") if "loss" in record]
    assert len(records) == 4
    assert all(math.isfinite(record["loss"]) for record in records)
    assert (workspace / "run" / "export" / "model.safetensors").is_file()


def test_stage_2_trains_on_top(cataract101, workspace):
    words = ["--model", "dinov3-tiny", "--init", "random", "--device", "cuda", "--num_workers", "0", "--max_steps", "2"]
    words += ["--videos", str(cataract101.videos), "--monitor_every", "0", "--freeze_backbone_epochs", "0"]
    assert pretrain_dinov3(words) == 0
    words = ["--model", "dinov3-tiny", "--datasets", "Cataract-101", "--device", "cuda", "--num_workers", "0"]
    words += ["--epochs", "2", "--steps_per_epoch", "2", "--grid_seconds", "2", "--validation_share", "0.4"]
    assert finetune(words) == 0


def test_the_gpus_decoder_packs_the_frames_of_the_cpus(films, workspace):
    """Their times to the frame, their pixels but for the conversion of colours."""
    pytest.importorskip("torchcodec")
    for decoder in ("pyav", "nvdec"):
        words = [
            "--videos",
            str(films),
            "--decoder",
            decoder,
            "--output",
            str(workspace / decoder),
            "--num_processes",
            "1",
        ]
        assert pack(words) == 0
    for name in ("one", "two"):
        cpu, gpu = (OpenPacked(workspace / decoder / "films" / f"{name}.tar") for decoder in ("pyav", "nvdec"))
        assert gpu.seconds.tolist() == cpu.seconds.tolist()
        for number in range(len(cpu.seconds)):
            assert np.abs(gpu.image(number).astype(int) - cpu.image(number).astype(int)).mean() < 4

"""Stage 1 for Video MAE: go on pretraining it on clips of surgical video, alone or beside an image teacher.

    python ssl_pretrain_videomae.py --model videomae-b
    python ssl_pretrain_videomae.py --model videomae-b --videos Cataracts-1K ~/more_videos --corpus_alpha 0
    python ssl_pretrain_videomae.py --model videomae-b --image_teacher DinoV3-ViT-L16
    torchrun --nproc_per_node 8 ssl_pretrain_videomae.py --model videomae-b --batch_size 32

The first is SurgRec-MAE's recipe, the third SurgVISTA's. Writes checkpoints/ssl/<model>/: final.pt, export/ for feature
extraction (models/SurgRec-MAE --weights), manifest.json of the videos seen, metrics.jsonl. The same command goes on where
it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.base.runtime import run_main

if TYPE_CHECKING:
    from torch import nn

    from common.encoders.weights.source import WeightSource
    from pretrain.methods.videomae import VideoMAE, VideoMAEOptions
    from pretrain.ssl_config import SslModel
    from pretrain.ssl_dataset import MaeDataset
    from pretrain.video_data.sampling import BalancedSampling


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    # here, because every process that reads videos imports this file
    from pretrain.methods.videomae import VideoMAEOptions
    from pretrain.ssl_pretrain import pretrain_main

    return pretrain_main(
        argv,
        description=__doc__,
        options_class=VideoMAEOptions,
        families=("videomae",),
        build_method=build_method,
        build_dataset=build_clips,
    )


def build_method(
    options: VideoMAEOptions, model: SslModel, backbone: nn.Module, start: WeightSource, steps_per_epoch: int
) -> VideoMAE:
    """The recipe on start weights, with the image teacher that the options name."""
    from pretrain.methods.image_teacher import load_image_teacher
    from pretrain.methods.videomae import VideoMAE

    teacher = None
    if options.image_teacher is not None:
        teacher = load_image_teacher(options.image_teacher, options.image_teacher_weights)
    return VideoMAE(backbone, options, model, teacher)


def build_clips(options: VideoMAEOptions, model: SslModel, sampling: BalancedSampling) -> MaeDataset:
    """Clips and, for an image teacher, the first frame of each tubelet."""
    from pretrain.ssl_dataset import MaeDataset
    from pretrain.video_data.augment import MultiScaleCrop

    crop = MultiScaleCrop(size=options.crop_size_of(model), teacher_size=options.teacher_size_of(model))
    return MaeDataset(
        sampling, crop, seed=options.seed, clip_len=options.clip_len_of(model), fps=options.fps,
        open_videos=options.open_videos,
    )  # fmt: skip


if __name__ == "__main__":
    run_main(main)

"""Stage 1 for Video MAE: go on training it on surgical videos without labels, alone or with an image teacher.

    python ssl_pretrain_videomae.py --model videomae-b --videos DATASET
    python ssl_pretrain_videomae.py --model videomae-b --videos DATASET --image_teacher DinoV3-ViT-L16

The first is SurgRec-MAE's recipe, the second SurgVISTA's.
"""

from __future__ import annotations

from torch import nn

from common.runtime import run_main
from common.weights import WeightSource
from pretrain.augment import MultiScaleCrop
from pretrain.command import pretrain_main
from pretrain.methods.image_teacher import load_image_teacher
from pretrain.methods.videomae import VideoMAE, VideoMAEOptions
from pretrain.sampling import BalancedSampling
from pretrain.ssl_config import SslModel
from pretrain.ssl_dataset import MaeDataset


def build_method(
    options: VideoMAEOptions, model: SslModel, network: nn.Module, start: WeightSource, steps_per_epoch: int
) -> VideoMAE:
    """The recipe on start weights, with the image teacher that `options` name."""
    teacher = None
    if options.image_teacher is not None:
        teacher = load_image_teacher(options.image_teacher, options.image_teacher_weights)
    return VideoMAE(network, options, model, teacher)


def build_dataset(options: VideoMAEOptions, model: SslModel, sampling: BalancedSampling) -> MaeDataset:
    """Clips and, for an image teacher, the first frame of each tubelet."""
    crop = MultiScaleCrop(size=options.crop_size_of(model), teacher_size=options.teacher_size_of(model))
    return MaeDataset(
        sampling, crop, seed=options.seed, clip_len=options.clip_len_of(model), fps=options.fps,
        open_videos=options.open_videos,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Train as the flags say; returns the exit code."""
    return pretrain_main(
        argv,
        description=__doc__,
        options_class=VideoMAEOptions,
        families=("videomae",),
        build_method=build_method,
        build_dataset=build_dataset,
    )


if __name__ == "__main__":
    run_main(main)

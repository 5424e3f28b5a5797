"""Stage 1 for Video MAE: continue pretraining it on clips of surgical video, alone or beside an image teacher.

    python pretrain/ssl_pretrain_videomae.py --model videomae-b
    python pretrain/ssl_pretrain_videomae.py --model videomae-b --videos Cataracts-1K ~/more_videos --corpus_alpha 0
    python pretrain/ssl_pretrain_videomae.py --model videomae-b --image_teacher DinoV3-ViT-L16
    python pretrain/ssl_pretrain_videomae.py --model surgvista-b --image_teacher DinoV3-ViT-L16
    torchrun --nproc_per_node 8 pretrain/ssl_pretrain_videomae.py --model videomae-b --batch_size 32

The first two are Video MAE's recipe (SurgRec-MAE is one, but publishes no settings of its own), the next two SurgVISTA's, from either's
weights. Writes checkpoints/ssl/<model>/: final.pt, export/ for feature extraction (models/SurgRec-MAE --weights,
models/SurgVISTA-ViT-B --weights), manifest.json of the videos seen, metrics.jsonl. The same command resumes where it
stopped.

Settings are named after who published them: Video MAE (MCG-NJU/VideoMAE, run_mae_pretraining.py and its Kinetics script
of ViT-B), SurgVISTA (isyangshu/SurgVISTA, pretrain_SurgVISTA/pretrain.sh). Those of nobody are this project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.base.runtime import run_main
from pretrain.methods.options import VideoMAEOptions
from pretrain.ssl_config import parse_training

if TYPE_CHECKING:
    from torch import nn

    from pretrain.methods.videomae import VideoMAE
    from pretrain.ssl_config import SslModel
    from pretrain.video_data.augment import MultiScaleCrop


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    options, device = parse_training(argv, __doc__, VideoMAEOptions, families=("videomae",))

    # after --help, and not above: every process that reads videos imports this file
    from pretrain.ssl_pretrain import pretrain

    return pretrain(options, device, with_teacher, views_with_teacher)


def with_teacher(options: VideoMAEOptions, model: SslModel, backbone: nn.Module, steps_per_epoch: int) -> VideoMAE:
    """The recipe on start weights, with the image teacher that the options name."""
    from pretrain.methods.image_teacher import load_image_teacher
    from pretrain.methods.videomae import VideoMAE

    teacher = None
    if options.image_teacher is not None:
        teacher = load_image_teacher(options.image_teacher, options.image_teacher_weights)
    return VideoMAE(backbone, options, model, teacher)


def views_with_teacher(options: VideoMAEOptions, model: SslModel) -> MultiScaleCrop:
    """Views of a clip and, for an image teacher, of the first frame of each tubelet."""
    from pretrain.video_data.augment import MultiScaleCrop

    return MultiScaleCrop(size=options.crop_size_of(model), teacher_size=options.teacher_size_of(model))


if __name__ == "__main__":
    run_main(main)

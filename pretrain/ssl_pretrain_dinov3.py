"""Stage 1 for image encoders: continue pretraining DINOv3, or SurgeNet's CAFormer, on frames of surgical video.

    python pretrain/ssl_pretrain_dinov3.py --model dinov3-vitb16
    python pretrain/ssl_pretrain_dinov3.py --model dinov3-l --videos Cataracts-1K ~/more_videos --exclude SICS155
    python pretrain/ssl_pretrain_dinov3.py --model caformer-s18 --recipe dino
    torchrun --nproc_per_node 8 pretrain/ssl_pretrain_dinov3.py --model dinov3-7b

Writes checkpoints/ssl/<model>/: final.pt, export/ for feature extraction and LoRA, manifest.json of the videos seen,
metrics.jsonl. The same command resumes where it stopped.

Settings are named after who published them: DINOv3 (facebookresearch/dinov3, configs/train: ViT-L vitl_im1k_lin834, 7B
dinov3_vit7b16_pretrain, 7B Gram dinov3_vit7b16_gram_anchor), DINO (facebookresearch/dino, main_dino.py). Those of nobody
are this project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.base.runtime import run_main
from pretrain.methods.options import DINOv3Options
from pretrain.ssl_config import parse_training

if TYPE_CHECKING:
    from torch import nn

    from pretrain.methods.self_distillation import SelfDistillation
    from pretrain.ssl_config import SslModel


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    options, device = parse_training(argv, __doc__, DINOv3Options, families=("dinov3", "caformer"))

    # after --help, and not above: every process that reads videos imports this file
    from pretrain.methods.self_distillation import frame_views
    from pretrain.ssl_pretrain import pretrain

    return pretrain(options, device, build_recipe, frame_views)


def build_recipe(
    options: DINOv3Options, model: SslModel, backbone: nn.Module, steps_per_epoch: int
) -> SelfDistillation:
    """The recipe that the options name, or the model allows."""
    from pretrain.methods.dino import Dino
    from pretrain.methods.dinov3 import DINOv3

    recipe = DINOv3 if options.recipe_of(model) == "dinov3" else Dino
    return recipe(backbone, options, model, steps_per_epoch)


if __name__ == "__main__":
    run_main(main)

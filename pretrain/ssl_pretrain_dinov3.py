"""Stage 1 for image encoders: go on pretraining DINOv3, or SurgeNet's CAFormer, on frames of surgical video.

    python ssl_pretrain_dinov3.py --model dinov3-vitb16
    python ssl_pretrain_dinov3.py --model dinov3-l --videos Cataracts-1K ~/more_videos --exclude SICS155
    python ssl_pretrain_dinov3.py --model caformer-s18 --recipe dino
    torchrun --nproc_per_node 8 ssl_pretrain_dinov3.py --model dinov3-7b

Writes checkpoints/ssl/<model>/: final.pt, export/ for feature extraction and LoRA, manifest.json of the videos seen,
metrics.jsonl. The same command goes on where it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.base.runtime import run_main

if TYPE_CHECKING:
    from torch import nn

    from common.encoders.weights.source import WeightSource
    from pretrain.methods.dinov3 import DINOv3Options
    from pretrain.methods.self_distillation import SelfDistillation
    from pretrain.ssl_config import SslModel


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    # here, because every process that reads videos imports this file
    from pretrain.methods.dinov3 import DINOv3Options
    from pretrain.methods.self_distillation import build_frames
    from pretrain.ssl_pretrain import pretrain_main

    return pretrain_main(
        argv,
        description=__doc__,
        options_class=DINOv3Options,
        families=("dinov3", "caformer"),
        build_method=build_method,
        build_dataset=build_frames,
    )


def build_method(
    options: DINOv3Options, model: SslModel, backbone: nn.Module, start: WeightSource, steps_per_epoch: int
) -> SelfDistillation:
    """The recipe that the options name, or the model allows."""
    from pretrain.methods.dino import Dino
    from pretrain.methods.dinov3 import DINOv3

    recipe = DINOv3 if options.recipe_of(model) == "dinov3" else Dino
    return recipe(backbone, options, model, steps_per_epoch)


if __name__ == "__main__":
    run_main(main)

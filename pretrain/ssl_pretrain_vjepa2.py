"""Stage 1 for V-JEPA 2: go on pretraining it on clips of surgical video, by masked prediction of its own features.

    python ssl_pretrain_vjepa2.py --model vjepa2-vitl-fpc64-256 --batch_size 2 --epochs 100
    python ssl_pretrain_vjepa2.py --model vjepa2-l --videos Cataracts-1K ~/more_videos --exclude SICS155
    python ssl_pretrain_vjepa2.py --model vjepa2-l --mask_ratio 0 --clip_len 64 --batch_size 1
    torchrun --nproc_per_node 8 ssl_pretrain_vjepa2.py --model vjepa2-g

Nine tenths of a clip are hidden from the encoder; a predictor says what the encoder's moving average finds there.
Writes checkpoints/ssl/<model>/: final.pt, export/ for feature extraction and LoRA, manifest.json of the videos seen,
metrics.jsonl. The same command goes on where it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.base.runtime import run_main

if TYPE_CHECKING:
    from transformers import VJEPA2Model

    from common.encoders.weights.source import WeightSource
    from pretrain.methods.vjepa2 import VJEPA2, VJEPA2Options
    from pretrain.ssl_config import SslModel


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    # here, because every process that reads videos imports this file
    from pretrain.methods.vjepa2 import VJEPA2Options, build_clips
    from pretrain.ssl_pretrain import pretrain_main

    return pretrain_main(
        argv,
        description=__doc__,
        options_class=VJEPA2Options,
        families=("vjepa2",),
        build_method=build_method,
        build_dataset=build_clips,
    )


def build_method(
    options: VJEPA2Options, model: SslModel, backbone: VJEPA2Model, start: WeightSource, steps_per_epoch: int
) -> VJEPA2:
    """The recipe on start weights."""
    from pretrain.methods.vjepa2 import VJEPA2

    return VJEPA2(backbone, options, model)


if __name__ == "__main__":
    run_main(main)

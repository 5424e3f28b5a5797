"""Go on with the self-supervised training of V-JEPA 2 on surgical videos; `--help` lists the options."""

from __future__ import annotations

from common.runtime import run_main
from pretrain.command import pretrain_main
from pretrain.methods.vjepa2 import VJEPA2, VJEPA2Options, build_clips

DESCRIPTION = """Go on with the self-supervised training of V-JEPA 2 on videos without labels.

Nine tenths of a clip are hidden from the encoder, and a predictor learns to say what a moving average of the encoder finds
there, in the space of features. Writes final.pt, the encoder for feature extraction and LoRA under export/, manifest.json
(the videos seen) and metrics.jsonl to the output folder. Run again, the command goes on where it stopped.

  python ssl_pretrain_vjepa2.py --model vjepa2-vitl-fpc64-256 --batch_size 2 --epochs 100
  torchrun --nproc_per_node 4 ssl_pretrain_vjepa2.py --model vjepa2-vitg-fpc64-384 --videos cataract1k my/videos
  python ssl_pretrain_vjepa2.py --model vjepa2-l --mask_ratio 0 --clip_len 64 --batch_size 1
"""


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    return pretrain_main(
        argv,
        description=DESCRIPTION,
        options_class=VJEPA2Options,
        families=("vjepa2",),
        build_method=lambda options, model, backbone, start, steps_per_epoch: VJEPA2(backbone, options, model),
        build_dataset=build_clips,
    )


if __name__ == "__main__":
    run_main(main)

"""Stage 1 for V-JEPA 2: continue pretraining it on clips of surgical video, by masked prediction of its own features.

    python pretrain/ssl_pretrain_vjepa2.py --model vjepa2-vitl-fpc64-256 --batch_size 2 --epochs 100
    python pretrain/ssl_pretrain_vjepa2.py --model vjepa2-l --videos Cataracts-1K ~/more_videos --exclude SICS155
    python pretrain/ssl_pretrain_vjepa2.py --model vjepa2-l --mask_ratio 0 --clip_len 64 --batch_size 1
    torchrun --nproc_per_node 8 pretrain/ssl_pretrain_vjepa2.py --model vjepa2-g

Nine tenths of a clip are hidden from the encoder; a predictor says what the encoder's moving average finds there.
Writes checkpoints/ssl/<model>/: final.pt, export/ for feature extraction and LoRA, manifest.json of the videos seen,
metrics.jsonl. The same command resumes where it stopped.

Settings are named after who published them: V-JEPA 2 (facebookresearch/vjepa2, configs/train/vitl16 and vitg16, and its
code). Those of nobody are this project's.
"""

from common.base.runtime import run_main
from pretrain.methods.options import VJEPA2Options
from pretrain.ssl_config import parse_training


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit code."""
    options, device = parse_training(argv, __doc__, VJEPA2Options, families=("vjepa2",))

    # after --help, and not above: every process that reads videos imports this file
    from pretrain.methods.vjepa2 import VJEPA2, clip_views
    from pretrain.ssl_pretrain import pretrain

    return pretrain(options, device, lambda options, model, backbone, _: VJEPA2(backbone, options, model), clip_views)


if __name__ == "__main__":
    run_main(main)

"""What a recipe trains with where its options do not say: a table for each, whose values come from where `SOURCES` says.

`--help` names the same values beside each option (held together by tests/pretrain/methods/test_defaults.py).
"""

from typing import Any

Defaults = dict[str, Any]

DINOV3_7B_PRETRAIN_RATE = 5e-5  # without a Gram loss, `dinov3_vit7b16_pretrain.yaml`

# of ViT-B and ViT-L. Rates, decays and averages are this project's for continuing on few GPUs; clipping, flips, crops and
# temperature are those of `dinov3:dinov3/configs/train/vitl_im1k_lin834.yaml`, blur is what its code does
DINOV3: Defaults = {
    "learning_rate": 1e-4,
    "final_learning_rate": 1e-6,
    "layer_decay": 0.9,
    "beta2": 0.999,
    "momentum": 0.999,
    "temperature": 0.07,
    "temperature_warmup": 0.3,
    "clip_norm": 3.0,
    "drop_path": 0.0,
    "flip_chance": 0.5,
    "crop_boundary": 0.32,
    "blur": "reference",
    "koleo_neighbours": 1,
}
# `dinov3:dinov3/configs/train/dinov3_vit7b16_gram_anchor.yaml`: rates, decays and averages as published too
DINOV3_7B: Defaults = DINOV3 | {
    "learning_rate": 3e-5,
    "final_learning_rate": 3e-5,
    "layer_decay": 0.98,
    "beta2": 0.99,
    "temperature_warmup": 0.1,
    "clip_norm": 30.0,
    "drop_path": 0.4,
    "flip_chance": 0.0,
    "koleo_neighbours": 16,
}
# `dino:main_dino.py`, the defaults of its arguments, with which SurgeNet's page says that it was trained
DINO: Defaults = {
    "learning_rate": 5e-4,
    "final_learning_rate": 1e-6,
    "layer_decay": 1.0,
    "beta2": 0.999,
    "final_weight_decay": 0.4,
    "momentum": 0.996,
    "final_momentum": 1.0,
    "temperature": 0.04,
    "temperature_warmup": 0.0,
    "clip_norm": 3.0,
    "drop_path": 0.1,
    "flip_chance": 0.5,
    "crop_boundary": 0.4,
    "blur": "paper",
}

# `VideoMAE:run_mae_pretraining.py` and `scripts/kinetics/*_ratio_0.9_epoch_800/pretrain.sh`: 40 of 801 epochs of warm-up,
# every 4th frame, of 30 a second
VIDEOMAE: Defaults = {"fps": 7.5, "mask_ratio": 0.9, "final_learning_rate": 1e-5, "warmup": 0.05, "drop_path": 0.0}
# `SurgVISTA:pretrain_SurgVISTA/pretrain.sh`: 40 of 201 epochs, every 4th of frames that were taken once a second
SURGVISTA: Defaults = {"fps": 0.25, "mask_ratio": 0.85, "final_learning_rate": 1e-4, "warmup": 0.2, "drop_path": 0.1}

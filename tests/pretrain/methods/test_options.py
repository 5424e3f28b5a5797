"""Values that the options of the recipes refuse."""

from dataclasses import replace

import pytest

from common.base.runtime import UserError
from tests.pretrain.methods.videomae_clips import OPTIONS as VIDEOMAE
from tests.pretrain.methods.vjepa2_clips import OPTIONS as VJEPA2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_len": 15}, "clip_len must be an even number, as frames are taken in pairs, found 15"),
        ({"clip_len": 0}, "clip_len must be an even number"),
        ({"mask_ratio": 0.0}, "mask_ratio must be greater than 0 and below 1, found 0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be greater than 0 and below 1, found 1.0"),
        ({"fps": 0.0}, "fps must be greater than 0, found 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"pixel_weight": 0.0}, "pixel_weight must be greater than 0"),
        ({"distillation_weight": -1.0}, "distillation_weight must be greater than 0"),
        ({"start_learning_rate": -1.0}, "start_learning_rate must not be negative"),
        ({"final_learning_rate": -1.0}, "final_learning_rate must not be negative"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative, found -1"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, found 1.0"),
        ({"drop_path": -0.1}, "drop_path must be at least 0 and below 1"),
        ({"teacher_size": 64}, "--teacher_size without --image_teacher: name the image encoder too"),
        (
            {"teacher_size": 64, "image_teacher_weights": "random"},
            "--image_teacher_weights and --teacher_size without --image_teacher",
        ),
        ({"image_teacher": "DinoV3-ViT-B16", "teacher_size": 0}, "teacher_size must be greater than 0, found 0"),
        ({"epochs": 0}, "epochs must be greater than 0"),
    ],
)
def test_video_mae_refuses_values_without_sense(changes, message):
    with pytest.raises(UserError, match=message):
        replace(VIDEOMAE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_len": 15}, "clip_len must be an even number, as frames are taken in pairs, found 15"),
        ({"clip_len": 0}, "clip_len must be an even number"),
        ({"fps": 0.0}, "fps must be greater than 0, found 0"),
        ({"loss_exponent": 0.0}, "loss_exponent must be greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative, found -1"),
        ({"momentum": 1.5}, "momentum must lie between 0 and 1, found 1.5"),
        ({"final_momentum": -0.1}, "final_momentum must lie between 0 and 1"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, found 1.0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be at least 0 and below 1, found 1.0"),
        ({"mask_mode": "tube", "mask_ratio": 0.0}, "--mask_mode tube hides a share of the places"),
        ({"epochs": 0}, "epochs must be greater than 0"),
    ],
)
def test_v_jepa_2_refuses_values_without_sense(changes, message):
    with pytest.raises(UserError, match=message):
        replace(VJEPA2, **changes)

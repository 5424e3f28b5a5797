"""How much of a device's arithmetic a training uses (model FLOPs utilisation; Chowdhery et al., PaLM, 2022)."""

from __future__ import annotations

import torch

# dense tensor-core bf16, and fp32, in TFLOP/s, from the makers' data sheets; the first name found in the device's counts
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "B200": {"bf16": 2250.0, "fp32": 75.0},
    "H100 PCIe": {"bf16": 756.0, "fp32": 51.0},
    "H100 NVL": {"bf16": 835.0, "fp32": 60.0},
    "H100": {"bf16": 989.0, "fp32": 67.0},
    "H200": {"bf16": 989.0, "fp32": 67.0},
    "A100": {"bf16": 312.0, "fp32": 19.5},
    "L40S": {"bf16": 362.0, "fp32": 91.6},
    "RTX A6000": {"bf16": 154.8, "fp32": 38.7},
    "A40": {"bf16": 149.7, "fp32": 37.4},
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Operations a second that the device can do at most; None on a CPU and on unlisted devices."""
    return peak_of(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def peak_of(device_name: str, precision: str) -> float | None:
    """As `peak_flops`, for a device's name."""
    found = next((peaks for name, peaks in PEAK_TFLOPS.items() if name in device_name), None)
    return found[precision] * 1e12 if found else None


def transformer_flops(
    num_parameters: int, num_tokens: int, *, num_layers: int, width: int, backward: bool = True
) -> float:
    """Operations of a transformer on one sample of `num_tokens` tokens.

    Forwards 2 for each parameter and token, and for each layer 2 x tokens^2 x width for either product of attention;
    backwards twice as many, hence 6 N D (Kaplan et al., 2020). `num_parameters` are those of the blocks.
    """
    forward = 2 * num_parameters * num_tokens + 4 * num_layers * width * num_tokens**2
    return float(forward * (3 if backward else 1))

"""Utilisation: operations by hand, peaks by device name."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.engine.reporting import peak_flops, peak_of, transformer_flops


def test_operations_of_one_layer_are_those_that_torch_counts():
    width, tokens = 16, 10
    layer = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True)
    matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim > 1)
    # other kernels compute the product of queries and keys again in the backward pass
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, tokens, width, requires_grad=True)).sum().backward()
    expected = transformer_flops(matrices, tokens, num_layers=1, width=width)
    assert counter.get_total_flops() == pytest.approx(expected)


def test_a_pass_without_gradients_costs_a_third():
    sizes = {"num_layers": 24, "width": 1024}
    forward = transformer_flops(303_000_000, 201, **sizes, backward=False)
    assert transformer_flops(303_000_000, 201, **sizes) == 3 * forward


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA A40", "bf16", 149.7e12),
        ("Some Other Device", "bf16", None),
    ],
)
def test_peaks_by_device_name(name, precision, expected):
    assert peak_of(name, precision) == expected


def test_a_cpu_has_no_listed_peak():
    assert peak_flops(torch.device("cpu"), "fp32") is None

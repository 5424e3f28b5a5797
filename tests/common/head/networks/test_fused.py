"""Whole layers as one step of autograd: the numbers and gradients of their plain equals, with the same bits dropped."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.losses import head_loss
from common.head.networks.fused import CHANNELS_LAST, Dropout, kept
from common.head.networks.layers import DilatedResidualLayer, SeededDropout, masked
from common.head.networks.mstcn import PredictionGeneration, multiplied
from common.head.networks.tecno import TeCNO

FRAMES, MAPS = 301, 16
LIMITS = {"both sides": None, "causal": 0, "three frames ahead": 3}


def image(dtype: torch.dtype = torch.float64, maps: int = MAPS) -> torch.Tensor:
    """A sequence `(2, maps, 1, FRAMES)` in channels-last memory."""
    rows = torch.randn(2, 1, FRAMES, maps, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return rows.to(dtype).permute(0, 3, 1, 2).requires_grad_()


def padding(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A mask by which the second of two sequences ends early."""
    mask = torch.ones(2, 1, 1, FRAMES, dtype=dtype)
    mask[1, ..., 200:] = 0
    return mask


def result(layer: torch.nn.Module, forward, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What `forward(x, mask)` of a layer gives, and the gradients of its sum of squares by `x` and by each parameter."""
    x = image(next(layer.parameters()).dtype)
    layer.dropout.generator = torch.Generator().manual_seed(3)
    layer.zero_grad()
    out = forward(x, mask)
    (out * out.detach().roll(1, -1)).sum().backward()
    return {"out": out, "x": x.grad} | {name: value.grad.clone() for name, value in layer.named_parameters()}


def assert_same(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == plain.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("mask", [None, padding()], ids=["whole", "padded"])
@pytest.mark.parametrize("future", LIMITS.values(), ids=LIMITS)
def test_a_residual_layer_is_its_plain_equal(future, mask):
    torch.manual_seed(0)
    layer = DilatedResidualLayer(8, MAPS, future).double().train()
    assert_same(result(layer, layer, mask), result(layer, layer.plain, mask))


def plain_stage(stage: PredictionGeneration, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A stage as it is defined."""
    out = masked(stage.conv_1x1_in(x), mask)
    for pair in zip(stage.conv_dilated_1, stage.conv_dilated_2, stage.conv_fusion, strict=True):
        out = stage.plain_layer(out, mask, *pair)
    return masked(stage.conv_out(out), mask)


@pytest.mark.parametrize("mask", [None, padding()], ids=["whole", "padded"])
@pytest.mark.parametrize("future", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("num_layers", [2, 3])  # of three, the one in the middle has two dilations that are equal
def test_a_stage_of_paired_layers_is_its_plain_equal(num_layers, future, mask):
    torch.manual_seed(0)
    limits = [2**num_layers if future is None else future] * num_layers
    stage = PredictionGeneration(num_layers, MAPS, MAPS, 5, limits).double().train()

    assert_same(result(stage, stage, mask), result(stage, partial(plain_stage, stage), mask))


def test_a_pair_that_looks_at_the_same_frame_looks_at_it_once():
    for future, number_of_taps in ((8, 5), (0, 6)):
        stage = PredictionGeneration(3, MAPS, MAPS, 5, [future] * 3)
        layers = multiplied(stage.conv_dilated_1, stage.conv_dilated_2, stage.conv_fusion, torch.float32)
        assert [one.shape[-1] + other.shape[-1] for one, other, _, _ in layers] == [number_of_taps] * 3


def test_layers_of_a_stage_may_differ_in_what_they_may_see():
    """With few frames ahead, narrow layers look at both sides alike and wide ones do not."""
    torch.manual_seed(0)
    stage = PredictionGeneration(4, MAPS, MAPS, 5, [8, 0, 8, 2]).double().train()
    layers = multiplied(stage.conv_dilated_1, stage.conv_dilated_2, stage.conv_fusion, torch.float64)
    assert {other.shape[-1] for _, other, _, _ in layers} == {2, 3}
    assert_same(result(stage, stage, padding()), result(stage, partial(plain_stage, stage), padding()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_octets_are_masks_in_the_order_of_the_memory(dtype):
    octets = torch.tensor([0b00000101, 0b10000000], dtype=torch.uint8)
    x = torch.ones(1, 3, 1, 4, dtype=dtype).to(memory_format=CHANNELS_LAST)
    bits = kept(octets, x)
    assert bits.dtype.itemsize == x.dtype.itemsize
    assert bits.permute(0, 2, 3, 1).flatten().tolist() == [-1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0]


def test_dropout_doubles_what_it_keeps_and_so_does_its_gradient():
    x = image()
    octets = SeededDropout().octets(x)
    out = Dropout.apply(x, octets)
    out.sum().backward()
    keeps = kept(octets, x) != 0
    assert torch.equal(out, torch.where(keeps, 2 * x, 0))
    assert torch.equal(x.grad, torch.where(keeps, 2.0, 0.0).double())


def test_a_padded_batch_stays_in_bfloat16():
    """A mask of 32 bits would turn everything after it into 32 bits, unseen."""
    head = build_head(TrainConfig(features_dim=8, num_layers_PG=2, num_layers_R=2, num_R=1), 4).train()
    seen = []
    for layer in head.Rs[0].layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        head(torch.randn(2, 8, FRAMES), padding(torch.float32).squeeze(2))
    assert seen == [torch.bfloat16] * 2


def work_of_a_step(head: torch.nn.Module, frames: int) -> SimpleNamespace:
    """Operations on tensors as large as a layer's output in one training step, by the profiler: their names."""
    x = torch.randn(1, frames, 12).transpose(1, 2)
    target = torch.zeros(1, frames, dtype=torch.long)
    head.train()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        head_loss(head(x), target, TrainConfig(adaptive_mse=False)).backward()
    large = [
        event.name
        for event in profiled.events()
        if any(shape and torch.Size(shape).numel() == MAPS * frames for shape in event.input_shapes)
        # on one thread torch has a convolution of its own for one tap, which copies by itself
        and "conv2d" not in str(getattr(event.cpu_parent, "name", ""))
    ]
    return SimpleNamespace(copies=large.count("aten::copy_"), products=large.count("aten::mul"))


def test_a_further_layer_costs_no_copy_and_no_product_of_its_size():
    """What made a step slow before: masks as numbers, casts, and results in fresh memory."""
    few, many = (
        work_of_a_step(TeCNO(12, 4, stages=1, layers=layers, maps=MAPS, lookahead=10**6), 4096) for layers in (2, 6)
    )
    assert many.copies == few.copies
    assert many.products == few.products

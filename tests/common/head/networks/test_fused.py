"""Whole stages as one step of autograd: the numbers and gradients of their plain equals, with the same bits dropped."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.losses import head_loss
from common.head.networks import fused
from common.head.networks.fused import Dropout, kept, to_rows
from common.head.networks.layers import SeededDropout, masked
from common.head.networks.mstcn import PredictionGeneration
from common.head.networks.tecno import TeCNO, TeCNOStage

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


@pytest.fixture(params=[0, 10**9], ids=["as long ones", "as short ones"])
def however_long(request, monkeypatch):
    """Sequences taken as long ones, then as short ones, which are computed in other ways."""
    monkeypatch.setattr(fused, "SHORT", request.param)


def result(stage: torch.nn.Module, forward, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What `forward(x, mask)` of a stage gives, and the gradients of its sum of squares by `x` and by each parameter."""
    x = image(next(stage.parameters()).dtype)
    generator = torch.Generator().manual_seed(3)
    for module in stage.modules():
        if isinstance(module, SeededDropout):
            module.generator = generator
    stage.zero_grad()
    out = forward(x, mask)
    (out * out.detach().roll(1, -1)).sum().backward()
    return {"out": out, "x": x.grad} | {name: value.grad.clone() for name, value in stage.named_parameters()}


def assert_same(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == plain.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-10, atol=1e-10, msg=name)


def plain_residual(stage: TeCNOStage, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A stage as it is defined."""
    out = masked(stage.conv_1x1(x), mask)
    for layer in stage.layers:
        out = layer(out, mask)
    return masked(stage.conv_out_classes(out), mask)


@pytest.mark.usefixtures("however_long")
@pytest.mark.parametrize("mask", [None, padding()], ids=["whole", "padded"])
@pytest.mark.parametrize("future", LIMITS.values(), ids=LIMITS)
def test_a_stage_of_residual_layers_is_its_plain_equal(future, mask):
    """Its last layer, of dilation 512, sees 301 frames through the middle of its taps alone, or through the last."""
    torch.manual_seed(0)
    limits = [2**9 if future is None else future] * 10
    stage = TeCNOStage(MAPS, MAPS, 5, limits).double().train()
    assert_same(result(stage, stage, mask), result(stage, partial(plain_residual, stage), mask))


def plain_stage(stage: PredictionGeneration, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A stage as it is defined."""
    out = masked(stage.conv_1x1_in(x), mask)
    for pair in zip(stage.conv_dilated_1, stage.conv_dilated_2, stage.conv_fusion, strict=True):
        out = stage.plain_layer(out, mask, *pair)
    return masked(stage.conv_out(out), mask)


@pytest.mark.usefixtures("however_long")
@pytest.mark.parametrize("mask", [None, padding()], ids=["whole", "padded"])
@pytest.mark.parametrize("future", LIMITS.values(), ids=LIMITS)
# of three, the one in the middle has two dilations that are equal; of ten, the widest see nothing of 301 frames at their ends
@pytest.mark.parametrize("num_layers", [2, 3, 10])
def test_a_stage_of_paired_layers_is_its_plain_equal(num_layers, future, mask):
    torch.manual_seed(0)
    limits = [2**num_layers if future is None else future] * num_layers
    stage = PredictionGeneration(num_layers, MAPS, MAPS, 5, limits).double().train()

    assert_same(result(stage, stage, mask), result(stage, partial(plain_stage, stage), mask))


def test_pairs_that_look_at_the_same_frame_look_at_it_once():
    for future, number_of_taps in ((8, 5), (0, 6)):
        stage = PredictionGeneration(3, MAPS, MAPS, 5, [future] * 3)
        weights, _, taps = stage.multiplied(torch.float32)
        assert weights.shape == (3, MAPS, number_of_taps, MAPS)
        assert [len(one.offsets) + len(other.offsets) for one, other in taps] == [number_of_taps] * 3


@pytest.mark.usefixtures("however_long")
def test_layers_of_a_stage_may_differ_in_what_they_may_see():
    """With few frames ahead, narrow layers look at both sides alike and wide ones do not."""
    torch.manual_seed(0)
    stage = PredictionGeneration(4, MAPS, MAPS, 5, [8, 0, 8, 2]).double().train()
    weights, _, taps = stage.multiplied(torch.float64)
    assert {each.left == each.right for pair in taps for each in pair} == {True, False}
    assert weights.shape[2] == 6  # where one layer's pair does not look at the same frame, none is joined
    assert_same(result(stage, stage, padding()), result(stage, partial(plain_stage, stage), padding()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_octets_are_masks_in_the_order_of_the_memory(dtype):
    octets = torch.tensor([0b00000101, 0b10000000], dtype=torch.uint8)
    x = torch.ones(1, 4, 3, dtype=dtype)
    bits = kept(octets, x)
    assert bits.dtype.itemsize == x.dtype.itemsize
    assert bits.flatten().tolist() == [-1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert torch.equal(kept(octets.expand(5, 2), x), bits.expand(5, 1, 4, 3))


def test_dropout_doubles_what_it_keeps_and_so_does_its_gradient():
    x = image()
    octets = SeededDropout().octets(x)
    out = Dropout.apply(x, octets)
    out.sum().backward()
    keeps = kept(octets, to_rows(x)) != 0
    assert torch.equal(to_rows(out), torch.where(keeps, 2 * to_rows(x), 0))
    assert torch.equal(to_rows(x.grad), torch.where(keeps, 2.0, 0.0).double())


@pytest.mark.usefixtures("however_long")
def test_a_padded_batch_stays_in_bfloat16():
    """A mask of 32 bits would turn everything after it into 32 bits, unseen."""
    head = build_head(TrainConfig(features_dim=8, num_layers_PG=2, num_layers_R=2, num_R=1), 4).train()
    seen = []
    for stage in (head.PG, *head.Rs):
        stage.conv_out.register_forward_hook(lambda _, given, __: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        head(torch.randn(2, 8, FRAMES), padding(torch.float32).squeeze(2))
    assert seen == [torch.bfloat16] * 2


def work_of_a_step(head: torch.nn.Module, frames: int) -> SimpleNamespace:
    """By the profiler, in one training step: operations on tensors as large as a layer's output by name, and all that are started."""
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
    started = sum(event.name.startswith("aten::") for event in profiled.events())
    return SimpleNamespace(copies=large.count("aten::copy_"), products=large.count("aten::mul"), started=started)


def test_a_further_layer_costs_no_copy_and_no_product_of_its_size():
    """What made a step slow before: masks as numbers, casts, and results in fresh memory."""
    few, many = (
        work_of_a_step(TeCNO(12, 4, stages=1, layers=layers, maps=MAPS, lookahead=10**6), 4096) for layers in (2, 6)
    )
    assert many.copies == few.copies
    assert many.products == few.products


def test_a_further_layer_of_a_short_video_starts_few_operations():
    """They take longer to start than to run: 295 a layer were three quarters of a step of 500 frames."""
    heads = [TeCNO(12, 4, stages=1, layers=layers, maps=MAPS) for layers in (2, 6)]
    for head in heads:
        head.join()
    few, many = (work_of_a_step(head, 400) for head in heads)
    assert (many.started - few.started) / 4 <= 115

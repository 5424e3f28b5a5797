"""Inputs of two sizes through a block in one call: the values of two calls, and its shards gathered once."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist

from common.encoders.families import dinov3
from pretrain.backbones import start_backbone
from pretrain.engine.distributed import Processes
from pretrain.engine.step import TrainingStep
from pretrain.methods.dinov3 import DINOv3, states_of_both
from pretrain.methods.options import DINOv3Options
from pretrain.methods.several_sizes import take_several
from pretrain.ssl_config import find_model


def test_states_of_both_sizes_are_those_of_a_call_for_each():
    backbone, _ = start_backbone(find_model("dinov3-tiny"), "random")
    backbone.eval()
    random = torch.Generator().manual_seed(0)
    large, small = torch.randn(2, 3, 64, 64, generator=random), torch.randn(5, 3, 32, 32, generator=random)
    masks = torch.rand(2, 16, generator=random) < 0.3
    expected = [backbone(large, bool_masked_pos=masks).last_hidden_state, backbone(small).last_hidden_state]
    take_several(backbone, (type(backbone.model.layer[0]),))
    with torch.no_grad():
        found = states_of_both(backbone, (large, small), (masks, None))
        again = backbone(small).last_hidden_state  # one size as before
    for one, other in zip([*found, again], [*expected, expected[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def communication_of(num_layers: int) -> dict[str, int]:
    """Calls of each collective in one step of a sharded student, its average, and an anchor, of so many blocks."""
    name, (width, _, heads, mlp), others = dinov3.ARCHITECTURES["tiny"]
    dinov3.ARCHITECTURES["tiny"] = (name, (width, num_layers, heads, mlp), others)
    model = find_model("dinov3-tiny")
    options = DINOv3Options(
        model="dinov3-tiny", init="random", gram_weight=1.0, max_steps=8, batch_size=2, sharding="fsdp", freeze_backbone_epochs=0.0,
        prototypes=16, head_hidden=16, head_bottleneck=8, num_local=2,
    )  # fmt: skip
    processes = Processes(dist.get_rank(), 2, torch.device("cpu"))
    options = options.completed(on_gpu=False, world_size=2)
    method = DINOv3(start_backbone(model, "random")[0], options, model, 4)
    step = TrainingStep(method, method.schedules(8), options, processes)
    side, rule = 64, method.rule
    sizes = {"global_crops": (2, 2, 3, side, side), "local_crops": (2, 2, 3, rule.local_size, rule.local_size)}
    sizes["gram_crops"] = (2, 2, 3, rule.gram_size, rule.gram_size)
    batch = {key: torch.zeros(shape, dtype=torch.uint8) for key, shape in sizes.items()} | {
        "number": torch.tensor([0, 1])
    }
    step(0, [batch])
    counts = Counter()

    def counted(kind, name):
        call = getattr(dist, name)

        def wrapped(*arguments, **options):
            counts[kind] += 1
            return call(*arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        # what FSDP calls, by its name in newer and in older versions of PyTorch
        names = {
            "gather": ("all_gather_single", "all_gather_into_tensor"),
            "reduce": ("reduce_scatter_single", "reduce_scatter_tensor"),
        }
        for kind, (newer, older) in names.items():
            called = newer if hasattr(dist, newer) else older
            patch.setattr(dist, called, counted(kind, called))
        step(1, [batch])
    dinov3.ARCHITECTURES["tiny"] = (name, (width, 2, heads, mlp), others)
    return dict(counts)


def test_a_block_is_gathered_four_times_and_reduced_once(two):
    of_two, of_three = (two(communication_of, number)[0] for number in (2, 3))

    # the student's forward and backward pass, the average's and the anchor's forward pass
    assert of_three["gather"] - of_two["gather"] == 4
    assert of_three["reduce"] - of_two["reduce"] == 1


@pytest.mark.slow
def test_what_is_no_list_is_taken_as_it_is():
    layer = torch.nn.Linear(2, 2)
    take_several(layer, (torch.nn.Linear,))
    assert layer(torch.zeros(1, 2)).shape == (1, 2)
    assert [each.shape for each in layer([torch.zeros(1, 2), torch.zeros(3, 2)])] == [(1, 2), (3, 2)]

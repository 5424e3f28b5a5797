"""DINO on class tokens, for any backbone."""

import pytest
import torch
import torch.nn.functional as F

from common.video.preprocess import normalise
from pretrain.engine.monitor import ENTROPY
from pretrain.engine.step import TrainingStep
from tests.pretrain.methods.crops import (
    NUM_LOCAL,
    assert_same_change,
    crops_of,
    dino_options,
    here,
    losses_on_one_batch,
    method_of,
    trained,
)

CAFORMER = dino_options()


def test_the_student_gets_gradients_everywhere_and_the_teacher_none():
    for given in (CAFORMER, dino_options(model="dinov3-tiny")):
        method = method_of(given)
        method(crops_of(0, 4), 0)["loss"].backward()
        trainable = {name: part for name, part in method.named_parameters() if part.requires_grad}
        without = [name for name, part in trainable.items() if part.grad is None or not part.grad.abs().sum() > 0]
        assert without == []
        assert all(name.startswith("student.") for name in trainable)
        frozen = [name for name, part in method.student.named_parameters() if not part.requires_grad]
        assert frozen == ([] if given is CAFORMER else ["backbone.embeddings.mask_token"])


def scores(networks, pixels):
    return networks["dino_head"](networks["backbone"](pixels))


def test_the_loss_is_that_of_its_definition_and_the_centre_follows():
    method, batch = method_of(CAFORMER), crops_of(0, 4)
    with torch.no_grad():
        method.centering.center.copy_(torch.randn(16, generator=torch.Generator().manual_seed(3)))
        center = method.centering.center.clone()
        for parameter in method.teacher.parameters():
            parameter.mul_(1.2)
        views = [batch["global_crops"][:, index] for index in range(2)]
        views += [batch["local_crops"][:, index] for index in range(NUM_LOCAL)]
        views = [normalise(view, method.preprocessing) for view in views]
        outputs = [scores(method.teacher, view) for view in views[:2]]
        pairs = []
        for index, output in enumerate(outputs):
            target = torch.softmax((output - center) / method.temperature(1), dim=1)
            for other, view in enumerate(views):
                if other != index:
                    pairs.append(F.cross_entropy(scores(method.student, view) / 0.1, target))
    found = method(batch, 1)
    assert len(pairs) == 2 * (1 + NUM_LOCAL)
    torch.testing.assert_close(found["loss"].detach(), torch.stack(pairs).mean(), rtol=1e-5, atol=1e-6)
    expected = 0.9 * center + 0.1 * torch.cat(outputs).mean(0)
    torch.testing.assert_close(method.centering.center, expected, rtol=1e-5, atol=1e-6)
    assert set(found) == {"loss", "loss/global_crops", "loss/local_crops", ENTROPY}
    assert not any(value.requires_grad for name, value in found.items() if name != "loss")


def test_the_teacher_s_entropy_tells_a_collapse_to_one_prototype_or_to_none():
    method, batch = method_of(CAFORMER), crops_of(0, 4)
    head = method.teacher["dino_head"]
    with torch.no_grad():
        head.prototypes.weight.zero_()
    assert method(batch, 0)[ENTROPY].item() == pytest.approx(torch.tensor(16.0).log().item())
    with torch.no_grad():  # one direction for every input, which the first prototype points to
        head.mlp[-1].weight.zero_()
        head.mlp[-1].bias.fill_(1.0)
        head.prototypes.weight[0].fill_(10.0)
    assert method(batch, 0)[ENTROPY].item() == pytest.approx(0.0, abs=1e-3)


def test_steps_on_made_frames_lower_the_loss():
    given = dino_options(momentum=0.5, layer_decay=1.0, batch_size=8, warmup=0.0, temperature=0.04)
    losses = losses_on_one_batch(given, steps=15)
    assert max(losses[-3:]) < 0.7 * losses[0]


def clipped(sharding: str) -> dict[str, torch.Tensor]:
    """Norms of the gradients of two steps' samples after clipping, by parameter, of which this process may hold shards."""
    given = dino_options(batch_size=4 // here().world_size, sharding=sharding, clip_norm=1e-3)
    method = method_of(given)
    step = TrainingStep(method, method.schedules(10), given, here())
    step.prepared(crops_of(given.batch_size * here().rank, given.batch_size), 0)["loss"].backward()
    step.optimizer.clip()
    whole = {name: part.grad for name, part in method.named_parameters() if part.grad is not None}
    return {name: (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).norm() for name, grad in whole.items()}


def test_every_parameter_is_clipped_by_its_own_norm_also_in_shards(two):
    alone = clipped("none")
    assert max(alone.values()) == pytest.approx(1e-3, rel=1e-3)
    assert sum(value > 0.9e-3 for value in alone.values()) > len(alone) / 2
    for sharding in ("ddp", "fsdp"):
        found = two(clipped, sharding)[0]
        assert {name.removeprefix("module."): value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in alone.items()}, rel=1e-2, abs=1e-6
        )


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_are_one_on_the_concatenated_batch(two, sharding):
    alone = trained(dino_options(batch_size=4))
    first, second = two(trained, dino_options(batch_size=2, sharding=sharding))
    for found, expected in zip(first[0], alone[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert first[0] == second[0]
    assert_same_change(first[1], alone[1], method_of(dino_options()))

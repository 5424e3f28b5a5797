"""One optimiser step: the moving average, accumulation, clipping, frozen groups, losses without value."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.base.runtime import UserError
from pretrain.engine.step import MovingAverage, TrainingStep
from tests.pretrain.engine.toy import ALONE, OPTIONS, ToyMethod, batches_of


def started(method: ToyMethod | None = None, **changes) -> TrainingStep:
    method = method or ToyMethod()
    options = replace(OPTIONS, **changes).completed(on_gpu=False, world_size=1)
    return TrainingStep(method, method.schedules(10), options, ALONE)


def micro_batches(count: int, batch_size: int = 4) -> list:
    source = batches_of(ALONE, batch_size)(0)
    return [next(source) for _ in range(count)]


def trained(method: ToyMethod, steps: int = 3, accumulate: int = 1, batch_size: int = 4, **changes) -> ToyMethod:
    step, batches = started(method, **changes), micro_batches(steps * accumulate, batch_size)
    for number in range(steps):
        step(number, batches[number * accumulate : (number + 1) * accumulate])
    return method


def values(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


# teacher


def test_the_average_follows_its_closed_form():
    """With a student at rest, teacher_k = m^k teacher_0 + (1 - m^k) student."""
    method = ToyMethod()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    before = values(method.teacher)
    average = MovingAverage(method)
    for _ in range(20):
        average.update(0.9)
    rest = 0.9**20
    for teacher, start, student in zip(values(method.teacher), before, values(method.student), strict=True):
        torch.testing.assert_close(teacher, rest * start + (1 - rest) * student)


def test_momentum_1_keeps_the_teacher_and_0_copies_the_student():
    method = trained(ToyMethod())
    before = values(method.teacher)
    MovingAverage(method).update(1.0)
    assert all(map(torch.equal, values(method.teacher), before))
    MovingAverage(method).update(0.0)
    assert all(map(torch.equal, values(method.teacher), values(method.student)))


def test_the_teacher_follows_the_student_after_its_step():
    method = ToyMethod()
    before = values(method.teacher)
    trained(method, steps=1)
    for teacher, start, student in zip(values(method.teacher), before, values(method.student), strict=True):
        torch.testing.assert_close(teacher, 0.9 * start + 0.1 * student)
        assert not torch.equal(student, start)


def test_the_teacher_has_no_gradients_and_stays_in_eval_mode():
    method = ToyMethod(dropout=0.5)
    step = started(method)
    step.prepared(micro_batches(1)[0], 0)["loss"].backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.student.parameters())
    assert method.student.training
    assert not any(part.training for part in method.teacher.modules())


def test_the_average_covers_parameters_only():
    method = ToyMethod()
    for part, value in ((method.student["backbone"], 5.0), (method.teacher["backbone"], 7.0)):
        part.register_buffer("centre", torch.tensor(value))
    MovingAverage(method).update(0.0)
    assert method.teacher["backbone"].centre == 7


def test_a_bf16_teacher_is_refused_because_it_would_never_move():
    method = ToyMethod()
    method.teacher.bfloat16()
    with pytest.raises(ValueError, match="needs float32"):
        MovingAverage(method)


def test_a_teacher_without_student_is_refused():
    method = ToyMethod()
    method.teacher["other"] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="teacher 'other' has no student; there are backbone, head"):
        MovingAverage(method)
    method = ToyMethod()
    method.teacher["head"] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"head\.weight has no student of shape"):
        MovingAverage(method)


# gradients


def test_two_accumulated_micro_batches_are_one_batch_of_double_size():
    whole = trained(ToyMethod(), accumulate=1, batch_size=8)
    halves = trained(ToyMethod(), accumulate=2, batch_size=4)
    for one, other in zip(values(whole), values(halves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_recomputed_blocks_give_the_same_gradients():
    plain = trained(ToyMethod(dropout=0.3))
    recomputed = trained(ToyMethod(dropout=0.3), gradient_checkpointing="all")
    assert all(map(torch.equal, values(plain), values(recomputed)))


def test_each_clip_group_is_clipped_by_its_own_norm():
    method = ToyMethod(clip_norm=1.0)
    step = started(method)
    for role, size in (("backbone", 3.0), ("head", 0.01)):
        for parameter in method.student[role].parameters():
            parameter.grad = torch.full_like(parameter, size)
    counts = {role: sum(p.numel() for p in method.student[role].parameters()) for role in ("backbone", "head")}
    norms = step.optimizer.clip()
    assert norms == pytest.approx({"backbone": 3 * math.sqrt(counts["backbone"]), "head": 0.01 * counts["head"] ** 0.5})
    backbone = torch.cat([parameter.grad.flatten() for parameter in method.student["backbone"].parameters()])
    assert backbone.norm().item() == pytest.approx(1.0, rel=1e-4)
    assert all((parameter.grad == 0.01).all() for parameter in method.student["head"].parameters())


def test_each_parameter_may_be_clipped_by_its_own_norm():
    """As DINO does (`dino:utils.py`): what is short keeps its length beside what is long."""
    step = started(ToyMethod(clip_norm=1.0))
    step.optimizer.schedules = replace(step.optimizer.schedules, clip_each=True)
    parameters = [parameter for group in step.optimizer.groups for parameter in group.parameters]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(
            parameter, (number % 2 * 5 + 0.5) / parameter.numel() ** 0.5
        )  # of norm 0.5 or 5.5
    step.optimizer.clip()
    norms = [parameter.grad.norm().item() for parameter in parameters]
    assert norms == pytest.approx([min(number % 2 * 5 + 0.5, 1.0) for number in range(len(parameters))], rel=1e-4)


def test_without_a_clip_norm_gradients_are_left_alone_and_reported():
    method = ToyMethod(clip_norm=None)
    step = started(method)
    for parameter in method.student.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    assert min(step.optimizer.clip().values()) > 100
    assert all((parameter.grad == 100).all() for parameter in method.student.parameters())


def test_rates_follow_schedule_scale_and_decay_of_each_group():
    method = ToyMethod(frozen_until=2)
    optimizer = started(method).optimizer
    assert optimizer.set_schedules(1) == pytest.approx({"learning_rate": 0.009, "weight_decay": 0.1})
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(0.0, 0.1), (pytest.approx(0.009), 0.0)]
    optimizer.set_schedules(2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.004, 0.008])


def test_a_frozen_group_keeps_its_values_until_its_step():
    start = values(ToyMethod().student["backbone"])
    frozen = trained(ToyMethod(frozen_until=3), steps=3)
    assert all(map(torch.equal, values(frozen.student["backbone"]), start))
    assert not torch.equal(frozen.student["head"].weight, ToyMethod().student["head"].weight)
    thawed = trained(ToyMethod(frozen_until=3), steps=4)
    assert not any(map(torch.equal, values(thawed.student["backbone"]), start))


class Unreached(ToyMethod):
    """The head takes no part in the loss."""

    def forward(self, batch, step):
        return {"loss": self.student["backbone"](batch["noisy"]).square().mean()}


def test_parameters_that_the_loss_does_not_reach_are_named():
    with pytest.raises(RuntimeError, match=r"2 trainable parameters take no part in the loss, first \['student.head"):
        trained(Unreached(), steps=1)


class WithoutGroup(ToyMethod):
    """The head is in no group."""

    def parameter_groups(self):
        return super().parameter_groups()[:1]


def test_every_parameter_must_be_in_a_group():
    with pytest.raises(ValueError, match=r"in none: .*student\.head"):
        started(WithoutGroup())


# losses without value


class Broken(ToyMethod):
    """Without a finite loss (or only gradient) at some steps."""

    def __init__(self, *steps: int, only_gradient: bool = False):
        super().__init__()
        self.broken, self.only_gradient = steps, only_gradient

    def forward(self, batch, step):
        found = super().forward(batch, step)
        if step in self.broken and self.only_gradient:
            found["loss"] = found["loss"] + (self.student["head"].bias * 0).abs().sqrt().sum()  # 0, slope infinite * 0
        elif step in self.broken:
            found["loss"] = found["loss"] * math.nan
        return found


@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_step_without_finite_loss_or_gradient_changes_nothing(only_gradient, caplog):
    method = Broken(0, 1, only_gradient=only_gradient)
    step, batches, before = started(method), micro_batches(3), values(method)
    for number in range(2):
        step(number, [batches[number]])
        assert step.is_skipped
    assert all(map(torch.equal, values(method), before))
    assert "step 1: loss" in caplog.text
    step(2, [batches[2]])
    assert not step.is_skipped
    assert not any(map(torch.equal, values(method), before))
    assert all(value.isfinite().all() for value in values(method))


def test_three_steps_without_finite_loss_end_the_training():
    with pytest.raises(UserError, match="steps 1 to 3: loss or gradient not finite three times running"):
        trained(Broken(1, 2, 3), steps=4)


def test_skipped_steps_that_do_not_follow_each_other_do_not_end_it():
    trained(Broken(0, 1, 3, 4, 6), steps=7)


# precision


def test_under_bf16_parameters_averages_and_moments_stay_fp32():
    method = ToyMethod()
    step = started(method, precision="bf16")
    seen = []
    method.student["head"].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    numbers = step(0, micro_batches(1))
    assert seen == [torch.bfloat16]
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in [*values(method), *moments]} == {torch.float32}
    assert numbers["loss"] == pytest.approx(started()(0, micro_batches(1))["loss"], rel=0.02)


class OwnFeatures(ToyMethod):
    """Shows the student's features, whose dropout would be seen."""

    def features(self, batch):
        return self.student["backbone"](batch["clean"])


def test_features_are_taken_in_eval_mode_without_gradients():
    method, batch = OwnFeatures(dropout=0.9), micro_batches(1)[0]
    step = started(method)
    first = step.features(batch)
    assert torch.equal(first, step.features(batch))
    assert not first.requires_grad
    assert method.student.training

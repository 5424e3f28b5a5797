"""Training losses: by hand, by naive loops, and blind to padding."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.dataset.phases import IGNORED
from common.head.config import TrainConfig
from common.head.losses import classification_loss, head_loss, smoothing_weights, truncated_mse

WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5])


def settings(**changes) -> TrainConfig:
    """A plain loss: little smoothing, the same in all frames."""
    return TrainConfig(**({"loss_mse": 0.15, "adaptive_mse": False} | changes))


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def targets(batch: int, length: int, num_classes: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, num_classes, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(target: torch.Tensor, *lengths: int) -> torch.Tensor:
    """The batch with item i cut to `lengths[i]` frames."""
    target = target.clone()
    for item, length in enumerate(lengths):
        target[item, length:] = IGNORED
    return target


# --- classification ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_focal_loss_at_gamma_0_is_cross_entropy(class_weights):
    x, target = logits(2, 4, 30), padded(targets(2, 30), 30, 12)
    expected = F.cross_entropy(x, target, weight=class_weights, ignore_index=IGNORED)
    assert torch.equal(classification_loss(x, target, gamma=0.0, class_weights=class_weights), expected)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_focal_loss_approaches_cross_entropy_as_gamma_approaches_0(class_weights):
    """The two branches are one function: there is no jump at gamma 0."""
    x, target = logits(2, 4, 30), padded(targets(2, 30), 30, 12)
    near, at = (classification_loss(x, target, gamma=g, class_weights=class_weights).item() for g in (1e-6, 0.0))
    assert near == pytest.approx(at, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_loss_equals_a_naive_loop(gamma, weighted):
    x, target = logits(2, 4, 20), padded(targets(2, 20), 20, 9)
    total = norm = 0.0
    for item in range(2):
        for t in range(20):
            label = target[item, t].item()
            if label == IGNORED:
                continue
            p = x[item, :, t].softmax(0)[label].item()
            weight = WEIGHTS[label].item() if weighted else 1.0
            total += weight * (1 - p) ** gamma * -math.log(p)
            norm += weight
    loss = classification_loss(x, target, gamma=gamma, class_weights=WEIGHTS if weighted else None)
    assert loss.item() == pytest.approx(total / norm, rel=1e-5)


def test_focal_loss_by_hand():
    """p = 1/4 for a uniform prediction over 4 classes: (3/4)^2 * log 4."""
    assert classification_loss(torch.zeros(1, 4, 5), targets(1, 5), gamma=2.0).item() == pytest.approx(
        (3 / 4) ** 2 * math.log(4)
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_padding_neither_counts_nor_gets_a_gradient(gamma, class_weights):
    x, target = logits(1, 4, 30).requires_grad_(), targets(1, 30)
    longer = torch.cat((x, 50 * logits(1, 4, 10, seed=9)), dim=2).detach().requires_grad_()
    plain = classification_loss(x, target, gamma=gamma, class_weights=class_weights)
    with_padding = classification_loss(
        longer, F.pad(target, (0, 10), value=IGNORED), gamma=gamma, class_weights=class_weights
    )
    assert with_padding.item() == pytest.approx(plain.item(), rel=1e-6)
    with_padding.backward()
    assert (longer.grad[:, :, 30:] == 0).all()
    assert longer.grad[:, :, :30].abs().sum() > 0


@pytest.mark.parametrize("gamma", [1e-3, 0.25, 0.5, 0.999, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_focal_loss_of_certain_predictions_has_finite_gradients(gamma, class_weights):
    """From every distance of the right class to the others, right and wrong, up to where p_t rounds to 1 and beyond."""
    margins = torch.cat((torch.linspace(-400, 400, 401), torch.linspace(14, 19, 101)))
    x = torch.zeros(1, 4, len(margins))
    x[0, 2] = margins
    x.requires_grad_()
    loss = classification_loss(x, torch.full((1, len(margins)), 2), gamma=gamma, class_weights=class_weights)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    certain = F.log_softmax(x.detach(), dim=1)[0, 2] == 0
    assert certain.sum() > 100
    assert (x.grad[0, :, certain] == 0).all()
    assert (x.grad[0, 2, margins < 5] < 0).all()


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0])
def test_gradients_of_the_focal_loss_are_the_formula_s(gamma):
    """d/dx_t of (1 - p)^g * -log p is (1 - p)^g * (g * p * log p - (1 - p)) in the right class (Lin et al., appendix B)."""
    x = logits(1, 4, 50).double().requires_grad_()
    classification_loss(x, torch.full((1, 50), 2), gamma=gamma).backward()
    p = x.detach().softmax(dim=1)[0, 2]
    expected = (1 - p) ** gamma * (gamma * p * p.log() - (1 - p)) / 50
    torch.testing.assert_close(x.grad[0, 2], expected)


def test_a_certain_frame_leaves_the_focal_loss_of_the_others_as_it_is():
    x, target = logits(1, 4, 30), targets(1, 30)
    certain = torch.tensor([0.0, 0.0, 200.0, 0.0]).view(1, 4, 1)
    alone = classification_loss(x, target, gamma=0.5).item()
    both = classification_loss(torch.cat((x, certain), dim=2), F.pad(target, (0, 1), value=2), gamma=0.5).item()
    assert both == pytest.approx(alone * 30 / 31, rel=1e-6)


# --- smoothing -----------------------------------------------------------------------------------------------------


def log_probabilities(*columns: tuple[float, ...]) -> torch.Tensor:
    """Logits `(1, classes, T)` whose softmax is exactly the given columns."""
    return torch.tensor(columns).T.unsqueeze(0).log()


def test_smoothing_loss_by_hand():
    x = log_probabilities((0.5, 0.5), (0.25, 0.75), (0.25, 0.75))
    squares = (math.log(0.25 / 0.5) ** 2 + math.log(0.75 / 0.5) ** 2) / 2
    assert truncated_mse(x, torch.zeros(1, 3, dtype=torch.long)).item() == pytest.approx((squares + 0) / 2)


def test_smoothing_loss_is_clamped_at_16():
    x = torch.tensor([[[100.0, -100.0], [-100.0, 100.0]]])
    assert truncated_mse(x, torch.zeros(1, 2, dtype=torch.long)).item() == 16.0


def test_smoothing_loss_clamps_each_class_on_its_own():
    """One class jumps by far more than 4 in log probability, the other by less."""
    x = log_probabilities((1e-4, 1 - 1e-4), (0.5, 0.5))
    expected = (16 + math.log(0.5 / (1 - 1e-4)) ** 2) / 2
    assert truncated_mse(x, torch.zeros(1, 2, dtype=torch.long)).item() == pytest.approx(expected, rel=1e-5)


def test_smoothing_loss_pulls_the_later_frame_only():
    x = logits(1, 4, 2).requires_grad_()
    truncated_mse(x, targets(1, 2)).backward()
    assert (x.grad[:, :, 0] == 0).all()
    assert x.grad[:, :, 1].abs().sum() > 0


def test_smoothing_loss_of_a_padded_batch_is_the_mean_over_its_valid_frames():
    x, lengths = logits(2, 4, 30), (30, 12)
    target = padded(targets(2, 30), *lengths)
    alone = [
        truncated_mse(x[item : item + 1, :, :length], target[item : item + 1, :length])
        for item, length in enumerate(lengths)
    ]
    pairs = [length - 1 for length in lengths]
    expected = sum(loss * count for loss, count in zip(alone, pairs, strict=True)) / sum(pairs)
    assert truncated_mse(x, target).item() == pytest.approx(expected.item(), rel=1e-6)


def test_smoothing_loss_of_a_single_frame_is_0():
    assert truncated_mse(logits(1, 4, 1), targets(1, 1)).item() == 0


def test_smoothing_loss_weighs_the_term_of_each_frame():
    x, target = logits(1, 4, 3), targets(1, 3)
    terms = [truncated_mse(x[:, :, t - 1 : t + 1], target[:, t - 1 : t + 1]).item() for t in (1, 2)]
    weighted = truncated_mse(x, target, weights=torch.tensor([[9.0, 0.5, 0.1]]))
    assert weighted.item() == pytest.approx((0.5 * terms[0] + 0.1 * terms[1]) / 2)


# --- smoothing weights ---------------------------------------------------------------------------------------------


def naive_weights(labels: list[int], window: int) -> list[float]:
    """geomspace(1, 0.1, half) then geomspace(0.1, 1, half) over [c - half, c + half), clipped; overlaps: the minimum."""
    half = window // 2
    ramp = [0.1 ** (i / (half - 1)) for i in range(half)] if half > 1 else [1.0]
    weights = [1.0] * len(labels)
    for c in range(1, len(labels)):
        if labels[c] == labels[c - 1] or labels[c] == IGNORED:
            continue
        for offset, value in zip(range(-half, half), ramp + ramp[::-1], strict=True):
            if 0 <= c + offset < len(labels):
                weights[c + offset] = min(weights[c + offset], value)
    return weights


def run_lengths(*pairs: tuple[int, int]) -> torch.Tensor:
    return torch.cat([torch.full((length,), label) for label, length in pairs]).unsqueeze(0)


@pytest.mark.parametrize(
    "target",
    [
        run_lengths((0, 100), (1, 100)),
        run_lengths((0, 3), (1, 100)),
        run_lengths((0, 100), (1, 2)),
        run_lengths((0, 40), (1, 8), (2, 40)),
        run_lengths((0, 5), (1, 5), (0, 5)),
        run_lengths((3, 50)),
        run_lengths((0, 60), (1, 20), (IGNORED, 30)),
        run_lengths((0, 1)),
    ],
    ids=["middle", "at the start", "at the end", "two close", "all within a window", "none", "padding", "one frame"],
)
@pytest.mark.parametrize("window", [30, 8, 31, 2])
def test_smoothing_weights_equal_a_naive_loop(target, window):
    ours = smoothing_weights(target, window)[0].tolist()
    valid = int((target != IGNORED).sum())
    assert ours[:valid] == pytest.approx(naive_weights(target[0].tolist(), window)[:valid], rel=1e-5)


def test_smoothing_weights_of_random_labels_equal_a_naive_loop_for_every_item():
    target = targets(4, 200).repeat_interleave(7, dim=1)
    ours = smoothing_weights(target, 30)
    for item in range(4):
        assert ours[item].tolist() == pytest.approx(naive_weights(target[item].tolist(), 30), rel=1e-5)


def test_smoothing_weights_of_one_change_by_hand():
    weights = smoothing_weights(run_lengths((0, 50), (1, 50)), 30)[0]
    assert weights[34] == 1  # outside
    assert weights[35] == 1  # the ramp's first value
    assert weights[49].item() == pytest.approx(0.1)  # last frame of the old phase
    assert weights[50].item() == pytest.approx(0.1)  # first frame of the new one
    assert weights[64] == 1
    assert torch.allclose(weights[35:50], weights[50:65].flip(0))
    assert (weights[36:49] < weights[35:48]).all()


def test_change_into_padding_is_not_a_phase_change():
    target = run_lengths((0, 60), (IGNORED, 40))
    assert (smoothing_weights(target, 30) == 1).all()


def test_a_videos_weights_do_not_depend_on_its_neighbours_in_the_batch():
    first, second = run_lengths((0, 95), (1, 5)), run_lengths((2, 4), (0, 96))
    together = smoothing_weights(torch.cat((first, second)), 30)
    assert torch.equal(together[:1], smoothing_weights(first, 30))
    assert torch.equal(together[1:], smoothing_weights(second, 30))


# --- the whole loss ------------------------------------------------------------------------------------------------


def test_head_loss_is_the_sum_over_stages_of_both_terms():
    stages, target = logits(3, 2, 4, 40), padded(targets(2, 40), 40, 17)
    config = settings(loss_mse=0.35, loss_focal=2.0)
    expected = sum(classification_loss(s, target, gamma=2.0) + 0.35 * truncated_mse(s, target) for s in stages)
    assert head_loss(stages, target, config).item() == pytest.approx(expected.item(), rel=1e-6)


def test_head_loss_averages_over_all_valid_frames_of_a_padded_batch():
    stages, lengths = logits(3, 2, 4, 40), (40, 11)
    target = padded(targets(2, 40), *lengths)
    config = settings(loss_mse=0.0)
    alone = [
        head_loss(stages[:, item : item + 1, :, :length], target[item : item + 1, :length], config).item()
        for item, length in enumerate(lengths)
    ]
    assert head_loss(stages, target, config).item() == pytest.approx((40 * alone[0] + 11 * alone[1]) / 51, rel=1e-6)


def test_adaptive_smoothing_lowers_the_loss_near_changes_only():
    stages = logits(1, 1, 4, 100)
    plain, adaptive = settings(loss_mse=1.0), settings(loss_mse=1.0, adaptive_mse=True)
    constant, changing = run_lengths((1, 100)), run_lengths((1, 50), (2, 50))
    assert head_loss(stages, constant, adaptive) == head_loss(stages, constant, plain)
    assert head_loss(stages, changing, adaptive) < head_loss(stages, changing, plain)


def test_head_loss_uses_its_window():
    stages, target = logits(1, 1, 4, 100), run_lengths((1, 50), (2, 50))
    losses = [
        head_loss(stages, target, settings(loss_mse=1.0, adaptive_mse=True, window_mse=w)).item() for w in (10, 30)
    ]
    assert losses[0] > losses[1]


def test_head_loss_of_bf16_stages_is_computed_in_fp32():
    stages, target = logits(2, 1, 4, 30), targets(1, 30)
    loss = head_loss(stages.bfloat16(), target, settings())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(head_loss(stages.bfloat16().float(), target, settings()).item())


# --- frames that do not count ---------------------------------------------------------------------------------------


def test_frames_that_do_not_count_are_in_no_loss():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 9, requires_grad=True)
    target = torch.tensor([[IGNORED, 0, 0, IGNORED, IGNORED, 1, 2, 2, IGNORED]])
    config = TrainConfig(window_mse=4)
    loss = head_loss(logits[None], target, config)
    loss.backward()
    counted = [1, 2, 5, 6, 7]
    expected = classification_loss(logits[:, :, counted], target[:, counted])
    log_p = torch.log_softmax(logits.detach(), dim=1)
    # of frames 2, 6 and 7 alone is the frame before one that counts; 1, 4, 5 and 6 are around the change at frame 6
    change = ((log_p[:, :, 1:] - log_p[:, :, :-1]) ** 2).clamp(max=16).mean(dim=1)[0]
    weights = smoothing_weights(target, 4)[0]
    smoothing = sum(change[frame - 1] * weights[frame] for frame in (2, 6, 7)) / 3
    assert loss.item() == pytest.approx((expected + config.loss_mse * smoothing).item(), rel=1e-5)
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 1, 1])
    assert logits.grad[0, :, [0, 3, 4, 8]].abs().max() == 0

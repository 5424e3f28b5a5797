"""The head: against the original's numbers, against a plain restatement, padding, causality, dropout."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.head.config import TrainConfig
from common.head.losses import IGNORED, classification_loss, head_loss, truncated_mse
from common.head.networks.layers import SeededDropout
from common.head.networks.mstcn import MS_TCN2

SIZES = ("small", "seed_depth")
T_MSE_CONFIG = TrainConfig(loss_mse=0.35, adaptive_mse=False)


@pytest.fixture(scope="module")
def golden(reference_data):
    """`golden(size)` -> what the original implementation gave: config, arrays by name, our network with its weights."""
    with np.load(reference_data / "golden" / "mstcn_reference.npz") as arrays:
        content = {key: arrays[key] for key in arrays}

    def load(size: str):
        part = {key.removeprefix(f"{size}/"): value for key, value in content.items() if key.startswith(f"{size}/")}
        network = MS_TCN2(*part["config"][:6].tolist()).eval()
        state = {key.removeprefix("param/"): torch.from_numpy(v) for key, v in part.items() if key.startswith("param/")}
        network.load_state_dict(state, strict=True)
        return part, network

    return load


def small_head(*, causal: bool = False, seed: int = 0, **changes: int) -> MS_TCN2:
    torch.manual_seed(seed)
    sizes = {"num_layers_PG": 4, "num_layers_R": 3, "num_R": 2, "num_f_maps": 8, "dim": 6, "num_classes": 5} | changes
    return MS_TCN2(**sizes, causal=causal).eval()


def features(batch: int, length: int, dim: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, dim, length, generator=torch.Generator().manual_seed(seed))


def plain_ms_tcn2(state: dict[str, torch.Tensor], x: torch.Tensor, num_layers: tuple[int, int], num_R: int):
    """MS-TCN++ in eval mode by the paper's equations, on `conv1d` with symmetric padding and no mask."""

    def conv(name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[2] // 2)
        return F.conv1d(x, weight, state[f"{name}.bias"], padding=padding, dilation=dilation)

    layers_PG, layers_R = num_layers
    out = conv("PG.conv_1x1_in", x)
    for i in range(layers_PG):
        shrinking = conv(f"PG.conv_dilated_1.{i}", out, 2 ** (layers_PG - 1 - i))
        growing = conv(f"PG.conv_dilated_2.{i}", out, 2**i)
        out = out + conv(f"PG.conv_fusion.{i}", torch.cat([shrinking, growing], 1)).relu()
    stages = [conv("PG.conv_out", out)]
    for r in range(num_R):
        out = conv(f"Rs.{r}.conv_1x1", stages[-1].softmax(1))
        for i in range(layers_R):
            out = out + conv(f"Rs.{r}.layers.{i}.conv_1x1", conv(f"Rs.{r}.layers.{i}.conv_dilated", out, 2**i).relu())
        stages.append(conv(f"Rs.{r}.conv_out", out))
    return torch.stack(stages)


# --- the original implementation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_golden_logits_of_every_stage(golden, size):
    part, network = golden(size)
    with torch.no_grad():
        logits = network(torch.from_numpy(part["input"]))
    assert np.abs(logits.numpy() - part["logits"]).max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_golden_total_loss(golden, size):
    part, network = golden(size)
    with torch.no_grad():
        loss = head_loss(network(torch.from_numpy(part["input"])), torch.from_numpy(part["target"]), T_MSE_CONFIG)
    assert loss.item() == pytest.approx(float(part["loss_lambda_0.35"]), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_golden_cross_entropy_of_every_stage(golden, size):
    part, network = golden(size)
    with torch.no_grad():
        logits = network(torch.from_numpy(part["input"]))
    target = torch.from_numpy(part["target"])
    ours = [classification_loss(stage, target).item() for stage in logits]
    assert ours == pytest.approx(part["cross_entropy_per_stage"].tolist(), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_golden_smoothing_loss_of_every_stage(golden, size):
    """On the golden logits, not on ours: untrained logits hardly move between frames, so the values are near 1e-8,
    squares of differences near 1e-4 of numbers near 3. A last-digit difference of a logit shows at 1e-4 relative."""
    part, _ = golden(size)
    target = torch.from_numpy(part["target"])
    ours = [truncated_mse(torch.from_numpy(stage), target).item() for stage in part["logits"]]
    assert ours == pytest.approx(part["t_mse_per_stage"].tolist(), rel=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_golden_gradient_norms(golden, size):
    part, network = golden(size)
    head_loss(network(torch.from_numpy(part["input"])), torch.from_numpy(part["target"]), T_MSE_CONFIG).backward()
    ours = {name: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    theirs = {key.removeprefix("grad_norm/"): float(v) for key, v in part.items() if key.startswith("grad_norm/")}
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_published_size_has_the_published_parameter_count():
    network = MS_TCN2(13, 13, 4, 64, 2048, 19)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_429_535


def test_parameter_names_are_the_originals_and_there_is_nothing_else():
    convolutions = [f"PG.{name}" for name in ("conv_1x1_in", "conv_out")]
    convolutions += [f"PG.{kind}.{i}" for kind in ("conv_dilated_1", "conv_dilated_2", "conv_fusion") for i in range(4)]
    for r in range(2):
        convolutions += [f"Rs.{r}.conv_1x1", f"Rs.{r}.conv_out"]
        convolutions += [f"Rs.{r}.layers.{i}.{name}" for i in range(3) for name in ("conv_dilated", "conv_1x1")]
    expected = {f"{name}.{part}" for name in convolutions for part in ("weight", "bias")}
    assert set(small_head().state_dict()) == expected


def test_parameter_shapes_are_those_of_a_1d_convolution():
    shapes = {name: tuple(value.shape) for name, value in small_head().state_dict().items()}
    assert shapes["PG.conv_1x1_in.weight"] == (8, 6, 1)
    assert shapes["PG.conv_dilated_1.0.weight"] == (8, 8, 3)
    assert shapes["PG.conv_fusion.0.weight"] == (8, 16, 1)
    assert shapes["Rs.0.conv_1x1.weight"] == (8, 5, 1)
    assert shapes["Rs.1.conv_out.weight"] == (5, 8, 1)


# --- a plain restatement -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_logits_equal_a_plain_restatement(length):
    network, x = small_head(), features(2, length)
    with torch.no_grad():
        ours, plain = network(x), plain_ms_tcn2(network.state_dict(), x, (4, 3), 2)
    assert ours.shape == (3, 2, 5, length)
    assert torch.allclose(ours, plain, atol=1e-5, rtol=0)


def test_gradients_equal_a_plain_restatement():
    network, x = small_head(), features(2, 60)
    target = torch.randint(0, 5, (2, 60), generator=torch.Generator().manual_seed(3))
    head_loss(network(x), target, T_MSE_CONFIG).backward()
    plain = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    head_loss(plain_ms_tcn2(plain, x, (4, 3), 2), target, T_MSE_CONFIG).backward()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, plain[name].grad, atol=1e-6, rtol=1e-4), name


def test_head_without_refinement_has_one_stage():
    assert small_head(num_R=0)(features(1, 20)).shape == (1, 1, 5, 20)


CARRIED_LOGITS = [
    (1.085335, 0.818135, 0.180205, -0.537807, -1.009686),
    (-0.503628, -0.391564, -0.101946, 0.230822, 0.454196),
    (1.065805, 1.216591, 0.821351, 0.061625, -0.719411),
]


def test_carried_numbers_of_a_formula_filled_head():
    """Carried in the suite: a head filled by a formula, its logits at frame 17 computed once, in float64."""
    network = small_head()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            ramp = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(0.7 * ramp + index)).view(parameter.shape))
        x = torch.sin(0.11 * torch.arange(6 * 40, dtype=torch.float64)).float().view(1, 6, 40)
        logits = network(x)
    assert logits[:, 0, :, 17].numpy() == pytest.approx(np.array(CARRIED_LOGITS), abs=1e-5)


# --- padding ------------------------------------------------------------------------------------------------------

LENGTHS = (50, 31)


def padded_pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two videos of unequal length as one batch: features, mask, target."""
    x, mask = features(2, max(LENGTHS)), torch.zeros(2, 1, max(LENGTHS))
    target = torch.randint(0, 5, (2, max(LENGTHS)), generator=torch.Generator().manual_seed(5))
    for item, length in enumerate(LENGTHS):
        x[item, :, length:], target[item, length:] = 0, IGNORED
        mask[item, :, :length] = 1
    return x, mask, target


@pytest.mark.parametrize("causal", [False, True])
def test_batch_of_two_unequal_videos_gives_the_outputs_of_two_batches_of_one(causal):
    network, (x, mask, _) = small_head(causal=causal), padded_pair()
    with torch.no_grad():
        together = network(x, mask)
        for item, length in enumerate(LENGTHS):
            alone = network(x[item : item + 1, :, :length])[:, 0]
            assert torch.allclose(together[:, item, :, :length], alone, atol=1e-6, rtol=0)


def test_without_a_mask_padding_would_leak():
    """The mask is what makes the test above pass."""
    network, (x, _, _) = small_head(), padded_pair()
    with torch.no_grad():
        alone = network(x[1:, :, : LENGTHS[1]])[:, 0]
        assert not torch.allclose(network(x)[:, 1, :, : LENGTHS[1]], alone, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_batch_of_two_unequal_videos_gives_the_gradients_of_two_batches_of_one(causal):
    network, (x, mask, target) = small_head(causal=causal), padded_pair()
    sum_over_frames = {"ignore_index": IGNORED, "reduction": "sum"}
    sum(F.cross_entropy(stage, target, **sum_over_frames) for stage in network(x, mask)).backward()
    together = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    for item, length in enumerate(LENGTHS):
        stages = network(x[item : item + 1, :, :length])
        sum(F.cross_entropy(s, target[item : item + 1, :length], **sum_over_frames) for s in stages).backward()
    for name, parameter in network.named_parameters():
        assert torch.allclose(together[name], parameter.grad, atol=1e-4, rtol=1e-4), name


def test_content_of_the_padding_is_irrelevant():
    network, (x, mask, _) = small_head(), padded_pair()
    other = torch.where(mask.bool(), x, torch.full_like(x, 1e3))
    with torch.no_grad():
        assert torch.equal(network(x, mask), network(other, mask))


def test_logits_of_padding_are_0():
    network, (x, mask, _) = small_head(), padded_pair()
    with torch.no_grad():
        assert (network(x, mask)[:, 1, :, LENGTHS[1] :] == 0).all()


def test_no_mask_is_a_mask_of_ones():
    network, x = small_head(), features(2, 40)
    with torch.no_grad():
        assert torch.equal(network(x), network(x, torch.ones(2, 1, 40)))


# --- causality ----------------------------------------------------------------------------------------------------


def changed_after(x: torch.Tensor, frame: int) -> torch.Tensor:
    changed = x.clone()
    changed[:, :, frame + 1 :] = 7 * torch.randn(changed[:, :, frame + 1 :].shape)
    return changed


@pytest.mark.parametrize("frame", [0, 1, 30, 62])
@pytest.mark.parametrize("masked", [False, True])
def test_causal_output_never_depends_on_later_frames(frame, masked):
    network, x = small_head(causal=True), features(1, 64)
    mask = torch.ones(1, 1, 64) if masked else None
    with torch.no_grad():
        before, after = network(x, mask), network(changed_after(x, frame), mask)
    assert torch.equal(before[..., : frame + 1], after[..., : frame + 1])
    assert not torch.equal(before[..., frame + 1 :], after[..., frame + 1 :])


def test_causal_output_of_a_frame_is_the_last_of_a_shorter_video():
    network, x = small_head(causal=True), features(1, 64)
    with torch.no_grad():
        assert torch.allclose(network(x)[..., 40], network(x[:, :, :41])[..., 40], atol=1e-6)


def test_offline_output_depends_on_later_frames():
    network, x = small_head(), features(1, 64)
    with torch.no_grad():
        assert not torch.equal(network(x)[..., :31], network(changed_after(x, 30))[..., :31])


def test_causal_and_offline_heads_have_the_same_parameters():
    offline, causal = small_head().state_dict(), small_head(causal=True).state_dict()
    assert {name: value.shape for name, value in offline.items()} == {n: v.shape for n, v in causal.items()}


# --- dropout ------------------------------------------------------------------------------------------------------


def dropout(p: float, seed: int = 0) -> SeededDropout:
    layer = SeededDropout(p)
    layer.generator = torch.Generator().manual_seed(seed)
    return layer


def sequence(batch: int = 2, channels: int = 16, length: int = 5_000) -> torch.Tensor:
    return torch.ones(batch, channels, 1, length)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.9])
def test_dropout_keeps_its_share_and_scales_what_it_keeps(p):
    out = dropout(p)(sequence())
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.006)  # 160,000 elements: 4.8 standard deviations
    assert out[kept].unique().tolist() == pytest.approx([1 / (1 - p)])


def test_dropout_of_a_half_treats_all_64_bits_of_a_word_alike():
    kept = dropout(0.5)(torch.ones(1, 64, 1, 20_000)) != 0  # channels-last: channel c is bit c of a word
    shares = kept.float().mean(dim=(0, 2, 3))
    assert (shares - 0.5).abs().max().item() < 0.02  # 5.6 standard deviations
    together = (kept[:, :-1] == kept[:, 1:]).float().mean().item()
    assert together == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_dropout_is_decided_by_its_generator(p):
    x = sequence()
    assert torch.equal(dropout(p, seed=4)(x), dropout(p, seed=4)(x))
    assert not torch.equal(dropout(p, seed=4)(x), dropout(p, seed=5)(x))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_dropout_with_a_generator_leaves_the_global_one_alone(p):
    before = torch.get_rng_state()
    dropout(p)(sequence())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_dropout_draws_anew_each_time(p):
    layer, x = dropout(p), sequence()
    assert not torch.equal(layer(x), layer(x))


def test_dropout_without_a_generator_follows_the_global_seed():
    layer, x = SeededDropout(0.5), sequence()
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_dropout_is_the_identity_in_evaluation(p):
    x = sequence()
    assert torch.equal(dropout(p).eval()(x), x)


def test_dropout_of_0_is_the_identity_in_training():
    x = sequence()
    assert torch.equal(dropout(0.0)(x), x)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_dropout_stops_the_gradient_of_what_it_drops(p):
    x = sequence().requires_grad_()
    out = dropout(p)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # of an input of ones


@pytest.mark.parametrize("shape", [(1, 3, 1, 7), (3, 5, 1, 13), (1, 1, 1, 1)])
def test_dropout_keeps_odd_shapes(shape):
    assert dropout(0.5)(torch.ones(shape)).shape == shape


def test_use_dropout_generator_makes_a_training_step_repeatable():
    network, x = small_head().train(), features(1, 40)
    outputs = []
    for seed in (1, 1, 2):
        network.use_dropout_generator(torch.Generator().manual_seed(seed))
        outputs.append(network(x).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])

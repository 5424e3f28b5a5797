"""Steps on padded batches, which a GPU records (tests/common/test_on_gpu.py): padding changes nothing, and memory stays where it is."""

import pytest
import torch

from common.dataset.phases import IGNORED
from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.losses import head_loss, smoothing_weights
from common.head.networks.recorded import RecordedSteps, recorded_length

SMALL = {
    "mstcn++": {"num_layers_PG": 3, "num_layers_R": 3, "num_R": 1, "num_f_maps": 8},
    "linear": {},
    "tecno": {"head_options": {"layers": 3, "maps": 8}},
    "asformer": {"head_options": {"decoders": 1, "layers": 3, "maps": 8}},
}


@pytest.mark.parametrize(
    ("num_frames", "length"), [(1, 1), (15, 15), (16, 16), (17, 18), (33, 36), (1000, 1024), (8192, 8192), (8193, 9216)]
)
def test_lengths_by_hand(num_frames, length):
    assert recorded_length(num_frames) == length


def test_at_most_an_eighth_is_padding_and_few_lengths_are_needed():
    lengths = {num_frames: recorded_length(num_frames) for num_frames in range(1, 20_000)}
    assert all(num_frames <= length <= num_frames * 9 / 8 for num_frames, length in lengths.items())
    assert len({lengths[num_frames] for num_frames in range(4097, 16_385)}) == 16


def batch(*lengths: int, feature_dim: int = 12) -> tuple[torch.Tensor, ...]:
    """Features, targets, mask and smoothing weights of sequences of these lengths; padding is of numbers that must not count."""
    random, longest = torch.Generator().manual_seed(sum(lengths)), max(lengths)
    features = torch.randn(len(lengths), longest, feature_dim, generator=random).transpose(1, 2)
    target = torch.randint(0, 4, (len(lengths), longest), generator=random)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).unsqueeze(1).float()
    target[mask[:, 0] == 0] = IGNORED
    return features * mask, target, mask if min(lengths) < longest else None, smoothing_weights(target, 6)


def made_head(name: str, **settings) -> tuple[torch.nn.Module, TrainConfig]:
    """A small head that drops nothing, so that its steps have the same numbers at any length."""
    config = TrainConfig(features_dim=12, head=name, **SMALL[name], **settings)
    head = build_head(config, 4).double().train()
    for module in head.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    return head, config


def gradients(head, config, steps, *batches) -> list[torch.Tensor]:
    """The losses of some batches, which are float32, and the gradients of the last."""

    def compute(features, target, mask, smoothing):
        head.zero_grad()
        loss = head_loss(head(features.double(), mask), target, config, None, smoothing)
        loss.backward()
        return (loss.detach(),)

    run = RecordedSteps(compute, torch.Generator()) if steps else compute
    losses = [run(*each)[0] for each in batches]
    return [*losses, *(parameter.grad.clone() for parameter in head.parameters())]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("settings", [{}, {"loss_focal": 2.0}, {"adaptive_mse": False}], ids=str)
def test_padding_to_a_recorded_length_changes_no_loss_and_no_gradient(name, settings):
    head, config = made_head(name, **settings)
    # of a longer one first: what it leaves in the shared memory must not reach the shorter one behind it
    batches = [batch(70), batch(33), batch(49), batch(33), batch(49, 34), batch(33)]
    plain, padded = (gradients(head, config, steps, *batches) for steps in (False, True))
    for ours, theirs in zip(padded, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_standardised_head_is_padded_behind_its_standardisation():
    head, config = made_head("mstcn++", standardise="train")
    head.mean.fill_(3.0)
    head.deviation.fill_(0.5)
    plain, padded = (gradients(head, config, steps, batch(33)) for steps in (False, True))
    for ours, theirs in zip(padded, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batches_of_a_length_are_read_from_the_same_memory():
    """A recording reads where it was made, whatever came in between."""
    seen = []

    def compute(features, target, mask, smoothing):
        seen.append([each.data_ptr() for each in (features, target, mask, smoothing)])
        return (target.sum(),)

    steps = RecordedSteps(compute, torch.Generator())
    for frames in (34, 500, 36, 20, 35):
        steps(*batch(frames))
    assert recorded_length(34) == recorded_length(35) == recorded_length(36)
    assert seen[0] == seen[2] == seen[4]


def test_a_head_says_whether_the_host_decides_something_in_it():
    def is_recordable(**settings):
        return build_head(TrainConfig(features_dim=12, **settings), 4).is_recordable

    assert is_recordable()
    assert not is_recordable(head="gru")
    assert not is_recordable(head="gru", standardise="train")

"""Look-ahead: the rule that spreads it over layers, and what an output then depends on."""

import json

import pytest
import torch

from common.base.runtime import UserError
from common.head.config import TrainConfig
from common.head.networks.lookahead import future_limits
from common.head.networks.mstcn import MS_TCN2
from common.head.networks.tecno import TeCNO

PUBLISHED = [2 ** max(e, 12 - e) for e in range(13)] + 4 * [2**e for e in range(13)]
DIM, NUM_CLASSES = 5, 3


def test_the_common_limit_is_the_largest_and_the_first_layers_that_reach_further_get_the_rest():
    assert future_limits([1, 2, 4], 0) == [0, 0, 0]
    assert future_limits([1, 2, 4], 2) == [1, 1, 0]
    assert future_limits([1, 2, 4], 4) == [1, 2, 1]
    assert future_limits([4, 1, 4, 2], 6) == [2, 1, 2, 1]
    assert future_limits([1, 2, 4], 7) == future_limits([1, 2, 4], 100) == future_limits([1, 2, 4], None) == [1, 2, 4]


@pytest.mark.parametrize("frames", [0, 1, 64, 65, 66, 12_345, 48_955, 48_956, 48_957])
def test_the_limits_of_the_published_head_add_up_to_the_look_ahead(frames):
    limits = future_limits(PUBLISHED, frames)
    assert sum(limits) == min(frames, 48_956)
    assert all(0 <= limit <= reach for limit, reach in zip(limits, PUBLISHED, strict=True))


def test_the_rule_is_that_of_the_reference(reference_data):
    found = json.loads((reference_data / "golden" / "lookahead_rule.json").read_text())
    assert sum(PUBLISHED) == found["offline"]
    for row in found["table"]:
        limits, w = future_limits(PUBLISHED, row["frames"]), row["common_limit_w"]
        if row["frames"] >= found["offline"]:
            assert limits == PUBLISHED
            continue
        more = [limit - min(w, reach) for limit, reach in zip(limits, PUBLISHED, strict=True)]
        assert sum(more) == row["layers_with_one_more"]
        assert sum(limits) == row["sum"] == row["frames"]
        assert sum(min(w, reach) for reach in PUBLISHED) == row["largest_uniform_sum_within"]
        further = [extra for extra, reach in zip(more, PUBLISHED, strict=True) if reach > w]
        assert further == sorted(further, reverse=True)  # the first of those that reach further


def seen_after(head, frame, num_frames=64):
    """The last frame that the output at `frame` depends on, relative to it, by gradients.

    In float64 and with positive weights inside, where no path of a gradient cancels another nor is cut off by a ReLU.
    """
    head = head.double().eval()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "conv_out" not in name:
                parameter.abs_()
    x = torch.rand(1, DIM, num_frames, dtype=torch.float64, requires_grad=True)
    head(x)[-1, 0, 0, frame].backward()
    return int(x.grad[0].abs().sum(dim=0).nonzero().max()) - frame


@pytest.mark.parametrize("lookahead", [0, 1, 2, 5, 9, 13, 17])
def test_an_output_depends_on_as_many_later_frames_as_it_may_and_on_none_after(lookahead):
    mstcn = MS_TCN2(3, 3, 1, 4, DIM, NUM_CLASSES, lookahead=lookahead)  # reaches 4, 2, 4, then 1, 2, 4
    assert mstcn.lookahead == lookahead
    assert seen_after(mstcn, 30) == lookahead
    tecno = TeCNO(DIM, NUM_CLASSES, stages=2, layers=3, maps=4, lookahead=lookahead)
    assert seen_after(tecno, 30) == min(lookahead, 14) == tecno.lookahead


def test_the_future_of_the_published_rule_is_that_of_the_authors(reference_data):
    rows = json.loads((reference_data / "golden" / "lookahead.json").read_text())["rows"]
    for row in rows:
        sizes = row["layers_PG"], row["layers_R"], row["num_R"]
        whole = MS_TCN2(*sizes, 2, DIM, NUM_CLASSES).lookahead
        assert MS_TCN2(*sizes, 2, DIM, NUM_CLASSES, lookahead=row["future"]).lookahead == row["future"] <= whole
        if row["w_max"] == "offline":
            assert row["future"] == whole


def test_ends_of_the_dial_are_causal_and_offline():
    torch.manual_seed(0)
    x = torch.randn(1, DIM, 40)
    for lookahead, other in ((0, {"causal": True}), (10**6, {})):
        torch.manual_seed(1)
        dialled = MS_TCN2(3, 3, 1, 4, DIM, NUM_CLASSES, lookahead=lookahead).eval()
        torch.manual_seed(1)
        assert torch.equal(dialled(x), MS_TCN2(3, 3, 1, 4, DIM, NUM_CLASSES, **other).eval()(x))


def test_settings_say_one_thing_only():
    assert TrainConfig(lookahead=0) == TrainConfig(causal=True)
    assert TrainConfig(lookahead=2.5).run_name == "lookahead2.5"
    tecno = TrainConfig(head="tecno", lookahead=5)
    assert not tecno.causal
    assert tecno.sees_past_only
    with pytest.raises(UserError, match="--causal together with --lookahead 5"):
        TrainConfig(causal=True, lookahead=5)
    for head in ("gru", "linear", "asformer"):
        with pytest.raises(UserError, match=rf"--lookahead: expected a head .*mstcn\+\+, tecno.*, found {head}"):
            TrainConfig(head=head, lookahead=1)

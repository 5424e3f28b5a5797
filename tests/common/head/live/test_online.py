"""A head with state answers as the whole-video network does, in memory that does not grow."""

import numpy as np
import pytest
import torch

from common.base.runtime import UserError
from common.head.checkpoint import build_head
from common.head.config import TrainConfig
from common.head.live.online import online_head

DIM, NUM_CLASSES = 24, 5
SMALL = {"num_layers_PG": 4, "num_layers_R": 3, "num_R": 2, "num_f_maps": 8}
CONFIGS = {
    "mstcn++": TrainConfig(**SMALL, causal=True),
    "standardised": TrainConfig(**SMALL, causal=True, standardise="train"),
    "linear": TrainConfig(head="linear", causal=True),
    "gru": TrainConfig(head="gru", causal=True, head_options={"hidden": 12}),
    "tecno": TrainConfig(head="tecno", head_options={"layers": 4, "maps": 8}),
    **{
        f"mstcn++, {frames} frames": TrainConfig(**SMALL, lookahead=1, lookahead_frames=frames)
        for frames in (1, 3, 7, 20, 38, 1000)
    },
    "tecno, 6 frames": TrainConfig(
        head="tecno", head_options={"layers": 4, "maps": 8}, lookahead=1, lookahead_frames=6
    ),
    "published": TrainConfig(causal=True),
    "published, 300 frames": TrainConfig(lookahead=60, lookahead_frames=300),
}


def made_head(config):
    """A head with weights that are larger than initial ones, so that probabilities differ from frame to frame."""
    torch.manual_seed(4)
    head = build_head(TrainConfig(**vars(config) | {"features_dim": DIM}), NUM_CLASSES).eval()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "conv_out" in name or name.endswith("out.weight"):
                parameter.mul_(4)
        if config.standardise == "train":
            head.mean.normal_()
            head.deviation.uniform_(0.5, 2)
    return head


def online_rows(head, features):
    """What comes out, and after how many features each row did."""
    online = online_head(head)
    rows, after = [], []
    for count, feature in enumerate(features, 1):
        if (row := online.push(feature)) is not None:
            rows.append(row)
            after.append(count)
    rows += list(online.finish())
    return np.array(rows), after, online


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_frames", [1, 2, 90])
def test_one_feature_at_a_time_answers_as_the_whole_video(name, num_frames):
    config = CONFIGS[name]
    head = made_head(config)
    features = np.random.default_rng(2).normal(size=(num_frames, DIM)).astype(np.float32)
    with torch.inference_mode():
        whole = head(torch.from_numpy(features.T[None]))[-1, 0].softmax(dim=0).T.numpy()
    rows, after, online = online_rows(head, features)
    assert rows.shape == whole.shape
    assert np.abs(rows - whole).max() < 1e-5
    if num_frames > 2:
        assert np.ptp(whole, axis=0).max() > 0.01  # else every row would be equal to every other
    # row t comes with feature t + lookahead, none before
    assert after == list(range(online.lookahead + 1, num_frames + 1))


def test_look_ahead_of_the_stateful_head_is_that_of_the_network():
    assert online_head(made_head(CONFIGS["mstcn++, 7 frames"])).lookahead == 7
    assert online_head(made_head(CONFIGS["mstcn++, 1000 frames"])).lookahead == 8 + 4 + 4 + 8 + 2 * 7
    assert online_head(made_head(CONFIGS["tecno"])).lookahead == 0


def test_state_of_the_published_head_is_25_mb_and_does_not_grow():
    online = online_head(made_head(CONFIGS["published"]))
    before = online.state_bytes
    # two times the reach of each of 65 layers, and its newest input
    assert before == (97_912 + 65) * 64 * 4
    for feature in np.zeros((50, DIM), np.float32):
        online.push(feature)
    assert online.state_bytes == before


@pytest.mark.parametrize("head", ["gru", "asformer"])
def test_a_head_that_needs_what_follows_is_refused(head):
    offline = build_head(TrainConfig(head=head, features_dim=DIM), NUM_CLASSES)
    with pytest.raises(UserError, match="depend on all that follows"):
        online_head(offline)

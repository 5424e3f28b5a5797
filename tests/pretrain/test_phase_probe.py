"""The phase probe: the same clips at every check, shared out among processes."""

import pytest
import torch
import torch.distributed as dist

from common.base.runtime import UserError
from pretrain.engine.distributed import Processes
from pretrain.phase_probe import ClipShape, NearestPhases, evenly
from pretrain.ssl_config import find_model

ALONE = Processes(0, 1, torch.device("cpu"))


def probe(processes=ALONE, batch_size=3, **shape) -> NearestPhases:
    return NearestPhases(
        "Cataract-101", find_model("dinov3-tiny"), ClipShape(32, **shape), processes, batch_size=batch_size
    )


def colour(batch):
    """`(N, 3)`: the mean colour of a clip, on its way through a recipe as `features`."""
    return batch["clip"].float().mean(dim=(1, 3, 4))


def test_features_that_show_the_phase_find_it(cataract101):
    assert probe()(colour) == {"balanced_accuracy": 1.0, "accuracy": 1.0}


def test_features_of_nothing_do_not(cataract101):
    scores = probe()(lambda batch: torch.ones(len(batch["clip"]), 4))
    assert scores["balanced_accuracy"] == 0.5


def test_the_first_score_is_the_balanced_one(cataract101):
    assert next(iter(probe()(colour))) == "balanced_accuracy"


def test_clips_have_the_shape_of_the_recipe(cataract101):
    shapes = set()

    def features(batch):
        shapes.add((batch["clip"].shape, batch["clip"].dtype))
        return colour(batch)

    probe(batch_size=2, clip_len=4, fps=2.0)(features)
    assert shapes == {(torch.Size([2, 4, 3, 32, 32]), torch.uint8)}


def test_a_last_batch_is_filled_up_and_cut_again(cataract101):
    whole, one_by_one = probe(batch_size=64), probe(batch_size=1)
    numbers = list(range(5))
    torch.testing.assert_close(
        whole._features(colour, whole.bank, numbers), one_by_one._features(colour, one_by_one.bank, numbers)
    )
    assert whole._features(colour, whole.bank, numbers).shape == (5, 3)


def test_two_processes_share_the_clips_and_agree_with_one(run, cataract101):
    alone = probe(batch_size=3)
    expected = alone._features(colour, alone.bank, list(range(8)))
    for found, seen in run(shared, str(cataract101.root), 8):
        torch.testing.assert_close(found, expected)
        assert seen == 6  # 8 clips in batches of 2 x 3


def shared(root: str, count: int):
    """Features of `count` clips, and how many of them this process computed."""
    processes, seen = Processes(dist.get_rank(), 2, torch.device("cpu")), []
    own = NearestPhases(root, find_model("dinov3-tiny"), ClipShape(32), processes, batch_size=3)

    def features(batch):
        seen.append(len(batch["clip"]))
        return colour(batch)

    return own._features(features, own.bank, list(range(count))), sum(seen)


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (9, [0, 4, 8]), (1, [0])])
def test_numbers_are_spread_evenly(count, expected):
    assert evenly(count, most=3) == expected


def test_a_data_set_of_no_importer_is_refused(cataract101):
    (cataract101.root / "manifest.json").unlink()
    with pytest.raises(UserError, match="import the data set with"):
        probe()

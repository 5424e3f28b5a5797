"""Words of `common.train` that would have no effect are refused before anything is read."""

import pytest

from common.base.runtime import UserError
from common.train import main


@pytest.mark.parametrize(
    "words", [["--decode", "viterbi"], ["--videos", "clips"], ["--checkpoint", "x.pt"], ["--test_dataset", "other"]]
)
def test_what_is_of_a_prediction_is_refused_beside_a_training(words):
    with pytest.raises(UserError, match=f"{words[0]} would have no effect with --action train; add --action predict"):
        main(["--action", "train", *words])


@pytest.mark.parametrize("words", [["--videos", "clips"], ["--test_dataset", "other"]])
def test_a_decoded_path_is_of_the_splits_videos_alone(words):
    """New videos are shown as the head sees them, and another data set is scored by its probabilities."""
    with pytest.raises(UserError, match=f"--decode viterbi is for the split's videos; leave it out, or {words[0]}"):
        main(["--action", "predict", "--decode", "viterbi", *words])


def test_two_things_to_predict_are_refused():
    with pytest.raises(UserError, match="give one of them"):
        main(["--action", "predict", "--videos", "clips", "--test_dataset", "other"])

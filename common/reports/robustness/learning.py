"""Heads that did not learn: what their training and their predictions show of it, and what to try."""

from collections.abc import Callable, Sequence

import numpy as np

from common.base.runtime import listed
from common.reports.results import EncoderResult, SplitResult

ADVICE = "try --standardise train, a higher --lr, or more epochs (--num_epochs)"
LAST = 3  # epochs whose mean counts as what training came to: single ones vary with the order of the videos
# Thresholds by the sample set (19 phases, 16 training videos, 30 epochs), where MS-TCN++ goes 0.75 of the way from the
# majority class to all training frames on EfficientNet-Lite0 and 0.32 on colour histograms, and its loss falls by 0.75 and 0.4.
# A frame-wise linear head on histograms, whose frames say nearly nothing, goes 0.015 and its loss falls by 0.13: it has
# learned what there is, and is to pass. At a learning rate of 1e-5 it stays below the majority class, and falls by 0.02.
NO_WAY = 0.005
NO_FALL = 0.05  # of the first epoch's mean, which is taken while the head learns already
EQUAL = 0.02  # of the way from equal probabilities to certain ones; that linear head is at 0.1
LEAST_EPOCHS = 5  # of which a loss is judged: in fewer even a head that learns falls little


def unlearned(results: Sequence[EncoderResult]) -> dict[str, str]:
    """Row -> the signs that its head did not learn, with their folds, in words; without rows that show none.

    A row whose training is unknown (made elsewhere, a floor, of an early version) is not judged.
    """
    found: dict[str, str] = {}
    for result in results:
        signs: dict[str, list[str]] = {}
        for split in result.splits:
            if not split.record.get("history"):
                continue
            for sign, judge in SIGNS.items():
                if (numbers := judge(split)) is not None:
                    place = f"fold {split.record['split']}" if len(result.splits) > 1 else ""
                    signs.setdefault(sign, []).append(f"{place}{': ' if place and numbers else ''}{numbers}")
        if signs:
            words = ((sign, listed([each for each in places if each])) for sign, places in signs.items())
            found[result.name] = "; ".join(f"{sign} ({places})" if places else sign for sign, places in words)
    return found


def _no_better_than_majority(split: SplitResult) -> str | None:
    share = split.record.get("train_majority_share")  # not in records of earlier versions
    if share is None or split.record["config"].get("class_weights", "none") != "none":
        return None  # weighted classes trade the majority's frames for those of rare ones
    accuracy = float(np.mean([entry["accuracy"] for entry in split.record["history"][-LAST:]]))
    return f"{100 * accuracy:.1f} % to {100 * share:.1f} %" if accuracy - share < NO_WAY * (1 - share) else None


def _loss_hardly_fell(split: SplitResult) -> str | None:
    losses = [entry["loss"] for entry in split.record["history"]]
    if len(losses) < LEAST_EPOCHS:
        return None
    last = float(np.mean(losses[-LAST:]))
    # not finite: it did not fall either
    return None if last < (1 - NO_FALL) * losses[0] else f"{losses[0]:.3g} to {last:.3g} in {len(losses)} epochs"


def _one_phase_a_video(split: SplitResult) -> str | None:
    scores = split.scores.values()
    constant = all(len(np.unique(score.predicted)) == 1 for score in scores)
    return "" if constant and any(len(np.unique(score.true[score.counts])) > 1 for score in scores) else None


def _equal_probabilities(split: SplitResult) -> str | None:
    counts = [score.from_probabilities for score in split.scores.values()]
    if any(each is None for each in counts):
        return None
    highest = float(np.mean([each.mean_highest for each in counts]))
    equal = 1 / len(split.record["phases"])
    return f"the highest is {100 * highest:.1f} % on average" if highest - equal < EQUAL * (1 - equal) else None


# how a sign is called -> its numbers in a split, None where it does not show
SIGNS: dict[str, Callable[[SplitResult], str | None]] = {
    "training accuracy no better than the majority class": _no_better_than_majority,
    "the loss hardly fell": _loss_hardly_fell,
    "one phase throughout every video": _one_phase_a_video,
    "equal probabilities": _equal_probabilities,
}

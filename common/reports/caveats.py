"""Caveats that a reader of a table must know before believing it."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.base.wording import listed
from common.reports.results import EncoderResult
from common.reports.run_records import identity, weights_source
from common.scoring.protocols import CHALLENGE, Protocol, methods_sentence

# settings that make two encoders' rows comparable when they are equal
HEAD_SETTINGS = (
    "num_epochs", "num_layers_PG", "num_layers_R", "num_R", "num_f_maps", "bz", "lr", "loss_mse", "adaptive_mse",
    "window_mse", "loss_focal", "class_weights", "sample_rate", "causal", "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Remark:
    """A line below a table; an alarming one (a leak, results that are not comparable) is shown in red."""

    text: str
    alarming: bool = False

    def __str__(self) -> str:
        return self.text


def remarks(results: Sequence[EncoderResult], protocol: Protocol = CHALLENGE) -> list[Remark]:
    """Synthetic data, random weights, unequal heads, how the numbers are taken, and what identifies them."""
    lines = []
    if any(result.record["synthetic"] for result in results):
        lines.append(Remark("Synthetic data: drawn videos. These numbers say nothing about surgery."))
    if any(result.record["features"]["random_weights"] for result in results):
        lines.append(Remark("Rows marked 'random weights' come from untrained encoders."))
    lines += _unequal_heads(results)
    splits = len(results[0].splits)
    spread = f"Mean ± standard deviation (ddof 1) over {splits} folds" if splits > 1 else "One split"
    lines.append(
        Remark(
            f"{spread}, in percent. {_recognition(results)}; the last epoch is scored. "
            f"{methods_sentence(protocol, results[0].background)}"
        )
    )
    lines += _looking_ahead(results)
    lines += _damaged(results)
    sources = {result.model.name: weights_source(result) for result in results}  # runs of one encoder share a line
    lines.append(Remark(f"Weights: {'; '.join(f'{name}: {source}' for name, source in sources.items())}."))
    found = identity(results)
    lines.append(Remark(f"Seeds {found['Seeds']}; folds {found['Folds']}; commit {found['Commit']}."))
    return lines


def _recognition(results: Sequence[EncoderResult]) -> str:
    """`Online recognition`, `Offline recognition`, or the rows of each."""
    online = [result.name for result in results if result.record["config"]["causal"]]
    if 0 < len(online) < len(results):
        return f"Online recognition: {', '.join(online)}; offline: all others"
    return f"{'Online' if online else 'Offline'} recognition"


def _looking_ahead(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning below rows of causal heads whose features have seen later frames."""
    ahead = {
        result.name: result.record.get("look_ahead_seconds")  # not in records of earlier versions
        for result in results
        if result.record["config"]["causal"]
    }
    named = [f"{name} by {seconds:g} s" for name, seconds in ahead.items() if seconds]
    return [Remark(f"Not online although the head is: features look ahead: {', '.join(named)}.", True)] if named else []


def _damaged(results: Sequence[EncoderResult]) -> list[Remark]:
    """A warning that names the damaged videos among those scored."""
    found = {video for result in results for split in result.splits for video in split.record.get("damaged_videos", ())}
    text = f"Damaged videos were scored as they decode: {listed(sorted(found))}."
    return [Remark(text, alarming=True)] if found else []


def _unequal_heads(results: Sequence[EncoderResult]) -> list[Remark]:
    found = []
    for key in HEAD_SETTINGS:
        used = {result.name: result.record["config"].get(key) for result in results}
        if len(set(used.values())) > 1:
            values = ", ".join(f"{name} {value}" for name, value in used.items())
            found.append(Remark(f"Not a like-for-like comparison: {key} differs ({values}).", alarming=True))
    return found


def unfinished(results: Sequence[EncoderResult], num_folds: int) -> list[Remark]:
    """A warning where runs lack folds: their means are over fewer and other videos."""
    lacking = {result.name: [split.record["split"] for split in result.splits] for result in results}
    partial = [f"{name} over {', '.join(folds)}" for name, folds in lacking.items() if len(folds) < num_folds]
    text = f"Unfinished: of {num_folds} folds, the numbers of {'; of '.join(partial)} only."
    return [Remark(text, alarming=True)] if partial else []

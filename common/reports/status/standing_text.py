"""The standing of encoders as a table, and the commands that come next."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from common.base import paths
from common.base.options import from_mapping
from common.base.runtime import counted, listed, shortened_path
from common.base.wording import format_table
from common.head.config import TrainConfig
from common.reports.status.standing import PLACE_SETTINGS, DatasetStanding, EncoderStanding, RunStanding

FIRST_MODELS = (
    "EfficientNet-Lite0",
    "ColorHistogram",
)  # whose weights are there at once, and what every encoder must beat
MOST_STEPS = 12  # commands printed before "and n more"
UNITS = ("B", "kB", "MB", "GB", "TB")


def standing_text(found: DatasetStanding) -> str:
    """The table, what is out of date and why, the last errors, and what to run next."""
    dataset = found.dataset
    folds = f"{found.num_folds} folds" if found.num_folds else "no folds"
    synthetic = " (synthetic)" if dataset.is_synthetic else ""
    lines = [
        f"{dataset.name}{synthetic}: {counted(len(found.videos), 'video')}, {len(found.labelled)} labelled, {folds}"
    ]
    if found.encoders:
        lines += ["", format_table([HEADER, *(_row(encoder, found) for encoder in found.encoders)])]
    for title, remarks in (("out of date", _stale(found)), ("last errors", _errors(found))):
        if told := list(remarks):
            lines += ["", title, *(f"  {line}" for line in told)]
    steps = list(dict.fromkeys(next_steps(found)))
    more = [f"and {len(steps) - MOST_STEPS} more"] if len(steps) > MOST_STEPS else []
    lines += ["", "next", *(f"  {step}" for step in steps[:MOST_STEPS] + more)]
    return "\n".join(lines)


HEADER = ["encoder", "videos", "quarantined", "folds", "other runs", "out of date", "last error", "disk"]


def _row(encoder: EncoderStanding, found: DatasetStanding) -> list[str]:
    first = next((run for run in encoder.runs if run.run in (None, encoder.variant)), None)
    others = [run for run in encoder.runs if run is not first]
    complete = sum(not run.missing for run in others)
    stale = sum(len(run.stale) + len(run.damaged) for run in encoder.runs)
    error = encoder.last_error
    return [
        encoder.name,
        f"{len(encoder.extracted)}/{len(found.videos)}",
        str(len(encoder.quarantined)),
        f"{len(first.done) if first else 0}/{first.num_folds if first else found.num_folds}",
        f"{complete}/{len(others)}" if others else "-",
        str(stale),
        f"{error[0]}, {error[1].when[:10]}" if error else "-",
        file_size(encoder.disk_bytes),
    ]


def _stale(found: DatasetStanding) -> Iterator[str]:
    """Folds that are not what would be run now, those alike in one line."""
    for encoder in found.encoders:
        for run in encoder.runs:
            reasons: dict[str, list[str]] = {}
            for number, reason in {**run.stale, **run.damaged}.items():
                reasons.setdefault(reason, []).append(str(number))
            name = f"{encoder.name} ({run.run})" if run.run else encoder.name
            for reason, numbers in reasons.items():
                yield f"{name}, fold {listed(numbers)}: {reason}"


def _errors(found: DatasetStanding) -> Iterator[str]:
    for encoder in found.encoders:
        if encoder.last_error:
            what, failure = encoder.last_error
            yield f"{encoder.name}, {what}, {failure.when.replace('T', ' ')[:16]} UTC: {failure.message}"


def next_steps(found: DatasetStanding) -> Iterator[str]:
    """What to run, in the order in which the data goes."""
    dataset = found.dataset
    name = dataset.name if dataset.root.parent == paths.repository_root() / "data" else shortened_path(dataset.root)
    if found.no_folds and found.labelled:
        reason = found.no_folds.partition(";")[0].replace(str(dataset.root), dataset.name)
        yield f"python generate_k_folds.py {shortened_path(dataset.root)} 5    # {reason}"
    for encoder in found.encoders:
        variant = (
            f" --variant {encoder.variant}    # with the options that it was begun with" if encoder.variant else ""
        )
        if len(encoder.extracted) + len(encoder.quarantined) < len(found.videos):
            yield f"python -m common.extract_features --model {encoder.model} --dataset {name}{variant}"
        if encoder.quarantined:
            yield (
                f"look at {listed(list(encoder.quarantined))}, which {encoder.name} could not read throughout: replace it and extract "
                "again, or take the frames that decode with --accept_damaged"
            )
    for encoder in found.encoders:
        if not encoder.runs and encoder.extracted and found.num_folds:
            variant = f" --variant {encoder.variant}" if encoder.variant else ""
            folds = f" --folds {found.num_folds}"
            yield f"python -m common.run_k_folds --model {encoder.model} --dataset {name}{variant}{folds}"
        for run in encoder.runs:
            if run.config and (run.missing or run.stale or run.damaged):
                yield _run_again(encoder.model, name, run)
    complete = [run for encoder in found.encoders for run in encoder.runs if not run.missing]
    waiting = _comparisons((run for run in complete if not run.is_compared), found, name)
    yield from waiting
    if complete and not waiting:
        yield _look_at_comparison(_comparisons(complete, found, name), found)
    begun = {encoder.model for encoder in found.encoders}
    if others := [model for model in found.models if model not in begun]:
        another = next((model for model in FIRST_MODELS if model in others), others[0])
        yield (
            f"python -m common.extract_features --model {another} --dataset {name}"
            f"    # {len(others)} of {len(found.models)} encoders have nothing here yet"
        )


def _comparisons(runs: Iterable[RunStanding], found: DatasetStanding, name: str) -> list[str]:
    """The commands that compare these runs: each list of splits has a comparison of its own."""
    lists = dict.fromkeys((run.config or {}).get("splits") for run in runs)
    folds = f"--compare-kfold {found.num_folds or ''}".rstrip()
    return [
        f"python compute_results.py --dataset {name} {f'--splits {splits} --compare-kfold' if splits else folds}"
        for splits in lists
    ]


def _look_at_comparison(commands: list[str], found: DatasetStanding) -> str:
    """The page of the last comparison, or what writes it again where it is another data set's by now."""
    page = paths.comparison_results() / "report.html"
    if found.compared_last in (None, found.dataset.name):
        return f"look at {shortened_path(page)}, the last comparison that was written"
    return f"{commands[0]}    # {shortened_path(page)} is of {found.compared_last} now"


def _run_again(model: str, dataset: str, run: RunStanding) -> str:
    """The command that finishes a run, with the settings of the folds that it has."""
    words = [f"python -m common.run_k_folds --model {model} --dataset {dataset}"]
    words += [] if run.config["splits"] else [f"--folds {run.num_folds}"]
    words += settings_as_flags(run.config)
    config = from_mapping(TrainConfig, run.config | {"run": None}, "run")
    if config.decoded_name(run.decode) != run.run:
        words.append(f"--run {(run.run or '').removesuffix(f'-{run.decode}')}")
    words += [f"--decode {run.decode}"] if run.decode != "argmax" else []
    words += ["--force"] if any("settings" in reason for reason in run.stale.values()) else []
    return " ".join(words)


def settings_as_flags(config: Mapping[str, Any]) -> list[str]:
    """The flags of `run_k_folds` that repeat recorded settings; what is at its default is left out."""
    usual = TrainConfig(head=config["head"])
    words = []
    for name, value in config.items():
        if name in (*PLACE_SETTINGS, "features_dim", "lookahead_frames", "choose", "run") or value == getattr(
            usual, name, None
        ):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, dict):
            words += [f"--{name}", *(f"{key}={each}" for key, each in value.items())]
        else:
            words += [f"--{name}", str(value)]
    if config["head"] != TrainConfig.head:
        words += ["--head", config["head"]]
    if config["choose"] != "none":
        words += ["--choose", *config["choose"].split("+")]
    return words


def file_size(num_bytes: float) -> str:
    """`1.4 GB`: bytes in decimal units, as disks are sold."""
    for unit in UNITS:
        if num_bytes < 1000 or unit == UNITS[-1]:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the last unit takes any size")

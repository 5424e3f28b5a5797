"""Check a data set before any hour of training is spent on it: labels, orders, lengths, copies, folds, leaks.

python -m common.audit data/SICS155                   # everything that can be checked, in seconds and a probe of each video
python -m common.audit data/SICS155 --json audit.json # and as a record
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import paths
from common.copy_checks import copy_findings
from common.feature_checks import feature_findings, feature_folders, open_all_features
from common.findings import SEVERITIES, Finding, counted, naming
from common.fold_checks import FILES_KIND, checked_folds, file_findings, fold_findings, patient_findings, patients_of
from common.label_checks import KIND as LABELS_KIND
from common.label_checks import MIN_SECONDS, label_files, read_all_labels, short_phases
from common.leaks import FILE_NAME, all_manifests, leaks_of_dataset, read_manifest, video_files, without_manifest
from common.order_checks import MIN_OTHERS, order_findings
from common.phases import PhaseMapping, read_mapping
from common.runtime import UserError, run_main, write_json
from common.timing_checks import collect_timings, length_findings, rate_findings, variable_rates

LEAKS_KIND = "leaks"
EXPLANATION = f"""
An error makes results wrong or stops a command; a warning is to be looked at; a note is worth knowing. Orders of phases
are compared with the other videos, so they are checked in sets of more than {MIN_OTHERS} labelled videos. A video without
features is judged by its header, which can be wrong; features hold what was decoded.
"""


@dataclass(frozen=True)
class Audit:
    """The findings of a data set and how many label files, videos and feature folders there are, by noun."""

    dataset: paths.Dataset
    findings: list[Finding]
    looked_at: dict[str, int]

    @property
    def counts(self) -> Counter[str]:
        """Findings by severity."""
        return Counter(finding.severity for finding in self.findings)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.audit`. Returns 1 for an error (with --strict for a warning too), else 0."""
    given = _parser().parse_args(argv)
    for option in ("min_seconds", "fps"):
        value = getattr(given, option)
        if value is not None and not value > 0:
            raise UserError(f"--{option} must be greater than 0, found {value}")
    audit = audit_dataset(paths.dataset(given.dataset), min_seconds=given.min_seconds, fps=given.fps)
    print(report(audit))
    if given.json:
        write_json(given.json, to_json(audit))
    return 1 if audit.counts["error"] or (given.strict and audit.counts["warning"]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m common.audit", description=__doc__.splitlines()[0], epilog=EXPLANATION
    )
    parser.add_argument("dataset", metavar="DATASET", help="a name under data/, or a path")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    parser.add_argument(
        "--min_seconds", type=float, default=MIN_SECONDS, metavar="S",
        help="report phases that last less (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--fps", type=float, metavar="F", help="frames a second of the labels, where neither features nor videos tell"
    )
    return parser


def audit_dataset(dataset: paths.Dataset, *, min_seconds: float = MIN_SECONDS, fps: float | None = None) -> Audit:
    """Every check on a data set, whatever state it is in; nothing is changed."""
    findings: list[Finding] = []
    files, videos = label_files(dataset), _find_videos(dataset, findings)
    mapping, labels = _read_labels(dataset, files, findings)
    folders = feature_folders(dataset)
    there = {video: path for video, path in videos.items() if path.is_file()}
    extracted = open_all_features(folders, findings)
    timings = collect_timings(there, extracted, findings)
    rates = {video: next((timing.fps for timing in timings.get(video, ()) if timing.fps), fps) for video in labels}
    findings += file_findings(dataset, videos, files)
    findings += short_phases(labels, rates, mapping, min_seconds)
    findings += order_findings(labels, rates, mapping)
    findings += length_findings(labels, timings)
    findings += [*rate_findings(timings), *variable_rates(extracted)]
    findings += feature_findings(extracted, there)
    findings += copy_findings(dataset, [path for path in video_files(dataset) if path.is_file()], labels)
    findings += fold_findings(dataset)
    findings += patient_findings(dataset, patients_of(dataset, findings))
    findings += leak_findings(dataset)
    looked_at = {"label file": len(files), "video": len(videos), "feature folder": len(folders)}
    return Audit(dataset, findings, looked_at)


def _find_videos(dataset: paths.Dataset, findings: list[Finding]) -> dict[str, Path]:
    """The first video file of every name; the others of one name are a finding."""
    by_name: dict[str, list[Path]] = {}
    for path in video_files(dataset):
        by_name.setdefault(path.stem, []).append(path)
    for video, same in by_name.items():
        if len(same) > 1:
            message = f"{video}: {len(same)} videos have this name: {', '.join(path.name for path in same)}"
            findings.append(Finding("error", FILES_KIND, message, "keep the one that was labelled", video=video))
    return {video: same[0] for video, same in by_name.items()}


def _read_labels(
    dataset: paths.Dataset, files: Mapping[str, Path], findings: list[Finding]
) -> tuple[PhaseMapping, dict[str, np.ndarray]]:
    """The mapping and every readable label file; without a mapping none can be read, and the other checks go on."""
    try:
        mapping = read_mapping(dataset.mapping)
    except (UserError, UnicodeDecodeError) as error:
        advice = "put it right and audit again: no label could be checked"
        findings.append(Finding("error", LABELS_KIND, naming(dataset.mapping, error), advice))
        return PhaseMapping(()), {}
    if not files:
        message = f"{dataset.ground_truth}: no label files (<video>.txt) here"
        findings.append(Finding("error", LABELS_KIND, message, "data/README.md says how a data set is laid out"))
    return mapping, read_all_labels(files, mapping, findings)


def leak_findings(dataset: paths.Dataset) -> Iterator[Finding]:
    """Labelled videos that any pretraining on this machine has seen."""
    try:
        folds = checked_folds(dataset)
    except UserError:  # `fold_findings` says so
        folds = []
    for folder in without_manifest():
        message = f"{folder}: weights without a {FILE_NAME}"
        yield Finding("warning", LEAKS_KIND, message, "nobody knows what they have seen: make them again")
    for path in all_manifests():
        try:
            for leak in leaks_of_dataset(dataset, read_manifest(path), folds):
                advice = "pretrain without these videos, or do not report this fold with weights of that pretraining"
                yield Finding("error", LEAKS_KIND, str(leak), advice, video=leak.videos[0])
        except (UserError, OSError) as error:
            yield Finding("error", LEAKS_KIND, str(error), "without it nobody knows what these weights have seen")


def report(audit: Audit) -> str:
    """The findings by kind, the kind with the worst first, and a line that sums them up."""
    lines = []
    kinds: dict[str, list[Finding]] = {}
    for finding in sorted(audit.findings, key=_rank):
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, findings in kinds.items():
        lines.append(kind)
        for finding in findings:
            lines += [f"  {finding.severity:<8} {finding.message}", f"{'':11}-> {finding.advice}"]
        lines.append("")
    found = ", ".join(counted(audit.counts[severity], severity) for severity in SEVERITIES)
    looked_at = ", ".join(counted(count, noun) for noun, count in audit.looked_at.items())
    synthetic = " (synthetic)" if audit.dataset.is_synthetic else ""
    return "\n".join([*lines, f"{audit.dataset.name}{synthetic}: {looked_at}: {found}"])


def _rank(finding: Finding) -> tuple[int, str]:
    return SEVERITIES.index(finding.severity), finding.video or ""


def to_json(audit: Audit) -> dict[str, Any]:
    """The audit as a record."""
    return {
        "format": 1,
        "dataset": audit.dataset.name,
        "synthetic": audit.dataset.is_synthetic,
        "looked_at": {f"{noun.replace(' ', '_')}s": count for noun, count in audit.looked_at.items()},
        "counts": {severity: audit.counts[severity] for severity in SEVERITIES},
        "findings": [finding.to_json() for finding in sorted(audit.findings, key=_rank)],
    }


if __name__ == "__main__":
    run_main(main)

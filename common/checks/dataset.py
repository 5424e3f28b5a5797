"""Every check of a data set, run over one: labels, orders, lengths, copies, folds, leaks."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from common.base import paths
from common.base.entries import is_frame_folder, is_readable_file, list_videos
from common.base.runtime import UserError
from common.checks.features import feature_findings, feature_folders, open_all_features
from common.checks.files import copy_findings, description_findings, file_findings, listing_findings, owner_of
from common.checks.findings import SEVERITIES, Finding
from common.checks.folds import fold_findings, list_findings, patient_findings, piece_findings
from common.checks.labels import MIN_SECONDS, label_files, read_all_labels, short_phases
from common.checks.leaks import leak_findings
from common.checks.orders import order_findings
from common.checks.timing import collect_timings, length_findings, rate_findings, variable_rates
from common.dataset.description import DatasetDescription, read_description
from common.dataset.split_lists import list_names
from common.video.label_grid import LabelGrid


@dataclass(frozen=True)
class Audit:
    """The findings of a data set, and how many label files, videos and feature folders there are, by noun."""

    dataset: paths.Dataset
    findings: list[Finding]
    looked_at: dict[str, int]

    @property
    def counts(self) -> Counter[str]:
        """Findings by severity."""
        return Counter(finding.severity for finding in self.findings)

    @property
    def worst_first(self) -> list[Finding]:
        """The findings by severity, then by video."""
        return sorted(self.findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.video or ""))

    def to_json(self) -> dict[str, Any]:
        """The audit as a record."""
        return {
            "format": 1,
            "dataset": self.dataset.name,
            "synthetic": self.dataset.is_synthetic,
            "looked_at": {f"{noun.replace(' ', '_')}s": count for noun, count in self.looked_at.items()},
            "counts": {severity: self.counts[severity] for severity in SEVERITIES},
            "findings": [asdict(finding) for finding in self.worst_first],
        }


def audit_dataset(dataset: paths.Dataset, *, min_seconds: float = MIN_SECONDS, fps: float | None = None) -> Audit:
    """Every check on a data set, whatever state it is in; nothing is changed."""
    findings: list[Finding] = []
    description = _description(dataset)
    grid = LabelGrid(description.label_fps, description.label_every)
    owner = owner_of(dataset)
    files, videos = label_files(dataset), list_videos(owner.videos).first
    mapping, labels = read_all_labels(dataset, files, findings)
    folders = feature_folders(owner)
    there = {video: path for video, path in videos.items() if is_readable_file(path) or is_frame_folder(path)}
    extracted = open_all_features(folders, findings)
    timings = collect_timings(there, extracted, findings)
    # an fps that is given is that of the labels
    known = {video: next((timing.fps for timing in timings.get(video, ()) if timing.fps), None) for video in labels}
    rates = {video: grid.rate(rate) or fps for video, rate in known.items()}
    findings += [*description_findings(dataset), *listing_findings(dataset), *file_findings(dataset, videos, files)]
    findings += short_phases(labels, rates, mapping, min_seconds)
    findings += order_findings(labels, rates, mapping)
    findings += length_findings(labels, timings, grid, from_elsewhere=description.feature_fps is None)
    findings += [*rate_findings(timings), *variable_rates(extracted)]
    findings += feature_findings(extracted, there)
    findings += copy_findings(dataset, labels)
    findings += fold_findings(dataset, labels, mapping)
    findings += patient_findings(dataset)
    findings += piece_findings(dataset, files)
    findings += [finding for name in list_names(dataset) for finding in list_findings(dataset, name)]
    findings += leak_findings(dataset)
    looked_at = {"label file": len(files), "video": len(videos), "feature folder": len(folders)}
    return Audit(dataset, findings, looked_at)


def _description(dataset: paths.Dataset) -> DatasetDescription:
    try:
        return read_description(dataset)
    except UserError:  # a finding of the files
        return DatasetDescription()

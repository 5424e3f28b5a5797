"""Check a data set before any hour of training is spent on it: labels, orders, lengths, copies, folds, leaks.

python -m common.audit data/SICS155                   # everything that can be checked, in seconds and a probe of each video
python -m common.audit data/SICS155 --json audit.json # and as a record
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.runtime import UserError, run_main, write_json
from common.base.wording import counted
from common.checks.dataset import Audit, audit_dataset
from common.checks.findings import SEVERITIES, Finding
from common.checks.labels import MIN_SECONDS
from common.checks.orders import MIN_OTHERS

EXPLANATION = f"""
An error makes results wrong or stops a command; a warning is to be looked at; a note is worth knowing. Orders of phases
are compared with the other videos, so they are checked in sets of more than {MIN_OTHERS} labelled videos. A video without
features is judged by its header, which can be wrong; features hold what was decoded.
"""


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

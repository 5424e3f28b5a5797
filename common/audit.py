"""Check a data set before any hour of training is spent on it: labels, orders, lengths, copies, folds, leaks.

python -m common.audit data/SICS155                   # everything that can be checked, after a probe of each video
python -m common.audit data/SICS155 --json audit.json # and as a record
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.files import write_json
from common.base.options import CommandParser, Positive
from common.base.runtime import UserError, counted, run_main
from common.checks.findings import SEVERITIES, Finding
from common.checks.labels import MIN_SECONDS
from common.checks.orders import MIN_OTHERS

if TYPE_CHECKING:
    from common.checks.dataset import Audit

MOST_ALIKE = 5  # findings printed of those that differ in their place only

EXPLANATION = f"""
An error makes results wrong or stops a command; a warning is to be looked at; a note is worth knowing. Orders of phases
are compared with the other videos, so they are checked in sets of more than {MIN_OTHERS} labelled videos. A video
without features is judged by its header, which can be wrong; features hold what was decoded.
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.audit`. Returns 1 for an error (with --strict for a warning too), else 0."""
    parser = CommandParser("common.audit", f"{__doc__}{EXPLANATION}")
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("dataset", metavar="DATASET", help="a name under data/, or a path")
    fps_help = "frames per second of the labels, where neither features nor videos tell"
    data.add_argument("--fps", type=float, action=Positive, metavar="FPS", help=fps_help)
    output.add_argument(
        "--min_seconds",
        type=float,
        action=Positive,
        default=MIN_SECONDS,
        metavar="SECONDS",
        help="report phases that last less (default: %(default)s seconds)",
    )
    output.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON too")
    output.add_argument("--all", action="store_true", help=f"print every finding, not {MOST_ALIKE} of those alike")
    output.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    given = parser.parse_args(argv)
    # reads videos and features: slow to import, and --help needs none
    from common.checks.dataset import audit_dataset
    from common.dataset.description import read_description, require_task

    dataset = paths.dataset(given.dataset)
    try:
        task = read_description(dataset).task
    except UserError:  # a finding
        task = None
    if task is not None:
        require_task(dataset, None)  # whose command checks its labels before anything is learned
    audit = audit_dataset(dataset, min_seconds=given.min_seconds, fps=given.fps)
    print(report(audit, most_alike=len(audit.findings) if given.all else MOST_ALIKE))
    if given.json:
        write_json(given.json, audit.to_json())
    return 1 if audit.counts["error"] or (given.strict and audit.counts["warning"]) else 0


def report(audit: Audit, *, most_alike: int = MOST_ALIKE) -> str:
    """The findings by kind, the kind with the worst first, and a line that sums them up.

    Of findings alike in kind, severity and advice `most_alike` are printed, and how many more there are.
    """
    kinds: dict[str, dict[tuple[str, str], list[Finding]]] = {}
    for finding in audit.worst_first:
        alike = kinds.setdefault(finding.kind, {}).setdefault((finding.severity, finding.advice), [])
        alike.append(finding)
    lines = []
    for kind, groups in kinds.items():
        lines.append(kind)
        for (severity, advice), findings in groups.items():
            for finding in findings[:most_alike]:
                lines += [f"  {severity:<8} {finding.message}", f"{'':11}-> {advice}"]
            if len(findings) > most_alike:
                lines.append(f"  {severity:<8} and {len(findings) - most_alike} more of this kind (--all, --json FILE)")
        lines.append("")
    found = ", ".join(counted(audit.counts[severity], severity) for severity in SEVERITIES)
    looked_at = ", ".join(counted(count, noun) for noun, count in audit.looked_at.items())
    synthetic = " (synthetic)" if audit.dataset.is_synthetic else ""
    return "\n".join([*lines, f"{audit.dataset.name}{synthetic}: {looked_at}: {found}"])


if __name__ == "__main__":
    run_main(main)

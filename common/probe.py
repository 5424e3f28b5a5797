"""Which tools, criteria or triplets a frame has, or of which class a clip is: what features of a frozen encoder tell of it.

python -m common.probe --dataset Cholec80-tools --model EfficientNet-Lite0 --splits A
python -m common.probe --dataset SurgRec-cataract-101 --model ColorHistogram        # the split of the table itself

Logistic regression on standardised features; its C is chosen inside the training part. docs/tasks.md
"""

from __future__ import annotations

from common.base import paths
from common.base.options import CommandParser, add_options, resolve
from common.base.runtime import run_main
from common.tasks.config import ProbeConfig


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.probe`."""
    given = _parser().parse_args(argv)
    config = resolve(ProbeConfig, vars(given), given.config)

    # numpy, scikit-learn and torch load only now: --help is answered at once
    from common.tasks.probe import run_probe
    from common.tasks.summary import task_summaries
    from common.tasks.tables import print_task, print_tasks

    summary = run_probe(config, force=given.force, verify=not given.no_verify)
    print_task(summary)
    print_tasks([each for each in task_summaries(paths.dataset(config.dataset)) if each.splits == summary.splits])
    return 0


def _parser() -> CommandParser:
    """Every option."""
    parser = CommandParser("common.probe", __doc__)
    parser.add_config()
    add_options(parser, ProbeConfig)
    parser.groups["output"].add_argument("--force", action="store_true", help="run a finished probe again")
    parser.groups["machine"].add_argument(
        "--no_verify",
        action="store_true",
        help="take features as they are, without a look at their SHA-256 (once a file and machine)",
    )
    return parser


if __name__ == "__main__":
    run_main(main)

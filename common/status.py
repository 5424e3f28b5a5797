"""Where everything stands on a data set: videos extracted, folds done, what is out of date, errors, disk, what to run next.

python -m common.status                 # SICS155, else every data set but a drawn one
python -m common.status SICS155
"""

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main

EXPLANATION = """
It reads names, dates and records, and hashes nothing: it is there at once however much there is. A fold is out of date
when the folds, a label file, its features or its settings have changed since, by dates of files; `python -m common.audit`
looks at the contents. Last errors are those of the last try; they go when the next one succeeds.
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m common.status`."""
    parser = CommandParser("common.status", f"{__doc__}{EXPLANATION}")
    parser.groups["data"].add_argument("dataset", nargs="?", metavar="DATASET", help="a name under data/, or a path")
    given = parser.parse_args(argv)

    from common.reports.status.standing import read_standing
    from common.reports.status.standing_text import standing_text

    meant = paths.meant_datasets()
    if given.dataset or len(meant) == 1:
        print(standing_text(read_standing(paths.dataset(given.dataset or paths.default_dataset()))))
        return 0
    texts = []
    for name in meant:
        try:
            texts.append(standing_text(read_standing(paths.dataset(name))))
        except UserError as error:  # of another task, say
            texts.append(f"{name}: {error}")
    print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    run_main(main)

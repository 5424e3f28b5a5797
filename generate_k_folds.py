"""Make stratified folds of a data set, after a look at its labels: an error in them costs hours of extraction else.

python generate_k_folds.py ./data/SICS155 5
"""

from __future__ import annotations

from collections import Counter

from common.base import paths
from common.base.entries import list_videos, same_name
from common.base.options import CommandParser
from common.base.runtime import counted, listed, run_main
from common.checks.files import owner_of, without_video
from common.checks.folds import untrained_findings
from common.checks.labels import require_sound_labels
from common.dataset.description import labelled_units, read_description
from common.dataset.kfold import DEFAULT_SEED, folds_hash, make_folds, prefix_stratum, read_folds, write_folds
from common.dataset.patients import read_patients


def main(argv: list[str] | None = None) -> int:
    """Write the folds of the labelled videos and print what is in each."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("dataset", help="a name under data/ or a path, such as ./data/SICS155")
    data.add_argument(
        "--stratify", choices=("prefix", "none"), default="prefix", help="balance name prefixes (default: %(default)s)"
    )
    output.add_argument("num_folds", type=int, help="number of folds, usually 5")
    output.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the deal (default: %(default)s)")
    output.add_argument(
        "--force", action="store_true", help="replace lists and groundTruth_split_<k>/ that this script did not write"
    )
    given = parser.parse_args(argv)
    dataset = paths.dataset(given.dataset)
    if read_description(dataset).task is None:
        mapping, labels = require_sound_labels(dataset)
    else:
        mapping, labels = None, dict.fromkeys(labelled_units(dataset)[1])
    patients = read_patients(dataset)
    folds = make_folds(list(labels), given.num_folds, seed=given.seed, stratify=given.stratify, patients=patients)
    write_folds(dataset, folds, seed=given.seed, stratify=given.stratify, patients=patients, force=given.force)
    # of names in one's own fashion, some without a prefix, their counts say nothing
    is_told = given.stratify == "prefix" and all(map(prefix_stratum, labels))
    for number, fold in enumerate(read_folds(dataset), 1):
        strata = Counter(map(prefix_stratum, fold)) if is_told else {}
        shares = ", ".join(f"{name} {count}" for name, count in sorted(strata.items()))
        print(f"fold {number}: {counted(len(fold), 'test video')} {f'({shares})' if shares else ''}".rstrip())
    for finding in untrained_findings(folds, labels, mapping) if mapping else ():
        print(f"note: {finding.message}")
    videos = list_videos(owner_of(dataset).videos).first
    known = {same_name(name) for name in (*labels, *paths.label_paths(dataset.ground_truth_val))}
    unlabelled = [name for name in videos if same_name(name) not in known]
    if unlabelled and mapping:  # labels of another task may be of frames
        print(f"note: videos without labels, in no fold: {listed(unlabelled)}")
    if alone := without_video(labels, videos):
        print(
            f"note: labels without a video: {listed(alone)}; no features will come of these: add the videos or remove the labels"
        )
    grouped = f", {len({patients[v] for v in labels if v in patients})} patients kept together" if patients else ""
    sizes = " or ".join(map(str, sorted({len(fold) for fold in folds})))
    print(
        f"{dataset.splits}: {given.num_folds} folds of {sizes} test videos, seed {given.seed}{grouped}, hash {folds_hash(folds)[:12]}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)

#!/usr/bin/env bash
# From three made releases to one table over data sets, in minutes on a CPU: import, features, heads on the owners' lists,
# predictions made elsewhere, ranks, a bundle and its check. `make demo-benchmark` calls this.
#
# Usage: demo_benchmark.sh [OPTIONS OF data/make_releases.py...]        PYTHON=... names another interpreter than .venv's
#
# Environment: ENCODERS, the folders of models/ to compare; EXTRACTION and HEAD, further options of extraction and of heads.
# Everything is drawn: the numbers say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
encoders="${ENCODERS:-EfficientNet-Lite0 ColorHistogram}"
releases=(cataracts autolaparo pmlr50)

say "three made releases: a label a frame, a label a second, folders of images"
run data/make_releases.py --output "$root/data/releases" "$@"
for release in "${releases[@]}"; do
    dataset="demo-$release"
    say "$release: import, features, heads on the official list"
    if [[ ! -f "$root/data/$dataset/manifest.json" ]]; then
        run data/import_dataset.py "$release" "$root/data/releases/$release" --output "$dataset"
        # one phase that nobody is scored on, as some sets have
        [[ "$release" != autolaparo ]] || printf 'ignored: [Washing]\n' >>"$root/data/$dataset/dataset.yaml"
    fi
    for encoder in $encoders; do
        # shellcheck disable=SC2086  # several words
        run -m common.extract_features --model "$encoder" --dataset "$dataset" ${EXTRACTION:-}
        # shellcheck disable=SC2086
        run -m common.run_k_folds --model "$encoder" --dataset "$dataset" --splits official --config data/sample_head.yaml --brief ${HEAD:-}
    done
done

say "predictions made elsewhere: the most frequent phase of the training videos, everywhere"
run - "$root" "${releases[@]/#/demo-}" <<'MAJORITY'
import sys
from collections import Counter
from pathlib import Path

from common.base import paths
from common.base.files import write_text
from common.dataset.description import read_phases
from common.dataset.split_lists import open_splits

root, *names = sys.argv[1:]
for name in names:
    dataset = paths.dataset(name)
    lists, scored = open_splits(dataset, "official"), set(read_phases(dataset).names) - set(read_phases(dataset).ignored)
    labels = {video: path.read_text().split("\n")[:-1] for video, path in paths.label_paths(dataset.ground_truth).items()}
    counts = Counter(label for video in lists.videos("train", 1) for label in labels[video] if label in scored)
    for video in lists.videos("test", 1):
        text = f"{counts.most_common(1)[0][0]}\n" * len(labels[video])
        write_text(Path(root, "data", "releases", "elsewhere", name, f"{video}.txt"), text)
MAJORITY

say "one table over the three, and its check from the bundle"
bundle="$root/comparison_results/benchmark/bundle.zip"
# shellcheck disable=SC2086
run compute_results.py --benchmark "${releases[@]/#/demo-}" --splits official --models $encoders \
    --with_predictions "Majority=$root/data/releases/elsewhere" --bundle "$bundle"
run compute_results.py --verify "$bundle"

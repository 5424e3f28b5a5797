#!/usr/bin/env bash
# The whole pipeline on the sample set: drawn videos, folds, features of each encoder, a head on every fold, one page that compares
# them; minutes on a CPU, and what is finished is used again. `make demo` calls this.
#
# Usage: demo.sh        PYTHON=... names another interpreter than .venv's; SICS155_ROOT=... another folder for data and results
#
# Environment: ENCODERS, the folders of models/ to compare. Everything is drawn: the numbers say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
encoders="${ENCODERS:-EfficientNet-Lite0 ColorHistogram}"
cores="$(getconf _NPROCESSORS_ONLN)"

say "videos and labels of the synthetic sample set"
run data/make_sample.py
say "folds"
run generate_k_folds.py "$root/data/sample" 5 | tail -n 1
say "features of every frame"
for encoder in $encoders; do
    OMP_NUM_THREADS="$cores" run "models/$encoder/extract_features.py" --dataset sample
done
say "a head on every fold"
for encoder in $encoders; do
    run -m common.run_k_folds --model "$encoder" --folds 5 --config data/sample_head.yaml --brief --parallel "$cores"
done
say "one encoder's split as pictures and workbook"
run compute_results.py --dataset sample --model "${encoders%% *}" --split 1 --brief
say "the comparison"
run compute_results.py --dataset sample --compare-kfold 5

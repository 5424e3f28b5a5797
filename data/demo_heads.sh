#!/usr/bin/env bash
# Does the order of encoders depend on the head, or on the scale of their features? Five heads with features as they are and
# standardised, on the sample set, in minutes on a CPU. `make demo-heads` calls this.
#
# Usage: demo_heads.sh        PYTHON=... names another interpreter than .venv's; SICS155_ROOT=... another folder for data and results
#
# Environment: ENCODERS, the folders of models/ to compare; HEADS, the heads; FOLDS, the number of folds; HEAD, further options of all heads.
# Everything is drawn: the numbers say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
encoders="${ENCODERS:-EfficientNet-Lite0 ColorHistogram}"
heads="${HEADS:-mstcn++ linear gru tecno asformer}"
folds="${FOLDS:-5}"
declare -A options=([tecno]="stages=2 layers=8 maps=32" [asformer]="decoders=1 layers=6 maps=32" [gru]="hidden=64 layers=1")

say "the sample set: drawn videos, features"
run data/make_sample.py
run generate_k_folds.py "$root/data/sample" "$folds" | tail -n 1
for encoder in $encoders; do
    run "models/$encoder/extract_features.py" --dataset sample
done
for head in $heads; do
    for scale in none train; do
        say "head $head, --standardise $scale: ${encoders// / and }, side by side"
        started=()
        for encoder in $encoders; do
            # shellcheck disable=SC2086 # lists of words
            run -m common.run_k_folds --model "$encoder" --folds "$folds" --config data/sample_head.yaml --num_epochs 20 --brief \
                --head "$head" ${options[$head]:+--head_options ${options[$head]}} --standardise "$scale" ${HEAD:-} &
            started+=($!)
        done
        for process in "${started[@]}"; do
            wait "$process"
        done
    done
done
say "one page: section 'Does it hold?'"
run compute_results.py --dataset sample --compare-kfold "$folds"

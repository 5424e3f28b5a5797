#!/usr/bin/env bash
# Tools, clips and masks on drawn pictures, in minutes on a CPU: features, probes, decoders, and one table over the three tasks.
# `make demo-tasks` calls this.
#
# Usage: demo_tasks.sh        PYTHON=... names another interpreter than .venv's
#
# Everything is drawn: the numbers say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
encoders=(EfficientNet-Lite0 ColorHistogram)

say "drawn masks; a decoder on the maps of real weights, then on those of random ones, is trained beside what follows"
run data/make_masks.py
# called as the probes' runs are, by the list alone, so that an encoder has one row in the table
masks=(--dataset sample-masks --splits drawn --model EfficientNet-Lite0 --config data/sample_masks.yaml)
real=(--run splits=drawn)
random=(--run splits=drawn-random --weights random)
{ run -m common.segment train "${masks[@]}" "${real[@]}" && run -m common.segment train "${masks[@]}" "${random[@]}"; } &
training=$!

say "drawn videos, and which tools and phases they show"
run data/make_sample.py
run data/make_tasks.py

say "features of the drawn videos: tools and clips use the same"
for encoder in "${encoders[@]}"; do
    run -m common.extract_features --model "$encoder" --dataset sample
done

say "tools of each frame, the class of each clip: logistic regression"
for encoder in "${encoders[@]}"; do
    run -m common.probe --model "$encoder" --dataset sample-tools --splits drawn
    run -m common.probe --model "$encoder" --dataset sample-clips
done

say "masks of the test images"
wait "$training"
for action in predict evaluate; do
    run -m common.segment "$action" "${masks[@]}" "${random[@]}"
done
run -m common.segment predict "${masks[@]}" "${real[@]}"
run -m common.segment evaluate "${masks[@]}" "${real[@]}" --overlays 6

say "one table"
run compute_results.py --benchmark sample-tools sample-clips sample-masks

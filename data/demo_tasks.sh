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

say "one table"
run compute_results.py --benchmark sample-tools sample-clips

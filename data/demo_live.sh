#!/usr/bin/env bash
# The phase now: a causal head on the sample set follows one of its test videos frame by frame, at the speed at which it was filmed, in
# a minute or two on a CPU. `make demo-live` calls this.
#
# Usage: demo_live.sh        PYTHON=... names another interpreter than .venv's; SICS155_ROOT=... another folder for data and results
#
# Environment: HEAD, further options of the head. Everything is drawn: the phases say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
head=(--model EfficientNet-Lite0 --dataset sample --split 1)

say "the sample set: drawn videos, features"
run data/make_sample.py
run generate_k_folds.py "$root/data/sample" 5 | tail -n 1
run models/EfficientNet-Lite0/extract_features.py --dataset sample

say "a head that sees no later frame"
# shellcheck disable=SC2086 # several words
run -m common.train "${head[@]}" --config data/sample_head.yaml --num_epochs 30 --causal ${HEAD:-}

video="$(tail -n 1 "$root/data/sample/splits/test.split1.bundle")"
say "a test video as it goes on (Ctrl-C ends it; what came is kept)"
run -m common.predict_video "$root/data/sample/videos/${video%.*}.mp4" "${head[@]}" --run causal --online --realtime \
    --output "$root/comparison_results/live"

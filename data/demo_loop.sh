#!/usr/bin/env bash
# The loop that saves a person's time, on the sample set: label five videos, train, pre-label ten, correct them, import them, train again; in
# minutes on a CPU. `make demo-loop` calls this.
#
# Usage: demo_loop.sh        PYTHON=... names another interpreter than .venv's; SICS155_ROOT=... another folder for data and results
#
# Environment: ENCODER, a folder of models/; HEAD, further options of the head. Everything is drawn, and the truth plays the person who
# corrects: the numbers say nothing of surgery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo
encoder="${ENCODER:-EfficientNet-Lite0}"
loop="$root/data/loop"

# learn NAME: a head on all labels that there are, and its predictions for the test videos.
learn() {
    local action
    for action in train predict; do
        # shellcheck disable=SC2086 # several words
        run -m common.train --action "$action" --model "$encoder" --config data/sample_head.yaml --num_epochs 60 --dataset loop --split val \
            --run "$1" ${HEAD:-}
    done
}

say "five sample videos with labels, ten without, the others to test on"
run data/make_sample.py
run data/loop_sample.py prepare
run "models/$encoder/extract_features.py" --dataset loop
say "a head that has learned from five videos"
learn labelled5
say "its predictions for the ten, as files of ELAN"
run -m common.prelabel "$loop/unlabelled" --model "$encoder" --dataset loop --split val --run labelled5 --format elan --output "$loop/elan"
say "corrected, here by the truth, and imported"
run data/loop_sample.py correct --model "$encoder"
run data/import_dataset.py annotations "$loop/elan" --output loop
say "a head that has learned from fifteen"
run "models/$encoder/extract_features.py" --dataset loop
learn labelled15
say "what came of it"
run data/loop_sample.py table --model "$encoder"

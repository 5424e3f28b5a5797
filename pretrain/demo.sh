#!/usr/bin/env bash
# The three stages of pretraining on drawn videos with tiny networks, in minutes on a CPU: from videos to rows of the
# comparison table. `make demo-pretrain` calls this.
#
# Usage: demo.sh        PYTHON=... names another interpreter than .venv's
#
# Stages 1 and 2 learn from two drawn sets that have no video in common with the scored one, nor with each other.
# The networks are tiny and start from random weights: their numbers say nothing of the encoders they are named after.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=models/launch_common.sh
source models/launch_common.sh
prepare_demo

say "drawn videos: one set for each stage, of other seeds"
run data/make_sample.py
run data/make_sample.py --output "$root/data/demo/unlabelled" --num_videos 5 --seed 8
run data/make_sample.py --output "$root/data/sample-annotated" --num_videos 9 --seed 9
run generate_k_folds.py ./data/sample 5 | tail -n 1
# what an import writes last: the annotated videos, their rate, and the group in which validation videos are chosen
run - "$root/data/sample-annotated" <<'RECORD'
import sys
from pathlib import Path
from common.base.paths import Dataset
from common.base.files import write_json

dataset = Dataset(Path(sys.argv[1]))
names = sorted(path.stem for path in dataset.ground_truth.glob("*.txt"))
videos = {name: {"fps": 10.0, "stratum": name[:2]} for name in names}
write_json(dataset.import_record, {"release": "sample-annotated", "videos": videos})
RECORD

say "the videos of Stage 1 packed: decoded once, small frames at 4 a second"
run pretrain/pack_videos.py --videos "$root/data/demo/unlabelled" --output "$root/data/demo/packed"

stages() { # FAMILY VIDEOS [OPTIONS OF STAGE 1...]
    local model="$1-tiny"
    say "$model, Stage 1: self-supervised pretraining on $2"
    run "pretrain/ssl_pretrain_$1.py" --model "$model" --init random --videos "$root/$2" \
        --exclude sample sample-annotated --num_workers 1 --save_every 50 --device cpu "${@:3}"
    say "$model, Stage 2: LoRA on data/sample-annotated"
    run pretrain/finetune_lora.py --model "$model" --datasets sample-annotated --classes pretrain/demo_classes.yaml \
        --epochs 2 --steps_per_epoch 30 --grid_seconds 1 --validation_share 0.34 --num_workers 1 --device cpu
    say "$model, Stage 3: features of data/sample"
    run pretrain/extract_ssl_features.py --model "$model" --dataset sample --device cpu
}

stages dinov3 data/demo/unlabelled --max_steps 100 --batch_size 8 --freeze_backbone_epochs 0 --freeze_prototypes_epochs 0
stages vjepa2 data/demo/packed/unlabelled --max_steps 100 --batch_size 4

say "the head on the folds of data/sample, for both networks at once"
folds() { run -m common.run_k_folds --model "$1" --folds 5 --config data/sample_head.yaml --brief; }
folds DinoV3-Tiny &
folds V-JEPA2-Tiny
wait $!

say "the comparison"
run compute_results.py --dataset sample --compare-kfold 5
echo
echo "Drawn videos, tiny networks trained from random weights: this shows that the stages fit together, nothing else."

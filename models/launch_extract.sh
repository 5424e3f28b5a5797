#!/usr/bin/env bash
# Extract the features of one encoder, or of all, as a SLURM job or job array. From the repository root:
#
#   python -m common.weights prefetch Base                                          # once, on a node with internet
#   sbatch models/launch_extract.sh Base --dataset SICS155                          # one job
#   sbatch --array=1-8 models/launch_extract.sh Base --dataset SICS155              # eight, each with 1/8 of the frames
#   sbatch --array=1-8 --time=2-0 --partition=gpu models/launch_extract.sh all      # every folder of models/
#   models/launch_extract.sh Base --dataset SICS155                                 # here, without SLURM
#
# Usage: launch_extract.sh MODEL|all [options of extract_features.py]
#
# Flags of sbatch replace the settings below. Submit again to resume after a time limit: finished videos are skipped.
# Logs: slurm_logs/. PYTHON=... names another interpreter than .venv's; HF_HUB_OFFLINE=0 lets compute nodes download.
#SBATCH --job-name=extract
#SBATCH --output=slurm_logs/%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
[[ -f "$here/launch_common.sh" ]] || here=models # SLURM runs a copy of this file, in the folder of submission
# shellcheck source=models/launch_common.sh
source "$here/launch_common.sh" || { echo "submit this from the repository root" >&2; exit 2; }

extract() {  # an array's task finds its own share of the videos in the environment
    "$PYTHON" "models/$1/extract_features.py" "${@:2}"
}

for_each_model extract "$@"

#!/usr/bin/env bash
# Train, predict and score the folds of one encoder, or of all, as a SLURM job or job array. From the repository root:
#
#   sbatch --array=1-5 models/launch_kfold.sh Base --dataset SICS155                # fold k in task k
#   sbatch --array=1-5 models/launch_kfold.sh all --dataset SICS155 --num_epochs 100
#   sbatch models/launch_kfold.sh Base --dataset SICS155                            # all folds, one after the other
#   models/launch_kfold.sh Base --dataset SICS155                                   # here, without SLURM
#   python compute_results.py --compare-kfold 5                                     # when all are done
#
# Usage: launch_kfold.sh MODEL|all [options of python -m common.run_k_folds]
#
# An array for other than five folds needs their number too: --array=1-10 ... --folds 10. Flags of sbatch replace the
# settings below. Submit again to resume after a time limit: finished folds are skipped. Logs: slurm_logs/.
# PYTHON=... names another interpreter than .venv's.
#SBATCH --job-name=kfold
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

run_folds() {
    local only=()
    [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]] || only=(--only "$SLURM_ARRAY_TASK_ID")
    "$PYTHON" -m common.run_k_folds --model "$1" ${only[@]+"${only[@]}"} "${@:2}"
}

for_each_model run_folds "$@"

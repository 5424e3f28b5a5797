#!/usr/bin/env bash
# Stage 1 for V-JEPA 2 on all GPUs of a node, as a SLURM job that resumes after its time limit. From the repository
# root:
#
#   python -m common.weights prefetch V-JEPA2-ViT-L                                     # once, on a node with internet
#   sbatch pretrain/launch_ssl_vjepa2.sh --model vjepa2-vitl-fpc64-256
#   sbatch --gres=gpu:8 --time=2-0 --partition=gpu pretrain/launch_ssl_vjepa2.sh --model vjepa2-vitg-fpc64-384
#   pretrain/launch_ssl_vjepa2.sh --model vjepa2-vitl-fpc64-256 --batch_size 2          # here, without SLURM
#
# Usage: launch_ssl_vjepa2.sh [options of ssl_pretrain_vjepa2.py]
#
# Flags of sbatch replace the settings below. Two minutes before the time limit the training is saved and the job put
# back into the queue; `scancel --signal=USR1 JOB` does the same at any time. Logs: slurm_logs/.
# PYTHON=... names another interpreter than .venv's; HF_HUB_OFFLINE=0 lets compute nodes download;
# PROCESSES_PER_NODE=... starts another number of processes than there are GPUs.
#SBATCH --job-name=ssl-vjepa2
#SBATCH --output=slurm_logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --gres=gpu:4
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
[[ -f "$here/launch_common.sh" ]] || here=pretrain # SLURM runs a copy of this file, in the folder of submission
# shellcheck source=pretrain/launch_common.sh
source "$here/launch_common.sh" || { echo "submit this from the repository root" >&2; exit 2; }

require_words "$@"
launch pretrain/ssl_pretrain_vjepa2.py "$@"

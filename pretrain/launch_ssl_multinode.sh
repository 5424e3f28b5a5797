#!/usr/bin/env bash
# Stage 1 on all GPUs of several nodes, as a SLURM job that resumes after its time limit. From the repository root:
#
#   sbatch --nodes=4 --gres=gpu:8 pretrain/launch_ssl_multinode.sh dinov3 --model dinov3-vit7b16
#   sbatch --nodes=2 pretrain/launch_ssl_multinode.sh vjepa2 --model vjepa2-vitg-fpc64-384
#   sbatch --nodes=1 pretrain/launch_ssl_multinode.sh videomae --model videomae-b
#
# Usage: launch_ssl_multinode.sh dinov3|vjepa2|videomae [options of ssl_pretrain_<the first word>.py]
#
# Flags of sbatch replace the settings below. Two minutes before the time limit the training is saved and the job put
# back into the queue; `scancel --signal=USR1 JOB` does the same at any time. Logs: slurm_logs/.
# PYTHON=... names another interpreter than .venv's; HF_HUB_OFFLINE=0 lets compute nodes download;
# PROCESSES_PER_NODE=... starts another number of processes than there are GPUs. The processes meet at MASTER_ADDR (the
# first node) and MASTER_PORT (by the number of the job), which may be set.
#SBATCH --job-name=ssl-multinode
#SBATCH --output=slurm_logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=2
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
case "$1" in
    dinov3 | vjepa2 | videomae) launch "pretrain/ssl_pretrain_$1.py" "${@:2}" ;;
    *) usage >&2; exit 2 ;;
esac

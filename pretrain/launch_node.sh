#!/usr/bin/env bash
# One node's share of a training: torchrun with a process a GPU, or with one on the CPU. launch_common.sh calls it.
#
# Usage: launch_node.sh COMMAND [OPTIONS...]
set -euo pipefail
heeded=SIGTERM,SIGINT
if [[ -n "${SLURM_STEP_ID:-}" ]]; then
    # SLURM signals every process: those that train save and leave; torchrun, which would die or kill them, waits
    trap '' USR1 TERM
    heeded=SIGINT
fi
# shellcheck source=models/launch_common.sh
source models/launch_common.sh

given_threads="${OMP_NUM_THREADS:-}"
prepare_python
processes="${PROCESSES_PER_NODE:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}"
if [[ -z "$given_threads" && -n "${SLURM_CPUS_ON_NODE:-}" ]]; then
    threads=$((SLURM_CPUS_ON_NODE / processes))
    export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
fi

nodes="${SLURM_STEP_NUM_NODES:-1}"
if ((nodes > 1)); then
    meeting=(--nnodes "$nodes" --node_rank "$SLURM_NODEID" --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
else
    meeting=(--standalone)
fi
exec "$PYTHON" -m torch.distributed.run "${meeting[@]}" --nproc_per_node "$processes" --signals_to_handle "$heeded" "$@"

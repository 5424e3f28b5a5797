# What the launch_ssl_*.sh share; sourced from the repository root. Also the share of a node: launch_common.sh node ...
# shellcheck shell=bash
# shellcheck source=models/launch_common.sh
source models/launch_common.sh

# launch COMMAND [OPTIONS...]: train on every node of the job, or on this machine without SLURM; returns the exit code.
# The warning of the time limit (SIGUSR1), which sbatch sends to this shell alone, is handed on to all processes.
launch() {
    local node=(bash pretrain/launch_common.sh node "$@") step code=0
    prepare_python
    if [[ -n "${SLURM_JOB_ID:-}" ]]; then
        find_first_node
        echo "$(date '+%F %T') job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, attempt $((${SLURM_RESTART_COUNT:-0} + 1))"
        # one agent a node; when one of them fails, the others would wait for it
        node=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 "${node[@]}")
    fi
    "${node[@]}" </dev/null &
    step=$!
    trap 'kill -USR1 "$step" 2>/dev/null || true' USR1
    trap 'kill -TERM "$step" 2>/dev/null || true' TERM
    wait_for "$step" || code=$?
    echo "$(date '+%F %T') ends with exit code $code"
    return "$code"
}

# wait_for PROCESS: its exit code; a signal to this shell ends `wait`, not the process.
wait_for() {
    local code=0
    while wait "$1" || code=$?; kill -0 "$1" 2>/dev/null; do
        code=0
    done
    return "$code"
}

# find_first_node: MASTER_ADDR and MASTER_PORT, where the processes of all nodes meet.
find_first_node() {
    local first
    first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
    # the address that SLURM itself uses: a node's name need not be known to the others
    MASTER_ADDR="${MASTER_ADDR:-$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')}"
    MASTER_PORT="${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}" # of this job alone, below those given out at random
    if [[ "$MASTER_ADDR" == 127.* ]]; then
        export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-lo}" NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-lo}"
    fi
    export MASTER_ADDR MASTER_PORT
}

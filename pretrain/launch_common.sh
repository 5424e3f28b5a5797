# What the launch_ssl_*.sh share, besides what all launch scripts do.
# shellcheck shell=bash
# shellcheck source=models/launch_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../models/launch_common.sh"

# launch COMMAND [OPTIONS...]: train on every node of the job, or here without SLURM; returns the exit code.
# SLURM warns this shell alone of the time limit (SIGUSR1); srun hands the warning on to all processes of the training.
launch() {
    local node=(bash pretrain/launch_node.sh "$@") step warning=TERM code=0
    if [[ -n "${SLURM_JOB_ID:-}" ]]; then
        find_first_node
        echo "$(date '+%F %T') job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, attempt $((${SLURM_RESTART_COUNT:-0} + 1))"
        # all processors for a node's one task; when the task of one node fails, the others would wait for it
        node=(
            srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 "${node[@]}"
        )
        warning=USR1
    fi
    "${node[@]}" </dev/null &
    step=$!
    # shellcheck disable=SC2064 # as they are now
    trap "kill -$warning $step 2>/dev/null || true" USR1
    # shellcheck disable=SC2064
    trap "kill -TERM $step 2>/dev/null || true" TERM
    wait_for "$step" || code=$?
    echo "$(date '+%F %T') ends with exit code $code"
    return "$code"
}

# wait_for PROCESS: its exit code; a signal to this shell ends a `wait`, not the process.
wait_for() {
    local code
    while true; do
        code=0
        wait "$1" || code=$?
        kill -0 "$1" 2>/dev/null || return "$code"
    done
}

# find_first_node: sets MASTER_ADDR and MASTER_PORT, where the processes of all nodes meet.
find_first_node() {
    local nodes
    nodes="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
    # the address that SLURM itself uses: the name of a node need not be known to the others
    local first="${nodes%%$'\n'*}"
    export MASTER_ADDR="${MASTER_ADDR:-$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')}"
    # the job's own, and below those that the system gives out
    export MASTER_PORT="${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}"
    if [[ "$MASTER_ADDR" == 127.* ]]; then
        export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-lo}" NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-lo}"
    fi
}

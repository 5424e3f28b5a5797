# What launch_extract.sh and launch_kfold.sh share; sourced from the repository root.
# shellcheck shell=bash

# usage SCRIPT: the script's own header comment.
usage() {
    sed -n '2,/^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p}' "$1"
}

# prepare_python: the checkout's environment, or the interpreter that PYTHON names; settings for compute nodes.
prepare_python() {
    if [[ -z "${PYTHON:-}" && -f .venv/bin/activate ]]; then
        # shellcheck source=/dev/null
        source .venv/bin/activate
    fi
    export PYTHON="${PYTHON:-python}"
    if [[ -n "${SLURM_JOB_ID:-}" ]]; then
        export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
    fi
}

# chosen_models MODEL|all: names of model folders, one a line; 2 when there is no such folder.
chosen_models() {
    local config names=()
    for config in models/*/config.yaml; do
        names+=("$(basename "$(dirname "$config")")")
    done
    if [[ "$1" == all ]]; then
        printf '%s\n' "${names[@]}"
    elif [[ -f "models/$1/config.yaml" ]]; then
        printf '%s\n' "$1"
    else
        echo "no model folder '$1' with a config.yaml under models/; there are: all ${names[*]}" >&2
        return 2
    fi
}

# for_each_model MODEL|all COMMAND [OPTIONS...]: COMMAND MODEL OPTIONS... for each; a failure does not stop the others.
# Returns the largest exit code.
for_each_model() {
    local chosen="$1" command="$2" models model code worst=0 failed=()
    shift 2
    models="$(chosen_models "$chosen")" || return
    while IFS= read -r model; do
        echo "$(date '+%F %T') $model: starts on $(hostname)${SLURM_ARRAY_TASK_ID:+, array task $SLURM_ARRAY_TASK_ID}"
        code=0
        "$command" "$model" "$@" </dev/null || code=$?
        echo "$(date '+%F %T') $model: ends with exit code $code"
        if ((code != 0)); then
            failed+=("$model")
        fi
        worst=$((code > worst ? code : worst))
    done <<<"$models"
    if ((${#failed[@]})); then
        echo "failed: ${failed[*]}" >&2
        if [[ "${HF_HUB_OFFLINE:-0}" == 1 ]]; then
            echo "compute nodes run without the network (HF_HUB_OFFLINE=1); if weights are missing, run on a login" \
                "node: python -m common.weights prefetch ${failed[*]}" >&2
        fi
    fi
    return "$worst"
}

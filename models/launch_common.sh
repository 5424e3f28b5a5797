# What the launch scripts of models/ and pretrain/ share. Sourcing it goes to the repository root.
# shellcheck shell=bash
script="$(realpath "$0")" # before the folder changes; SLURM's copy of a script has the same header
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# usage: the script's own header comment.
usage() {
    sed -n '2,/^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p}' "$script"
}

# require_words WORDS...: shows the usage and leaves where it is asked for (0) and where there are no words (2).
require_words() {
    case "${1:-}" in
        -h | --help) usage; exit 0 ;;
        "") usage >&2; exit 2 ;;
    esac
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

# prepare_demo: what the demos share: an interpreter, one thread (in networks and heads this small, threads mostly wait for each
# other), and `root`, where data and results go.
prepare_demo() {
    prepare_python
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    # shellcheck disable=SC2034 # for the demos
    root="${SICS155_ROOT:-.}"
}
say() { printf '\n== %s\n' "$*"; }
run() { "$PYTHON" "$@"; }

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

# for_each_model COMMAND MODEL|all [OPTIONS...]: COMMAND MODEL OPTIONS... for each; a failure does not stop the others.
# Returns the largest exit code. Without a model it shows the usage.
for_each_model() {
    local command="$1" models model code worst=0 failed=()
    require_words "${@:2}"
    [[ "$2" != -* ]] || { usage >&2; exit 2; }
    models="$(chosen_models "$2")" || return
    prepare_python
    shift 2
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

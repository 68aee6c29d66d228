# shellcheck shell=bash
# What every job does, sourced by the .sbatch files from the repository's root: site, runtime, rendezvous, records, restarts.
set -euo pipefail

# `mecellem slurm submit` names a folder: where this task's output is, for `mecellem slurm status`
[ ! -d "${MECELLEM_OUTPUTS:-}" ] || readlink "/proc/$$/fd/2" \
    2>/dev/null >"$MECELLEM_OUTPUTS/${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}.${SLURM_ARRAY_TASK_ID:-0}" || true

SITE=${MECELLEM_SITE:-slurm/cluster.env}
if [ ! -f "$SITE" ]; then
    echo "mecellem: $SITE is missing: cp slurm/sites/generic_h100.env slurm/cluster.env, edit it, submit from the repository's root" >&2
    exit 2
fi
refuse() { echo "mecellem: $*" >&2; exit 2; }
refuse_unknown_keys() { # as the commands do; lines that are more than KEY=VALUE are the shell's own
    local all=slurm/sites/generic_h100.env number line key known value="([^[:space:]'\"\\]|'[^']*'|\"[^\"]*\")*"
    known=" $(sed -nE 's/^(# )?([A-Z_]+)=.*/\2/p' "$all" | tr '\n' ' ')"
    while IFS=: read -r number line; do
        key=${line%%=*}
        [[ "$known" == *" $key "* ]] ||
            refuse "$SITE, line $number: unknown key \`$key\`: $all has them all; a variable of your own is set by \`export $key=VALUE\`"
    done < <(grep -nE "^[A-Za-z_][A-Za-z0-9_]*=${value}[[:space:]]*(#.*)?$" "$SITE")
}
[ ! -f slurm/sites/generic_h100.env ] || refuse_unknown_keys
# shellcheck source=slurm/sites/generic_h100.env
. "$SITE"
need_keys() { # that the site file gives a value to; a mistyped one must not be found out hours later
    local key
    for key in "$@"; do [ -n "${!key:-}" ] || refuse "$SITE: $key is not set: give it a value (slurm/sites/generic_h100.env has all keys)"; done
}
need_keys RUNTIME
RESTART=${SLURM_RESTART_COUNT:-0}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from sbatch since 22.05

# `mecellem slurm submit` names a mark for every task that ends well
at_end() {
    [ "$?" != 0 ] || [ -z "${MECELLEM_DONE:-}" ] || : >"$MECELLEM_DONE.${SLURM_ARRAY_TASK_ID:-0}"
    [ -z "${RECORD:-}" ] || record_accounting
}
trap at_end EXIT

# --- runtime: INSIDE is what stands in front of a command
INSIDE=() PYXIS=()
load_modules() {
    [ -n "${MODULES:-}" ] || return 0
    local init name srun conf=${SLURM_CONF:-}
    srun=$(command -v srun || true)
    set +eu # these scripts are not written for `set -eu`
    for init in "${MODULESHOME:-/usr/share/Modules}/init/bash" "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
        # shellcheck source=/dev/null
        { ! command -v module >/dev/null && [ -f "$init" ] && . "$init"; } || true # a batch shell reads no profile on some sites
    done
    command -v module >/dev/null || refuse "$SITE: MODULES=\"$MODULES\", and this shell knows no \`module\`: let $SITE source the script that defines it"
    module purge
    for name in $MODULES; do
        module load "$name" || refuse "$SITE: MODULES: \`module load $name\` failed on $(hostname)"
    done
    set -eu
    # where Slurm itself is a module, `purge` took its commands along
    [ -z "$srun" ] || command -v srun >/dev/null || export PATH="$PATH:${srun%/*}" ${conf:+SLURM_CONF="$conf"}
}
case "$RUNTIME" in
venv)
    need_keys VENV
    load_modules
    ;;
modules) load_modules ;;
apptainer)
    need_keys IMAGE
    load_modules
    command -v apptainer >/dev/null && RUNNER=apptainer || RUNNER=singularity
    INSIDE=("$RUNNER" exec --nv ${MOUNTS:+--bind "$MOUNTS"} --pwd "$PWD" "$IMAGE")
    ;;
pyxis)
    need_keys IMAGE
    PYXIS=(--container-image="$IMAGE" --container-mounts="$PWD,${MOUNTS:-/tmp}" --container-workdir="$PWD")
    ;;
*) refuse "$SITE: RUNTIME=$RUNTIME: one of venv, modules, apptainer, pyxis is needed" ;;
esac
if [ "$RUNTIME" = venv ] || { [ "$RUNTIME" = modules ] && [ -f "${VENV:-}/bin/activate" ]; }; then
    # shellcheck source=/dev/null
    . "$VENV/bin/activate"
fi
# else srun would find the folder mecellem/, and say `Permission denied`
[ "$RUNTIME" != venv ] || command -v mecellem >/dev/null || refuse "$SITE: VENV=$VENV has no \`mecellem\`: install it there (pip install .)"

# --- environment of torch and NCCL (Megatron-Core's documentation: one connection keeps TP's communication in order)
export CUDA_DEVICE_MAX_CONNECTIONS=1 TORCH_NCCL_AVOID_RECORD_STREAMS=1 NCCL_NVLS_ENABLE=0
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True TORCH_FR_BUFFER_SIZE=20000 TORCH_NCCL_DUMP_ON_TIMEOUT=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}} PYTHONUNBUFFERED=1
[ "${OFFLINE:-0}" = 0 ] || export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline
[ -z "${NETWORK_INTERFACE:-}" ] || export NCCL_SOCKET_IFNAME=$NETWORK_INTERFACE GLOO_SOCKET_IFNAME=$NETWORK_INTERFACE

# --- rendezvous: the first node, where this script runs; a port of this job's own, below those that systems give to anyone
MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
while (: <"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done # somebody listens there
export MASTER_ADDR MASTER_PORT

# Commands go behind these: one task a GPU, as the #SBATCH lines say, and all end as soon as one fails; or a single task.
# shellcheck disable=SC2034 # for the files that source this
ALL_TASKS=(srun --kill-on-bad-exit=1 "${PYXIS[@]}" "${INSIDE[@]}")
# shellcheck disable=SC2034
ONE_TASK=(srun --nodes=1 --ntasks=1 "${PYXIS[@]}" "${INSIDE[@]}")

# The share of a task of an array, for commands that take --task (the size: of the whole array, also where few tasks are done again)
SHARE=()
# shellcheck disable=SC2034
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || SHARE=(--task "$SLURM_ARRAY_TASK_ID/${MECELLEM_ARRAY_SIZE:-$SLURM_ARRAY_TASK_COUNT}")

# What ran where, without asking the internet: FOLDER/jobs/JOB_RESTART/. Others may read it: secrets stay out.
record_job() {
    RECORD=$1/jobs/${SLURM_JOB_ID}_$RESTART
    mkdir -p "$RECORD"
    { date --iso-8601=seconds; without_secrets "${@:2}"; } >"$RECORD/command.txt"
    (umask 077 && env -0 | { grep -zviE '^[^=]*(token|key|secret|pass|credential|auth)[^=]*=' || true; } | sort -z | tr '\0' '\n' |
        sed -E 's#(://)[^/@ ]+@#\1***@#g' >"$RECORD/environment.txt")
    scontrol show hostnames "$SLURM_JOB_NODELIST" >"$RECORD/nodes.txt"
    # the words behind the script's name are in command.txt
    timeout 20 scontrol show job "$SLURM_JOB_ID" | sed -E 's/^( *Command=[^ ]*).*/\1/' >"$RECORD/job.txt" || true
    { git rev-parse HEAD && git status --short; } >"$RECORD/git.txt" 2>/dev/null || true
    [ -z "${LOADEDMODULES:-}" ] || tr ':' '\n' <<<"$LOADEDMODULES" >"$RECORD/modules.txt"
}

# The words of a command line, quoted; what follows --hub-token, --api.key=, PASSWORD= and the like is hidden
without_secrets() {
    local word hide=''
    shopt -s nocasematch
    for word in "$@"; do
        [ -z "$hide" ] || { hide='' word='***'; }
        if [[ $word =~ ^(-*([a-z0-9]+[-._])*(token|(api)?key|secret|pass(word|wd|phrase)?|credentials?)([-._][a-z0-9]+)*)(=.*)?$ ]]; then
            if [ -n "${BASH_REMATCH[7]}" ]; then word="${BASH_REMATCH[1]}=***"; elif [[ $word == -* ]]; then hide=1; fi
        fi
        printf '%q ' "$word"
    done
    shopt -u nocasematch
    echo
}

# Seconds, joules (where the site measures them) and memory of every step, as Slurm's accounting has them
record_accounting() {
    command -v sacct >/dev/null || return 0
    timeout 20 sacct --parsable2 --jobs="$SLURM_JOB_ID" --format=JobID,JobName,State,ElapsedRaw,ConsumedEnergyRaw,AveCPU,MaxRSS,NodeList \
        >"$RECORD/accounting.txt" 2>/dev/null || rm -f "$RECORD/accounting.txt" # a cluster without accounting
}

# shellcheck shell=bash
# What every job does, sourced by the .sbatch files from the repository's root: site, runtime, rendezvous, records, restarts.
set -euo pipefail

SITE=${MECELLEM_SITE:-slurm/cluster.env}
if [ ! -f "$SITE" ]; then
    echo "mecellem: $SITE is missing: cp slurm/sites/generic_h100.env slurm/cluster.env, edit it, submit from the repository's root" >&2
    exit 2
fi
# shellcheck source=slurm/sites/generic_h100.env
. "$SITE"
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
load_modules() { [ -z "${MODULES:-}" ] || { module purge; for name in $MODULES; do module load "$name"; done; }; }
case "$RUNTIME" in
venv | modules) load_modules ;;
apptainer)
    load_modules
    command -v apptainer >/dev/null && RUNNER=apptainer || RUNNER=singularity
    INSIDE=("$RUNNER" exec --nv ${MOUNTS:+--bind "$MOUNTS"} --pwd "$PWD" "$IMAGE")
    ;;
pyxis) PYXIS=(--container-image="$IMAGE" --container-mounts="$PWD,${MOUNTS:-/tmp}" --container-workdir="$PWD") ;;
*) echo "mecellem: $SITE: RUNTIME=$RUNTIME: one of venv, modules, apptainer, pyxis is needed" >&2; exit 2 ;;
esac
if [ "$RUNTIME" = venv ] || { [ "$RUNTIME" = modules ] && [ -f "$VENV/bin/activate" ]; }; then
    # shellcheck source=/dev/null
    . "$VENV/bin/activate"
fi

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

# What ran where, without asking the internet: RUN/jobs/JOB_RESTART/
record_job() {
    RECORD=$1/jobs/${SLURM_JOB_ID}_$RESTART
    mkdir -p "$RECORD"
    { date --iso-8601=seconds; printf '%q ' "${@:2}"; echo; } >"$RECORD/command.txt"
    env | sort >"$RECORD/environment.txt"
    scontrol show hostnames "$SLURM_JOB_NODELIST" >"$RECORD/nodes.txt"
    timeout 20 scontrol show job "$SLURM_JOB_ID" >"$RECORD/job.txt" || true
    { git rev-parse HEAD && git status --short; } >"$RECORD/git.txt" 2>/dev/null || true
    [ -z "${LOADEDMODULES:-}" ] || tr ':' '\n' <<<"$LOADEDMODULES" >"$RECORD/modules.txt"
}

# Seconds, joules (where the site measures them) and memory of every step, as Slurm's accounting has them
record_accounting() {
    command -v sacct >/dev/null || return 0
    timeout 20 sacct --parsable2 --jobs="$SLURM_JOB_ID" --format=JobID,JobName,State,ElapsedRaw,ConsumedEnergyRaw,AveCPU,MaxRSS,NodeList \
        >"$RECORD/accounting.txt" 2>/dev/null || rm -f "$RECORD/accounting.txt" # a cluster without accounting
}

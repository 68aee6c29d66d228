# shellcheck shell=bash
# Long runs: warned before the time limit, watched for hanging, and put back into the queue until they are finished.
# The .sbatch file needs --signal=B:USR1@SECONDS, --requeue and --open-mode=append.

say() { echo "mecellem: $*" >&2; }

client() { timeout "${CLIENT_SECONDS:-30}" "$@"; } # a controller that is away answers no command, and must not hold the job

newest_checkpoint() { # of a run: step_0000150, or nothing
    [ ! -d "$1/checkpoints" ] || find "$1/checkpoints" -maxdepth 1 -name 'step_*' -type d -printf '%f\n' | sort | tail -n 1
}

# train_until_finished RUN COMMAND...: one turn of a run; then the job ends, or is put back into the queue for another turn
train_until_finished() {
    local run=$1 code=0
    shift
    record_job "$run" "$@"
    refuse_idle_restarts "$run"
    rm -rf "$run/heartbeat" # of an earlier turn
    export MECELLEM_REFUSAL=$RECORD/refusal.txt # the first rank that refuses its input says so here
    STOPPED_BY=
    "${ALL_TASKS[@]}" "$@" &
    STEP_PID=$!
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
    watch_for_hanging "$run" &
    local watchdog=$!
    wait_for_step || code=$?
    kill "$watchdog" 2>/dev/null || true
    say "turn $RESTART of job $SLURM_JOB_ID ended with code $code${STOPPED_BY:+ after signal $STOPPED_BY}, newest checkpoint: $(newest_checkpoint "$run")"
    if [ "$code" = 0 ] && [ -f "$run/finished.json" ]; then
        say "$run is finished"
        return 0
    fi
    if [ -f "$MECELLEM_REFUSAL" ]; then
        say "the job is not put back into the queue: $(cat "$MECELLEM_REFUSAL")"
        return 2
    fi
    if [ "$RESTART" -ge "$MAX_RESTARTS" ]; then
        say "$RESTART restarts, MAX_RESTARTS=$MAX_RESTARTS: given up"
        return 1
    fi
    requeue "$run"
}

forward() { # srun passes the signal on to every task; a second one would kill a rank that is leaving
    [ -z "$STOPPED_BY" ] || return 0
    STOPPED_BY=$1
    say "signal $1: the run saves and leaves"
    kill -s "$1" "$STEP_PID" 2>/dev/null || true
}

wait_for_step() { # `wait` returns early when a signal comes
    local code=0
    while :; do
        code=0
        wait "$STEP_PID" || code=$?
        kill -0 "$STEP_PID" 2>/dev/null || return "$code"
    done
}

# Starts in a row that ended without a new checkpoint are counted at the start: a node that dies takes this script with it.
refuse_idle_restarts() {
    local state=$1/jobs/last_start newest before idle=0
    newest=$(newest_checkpoint "$1")
    if [ -f "$state" ] && [ "$RESTART" -gt 0 ]; then
        read -r before idle <"$state"
        if [ "${newest:-none}" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
    fi
    echo "${newest:-none} $idle" >"$state"
    if [ "$idle" -gt "$MAX_IDLE_RESTARTS" ]; then
        say "$idle restarts in a row saved nothing new (MAX_IDLE_RESTARTS=$MAX_IDLE_RESTARTS): given up; see the output above"
        exit 1
    fi
}

# A step that takes longer than HANG_SECONDS: stacks of all ranks into the output, then the step is killed.
watch_for_hanging() {
    local now since suspects begun
    begun=$(date +%s)
    while sleep "${WATCH_SECONDS:-30}"; do
        now=$(date +%s)
        # the latest beginning of a step over all ranks: slow is not hanging as long as one of them goes on
        since=$(awk -v last="$begun" '$2 > last { last = $2 } END { print last + 0 }' "$1"/heartbeat/rank_* 2>/dev/null) || since=$begun
        [ $((now - since)) -gt "$HANG_SECONDS" ] || continue
        suspects=$(suspect_nodes "$1")
        say "no rank has begun a step for $((now - since)) s: the run hangs; suspected: ${suspects:-no node in particular}"
        echo "$suspects" >"$1/jobs/suspects"
        client scancel --signal=USR2 "$SLURM_JOB_ID" || true # every rank prints its stacks
        sleep 5
        client scancel --signal=KILL "$SLURM_JOB_ID" || true # the steps, not this script
        return
    done
}

# Nodes of ranks that are behind the others, or whose process is frozen or gone (an old file).
suspect_nodes() {
    local last
    [ -d "$1/heartbeat" ] || return 0
    last=$(awk '$1 > last { last = $1 } END { print last + 0 }' "$1"/heartbeat/rank_*)
    {
        find "$1/heartbeat" -name 'rank_*' ! -newermt '-30 seconds' -exec cat {} +
        awk -v last="$last" '$1 < last' "$1"/heartbeat/rank_*
    } | awk '{ print $3 }' | sort -u | paste -s -d, -
}

# Back into the queue, held until suspected nodes are excluded. The controller may be away for a while.
requeue() {
    local suspects='' try
    [ ! -f "$1/jobs/suspects" ] || suspects=$(cat "$1/jobs/suspects")
    rm -f "$1/jobs/suspects"
    unset MECELLEM_DONE # this turn ends well, the job does not end yet
    trap '' TERM # Slurm ends this script when the job is put back
    for try in $(seq 60); do
        if [ -z "$suspects" ]; then
            client scontrol requeue "$SLURM_JOB_ID" && exit 0
        elif client scontrol requeuehold "$SLURM_JOB_ID"; then
            client scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$suspects" || say "could not exclude $suspects"
            client scontrol release "$SLURM_JOB_ID" || say "scontrol release $SLURM_JOB_ID failed: release it by hand"
            exit 0
        fi
        say "scontrol requeue failed (try $try of 60)"
        sleep 10
    done
    say "the controller does not answer: submit the same command again, it goes on from the newest checkpoint"
    exit 1
}

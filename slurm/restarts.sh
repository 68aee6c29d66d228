# shellcheck shell=bash
# Long runs: warned before the time limit, watched for hanging, and put back into the queue until they are finished.
# The .sbatch file needs --signal=B:USR1@SECONDS, --requeue and --open-mode=append.
need_keys MAX_RESTARTS MAX_IDLE_RESTARTS HANG_SECONDS
for key in MAX_RESTARTS MAX_IDLE_RESTARTS HANG_SECONDS; do
    [[ ${!key} =~ ^[0-9]+$ ]] || refuse "$SITE: $key=${!key}: a whole number is needed"
    printf -v "$key" %d "$((10#${!key}))" # 0900 is no octal number
done

say() { echo "mecellem: $*" >&2 || true; } # the output may be on a full disk: no reason to give a run up

# This job as Slurm's commands know it. In an array the number of one of the tasks is also that of the whole array.
JOB=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
JOB=${JOB:-${SLURM_JOB_ID:-}}

client() { timeout "${CLIENT_SECONDS:-30}" "$@"; } # a controller that is away answers no command, and must not hold the job

job_fields() { # what Slurm says of this job, in one answer: job_fields JobState Reason; - for what is not known, as the controller is away
    { client scontrol --oneliner show job "$JOB" 2>/dev/null || true; } | tr ' ' '\n' | awk -F= -v names="$*" '
        !($1 in found) { found[$1] = substr($0, length($1) + 2) }
        END { many = split(names, name, " "); for (i = 1; i <= many; i++) print found[name[i]] == "" ? "-" : found[name[i]] }' | paste -s -d ' '
}

seconds_left() { # until the time limit, which may be moved; nothing where there is none, or the controller is away
    local end
    end=$(job_fields EndTime)
    [ "$end" != - ] && end=$(date -d "$end" +%s 2>/dev/null) || return 0 # Unknown
    echo $((end - $(date +%s)))
}

newest_checkpoint() { # of a run: step_0000150, or nothing
    [ ! -d "$1/checkpoints" ] || find "$1/checkpoints" -maxdepth 1 -name 'step_*' -type d -printf '%f\n' | sort | tail -n 1
}

# train_until_finished RUN COMMAND...: one turn of a run; then the job ends, or is put back into the queue for another turn
train_until_finished() {
    local run=$1 code=0 watchdog=''
    shift
    STOPPED_BY='' STEP_PID=''
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
    refuse_second_job "$run"
    record_job "$run" "$@"
    refuse_idle_restarts "$run"
    rm -rf "$run/heartbeat" "$run/jobs/suspects" # of an earlier turn
    export MECELLEM_REFUSAL=$RECORD/refusal.txt # the first rank that refuses its input says so here
    if [ -z "$STOPPED_BY" ]; then
        "${ALL_TASKS[@]}" "$@" &
        STEP_PID=$!
        watch_for_hanging "$run" &
        watchdog=$!
        wait_for_step || code=$?
        kill "$watchdog" 2>/dev/null || true
    fi
    say "turn $RESTART of job $SLURM_JOB_ID ended with code $code${STOPPED_BY:+ after signal $STOPPED_BY}, newest checkpoint: $(newest_checkpoint "$run")"
    if [ "$code" = 0 ] && [ -f "$run/finished.json" ]; then
        say "$run is finished"
        return 0
    fi
    if [ -f "$MECELLEM_REFUSAL" ]; then
        if [ -z "$(newest_checkpoint "$run")" ]; then
            say "the job is not put back into the queue: $(cat "$MECELLEM_REFUSAL")"
            return 2
        fi # what was right before may be a node's fault: a GPU that is gone, a file system that is not mounted
        say "tried again, as this run has trained before (MAX_IDLE_RESTARTS=$MAX_IDLE_RESTARTS times): $(cat "$MECELLEM_REFUSAL")"
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
    [ -z "$STEP_PID" ] || kill -s "$1" "$STEP_PID" 2>/dev/null || true
    say "signal $1: the run saves and leaves"
    [ "$1" != USR1 ] || [ -z "${RECORD:-}" ] || touch "$RECORD/warned" || true # the watchdog looks for it
}

wait_for_step() { # `wait` returns early when a signal comes
    local code=0
    while :; do
        code=0
        wait "$STEP_PID" || code=$?
        kill -0 "$STEP_PID" 2>/dev/null || return "$code"
    done
}

# Two jobs in one folder would remove each other's signs of life and checkpoints.
refuse_second_job() {
    local owner_file=$1/jobs/owner
    mkdir -p "$1/jobs" || refuse "$1 cannot be made or written to: set RUN= to a folder on a file system that all nodes share"
    refuse_if_owned "$1" "$owner_file"
    echo "$JOB" >"$owner_file" || refuse "$owner_file cannot be written: make room or mend its permissions, and submit the same command"
    sleep 1 # another one that started in the same second has written by now: the last one stays
    refuse_if_owned "$1" "$owner_file"
}

refuse_if_owned() {
    local owner state
    [ -f "$2" ] && read -r owner <"$2" && [ "$owner" != "$JOB" ] || return 0
    for _ in $(seq 24); do # one that was cancelled a moment ago saves and leaves
        state=$(client squeue --noheader --states=all --jobs="$owner" --format=%T 2>&1) || case $state in
        *"Invalid job id"*) return 0 ;; # Slurm has forgotten it
        *) say "whether job $owner trains $1, too, is not known, as squeue does not answer: going on" && return 0 ;;
        esac
        [ "$state" = COMPLETING ] || break
        say "waiting for job $owner, which is about to leave $1"
        sleep 5
    done
    case $state in
    *RUNNING* | *COMPLETING* | *CONFIGURING* | *SUSPENDED* | *STOPPED* | *RESIZING* | *SIGNALING* | *STAGE_OUT*) ;;
    *) return 0 ;; # ended, or waits, and will then find this one
    esac
    say "job $owner ($state) trains $1 already, so job $JOB ends here: wait for that one, or scancel it and submit this again"
    exit 2
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
        [ ! -f "$1/jobs/${SLURM_JOB_ID}_$((RESTART - 1))/warned" ] ||
            say "the last turn was warned before it had a checkpoint: give --time more, or --signal=B:USR1@SECONDS less"
        say "$idle restarts in a row saved nothing new (MAX_IDLE_RESTARTS=$MAX_IDLE_RESTARTS): given up; see the output above"
        exit 1
    fi
}

# A step that takes longer than HANG_SECONDS, or a warned run that does not leave: stacks of all ranks into the output, then
# the step is killed. After the warning three quarters of the time that is left are for saving: a job that reaches its limit is over.
watch_for_hanging() {
    local now since seen suspects left warned_left=''
    since=$(date +%s)
    while sleep "${WATCH_SECONDS:-30}"; do
        now=$(date +%s)
        # the latest beginning of a step over all ranks: slow is not hanging as long as one of them goes on
        # (kept where no file can be read: ranks that have done their last step remove theirs and may take a while to leave)
        seen=$(awk -v last="$since" '$2 > last { last = $2 } END { print last + 0 }' "$1"/heartbeat/rank_* 2>/dev/null) || seen=$since
        since=$seen
        left=''
        if [ -f "$RECORD/warned" ]; then
            left=$(seconds_left)
            warned_left=${warned_left:-$left}
        fi
        if [ -n "$left" ] && [ $((left * 4)) -le "$warned_left" ]; then
            say "the run was warned and has not left $left s before the time limit: it is stopped without saving"
        elif [ $((now - since)) -gt "$HANG_SECONDS" ]; then
            say "no rank has begun a step for $((now - since)) s: the run hangs"
        else
            continue
        fi
        suspects=$(suspect_nodes "$1")
        judge_suspects "$suspects" >"$1/jobs/suspects" || true # the disk is full: nobody is excluded, and the step ends all the same
        client scancel --signal=USR2 "$JOB" || true # every rank prints its stacks
        sleep 5
        ! kill_steps || return 0 # else the controller is away: again after a while
    done
}

kill_steps() { # by their numbers, as `scancel --signal=KILL JOB` would cancel the job
    local steps
    steps=$(client scontrol --oneliner show step "$JOB" | grep -oE "^StepId=$JOB\.[0-9]+" | cut -d= -f2) || return 1
    # shellcheck disable=SC2086 # a word each
    client scancel --signal=KILL $steps
}

# Nodes of ranks that are behind the others, whose process is frozen or gone (an old file), or that have not begun (no file).
suspect_nodes() {
    local beats files newest nodes
    for _ in 1 2 3 4 5; do
        # opened, not only listed: NFS then asks the server, whose times are compared with one another, not with this clock
        beats=$(cat "$1"/heartbeat/rank_* 2>/dev/null) || return 0 # none has begun
        files=("$1"/heartbeat/rank_*)
        [ "$(wc -l <<<"$beats")" != "${#files[@]}" ] || break # one is being written
        sleep 0.1
    done
    newest=$(stat -c %Y "${files[@]}" | sort -n | tail -n 1)
    nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -s -d,)
    {
        find "$1/heartbeat" -name 'rank_*' ! -newermt "@$((newest - HANG_SECONDS / 2))" -exec awk '{ print $3 }' {} +
        # SLURM_TASKS_PER_NODE says how many ranks each node should have: 4(x2),3
        awk -v nodes="$nodes" -v tasks="$SLURM_TASKS_PER_NODE" '
            { step[NR] = $1; place[NR] = $3; begun[$3]++; if ($1 > last) last = $1 }
            END {
                for (rank = 1; rank <= NR; rank++) if (step[rank] < last) print place[rank]
                split(nodes, names, ",")
                parts = split(tasks, part, ",")
                for (number = 1; number <= parts; number++) {
                    split(part[number], times, /[(x)]+/)
                    for (many = times[2] ? times[2] : 1; many > 0; many--) if (begun[names[++node]] < times[1]) print names[node]
                }
            }' <<<"$beats"
    } | sort -u | paste -s -d, -
}

# judge_suspects NODES: those to be excluded. A fault that most nodes have is not theirs, as when the file system stalls.
judge_suspects() {
    local count
    count=$(tr ',' '\n' <<<"$1" | grep -c . || true)
    if [ "$count" = 0 ]; then
        say "suspected: no node in particular, so none is excluded"
    elif [ $((2 * count)) -gt "$SLURM_JOB_NUM_NODES" ]; then
        say "suspected: $1, which is $count of $SLURM_JOB_NUM_NODES nodes, so none is excluded"
    else
        say "suspected: $1"
        echo "$1"
    fi
}

# put_back_or_ended: whether Slurm has put the job back already; the script ends where the job was cancelled. A cancelled job is
# ended like one that is to come back, and is COMPLETING until this script has ended.
put_back_or_ended() {
    local state reason restarts preempted start
    read -r state reason restarts preempted start <<<"$(job_fields JobState Reason Restarts PreemptTime StartTime)"
    if [[ $restarts =~ ^[0-9]+$ ]] && [ "$restarts" -gt "$RESTART" ]; then return 0; fi
    # a site's PreemptMode=CANCEL ends jobs as scancel does, and leaves a time; one from before this turn says nothing
    if [[ $preempted == [0-9]* ]] && [[ ! $preempted < $start ]]; then return 1; fi
    case $state in
    CANCELLED*) ;;
    COMPLETING) [ "$reason" != TimeLimit ] || return 1 ;; # a run that saved in the last seconds: it goes on
    *) return 1 ;;
    esac
    say "the job was cancelled: it is not put back into the queue; the same command goes on from the newest checkpoint"
    exit 1
}

# Back into the queue, held until suspected nodes are excluded. The controller may be away for a while.
requeue() {
    local suspects='' excluded='' how=requeue said='' try
    [ ! -s "$1/jobs/suspects" ] || suspects=$(cat "$1/jobs/suspects")
    rm -f "$1/jobs/suspects"
    [ -z "$suspects" ] || how=requeuehold
    unset MECELLEM_DONE # this turn ends well, the job does not end yet
    trap '' TERM # Slurm ends this script when the job is put back
    for try in $(seq 60); do
        [ -z "$suspects" ] || excluded=$(with_earlier "$suspects") # before the job is held, as little time is left then
        # the signal also reaches `timeout`, so that a requeue may seem to have failed
        if put_back_or_ended || said=$(client scontrol "$how" "$JOB" 2>&1) || put_back_or_ended; then
            [ -z "$suspects" ] || exclude "$excluded"
            exit 0
        fi
        say "scontrol $how failed (try $try of 60): $said"
        case $said in
        *"presently disabled"* | *"ermission denied"* | *"Invalid job id"*)
            say "this job may not be put back (--no-requeue, or the site's JobRequeue=0): submit the same command again, it goes on from the newest checkpoint"
            exit 1
            ;;
        esac
        sleep "${RETRY_SECONDS:-10}"
    done
    say "the controller does not answer: submit the same command again, it goes on from the newest checkpoint"
    exit 1
}

# with_earlier NODES: these and those that the job is kept from already; only those where the job would then find too few nodes,
# as a list that only grows would let it wait for ever.
with_earlier() {
    local before all list left
    before=$(job_fields ExcNodeList)
    [[ $before != "(null)" && $before != - ]] || before=''
    list=${before:+$before,}$1
    all=$(client sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --format=%N 2>/dev/null | sort -u) || all=''
    left=$(grep -vxFc -f <(scontrol show hostnames "$list") <<<"$all" || true)
    if [ -n "$all" ] && [ "$left" -lt "$SLURM_JOB_NUM_NODES" ]; then
        say "$1 is not excluded: the job needs $SLURM_JOB_NUM_NODES nodes, and the partition would have $left besides $list"
        list=$before
    fi
    echo "$list"
}

# exclude NODES and let the job, which is held, go. Not by `client`: the signal that ends this script would end `timeout` and
# what it runs, and the job would be held for ever.
exclude() {
    insist scontrol update "JobId=$JOB" "ExcNodeList=$1" || say "could not exclude $1"
    insist scontrol release "$JOB" || say "scontrol release $JOB failed: release it by hand"
}

insist() {
    for _ in 1 2 3 4 5; do
        ! "$@" || return 0
        sleep 1
    done
    return 1
}

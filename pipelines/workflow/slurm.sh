#!/bin/bash
# One run as a job of SLURM: `sbatch slurm.sh ATTEMPTS RUN COMMAND...` (see slurm.py).
#
# SLURM sends USR1 before the time limit. The run then saves its state, and the job
# goes back into the queue. So does a job whose run was killed, unless the run had got no
# further than before: where memory ran out it would be killed there again. Any other end
# is the end of the job: what failed once would fail again, and `scancel` must work.
attempts=$1
folder=$2
shift 2
progress() {
    cat "$folder/run.json"
    stat --format=%y "$folder/state.npz"
} 2>/dev/null
before=$(progress)
near_limit=
run=
trap 'near_limit+=1; echo "The time limit is near."; [[ ! $run ]] || kill -TERM "$run"' USR1
"$@" &
run=$!
[[ ! $near_limit ]] || kill -TERM "$run" # it was warned before it was there
heard=
while # a signal ends a wait
    wait "$run"
    code=$?
    [[ $heard != "$near_limit" ]]
do heard=$near_limit; done
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
if [[ $code == 137 && $(progress) == "$before" ]]; then
    echo "dscpp: expected the run to get further before it is killed, found it where it was;" \
        "ask for more memory in the profile"
elif [[ $code == 137 || ($code == 143 && $near_limit) ]]; then
    if ((attempt < attempts)); then
        echo "Attempt $attempt of $attempts ended; the job goes back into the queue."
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "dscpp: expected the run to be done in $attempts attempts, found it killed or" \
            "at its time limit; ask for more memory or time in the profile"
    fi
fi
exit "$code"

#!/bin/bash
# Trains on the machines of a SLURM job, one process for each GPU. Submit it in the root of the repository:
#
#     sbatch --nodes=4 tools/launch/slurm.sh --config lab.yaml
#
# Partition, account and environment are your cluster's: sbatch --partition=..., and activate the environment before.
# Five minutes before the job's time is over, a checkpoint is written and the job is put into the queue again. The same
# happens when a machine or a process is lost, but a process at most three times. Errors end the job.
#SBATCH --job-name=dreamportrait
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=dreamportrait-%j.out
set -uo pipefail

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) # of two jobs that share a machine, each has its own
export MASTER_ADDR MASTER_PORT

# shellcheck disable=SC2016  # the variables are those of each process
srun --kill-on-bad-exit=1 sh -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    export LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec python train.py "$@"' train "$@"
code=$?

# 138: stopped by USR1, and train.py has asked for the queue. Above 128: a process was lost.
if [ "$code" -gt 128 ] && [ "$code" -ne 138 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

#!/bin/bash
# Two machines of four processes each, sent back to the queue two minutes before the time is over:
#   sbatch examples/slurm.sh
#SBATCH --job-name=monge
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500
export WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

# --resume goes on from the newest valid checkpoint, and begins where there is none
srun bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec monge train wae-mmd \
    --data mnist --data-dir "$HOME/data" --epochs 100 --out "$HOME/runs/mnist" --resume'

# 138 = 128 + SIGUSR1: saved and stopped before its end
[ $? -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"

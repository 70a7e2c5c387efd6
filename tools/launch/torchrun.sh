#!/bin/sh
# Trains on several machines, or on one, with torchrun. Start it on every machine, in the root of the repository:
#
#     MASTER_ADDR=node1 NODES=2 NODE_RANK=0 tools/launch/torchrun.sh --config lab.yaml
#
# MASTER_ADDR  the first machine, by a name or address that all machines can reach
# NODES        the number of machines
# NODE_RANK    the number of this machine, from 0; in a pod of a PyTorchJob, RANK
# MASTER_PORT  a free port of the first machine (29400)
# GPUS         processes of each machine (8)
# RESTARTS     how often all processes are started again after one of them was lost (3)
# RUN_ID       a name that several runs with one first machine must not share (dreamportrait)
set -eu

: "${MASTER_ADDR:?MASTER_ADDR is not set: the first machine, by a name or address that all machines can reach}"
: "${NODES:?NODES is not set: the number of machines}"
node=${NODE_RANK:-${RANK:-}}
: "${node:?NODE_RANK is not set: the number of this machine, from 0}"
port=${MASTER_PORT:-29400}

# Without it, processes that are started again read the addresses of those that have ended.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# One message about a wrong address, in place of torchrun's traces.
own=$(python -m dreamportrait.core.network "$MASTER_ADDR" "$port" "$node")

exec python -m torch.distributed.run \
    --nnodes="$NODES" --nproc-per-node="${GPUS:-8}" --max-restarts="${RESTARTS:-3}" \
    --rdzv-backend=c10d --rdzv-id="${RUN_ID:-dreamportrait}" --rdzv-endpoint="$MASTER_ADDR:$port" \
    --rdzv-conf="is_host=$([ "$node" = 0 ] && echo true || echo false)" \
    --local-addr="$own" train.py "$@"

#!/bin/sh
# A kind cluster of three workers with our images in it, and what to export for `make test-cluster`:
#
#     tests/cluster/kind.sh [up|down]
#
# Images that docker has already are taken: ALIGNED_IMAGE and REDIS_IMAGE name them. KIND_NODE_IMAGE:
# what nodes are made of, if not kind's own choice.
set -eu
cd "$(dirname "$0")/../.."

name=aligned
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aligned-tools
config=$folder/kind.kubeconfig
aligned=${ALIGNED_IMAGE:-localhost/aligned-aggregator:dev}
redis=${REDIS_IMAGE:-localhost/valkey:dev}

for program in docker kind kubectl; do
    if ! command -v $program >/dev/null; then
        echo "cluster: $program is not installed; any other cluster will do: docs/kubernetes.md" >&2
        exit 1
    fi
done
mkdir -p "$folder"

if [ "${1:-up}" = down ]; then
    kind delete cluster --name $name --kubeconfig "$config"
    exit
fi

have() { docker image inspect "$1" >/dev/null 2>&1; }
[ -n "${ALIGNED_IMAGE:-}" ] && have "$aligned" || docker build -q -t "$aligned" . >&2
have "$redis" || docker build -q -t "$redis" tests/cluster/images/valkey >&2

if ! kind get clusters 2>/dev/null | grep -qx $name; then
    kind create cluster --name $name --kubeconfig "$config" --wait 180s \
        ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"} --config=- >&2 <<END
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}, {role: worker}]
END
fi
kind load docker-image --name $name "$aligned" "$redis" >&2

# Of the network's gateways the one with an IPv4 address: this machine, as pods see it.
host=$(docker network inspect kind -f '{{range .IPAM.Config}}{{.Gateway}}{{"\n"}}{{end}}' | grep -m1 -F .)
cat <<END
export KUBECONFIG=$config
export ALIGNED_IMAGE=$aligned REDIS_IMAGE=$redis
export CLUSTER_HOST=$host CLUSTER_FAULTS=docker
END

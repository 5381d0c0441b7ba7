#!/usr/bin/env bash
# The whole chain as Kubernetes Jobs, without a cluster: an API server that runs pods as local processes, a real S3 server, a throw-away project.
# Twice: the second run finds everything done. usage: tests/fakes/micro_on_a_cluster.sh [EMPTY FOLDER]
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(realpath "${1:-$(mktemp -d)}")
export PATH="$repository/.venv/bin:$PATH" OMP_NUM_THREADS=1

PYTHONPATH=$repository python -m tests.fakes.cloud "$folder" &
cloud=$!
trap 'kill $cloud; wait $cloud || true' EXIT
until [ -f "$folder/env" ]; do kill -0 $cloud; sleep 0.2; done
. "$folder/env"

mkdir "$folder/project" && cd "$folder/project"
cp -r "$repository"/{components,infra,recipes} .
dvc init -q --no-scm
dvc remote add -q -d cloud "$REMOTE"

stockpot doctor --profile "$folder/cloud.yaml"
stockpot run "$repository/tests/recipes/micro.yaml" --profile "$folder/cloud.yaml" --use --json
stockpot run "$repository/tests/recipes/micro.yaml" --profile "$folder/cloud.yaml" --json
command -v kubectl >/dev/null && kubectl get jobs --namespace stockpot

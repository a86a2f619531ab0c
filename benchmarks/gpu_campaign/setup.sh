#!/usr/bin/env bash
# Install what `python -m benchmarks.gpu_campaign.kit` wrote, without network: benchmarks/gpu.md.
# usage: setup.sh keep KIT/first     keep the first half of the model where the next copy leaves it
#        setup.sh install KIT/second install everything into $SITE; then export PYTHONPATH=$SITE:$PWD
set -euo pipefail
shopt -s nullglob
KEPT=${KEPT:-/tmp/gpu_kit}
SITE=${SITE:-/tmp/site}
mkdir -p "$KEPT"
cp "$2"/* "$KEPT"/
[ "$1" = install ] || exit 0
for half in "$KEPT"/*.whl.0; do
  cat "$half" "${half%.0}.1" >"${half%.0}"
  rm "$half" "${half%.0}.1"
done
python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" "$KEPT"/*.whl

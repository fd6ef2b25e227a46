#!/usr/bin/env bash
# Usage: requirements/lock.sh [--upgrade]
# Write a lock with hashes for every environment: for Python 3.11 to 3.13 and every
# platform, without addresses in it. uv gets an environment of its own.
set -euo pipefail
cd "$(dirname "$0")"
uv=../.work/uv
if [[ ! -x $uv/bin/uv ]]; then
    python3 -m venv --clear "$uv"
    "$uv/bin/python" -m pip install --quiet "uv>=0.9.17"
fi
for name in tensorflow torch jax gpu; do
    "$uv/bin/uv" pip compile --quiet --config-file uv.toml --universal \
        --python-version 3.11 --fork-strategy fewest --generate-hashes \
        --custom-compile-command "make lock" "$@" "$name.in" --output-file "$name.txt"
    echo "$name.txt: $(grep -c == "$name.txt") packages"
done

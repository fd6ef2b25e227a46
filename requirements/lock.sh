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
# compile NAME OPTIONS: write NAME.txt from NAME.in.
compile() {
    "$uv/bin/uv" pip compile --quiet --config-file uv.toml --universal \
        --python-version 3.11 --fork-strategy fewest --generate-hashes \
        --custom-compile-command "make lock" "$1.in" --output-file "$1.txt" "${@:2}"
    echo "$1.txt: $(grep -c == "$1.txt") packages"
}

for name in tensorflow torch jax gpu jax-gpu; do
    compile "$name" "$@"
done
# acvl-utils alone has no wheel, so it has a lock of its own: install.sh builds it.
[[ -f peers.txt ]] || cp torch.txt peers.txt # the same versions, as far as they fit
compile peers --no-emit-package acvl-utils "$@"
compile peers-sdist --no-deps --constraint peers.txt "$@"
[[ -f site.txt ]] || cp tensorflow.txt site.txt
compile site "$@"

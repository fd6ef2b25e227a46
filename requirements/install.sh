#!/usr/bin/env bash
# Usage: requirements/install.sh FOLDER LOCK PYTHON
# Build the virtual environment FOLDER from LOCK, then add this project to it.
# FOLDER/.ready is written last: a folder without it is built anew.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 lock=$2 python=$3
# What has no wheel is built with the lock's setuptools, in the same environment.
sdists=${lock%.txt}-sdist.txt
[[ -f $sdists ]] || sdists=
torch_version=2.13.0
if [[ -z $python ]]; then
    echo "No Python from 3.11 to 3.13 was found. Install one, or name it:" \
        "make install PYTHON=/path/to/python3.12" >&2
    exit 2
fi
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONHOME

install() { "$folder/bin/python" -m pip install --quiet --no-deps "$@"; }

# PyPI's torch for Linux brings gigabytes of CUDA. The CPU build has a version of its
# own, found either through pip's own configuration or on the torch project's index.
install_torch() {
    if [[ $(uname -s) != Linux ]]; then
        install "torch==$torch_version"
    else
        install "torch==$torch_version+cpu" 2>/dev/null || install \
            --index-url https://download.pytorch.org/whl/cpu "torch==$torch_version+cpu"
    fi
}

# Only another lock or another torch costs a new environment.
digest=$("$python" -c 'import hashlib, sys
locks = b"".join(open(path, "rb").read() for path in sys.argv[2:])
print(hashlib.sha256(locks).hexdigest(), sys.argv[1])
' "$torch_version" "$lock" ${sdists:+"$sdists"})
if [[ $(cat "$folder/.ready" 2>/dev/null) != "$digest" ]]; then
    echo "Building $folder from $lock (a few minutes) ..."
    rm -f "$folder/.ready"
    "$python" -m venv --clear "$folder"
    install --only-binary :all: --require-hashes -r "$lock"
    [[ -z $sdists ]] || install --no-build-isolation --require-hashes -r "$sdists"
    [[ $lock != */torch.txt && $lock != */peers.txt ]] || install_torch
fi
# setuptools comes with the lock, so this downloads nothing. It writes beside setup.cfg:
# where two environments are built at a time, one after the other.
exec 9<setup.cfg
! command -v flock >/dev/null || flock 9
install --no-build-isolation -e .
echo "$digest" >"$folder/.ready"
echo "$folder is ready."

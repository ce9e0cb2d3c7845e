#!/bin/sh
# Makes the environment that the Makefile's targets run in: infra/venv.sh PYTHON FOLDER
#
# What constraints.txt pins is looked up, unpacked and compiled side by side, without pip's resolver, which takes a
# third of a minute to say that everything is there. Where any of that fails (another system than the pins are for),
# pip installs the ranges of pyproject.toml under the constraints by itself, and says what is wrong.
set -u
python=$1 venv=$2
cd "$(dirname "$0")/.."
unused='/(ray/(rllib|llm|serve)|torch/(_inductor|testing)|moto|sqlalchemy|alembic|mypy|mypyc|fontTools|cfnlint|graphql|setuptools|pip|pygments|onnxruntime|tests)/'

install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile "$@"; }

pinned() { # the share of constraints.txt with this number; mlflow and wandb are for those who ask for them
  shares='/^(torch|triton)/ { n = 0 } /^(nvidia-|cuda-)/ { n = 1 } /^[^#]/ && !/^(mlflow|wandb|pip=)/ && n == share'
  # shellcheck disable=SC2046  # a word each
  install --no-deps $(awk -v share="$1" "{ n = 2 + NR % 2 } $shares" constraints.txt)
}

side_by_side() {
  install -c constraints.txt --upgrade pip setuptools || return # half the processor time of the pip of Python 3.11
  pinned 0 & torch=$!
  pinned 1 & nvidia=$!
  pinned 2 & even=$!
  pinned 3 & odd=$!
  wait $torch && wait $nvidia && wait $even && wait $odd &&
    install --no-deps --no-build-isolation -e '.[dev]' && "$venv/bin/pip" check
}

trap 'trap "" TERM; kill 0; exit 130' INT # what runs in the background hears no Ctrl-C
"$python" -m venv "$venv" || exit
side_by_side >/dev/null 2>&1 || { wait; install -c constraints.txt -e '.[dev]' || exit; }
"$venv/bin/python" -m compileall -q -j 0 -x "$unused" "$venv/lib" tlgan cluster jobs >/dev/null 2>&1 # pip takes one core
true

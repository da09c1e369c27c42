#!/bin/sh
# Build the extension and install it into an environment:
#
#     native/build.sh [--strict] [PYTHON]        PYTHON: .venv/bin/python unless given
#
# Quiet, and done at once when the environment already has these sources. Without cargo nothing
# is built and nothing is wrong: zksnake serves then. --strict fails in that case, and when the
# build fails.
set -eu

strict=0
if [ "${1:-}" = --strict ]; then strict=1; shift; fi
python=${1:-.venv/bin/python}
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
cd "$(dirname "$0")"

give_up() {
    echo "native: $1" >&2
    exit "$strict"
}

no_cargo() {
    [ "$strict" = 0 ] || give_up "no cargo that works"
    exit 0
}

sources=$(cat Cargo.toml pyproject.toml src/*.rs | cksum)
stamp=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/bn254bls.sources
if [ "$(cat "$stamp" 2>/dev/null)" = "$sources" ] && "$python" -c 'import bn254bls' 2>/dev/null; then
    exit 0
fi

mkdir -p target
# cargo wants a place for what it downloads; a machine user may have no home.
if [ -z "${CARGO_HOME:-}" ] && ! { [ -n "${HOME:-}" ] && [ -w "$HOME" ]; }; then
    export CARGO_HOME="$PWD/target/home"
fi
found=$(command -v cargo) || no_cargo
# rustup looks for its toolchains in the home, which need not be the one it was installed in.
installed=$(dirname "$found")/../../.rustup
if [ -z "${RUSTUP_HOME:-}" ] && [ -d "$installed" ]; then export RUSTUP_HOME="$installed"; fi
cargo --version >target/build.log 2>&1 || no_cargo

export CARGO_TARGET_DIR="$PWD/target" CARGO_NET_RETRY=1 CARGO_HTTP_TIMEOUT=20
rm -rf target/wheels
if "$python" -m maturin build --release -o target/wheels >>target/build.log 2>&1 &&
    "$python" -m pip install --quiet --no-index --no-deps --force-reinstall target/wheels/*.whl \
        >>target/build.log 2>&1
then
    echo "$sources" >"$stamp"
else
    give_up "the extension was not built (why: native/target/build.log); the slower zksnake serves"
fi

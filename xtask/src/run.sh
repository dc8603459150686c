#!/usr/bin/env bash
# Runs on a GPU machine what `cargo xtask gpu-bundle` packed: the tests on the device, then under the
# sanitizers where compute-sanitizer is found, then with offsets beyond 32 bits, then the bench.
#
#   ./run.sh [--out FOLDER] [--only PART]...
#
# PART: tests, memcheck, racecheck, initcheck, synccheck, large_offsets, bench; all without --only.
# FOLDER (./results) gets results.json and a log of each part. The exit status is 0 if nothing failed.
set -euo pipefail
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# Copying may lose it.
chmod +x "$folder"/bin/*
export PREFUSE_ROOT="$folder/root" PREFUSE_REQUIRE_CUDA=1
exec "$folder/bin/xtask" device-run "$folder" "$@"

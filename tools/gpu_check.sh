#!/usr/bin/env bash
# Everything that only a GPU can tell, in stages that can be called alone:
#   tools/gpu_check.sh [first] [build] [smoke] [test] [wgmma] [sanitize] [plans] [bench] [memory] [recurrent] [layers] (none: all)
# Needs CUDA 13, Python with the build tools, CuPy and PyTorch; no network. Results go to $OUT (default: build/gpu_check)
# as JSON with device, driver and commit. Each stage stops itself well before ten minutes.
#
# With one call of ten minutes: `first`, which is build (at most 240 s; a wheel built elsewhere for this architecture, in
# $WHEEL, takes seconds), smoke (the operators' cases on cuda, 120 s), recurrent (120 s) and memory (60 s): the most telling
# problems come first, and what the time did not allow is listed in the JSON. With five minutes more on the same
# machine: `recurrent` again with LIMIT=280, or `layers` with LIMIT=280. Of the long stages one call fits each: build and
# smoke together, test, sanitize, bench, recurrent, layers. LIMIT: seconds for recurrent, memory and layers.
# bench, plans and wgmma begin nothing new well before their end either, and all write what they have when it comes.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build/gpu_check}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONUNBUFFERED=1

device() { nvidia-smi --query-gpu="$1" --format=csv,noheader | head -n 1; }
if ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu_check: no NVIDIA GPU here (nvidia-smi does not answer)" >&2
  exit 2
fi
architecture=$(device compute_cap | tr -d '.')
[ "$architecture" = 90 ] && architecture=90a  # with wgmma

# record STAGE STATUS SECONDS JUNIT-FILE: one JSON file a stage
record() {
  "$PYTHON" - "$OUT/$1.json" "$1" "$2" "$3" "$4" "$(device name)" "$(device driver_version)" \
    "$(git rev-parse HEAD 2>/dev/null || echo unknown)" <<'PY'
import json, sys, xml.etree.ElementTree as xml
path, stage, status, seconds, junit, device, driver, commit = sys.argv[1:]
out = dict(stage=stage, exit_status=int(status), seconds=int(seconds), device=device, driver=driver, commit=commit)
if junit:
    try:
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        for suite in xml.parse(junit).getroot().iter("testsuite"):
            for k in counts:
                counts[k] += int(suite.get(k, 0))
        out.update(counts)
    except (OSError, xml.ParseError) as error:
        out["junit"] = str(error)
with open(path, "w") as file:
    json.dump(out, file, indent=1)
print(json.dumps(out))
PY
}

failed=0
stage() { # stage NAME LIMIT-SECONDS JUNIT-FILE COMMAND...: runs, keeps the log, records
  local name=$1 limit=$2 junit=$3 start=$SECONDS status
  shift 3
  echo "== $name"
  timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.log" 2>&1
  status=$?
  tail -n 25 "$OUT/$name.log"
  record "$name" "$status" "$((SECONDS - start))" "$junit"
  [ "$status" -eq 0 ] || failed=1
  return "$status"
}

build() { # build [LIMIT]
  if [ -n "${WHEEL:-}" ]; then
    stage build 60 "" "$PYTHON" -m pip install --no-index --no-deps --force-reinstall "$WHEEL"
    return
  fi
  FASTARCH_CUDA=ON FASTARCH_EMULATOR=OFF FASTARCH_CUDA_ARCHITECTURES="$architecture-real" CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) \
    stage build "${1:-480}" "" "$PYTHON" -m pip install --no-build-isolation --no-deps --force-reinstall .
}

smoke() { # every case of every operator on the device, without the long suites
  FASTARCH_TEST_BACKENDS=cuda \
    stage smoke 120 "$OUT/smoke.xml" "$PYTHON" -m pytest tests/test_operators.py --maxfail=20 --junitxml="$OUT/smoke.xml"
}

run_tests() {
  FASTARCH_TEST_BACKENDS=numpy,cpu,cuda FASTARCH_REQUIRE_TORCH=1 \
    stage test 540 "$OUT/test.xml" "$PYTHON" -m pytest tests --maxfail=20 --junitxml="$OUT/test.xml" --durations=10
}

wgmma() { # the multiply for sm_90a, which has to be asked for: its results, then its speed beside mma.sync's
  if [ "$architecture" != 90a ]; then
    echo "== wgmma: compute capability 9.0 alone has it, this is $(device compute_cap)"
    return 0
  fi
  FASTARCH_WGMMA=1 FASTARCH_TEST_BACKENDS=cuda FASTARCH_REQUIRE_TORCH=1 \
    stage wgmma-test 240 "$OUT/wgmma-test.xml" "$PYTHON" -m pytest tests/test_wgmma.py tests/test_operators.py tests/test_halves.py \
    -k "wgmma or linear" --junitxml="$OUT/wgmma-test.xml" &&
    stage wgmma-bench 240 "" "$PYTHON" bench/wgmma.py --budget 200 --json "$OUT/wgmma-results.json"
}

sanitize() { # the operator cases alone: small shapes, every kernel
  local tool
  for tool in memcheck racecheck; do
    FASTARCH_TEST_BACKENDS=cuda \
      stage "sanitize-$tool" 280 "$OUT/$tool.xml" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
      "$PYTHON" -m pytest tests/test_operators.py -k "cuda and float32" --timeout=0 --junitxml="$OUT/$tool.xml"
  done
}

plans() { # the multiply's model against every plan measured, to set its constants by
  stage plans 400 "" "$PYTHON" bench/plans.py --budget 320 --json "$OUT/plans-results.json"
}

bench() {
  stage bench 540 "" "$PYTHON" bench/run.py --budget 400 --json "$OUT/bench-results.json"
}

table() { # table NAME LIMIT: one of the long tables of bench/run.py, which begins nothing in its last fifth
  local name=$1 limit=${LIMIT:-$2}
  stage "$name" "$limit" "" "$PYTHON" bench/run.py --only "$name" --budget "$((limit * 4 / 5))" --json "$OUT/$name-results.json"
}

first() {
  build 240 && { smoke; table recurrent 120; table memory 60; }
}

for name in "${@:-all}"; do
  case $name in
    first) first ;;
    build) build ;;
    smoke) smoke ;;
    test) run_tests ;;
    wgmma) wgmma ;;
    sanitize) sanitize ;;
    plans) plans ;;
    bench) bench ;;
    memory) table memory 240 ;;
    recurrent) table recurrent 540 ;;
    layers) table layers 570 ;; # every convolution of the networks, against cuDNN in both layouts
    all) build && { run_tests; wgmma; sanitize; plans; bench; table memory 240; table recurrent 540; table layers 570; } ;;
    *)
      echo "gpu_check: unknown stage '$name' (first, build, smoke, test, wgmma, sanitize, plans, bench, memory, recurrent, layers)" >&2
      exit 2
      ;;
  esac
done
exit "$failed"

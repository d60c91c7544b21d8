#!/usr/bin/env bash
# Runs every fuzz target of the tree for a time each: hack/fuzz.sh TIME [PATTERN].
# It goes on after a target that fails, and names those at the end; what broke one
# stands in testdata/fuzz beside it and is part of the tests from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s} pattern=${2:-.}
failed=()
while IFS=: read -r file target; do
  room=./$(dirname "$file")
  echo "== $room $target"
  go test "$room" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5s -parallel 1 || failed+=("$room $target")
done < <(git grep -E '^func Fuzz[A-Za-z0-9]+\(f \*testing\.F\)' -- '*_test.go' ':!conformance' | sed -E 's/^([^:]+):func (Fuzz[A-Za-z0-9]+).*/\1:\2/' | grep -E "$pattern" | sort)
if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi

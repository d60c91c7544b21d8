#!/bin/sh
# For go test -exec, by root: runs a test's program as a user who may nothing,
# with a home and a temporary directory of its own, and Go's modules to read.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/modules"
cp "$1" "$place/test"
shift
chown -R 65534:65534 "$place"
unshare --mount --propagation private sh -euc '
	mount --bind -o ro "$(go env GOMODCACHE)" "$0/modules"
	exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
		env HOME="$0" TMPDIR="$0" GOMODCACHE="$0/modules" GOCACHE="$0/cache" "$0/test" "$@"
' "$place" "$@"

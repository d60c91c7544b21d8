#!/usr/bin/env bash
# Builds the small programs that the sampan binary carries and compresses them
# into embedded/bin. The same sources give the same bytes, and a file is only
# rewritten when its bytes change, so that the big binary is not linked again
# for nothing.
#
# usage: [VERSION_FLAGS='-X …'] embedded/build.sh [OUTPUT-DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-embedded/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# Go programs, without symbols. (No -trimpath: their packages are compiled once,
# for them and for the big binary.)
for program in sampan-shim sampan-cni sampan-init sampan-containerd sampan-coredns sampan-kubectl; do
	CGO_ENABLED=0 go build -buildvcs=false -ldflags="-s -w -buildid= ${VERSION_FLAGS:-}" -o "$work/$program" "./cmd/$program"
done

# The pause process: no C library, a few pages of memory. A machine without a C
# compiler may hand in one built elsewhere through PAUSE.
if [ -n "${PAUSE:-}" ]; then
	cp "$PAUSE" "$work/pause"
else
	"${CC:-gcc}" -Os -static -nostdlib -nostartfiles -ffreestanding -fno-pie -no-pie \
		-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none \
		-Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,norelro -s \
		-o "$work/pause" embedded/pause/pause.c
fi

# What a node starts first is packed by itself, or over containerd, which it
# starts anyway.
go run ./embedded/pack "$work" "$out" pause sampan-init sampan-containerd \
	sampan-shim+sampan-containerd sampan-cni+sampan-containerd \
	sampan-coredns+sampan-containerd sampan-kubectl+sampan-coredns

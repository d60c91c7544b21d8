#!/usr/bin/env bash
# Installs, from Debian's packages, the programs Sampan runs or is built with
# and that are missing. Without root it only says what is missing. With the word
# "tests" also those that the scenes of several machines put beside it: none of
# their services starts on this computer.
set -euo pipefail

if ! command -v go >/dev/null; then
	echo "Go 1.26 or newer is needed to build, and is not on the PATH" >&2
	exit 1
fi
declare -A package=([gcc]=gcc [runc]=runc [mount]=mount [nsenter]=util-linux [ip]=iproute2 [curl]=curl [dpkg-deb]=dpkg)
if [ "${1:-}" = tests ]; then
	package+=([keepalived]=keepalived [nginx]="nginx libnginx-mod-stream" [nc]=netcat-openbsd [cfssl]=golang-cfssl [openssl]=openssl [ss]=iproute2 [nft]=nftables [netstat]=net-tools [supervisord]=supervisor)
fi
missing=()
for program in "${!package[@]}"; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}; install them, or run this as root on Debian" >&2
	exit 0
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
policy=/usr/sbin/policy-rc.d
if [ "${1:-}" = tests ] && [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi
# Unquoted: an entry may be two packages.
# shellcheck disable=SC2068
apt-get install -y -qq --no-install-recommends ${missing[@]} >/dev/null

#!/usr/bin/env bash
# Brings a cluster up, runs the first scene on it, and says what to try next.
# With --and-away the cluster is removed at the end, as a test does.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
	echo "the demo starts a node, which needs root: sudo make demo" >&2
	exit 1
fi
sampan=$PWD/bin/sampan
cluster=${SAMPAN_DEMO_CLUSTER:-demo}
kubectl=("$sampan" kubectl --context "sampan-$cluster")

bold= plain= faint=
if [ -t 1 ]; then bold=$(tput bold || true) plain=$(tput sgr0 || true) faint=$(tput dim || true); fi
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
show() { printf '%s$ %s%s\n' "$faint" "$*" "$plain"; }
k() { show kubectl "$@"; "${kubectl[@]}" "$@"; }
begun=$(date +%s%N)
since() { local ms=$((($(date +%s%N) - begun) / 1000000)); printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); }

title "An image, made from Debian's packages"
"$sampan" image build --cluster "$cluster" --from-deb nginx 2>&1

title "A cluster"
"$sampan" up "$cluster" 2>&1
k get nodes

title "nginx × 10, from a manifest of 2016"
k apply -f e2e/testdata/nginx.yml
k rollout status deployment/nginx-deployment --timeout=120s | tail -1
k get pods -o wide
address=$("${kubectl[@]}" get pods -l app=nginx -o 'jsonpath={.items[0].status.podIP}')
show curl "$address" "   # inside the node"
"$sampan" exec --cluster "$cluster" -- curl -sS --max-time 10 "http://$address" | grep -o '<title>.*</title>'

title "Done in $(since)"
if [ "${1:-}" = --and-away ]; then
	"$sampan" down "$cluster" --delete 2>&1
	exit 0
fi
cat <<END
kubectl's context is now sampan-$cluster; your own kubectl works, too. What to try next:

  bin/sampan kubectl expose deployment nginx-deployment --port=80 --type=NodePort
  bin/sampan kubectl scale deployment nginx-deployment --replicas=20
  bin/sampan kubectl delete pod -l app=nginx --wait=false && bin/sampan kubectl get pods --watch
  bin/sampan kubectl exec -it deployment/nginx-deployment -- sh
  sudo bin/sampan exec --cluster $cluster -- ip route     # inside the node
  sudo bin/sampan down $cluster                           # stop it; "up $cluster" brings it back
  sudo bin/sampan down $cluster --delete                  # nothing is left
END

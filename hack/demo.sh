#!/usr/bin/env bash
# Brings a cluster up, runs the first scene, and says what to try next.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
	echo "the demo starts a node, which needs root: sudo make demo" >&2
	exit 1
fi
sampan=$PWD/bin/sampan
k() { echo "\$ kubectl $*"; "$sampan" kubectl "$@"; }

"$sampan" image build --cluster demo --from-deb nginx
"$sampan" up demo
k get nodes
k apply -f e2e/testdata/nginx.yml
k rollout status deployment/nginx-deployment --timeout=120s
k get pods -o wide
address=$("$sampan" kubectl get pods -l app=nginx -o 'jsonpath={.items[0].status.podIP}')
echo "\$ curl $address    (inside the node)"
"$sampan" exec --cluster demo -- curl -sS --max-time 10 "http://$address" | head -4
cat <<END

What to try next:
  bin/sampan kubectl expose deployment nginx-deployment --port=80 --type=NodePort
  bin/sampan kubectl scale deployment nginx-deployment --replicas=20
  bin/sampan kubectl logs -f deployment/nginx-deployment
  sudo bin/sampan exec --cluster demo -- ip route
  sudo bin/sampan down demo            # stop; up brings it back
  sudo bin/sampan down demo --delete   # nothing is left
END

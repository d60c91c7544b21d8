package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// graceful is a cluster's configuration as people wrote it for kubeadm 1.11.
const graceful = `apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
controllerManagerExtraArgs:
  horizontal-pod-autoscaler-use-rest-clients: "true"
  horizontal-pod-autoscaler-sync-period: "10s"
  node-monitor-grace-period: "10s"
apiServerExtraArgs:
  runtime-config: "api/all=true"
networking:
  podSubnet: 10.244.0.0/16
kubernetesVersion: "1.37.2"
`

// crew is a deployment that leaves a lost node after five seconds.
const crew = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: crew}
spec:
  replicas: 2
  selector: {matchLabels: {app: crew}}
  template:
    metadata: {labels: {app: crew}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: crew}}}]
      tolerations:
      - {key: node-role.kubernetes.io/control-plane, operator: Exists}
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      containers: [{name: c, image: nginx:1.25, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: crew}
spec: {selector: {app: crew}, ports: [{port: 80}]}
`

// endpoints are the addresses that are ready.
const endpoints = `jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {end}`

// running waits until so many of the crew run, on one node or on all.
func running(master *lab.Computer, want int, node string) {
	master.Helper()
	lab.Within(master, 3*lab.Limit, fmt.Sprintf("%d of the crew run on %q", want, node), func() error {
		out, err := master.Kubectl("get", "pods", "-l", "app=crew", "-o", `jsonpath={range .items[?(@.status.phase=="Running")]}{.metadata.deletionTimestamp}/{.spec.nodeName}{"\n"}{end}`)
		n := 0
		for line := range strings.Lines(out) {
			if deleted, on, _ := strings.Cut(strings.TrimSpace(line), "/"); deleted == "" && on != "" && (node == "" || on == node) {
				n++
			}
		}
		if err != nil || n != want {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// The life of a node as its administrators know it: cordoned, drained, lost,
// back, deleted; with the grace period of the cluster's configuration.
func TestNodeLife(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	l := lab.New(t)
	master, node := l.Computer("master1"), l.Computer("node4")
	master.Do("kubeadm", "init", "--config", master.File("kubeadm.yaml", graceful))
	master.Says(master.Sh("cat /etc/kubernetes/manifests/kube-controller-manager.yaml"), "--node-monitor-grace-period=10s")
	line := strings.Fields(strings.ReplaceAll(strings.TrimSpace(master.Do("kubeadm", "token", "create", "--print-join-command", "--ttl=0")), "\\\n", " "))
	node.Do(line...)
	master.K("apply", "-f", master.File("kube-flannel.yml", manifest("vxlan")))
	ready(master, "master1", "node4")
	master.K("apply", "-f", master.File("crew.yaml", crew))
	running(master, 2, "")

	master.Says(master.K("cordon", "node4"), "node/node4 cordoned")
	master.Sees([]string{`node4 +Ready,SchedulingDisabled`}, "get", "nodes")
	master.K("scale", "deployment", "crew", "--replicas=4")
	running(master, 4, "")
	running(master, 1, "node4") // what was there before stays, what comes goes elsewhere
	master.Says(master.K("drain", "node4", "--delete-emptydir-data", "--force", "--ignore-daemonsets"), "node/node4 already cordoned", "evicting pod default/crew-", "node/node4 drained")
	running(master, 4, "master1")
	running(master, 0, "node4")
	master.Says(master.K("uncordon", "node4"), "node/node4 uncordoned")
	master.K("scale", "deployment", "crew", "--replicas=1")
	running(master, 1, "")
	master.K("scale", "deployment", "crew", "--replicas=2")
	running(master, 1, "node4")
	running(master, 2, "")
	master.Sees([]string{`^\S+ \S+ $`}, "get", "endpointslices", "-l", "kubernetes.io/service-name=crew", "-o", endpoints)

	node.PowerOff()
	timed(master, "a lost node, with a grace period of 10 s: NotReady after", func() {
		master.Sees([]string{`node4 +NotReady`}, "get", "nodes")
		master.Sees([]string{`Unknown NodeStatusUnknown Kubelet stopped posting node status\.`}, "get", "node", "node4", "-o", `jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`)
	})
	timed(master, "its taints come", func() {
		master.Sees([]string{`node\.kubernetes\.io/unreachable:NoSchedule`, `node\.kubernetes\.io/unreachable:NoExecute`}, "get", "node", "node4", "-o", `jsonpath={range .spec.taints[*]}{.key}:{.effect} {end}`)
	})
	timed(master, "its endpoint is taken away after", func() {
		master.Sees([]string{`^\S+ $`}, "get", "endpointslices", "-l", "kubernetes.io/service-name=crew", "-o", endpoints)
	})
	timed(master, "its pod is evicted after the 5 s it tolerates, and another runs elsewhere after", func() { running(master, 2, "master1") })
	master.Sees([]string{`node\.kubernetes\.io/unreachable`}, "get", "node", "node4", "-o", "jsonpath={.spec.taints}")

	node.PowerOn()
	timed(master, "the node is Ready again, without taints, after", func() {
		ready(master, "node4")
		master.Sees([]string{`^\[\]$`}, "get", "node", "node4", "-o", "jsonpath=[{.spec.taints}]")
	})
	running(master, 2, "master1")
	master.Sees([]string{`^2$`}, "get", "deployment", "crew", "-o", "jsonpath={.status.readyReplicas}")

	node.StopKubelet()
	master.Says(master.K("delete", "node", "node4"), `node "node4" deleted`)
	timed(master, "pods of a deleted node are gone after", func() {
		lab.Within(master, 3*lab.Limit, "no pod is on node4", func() error {
			if out, err := master.Kubectl("get", "pods", "-A", "--field-selector=spec.nodeName=node4", "-o", "name"); err != nil || out != "" {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	})
	if out, err := master.Kubectl("get", "node", "node4"); err == nil || !strings.Contains(out, `nodes "node4" not found`) {
		t.Errorf("a deleted node is there: %v %s", err, out)
	}
}

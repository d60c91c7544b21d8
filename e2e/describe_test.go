package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kit/pki"
)

// kubectl describe of each kind of the scene, with what a user looks for in it.
func TestDescribeEachKind(t *testing.T) {
	w := beside(t)
	ns := w.namespace()
	w.k("-n", ns, "create", "-f", "testdata/resident.yml", "-f", "testdata/kinds.yml")
	pod := w.running(ns, "app=resident", 3)[0]
	rs := w.k("-n", ns, "get", "replicasets", "-o", "jsonpath={.items[0].metadata.name}")
	for _, c := range []struct {
		what string
		says []string
	}{
		{"pod/" + pod, []string{"Controlled By:  ReplicaSet/" + rs, "Node:", "Conditions:", "Tolerations:", "Events:", "Scheduled", "Started"}},
		{"deployment/resident", []string{"3 desired | 3 updated | 3 total | 3 available", "StrategyType:", "ScalingReplicaSet", "NewReplicaSet:"}},
		{"replicaset/" + rs, []string{"Controlled By:  Deployment/resident", "Pods Status:", "3 Running", "SuccessfulCreate"}},
		{"service/thing", []string{"Type:", "ClusterIP", "Endpoints:", "Session Affinity:"}},
		{"endpoints/thing", []string{"Subsets:", "Addresses:"}},
		{"configmap/thing", []string{"Data\n====", "a:"}},
		{"secret/thing", []string{"Type:  Opaque", "6 bytes"}},
		{"serviceaccount/thing", []string{"Tokens:"}},
		{"limitrange/thing", []string{"Container", "500m"}},
		{"resourcequota/thing", []string{"pods", "3", "50"}},
		{"poddisruptionbudget/thing", []string{"Min available:  1", "Current:"}},
		{"role/thing", []string{"pods", "[get]"}},
		{"rolebinding/thing", []string{"Role:", "ServiceAccount", "thing"}},
		{"lease/thing", []string{"Holder Identity:", "me"}},
		{"namespace/" + ns, []string{"Status:", "Active", "Resource Quotas", "Resource Limits"}},
		{"node/e2e-1", []string{"Roles:", "control-plane", "Capacity:", "Allocatable:", "Allocated resources:", "Container Runtime Version:", "containerd://", "KubeletReady"}},
		{"priorityclass/system-node-critical", []string{"2000001000"}},
		{"clusterrole/view", []string{"pods/log", "[get list watch]"}},
		{"clusterrolebinding/cluster-admin", []string{"system:masters"}},
	} {
		w.says(w.k("-n", ns, "describe", c.what), append(c.says, "Name:")...)
	}
	slice := w.k("-n", ns, "get", "endpointslices", "-l", "kubernetes.io/service-name=thing", "-o", "name")
	w.says(w.k("-n", ns, "describe", strings.TrimSpace(slice)), "AddressType:", "IPv4", "Conditions:", "Ready:", "true")
	w.says(w.k("-n", ns, "events"), "Scheduled")
	w.in("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: "+ns+"}\nhandler: runc\n", "create", "-f", "-")
	w.Cleanup(func() { _, _ = w.try("", "delete", "runtimeclass", ns) })
	w.says(w.k("describe", "runtimeclass", ns), "Handler:", "runc")
}

// An object that passes every rule and is larger than etcd takes.
func TestTooLargeForTheStore(t *testing.T) {
	w := beside(t)
	x, ns := newWire(w), w.namespace()
	admin, err := pki.Load(clusterPKI(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	cert := admin.TLS()
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"big"},"spec":{"nodeName":"nowhere","containers":[{"name":"c","image":"busybox","args":[%q]}]}}`, strings.Repeat("x", 1700<<10))
	code, answer := x.send("POST", "/api/v1/namespaces/"+ns+"/pods", "application/json", []byte(body), "", &cert)
	if code < 400 || !strings.Contains(answer, "etcdserver: request is too large") {
		t.Errorf("%d %s", code, answer[:min(len(answer), 500)])
	}
	w.fails("", []string{`pods "big" not found`}, "-n", ns, "get", "pod", "big")
}

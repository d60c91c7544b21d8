package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two real nodes: both Ready, pods of both reach each other and services,
// whichever node they ask.
func TestTwoNodes(t *testing.T) {
	w := beside(t)
	conf := filepath.Join(t.TempDir(), "kubeconfig") // the other tests' current context stays
	start := time.Now()
	up := exec.Command(binary, "up", twoNodes, "--nodes", "2", "--wait", "2m")
	up.Env = append(up.Environ(), "KUBECONFIG="+conf)
	t.Cleanup(func() {
		down := exec.Command(binary, "down", twoNodes, "--delete")
		down.Env = append(down.Environ(), "KUBECONFIG="+conf)
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	t.Logf("two nodes Ready after %.1f s", time.Since(start).Seconds())
	w = &world{t, append(w.kubectl[:len(w.kubectl):len(w.kubectl)], "--kubeconfig="+conf)}
	nodes := w.k("get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status} {.spec.podCIDR}{\"\\n\"}{end}")
	w.says(nodes, "e2e2-1 True 10.244.", "e2e2-2 True 10.244.", "10.244.0.0/24", "10.244.1.0/24")

	w.shows([]string{"default"}, "get", "serviceaccounts")
	w.k("create", "-f", "testdata/everywhere.yml")
	names := w.running("default", "app=everywhere", 2)
	type place struct{ pod, node, ip string }
	var places []place
	for _, n := range names {
		f := strings.Fields(w.k("get", "pod", n, "-o", "jsonpath={.spec.nodeName} {.status.podIP}"))
		places = append(places, place{n, f[0], f[1]})
	}
	if places[0].node == places[1].node {
		t.Fatalf("both on one node: %v", places)
	}
	service := w.k("get", "service", "everywhere", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}")
	ip, port, _ := strings.Cut(service, " ")
	for i, from := range places {
		for what, url := range map[string]string{"the other node's pod": "http://" + places[1-i].ip, "the service": "http://" + ip, "its name": "http://everywhere.default.svc.cluster.local"} {
			w.until(from.node+" to "+what, func() error {
				out, err := w.try("", "exec", from.pod, "--", "curl", "-sS", "--max-time", "5", url)
				if err != nil || !strings.Contains(out, "Welcome to nginx!") {
					return fmt.Errorf("%v: %s", err, out)
				}
				return nil
			})
		}
	}
	// A node port answers on every node; with one endpoint only, so that one of
	// the nodes must send it on.
	w.k("delete", "service", "everywhere")
	w.k("label", "pod", places[1].pod, "only=this")
	w.in(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: one}\nspec: {type: NodePort, selector: {only: this}, ports: [{port: 80, nodePort: %s}]}\n", port), "create", "-f", "-")
	for _, node := range []string{"e2e2-1", "e2e2-2"} {
		addr := w.k("get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)
		w.until("node port of "+node, func() error {
			out, err := exec.Command(binary, "exec", "--cluster", twoNodes, "--node", node, "--", "curl", "-sS", "--max-time", "5", "http://"+addr+":"+port).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Welcome to nginx!") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	if out, err := exec.Command(binary, "ls").CombinedOutput(); err != nil || !strings.Contains(string(out), "e2e2-2") {
		t.Errorf("ls: %v\n%s", err, out)
	}
}

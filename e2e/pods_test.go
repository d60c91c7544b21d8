package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One pod for each thing a kubelet does with pods.
func TestWhatPodsAsk(t *testing.T) {
	w := beside(t)
	ns := w.namespace()
	w.k("-n", ns, "create", "-f", "testdata/pods.yml")
	for name, fn := range map[string]func(w *world, ns string){
		"init containers and logs": initsAndLogs, "logs of the life before": earlierLogs, "probes": probes, "a failing probe restarts": failingProbe,
		"volumes": volumes, "security context": guarded, "host port": hostPort,
	} {
		t.Run(name, func(t *testing.T) { fn(&world{t, w.kubectl}, ns) })
	}
}

func (w *world) ready(ns, pod string) {
	w.Helper()
	w.k("-n", ns, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=90s")
}

// sh runs a shell command in a pod's first container.
func (w *world) sh(ns, pod, command string) string {
	w.Helper()
	return w.k("-n", ns, "exec", pod, "--", "sh", "-c", command)
}

func initsAndLogs(w *world, ns string) {
	w.ready(ns, "inits")
	if out := w.k("-n", ns, "logs", "inits", "-c", "second"); out != "two\n1\n" {
		w.Errorf("the second init container said %q", out)
	}
	if out := w.k("-n", ns, "logs", "inits", "-c", "main"); out != "main\n1\n2\n" {
		w.Errorf("the main container said %q", out)
	}
	w.says(w.k("-n", ns, "logs", "inits", "--all-containers"), "one\n", "two\n", "main\n", "other\n")
	w.says(w.k("-n", ns, "logs", "inits", "--all-containers", "--prefix"), "[pod/inits/first] one", "[pod/inits/other] other")
	w.fails("", []string{"a container name must be specified"}[:0], "-n", ns, "logs", "inits", "-c", "nobody")
	stamped := w.k("-n", ns, "logs", "inits", "-c", "main", "--timestamps")
	first, _, _ := strings.Cut(stamped, " ")
	at, err := time.Parse(time.RFC3339Nano, first)
	if err != nil {
		w.Fatalf("--timestamps: %q", stamped)
	}
	for flag, want := range map[string]string{
		"--since=1h": "main\n1\n2\n", "--since-time=" + at.Add(-time.Minute).Format(time.RFC3339): "main\n1\n2\n",
		"--since-time=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): "", "--tail=1": "2\n", "--limit-bytes=4": "main",
	} {
		if out := w.k("-n", ns, "logs", "inits", "-c", "main", flag); out != want {
			w.Errorf("logs %s: %q, want %q", flag, out, want)
		}
	}
	w.says(w.k("-n", ns, "describe", "pod", "inits"), "Init Containers:", "Exit Code:    0", "Containers:", "QoS Class:", "BestEffort", "Scheduled", "Started")
}

func earlierLogs(w *world, ns string) {
	w.until("a second life", func() error {
		out, err := w.try("", "-n", ns, "get", "pod", "lives", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if out != "1 true" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if out := w.k("-n", ns, "logs", "lives", "--previous"); out != "life 1\n" {
		w.Errorf("--previous: %q", out)
	}
	if out := w.k("-n", ns, "logs", "lives"); out != "life 2\n" {
		w.Errorf("now: %q", out)
	}
	w.says(w.k("-n", ns, "describe", "pod", "lives"), "Last State:", "Exit Code:    7", "Restart Count:  1")
	w.fails("", []string{"previous terminated container", "not found"}, "-n", ns, "logs", "inits", "-c", "other", "--previous")
}

func probes(w *world, ns string) {
	w.ready(ns, "probed") // http at start, exec, tcp and grpc after it
	w.k("-n", ns, "exec", "probed", "-c", "web", "--", "touch", "/tmp/unready")
	w.k("-n", ns, "wait", "--for=condition=Ready=false", "pod/probed", "--timeout=60s")
	w.shows([]string{"Readiness probe failed"}, "-n", ns, "get", "events", "--field-selector=involvedObject.name=probed,reason=Unhealthy")
	w.k("-n", ns, "exec", "probed", "-c", "web", "--", "rm", "/tmp/unready")
	w.ready(ns, "probed")
	if out := w.k("-n", ns, "get", "pod", "probed", "-o", "jsonpath={.status.containerStatuses[*].restartCount}"); out != "0 0" {
		w.Errorf("restarts: %s", out)
	}
}

func failingProbe(w *world, ns string) {
	w.ready(ns, "unwell")
	w.says(w.sh(ns, "unwell", "cat /tmp/hook"), "hooked")
	w.sh(ns, "unwell", "touch /tmp/ill")
	w.until("a restart", func() error {
		out, err := w.try("", "-n", ns, "get", "pod", "unwell", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if out != "1 true" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.says(w.k("-n", ns, "get", "events", "--field-selector=involvedObject.name=unwell"), "Liveness probe failed", "Killing", "failed liveness probe, will be restarted")
}

func volumes(w *world, ns string) {
	w.ready(ns, "volumes")
	w.says(w.sh(ns, "volumes", "echo $COLOR $WORD $NODE $LIMIT $BOTH"), "red ahoy e2e-1 32 red-ahoy")
	w.says(w.sh(ns, "volumes", "cat /settings/color /one /all/word /all/note"), "redred", "ahoy", "seaworthy")
	w.k("-n", ns, "patch", "configmap", "settings", "-p", `{"data":{"color":"blue"}}`)
	w.until("the volume shows the new value", func() error {
		out, err := w.try("", "-n", ns, "exec", "volumes", "--", "cat", "/settings/color", "/all/color")
		if out != "blueblue" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.says(w.sh(ns, "volumes", "cat /one"), "red") // a subPath is what it was at the start
	// Limits are the container's own cgroup's, in either version's words.
	limits := w.sh(ns, "volumes", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null; true")
	w.says(limits, "33554432", "10000")
	if out := w.k("-n", ns, "get", "pod", "volumes", "-o", "jsonpath={.status.qosClass}"); out != "Guaranteed" {
		w.Errorf("QoS class %s", out)
	}
}

func guarded(w *world, ns string) {
	w.ready(ns, "guarded")
	w.says(w.sh(ns, "guarded", "id -u; id -g; id -G"), "1000\n3000\n", "2000", "4000")
	w.says(w.sh(ns, "guarded", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"), "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2")
	w.fails("", []string{"Read-only file system"}, "-n", ns, "exec", "guarded", "--", "touch", "/x")
	w.says(w.sh(ns, "guarded", "touch /d/x; stat -c %g /d/x /d"), "2000")
}

func hostPort(w *world, ns string) {
	w.ready(ns, "port")
	out, err := w.node("curl", "-sS", "--max-time", "10", "http://100.64.0.2:18080")
	if err != nil {
		w.Errorf("the host port: %v %s", err, out)
	}
	w.says(out, "Welcome to nginx!")

	// The same client reaches the same pod while affinity lasts.
	w.k("-n", ns, "create", "deployment", "many", "--image=nginx:1.25", "--replicas=3", "--", "sh", "-c", "hostname > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'")
	w.running(ns, "app=many", 3)
	w.in("apiVersion: v1\nkind: Service\nmetadata: {name: sticky}\nspec: {selector: {app: many}, sessionAffinity: ClientIP, ports: [{port: 80}]}\n", "-n", ns, "create", "-f", "-")
	var said string
	w.until("the sticky service", func() error {
		var err error
		said, err = w.try("", "-n", ns, "exec", "port", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do curl -sS --max-time 5 http://sticky; done")
		if err != nil || !strings.Contains(said, "many-") {
			return fmt.Errorf("%v: %s", err, said)
		}
		return nil
	})
	answers := map[string]bool{}
	for _, line := range strings.Fields(said) {
		answers[line] = true
	}
	if len(answers) != 1 {
		w.Errorf("eight calls reached %d pods: %v", len(answers), answers)
	}
	w.k("-n", ns, "patch", "service", "sticky", "-p", `{"spec":{"sessionAffinity":"None"}}`)
	w.until("calls are spread", func() error {
		out, err := w.try("", "-n", ns, "exec", "port", "--", "sh", "-c", "for i in $(seq 20); do curl -sS --max-time 5 http://sticky; done | sort | uniq | wc -l")
		if strings.TrimSpace(out) != "3" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// A manifest on the node's disk is a pod, and its mirror shows in the API.
func TestStaticPod(t *testing.T) {
	w := beside(t)
	manifest := filepath.Join(home, "anchor.yaml")
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: anchor, namespace: default, labels: {app: anchor}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]\n"
	if err := os.WriteFile(manifest, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := w.node("sh", "-c", "cat > /etc/kubernetes/manifests/anchor.yaml <<'E'\n"+text+"E\n"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.shows([]string{"1/1", "Running"}, "get", "pod", "anchor-e2e-1")
	w.says(w.k("get", "pod", "anchor-e2e-1", "-o", "jsonpath={.metadata.ownerReferences[0].kind} {.metadata.annotations}"), "Node", "kubernetes.io/config.mirror")
	id := w.k("get", "pod", "anchor-e2e-1", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	w.k("delete", "pod", "anchor-e2e-1") // only the mirror: the pod itself is the file's
	w.shows([]string{"1/1", "Running"}, "get", "pod", "anchor-e2e-1")
	if now := w.k("get", "pod", "anchor-e2e-1", "-o", "jsonpath={.status.containerStatuses[0].containerID}"); now != id {
		t.Errorf("deleting the mirror restarted the container: %s, before %s", now, id)
	}
	if out, err := w.node("rm", "/etc/kubernetes/manifests/anchor.yaml"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.until("the pod leaves with its manifest", func() error {
		if out, err := w.try("", "get", "pod", "anchor-e2e-1"); err == nil || !strings.Contains(out, "not found") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// A budget keeps a pod from eviction, and lets it go when it may.
func TestEvictionWithinABudget(t *testing.T) {
	w := beside(t)
	ns := w.namespace()
	w.k("-n", ns, "create", "-f", "testdata/resident.yml")
	pod := w.running(ns, "app=resident", 3)[0]
	w.k("-n", ns, "create", "poddisruptionbudget", "keep", "--selector=app=resident", "--min-available=3")
	w.shows([]string{"3", "0"}, "-n", ns, "get", "pdb", "keep", "-o", "jsonpath={.status.currentHealthy} {.status.disruptionsAllowed}")
	eviction := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`, pod, ns)
	evict := []string{"create", "--raw", "/api/v1/namespaces/" + ns + "/pods/" + pod + "/eviction", "-f", "-"}
	w.fails(eviction, []string{"Cannot evict pod as it would violate the pod's disruption budget."}, evict...)
	w.k("-n", ns, "patch", "pdb", "keep", "-p", `{"spec":{"minAvailable":2}}`)
	w.until("the budget allows one", func() error {
		out, err := w.try("", "-n", ns, "get", "pdb", "keep", "-o", "jsonpath={.status.disruptionsAllowed}")
		if out != "1" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.says(w.in(eviction, evict...), "Success")
	w.k("-n", ns, "wait", "--for=delete", "pod/"+pod, "--timeout=60s")
	w.running(ns, "app=resident", 3)
	w.says(w.k("-n", ns, "describe", "pdb", "keep"), "Min available:", "Allowed disruptions:")
}

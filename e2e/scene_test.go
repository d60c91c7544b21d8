package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pods returns the names of a namespace's pods with a label.
func (w *world) pods(ns, label string) []string {
	return strings.Fields(w.k("-n", ns, "get", "pods", "-l", label, "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}"))
}

// running waits until exactly n pods with a label are Ready.
func (w *world) running(ns, label string, n int) []string {
	w.Helper()
	var names []string
	w.until(fmt.Sprintf("%d pods %s", n, label), func() error {
		out, err := w.try("", "-n", ns, "get", "pods", "-l", label, "--no-headers")
		if err != nil {
			return err
		}
		names = nil
		lines := strings.Split(strings.TrimSpace(out), "\n")
		for _, l := range lines {
			if f := strings.Fields(l); len(f) > 3 && f[1] == "1/1" && f[2] == "Running" {
				names = append(names, f[0])
			}
		}
		if len(names) != n || len(lines) != n {
			return fmt.Errorf("%d of %d Running:\n%s", len(names), len(lines), out)
		}
		return nil
	})
	return names
}

func TestTheClusterIsHealthy(t *testing.T) {
	each(t, func(w *world) {
		w.shows([]string{"e2e-1", "Ready", "control-plane", "v1.37"}, "get", "nodes")
		w.says(w.k("get", "cs"), "scheduler", "controller-manager", "etcd-0", "Healthy")
		w.shows([]string{"coredns", "1/1", "Running"}, "get", "pods", "-A")
		w.says(w.k("version"), "Server Version: v1.37")
		w.says(w.k("get", "--raw", "/readyz?verbose"), "[+]etcd ok", "readyz check passed")
		w.says(w.k("api-resources"), "deployments", "deploy", "apps/v1", "Deployment")
		w.says(w.k("explain", "pod.spec.containers.livenessProbe"), "failureThreshold")
		w.says(w.k("cluster-info"), "is running at")
	})
}

// The seeds' own scene.
func TestNginxTimesTen(t *testing.T) {
	each(t, func(w *world) {
		ns := w.namespace()
		out := w.k("-n", ns, "create", "-f", "testdata/nginx.yml")
		w.says(out, "Warning: extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment",
			"deployment.extensions/nginx-deployment created")
		names := w.running(ns, "app=nginx", 10)
		w.says(w.k("-n", ns, "get", "pods", "-o", "wide"), "NOMINATED NODE", "e2e-1")
		ips := strings.Fields(w.k("-n", ns, "get", "pods", "-l", "app=nginx", "-o", "jsonpath={.items[*].status.podIP}"))
		if len(ips) != 10 {
			w.Fatalf("pod addresses: %v", ips)
		}
		page, err := w.node("curl", "-sS", "--max-time", "10", "http://"+ips[0])
		if err != nil {
			w.Errorf("curl a pod from the node: %v", err)
		}
		w.says(page, "Welcome to nginx!")
		w.says(w.k("-n", ns, "get", "deploy", "nginx-deployment"), "10/10")

		w.Run("services", func(t *testing.T) { services(&world{t, w.kubectl}, ns) })
		w.Run("self-healing", func(t *testing.T) { healing(&world{t, w.kubectl}, ns, names) })
		w.Run("scaling and rollouts", func(t *testing.T) { rollouts(&world{t, w.kubectl}, ns) })
	})
}

func services(w *world, ns string) {
	w.k("-n", ns, "expose", "deployment", "nginx-deployment", "--port=80", "--type=NodePort", "--name=web")
	addr := w.k("-n", ns, "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}")
	ip, port, _ := strings.Cut(addr, " ")
	w.until("endpoints", func() error {
		out, err := w.try("", "-n", ns, "get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
		if len(strings.Fields(out)) != 10 {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.k("-n", ns, "run", "client", "--image=nginx", "--restart=Never", "--", "sleep", "3600")
	w.k("-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	for _, host := range []string{ip, "web", "web." + ns + ".svc.cluster.local"} {
		w.until("curl "+host, func() error {
			out, err := w.try("", "-n", ns, "exec", "client", "--", "curl", "-sS", "--max-time", "5", "http://"+host)
			if err != nil || !strings.Contains(out, "Welcome to nginx!") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	out, err := w.node("curl", "-sS", "--max-time", "10", "http://127.0.0.1:"+port)
	if err != nil {
		w.Errorf("node port from the node: %v %s", err, out)
	}
	w.says(out, "Welcome to nginx!")
	w.says(w.k("-n", ns, "exec", "client", "--", "nslookup", "kubernetes.default.svc.cluster.local"), "10.96.0.1")
}

func healing(w *world, ns string, names []string) {
	w.k("-n", ns, "exec", names[0], "--", "sh", "-c", "kill 1")
	w.until("a killed container restarts", func() error {
		out, err := w.try("", "-n", ns, "get", "pod", names[0], "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if out != "1 true" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.k("-n", ns, "delete", "pod", names[1], "--wait=false")
	w.until("a deleted pod is replaced", func() error {
		now := w.pods(ns, "app=nginx")
		for _, n := range now {
			if n == names[1] {
				return errors.New("still there")
			}
		}
		if len(now) != 10 {
			return fmt.Errorf("%d pods", len(now))
		}
		return nil
	})
}

func rollouts(w *world, ns string) {
	w.says(w.k("-n", ns, "scale", "deployment", "nginx-deployment", "--replicas=3"), "scaled")
	w.running(ns, "app=nginx", 3)
	w.k("-n", ns, "scale", "deployment", "nginx-deployment", "--replicas=20")
	w.running(ns, "app=nginx", 20)
	w.k("-n", ns, "scale", "deployment", "nginx-deployment", "--replicas=3")
	w.k("-n", ns, "set", "image", "deployment/nginx-deployment", "nginx=nginx:1.25")
	w.says(w.k("-n", ns, "rollout", "status", "deployment/nginx-deployment", "--timeout=90s"), "successfully rolled out")
	w.says(w.k("-n", ns, "rollout", "history", "deployment/nginx-deployment"), "REVISION", "1", "2")
	w.says(w.k("-n", ns, "get", "deploy", "nginx-deployment", "-o", "wide"), "nginx:1.25")
	w.k("-n", ns, "rollout", "undo", "deployment/nginx-deployment")
	w.says(w.k("-n", ns, "rollout", "status", "deployment/nginx-deployment", "--timeout=90s"), "successfully rolled out")
	if out := w.k("-n", ns, "get", "deploy", "nginx-deployment", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); out != "nginx" {
		w.Errorf("after undo the image is %s", out)
	}
}

func TestTalkingToContainers(t *testing.T) {
	w := beside(t)
	ns := w.namespace()
	w.in(`
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    stdin: true
    command: [sh, -c, 'i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); done; while read l; do echo got $l; done; sleep 3600']
    ports: [{containerPort: 8080}]
  - name: web
    image: nginx
`, "-n", ns, "apply", "-f", "-")
	w.k("-n", ns, "wait", "--for=condition=Ready", "pod/talk", "--timeout=90s")
	w.says(w.k("-n", ns, "logs", "talk", "-c", "main"), "line 0", "line 4")
	w.says(w.k("-n", ns, "logs", "talk", "-c", "main", "--tail=1"), "line 4")
	w.fails("", []string{"container not-there is not valid for pod talk"}, "-n", ns, "logs", "talk", "-c", "not-there")
	w.says(w.in("hello\n", "-n", ns, "exec", "-i", "talk", "-c", "main", "--", "cat"), "hello")
	w.fails("", []string{"exit code 3"}, "-n", ns, "exec", "talk", "-c", "main", "--", "sh", "-c", "exit 3")

	file := filepath.Join(w.TempDir(), "there")
	if err := os.WriteFile(file, []byte("freight"), 0o644); err != nil {
		w.Fatal(err)
	}
	w.k("-n", ns, "cp", file, "talk:/tmp/there", "-c", "main")
	back := filepath.Join(w.TempDir(), "back")
	w.k("-n", ns, "cp", "talk:/tmp/there", back, "-c", "main")
	if b, err := os.ReadFile(back); string(b) != "freight" {
		w.Errorf("copied back %q, %v", b, err)
	}
	portForward(w, ns)
	attach(w, ns)
}

func portForward(w *world, ns string) {
	cmd := exec.Command(w.kubectl[0], append(w.kubectl[1:len(w.kubectl):len(w.kubectl)], "-n", ns, "port-forward", "--address=127.0.0.1", "pod/talk", ":80")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		w.Fatalf("port-forward: %v", err)
	}
	_, rest, _ := strings.Cut(line, "127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	page, err := exec.Command("curl", "-sS", "--max-time", "10", "http://127.0.0.1:"+port).CombinedOutput()
	if err != nil {
		w.Errorf("curl the forwarded port: %v", err)
	}
	w.says(string(page), "Welcome to nginx!")
}

// attach follows the log and speaks to the container at once.
func attach(w *world, ns string) {
	follow := exec.Command(w.kubectl[0], append(w.kubectl[1:len(w.kubectl):len(w.kubectl)], "-n", ns, "logs", "-f", "talk", "-c", "main")...)
	out, err := follow.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		w.Fatal(err)
	}
	kill := time.AfterFunc(limit, func() { _ = follow.Process.Kill() })
	defer func() { kill.Stop(); _ = follow.Process.Kill(); _ = follow.Wait() }()
	speak := exec.Command(w.kubectl[0], append(w.kubectl[1:len(w.kubectl):len(w.kubectl)], "-n", ns, "attach", "-i", "talk", "-c", "main")...)
	in, err := speak.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := speak.Start(); err != nil {
		w.Fatal(err)
	}
	defer func() { _ = speak.Process.Kill(); _ = speak.Wait() }()
	fmt.Fprintln(in, "ahoy")
	for s := bufio.NewScanner(out); s.Scan(); {
		if s.Text() == "got ahoy" {
			return
		}
	}
	w.Error("logs -f never showed what attach -i said")
}

func TestChangingObjects(t *testing.T) {
	w := one(t)
	ns := w.namespace()
	w.in("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', b: '2'}\n", "-n", ns, "apply", "-f", "-")
	w.says(w.in("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', b: '2'}\n", "-n", ns, "apply", "-f", "-"), "unchanged")
	w.says(w.in("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1'}\n", "-n", ns, "apply", "-f", "-"), "configured")
	if out := w.k("-n", ns, "get", "cm", "c", "-o", "jsonpath={.data}"); out != `{"a":"1"}` {
		w.Errorf("after applying without b: %s", out)
	}
	w.k("-n", ns, "label", "cm", "c", "x=y")
	w.k("-n", ns, "annotate", "cm", "c", "note=hi")
	w.says(w.k("-n", ns, "get", "cm", "-l", "x=y"), "c")
	w.k("-n", ns, "patch", "cm", "c", "--type=merge", "-p", `{"data":{"m":"1"}}`)
	w.k("-n", ns, "patch", "cm", "c", "--type=json", "-p", `[{"op":"add","path":"/data/j","value":"1"}]`)
	w.k("-n", ns, "patch", "cm", "c", "-p", `{"data":{"s":"1"}}`)
	if out := w.k("-n", ns, "get", "cm", "c", "-o", "jsonpath={.data}"); out != `{"a":"1","j":"1","m":"1","s":"1"}` {
		w.Errorf("after three patches: %s", out)
	}
	w.Setenv("KUBE_EDITOR", `sed -i /j:/d`)
	w.says(w.k("-n", ns, "edit", "cm", "c"), "edited")
	w.says(w.in("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a: '1'}\n", "-n", ns, "apply", "--server-side", "-f", "-"), "serverside-applied")
	w.fails("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a: '2'}\n", []string{"conflict"}, "-n", ns, "apply", "--server-side", "--field-manager=other", "-f", "-")
	for _, kind := range []string{"namespace/" + ns, "configmap/c", "serviceaccount/default", "node/e2e-1", "service/kubernetes", "-n=kube-system deployment/coredns",
		"-n=kube-system service/kube-dns", "clusterrole/view", "priorityclass/system-node-critical"} {
		args := append([]string{"describe"}, strings.Fields(kind)...)
		if strings.HasPrefix(kind, "configmap") || strings.HasPrefix(kind, "serviceaccount") {
			args = append(args, "-n", ns)
		}
		w.says(w.k(args...), "Name:")
	}
}

func TestTaintsAndDrain(t *testing.T) {
	w := one(t)
	ns := w.namespace()
	w.k("taint", "nodes", "e2e-1", "lock=on:NoSchedule")
	w.k("-n", ns, "run", "waits", "--image=busybox", "--", "sleep", "3600")
	w.shows([]string{"FailedScheduling", "0/1 nodes are available: 1 node(s) had untolerated taint"}, "-n", ns, "get", "events")
	w.k("-n", ns, "run", "enters", "--image=busybox", `--overrides={"spec":{"tolerations":[{"key":"lock","operator":"Exists"}],"terminationGracePeriodSeconds":1}}`, "--", "sleep", "3600")
	w.k("-n", ns, "wait", "--for=condition=Ready", "pod/enters", "--timeout=60s")
	w.k("taint", "nodes", "--all", "lock-")
	w.k("-n", ns, "wait", "--for=condition=Ready", "pod/waits", "--timeout=60s")
	w.k("taint", "nodes", "e2e-1", "out=now:NoExecute")
	w.k("-n", ns, "wait", "--for=delete", "pod/waits", "--timeout=90s")
	w.k("taint", "nodes", "--all", "out-")

	w.k("-n", ns, "create", "deployment", "d", "--image=nginx", "--replicas=2")
	w.running(ns, "app=d", 2)
	for _, flag := range []string{"--delete-emptydir-data", "--delete-local-data"} {
		out, err := w.try("", "drain", "e2e-1", "--ignore-daemonsets", "--force", "--timeout=90s", flag)
		if err != nil && strings.Contains(out, "unknown flag") {
			continue // retired by kubectl itself
		}
		if err != nil {
			w.Fatalf("drain %s: %v\n%s", flag, err, out)
		}
		w.says(w.k("get", "nodes"), "SchedulingDisabled")
		w.says(w.k("uncordon", "e2e-1"), "uncordoned")
		w.running(ns, "app=d", 2)
	}
	w.k("delete", "namespace", ns, "--timeout=90s")
	if out, err := w.try("", "get", "all", "-n", ns); err != nil || !strings.Contains(out, "No resources found") {
		w.Errorf("after the namespace left: %v %s", err, out)
	}
}

func TestBadInput(t *testing.T) {
	w := beside(t)
	ns := w.namespace()
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: busybox%s}]}\n"
	for _, c := range []struct {
		stdin string
		texts []string
	}{
		{fmt.Sprintf(pod, "p", ", imagge: x"), []string{`unknown field "spec.containers[0].imagge"`}},
		{fmt.Sprintf(pod, "p", ", ports: no"), []string{"ports"}},
		{fmt.Sprintf(pod, "Bad_Name", ""), []string{`Invalid value: "Bad_Name"`, "a lowercase RFC 1123 subdomain"}},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: busybox}]}\n", []string{"spec.containers[0].name: Required value"}},
		{"apiVersion: v1\nkind: Pod\n  metadata: {name: p\n", []string{"error"}},
		{"{\"apiVersion\": \"v1\", \"kind\": ", []string{"error"}},
		{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata: {a: " + strings.Repeat("x", 1600<<10) + "}\n", []string{"Too long"}},
	} {
		w.fails(c.stdin, c.texts, "-n", ns, "create", "-f", "-")
	}
	w.fails("apiVersion: v1\nkind: Pood\nmetadata: {name: p}\n", []string{`no matches for kind "Pood" in version "v1"`}, "-n", ns, "create", "-f", "-")
	w.fails("", []string{`pods "nobody" not found`}, "-n", ns, "get", "pod", "nobody")
	w.k("-n", ns, "create", "configmap", "twice")
	w.fails("", []string{`configmaps "twice" already exists`}, "-n", ns, "create", "configmap", "twice")
	w.fails("", []string{`cannot list resource "secrets" in API group "" in the namespace "` + ns + `"`},
		"-n", ns, "get", "secrets", "--as=system:serviceaccount:"+ns+":default")
	w.fails("", []string{"You must be logged in", "Unauthorized"}[:1], "--token=forged.token.here", "--kubeconfig", tokenOnly(w), "get", "pods")
	if out := w.k("-n", ns, "get", "pods,cm", "-o", "name"); strings.Contains(out, "pod/") || strings.Contains(out, "big") {
		w.Errorf("something refused was stored: %s", out)
	}
}

// tokenOnly returns a kubeconfig that knows the server but brings no certificate.
func tokenOnly(w *world) string {
	path := filepath.Join(w.TempDir(), "kubeconfig")
	b, err := os.ReadFile(os.Getenv("KUBECONFIG"))
	if err != nil {
		w.Fatal(err)
	}
	var kept []string
	for _, l := range strings.Split(string(b), "\n") {
		if !strings.Contains(l, "client-certificate-data") && !strings.Contains(l, "client-key-data") {
			kept = append(kept, l)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(kept, "\n")), 0o600); err != nil {
		w.Fatal(err)
	}
	return path
}

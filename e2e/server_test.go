package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// sampan server in the foreground, on a computer of its own with no way out: a
// cluster comes up, ends cleanly at SIGTERM, and is the same when started again.
func TestServerInTheForeground(t *testing.T) {
	w := beside(t)
	b := lab.New(t).Machine("ship")
	images := filepath.Join(home, "images")
	for _, a := range mustGlob(b, filepath.Join(images, "*busybox*.tar")) {
		text, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		b.File("images/"+filepath.Base(a), string(text))
	}
	// The one way out leads to the switch, which has no uplink.
	if out := b.Do("ip", "route", "show", "default"); strings.TrimSpace(out) != "default via 100.64.0.1 dev eth0" {
		t.Fatalf("this machine has a way out: %s", out)
	}
	serve := func() <-chan error {
		return b.Start("server", lab.InBin, "server", "--tls-san=127.0.0.1", "--import-images=/run/hand/images")
	}
	start := time.Now()
	ended := serve()
	conf := serverConf(b, w)
	w = &world{t, append(w.kubectl[:len(w.kubectl):len(w.kubectl)], "--kubeconfig="+conf)}
	w.shows([]string{"ship", " Ready ", "control-plane"}, "get", "nodes")
	t.Logf("node Ready after %.1f s", time.Since(start).Seconds())
	w.says(w.k("get", "cs"), "scheduler", "controller-manager", "Healthy")
	w.shows([]string{"default"}, "get", "serviceaccounts")
	w.k("run", "sailor", "--image=busybox", "--image-pull-policy=IfNotPresent", `--overrides={"spec":{"terminationGracePeriodSeconds":0}}`, "--", "sleep", "3600")
	w.k("wait", "--for=condition=Ready", "pod/sailor", "--timeout=60s")
	before := w.k("get", "node/ship", "pod/sailor", "-o", "jsonpath={.items[*].metadata.uid} {.items[1].status.containerStatuses[0].containerID}")

	b.Stop("server", "TERM")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
	case <-time.After(limit):
		t.Fatal("SIGTERM did not end it")
	}
	if out := b.Said("server"); !strings.Contains(out, "stopping") {
		t.Errorf("it said nothing about stopping:\n%s", out)
	}
	if out := b.Do("sh", "-c", "ls /proc/*/exe -l 2>/dev/null | grep -c sampan-shim"); strings.TrimSpace(out) == "0" {
		t.Error("the containers ended with the server")
	}
	start = time.Now()
	serve()
	w.until("the same cluster", func() error {
		after, err := w.try("", "get", "node/ship", "pod/sailor", "-o", "jsonpath={.items[*].metadata.uid} {.items[1].status.containerStatuses[0].containerID}")
		if err != nil || after != before {
			return fmt.Errorf("%v: %s, before %s", err, after, before)
		}
		return nil
	})
	t.Logf("same cluster again after %.1f s", time.Since(start).Seconds())
	w.shows([]string{" Ready "}, "get", "nodes")
	w.says(w.k("get", "pod", "sailor"), "1/1", "Running", " 0 ")
	w.until("the kubelet is back", func() error { // the API answers before it
		out, err := w.try("", "exec", "sailor", "--", "echo", "aye")
		if err != nil || out != "aye\n" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.says(w.k("get", "pod", "sailor"), "1/1", "Running", " 0 ")
}

// serverConf waits for the administrator's kubeconfig and turns it to the
// forwarded port.
func serverConf(b *lab.Machine, w *world) string {
	path := filepath.Join(b.TempDir(), "kubeconfig")
	w.until("the administrator's kubeconfig", func() error {
		text, err := b.Try("cat", "/var/lib/sampan/admin.conf")
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(text, "https://100.64.0.2:6443", "https://"+b.Port)), 0o600)
	})
	return path
}

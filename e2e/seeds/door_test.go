package seeds

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// door is the administrator's way to the API by what listens on a machine's 6443.
type door struct {
	*testing.T
	url  string
	conf *rest.Config
}

// newDoor is a door at a machine, for the administrator whose file is on another.
func newDoor(t *testing.T, admin, at *lab.Guided) *door {
	t.Helper()
	rc, err := clientcmd.RESTConfigFromKubeConfig([]byte(admin.Do("cat", "/etc/kubernetes/admin.conf")))
	if err != nil {
		t.Fatal(err)
	}
	rc.TLSClientConfig.ServerName = "kubernetes"
	// One's own dialer makes the transport one's own, too: they are shared otherwise.
	rc.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return &door{t, "https://" + at.Port, rc}
}

// ask sends a request that must be answered within wait, and reads the answer
// into result.
func (d *door) ask(wait time.Duration, method, path, body string, result any) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	// Each request is a new client's, as kubectl is one: a connection through a
	// balancer to a server that was cut off is not known to be dead for 45 s.
	c, err := rest.HTTPClientFor(d.conf)
	if err != nil {
		return 0, err
	}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && result != nil && res.StatusCode < 300 {
		err = json.Unmarshal(text, result)
	}
	return res.StatusCode, err
}

// list reads objects until it is answered.
func (d *door) list(path string, result any) {
	d.Helper()
	lab.Until(d, path, func() error {
		code, err := d.ask(10*time.Second, http.MethodGet, path, "", result)
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %v", code, err)
		}
		return nil
	})
}

// acts waits until a Deployment made now has a pod that was given a node: the
// controllers made it, the scheduler placed it.
func (d *door) acts(name string, start time.Time) time.Duration {
	d.Helper()
	deployment := `{"metadata": {"name": "` + name + `"}, "spec": {"selector": {"matchLabels": {"app": "` + name + `"}}, "template": {"metadata": {"labels": {"app": "` + name + `"}},
		"spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]}}}}`
	lab.Until(d, "a Deployment is taken", func() error {
		code, err := d.ask(3*time.Second, http.MethodPost, "/apis/apps/v1/namespaces/default/deployments", deployment, nil)
		if code == http.StatusCreated || code == http.StatusConflict {
			return nil
		}
		return fmt.Errorf("%d %v", code, err)
	})
	lab.Until(d, "its pod has a node", func() error {
		var pods podList
		code, err := d.ask(3*time.Second, http.MethodGet, "/api/v1/namespaces/default/pods?labelSelector=app%3D"+name, "", &pods)
		if err != nil || len(pods.Items) == 0 || pods.Items[0].Spec.NodeName == "" {
			return fmt.Errorf("%d %v: %+v", code, err, pods)
		}
		return nil
	})
	return clock.Since(start)
}

type podList struct {
	Items []struct {
		Metadata struct{ Name, UID string }
		Spec     struct{ NodeName string }
		Status   struct {
			ContainerStatuses []struct{ RestartCount int }
		}
	}
}

// pods are the restarts of every pod but those of one node.
func (d *door) pods(except string) map[string]int {
	d.Helper()
	var pods podList
	d.list("/api/v1/pods", &pods)
	out := map[string]int{}
	for _, p := range pods.Items {
		if p.Spec.NodeName == except || p.Spec.NodeName == "" {
			continue
		}
		for _, s := range p.Status.ContainerStatuses {
			out[p.Metadata.Name+" "+p.Metadata.UID] += s.RestartCount
		}
	}
	return out
}

// same checks that no pod of before was replaced or restarted.
func (d *door) same(before map[string]int, except string) {
	d.Helper()
	now := d.pods(except)
	for name, n := range before {
		if got, ok := now[name]; !ok || got != n {
			d.Errorf("pod %s: restarted %d times before, %d now (there: %v)", name, n, got, ok)
		}
	}
}

// writer makes ConfigMaps, and remembers which were acknowledged and when.
type writer struct {
	d *door
	g *run.Group

	mu    sync.Mutex
	acked []string
	at    []time.Time
	tried int
}

// writes begins a writer that ends with the test or with stop. A write that is
// not answered in time is tried again under another name.
func (d *door) writes() *writer {
	w := &writer{d: d, g: run.New(context.Background())}
	w.g.Go("writer", func(ctx context.Context) error {
		for range 5000 {
			w.write()
			if clock.Sleep(ctx, 200*time.Millisecond) != nil {
				return nil
			}
		}
		return nil
	})
	d.Cleanup(w.stop)
	return w
}

func (w *writer) stop() {
	w.g.Stop()
	_ = w.g.Wait()
}

func (w *writer) write() {
	w.mu.Lock()
	w.tried++
	name := fmt.Sprintf("written-%d", w.tried)
	w.mu.Unlock()
	code, _ := w.d.ask(2*time.Second, http.MethodPost, "/api/v1/namespaces/default/configmaps", `{"metadata": {"name": "`+name+`"}}`, nil)
	if code != http.StatusCreated {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked, w.at = append(w.acked, name), append(w.at, clock.Now())
}

// after waits until a write was acknowledged after start.
func (w *writer) after(start time.Time) {
	w.d.Helper()
	lab.Until(w.d, "a write is acknowledged", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.at) == 0 || w.at[len(w.at)-1].Before(start) {
			return fmt.Errorf("none of %d since", w.tried)
		}
		return nil
	})
}

// silence is the longest time since start without an acknowledged write.
func (w *writer) silence(start time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := start
	for _, at := range append(slices.Clone(w.at), clock.Now()) {
		if at.After(last) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest
}

// kept checks that what was acknowledged is there.
func (w *writer) kept(d *door) {
	d.Helper()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	d.list("/api/v1/namespaces/default/configmaps", &list)
	have := map[string]bool{}
	for _, i := range list.Items {
		have[i.Metadata.Name] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.acked {
		if !have[name] {
			d.Errorf("%s was acknowledged and is lost", name)
		}
	}
	d.Logf("%d of %d writes acknowledged, all there", len(w.acked), w.tried)
}

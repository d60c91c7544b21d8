package masters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// door is the administrator's way to one control plane's API server.
type door struct {
	name, url string
	c         *http.Client
}

// doors are the ways to every control plane, through the ports that lead into
// the lab.
func (m *masters) doors() []*door {
	m.Helper()
	conf, err := clientcmd.RESTConfigFromKubeConfig([]byte(m.all[0].Do("cat", "/etc/kubernetes/admin.conf")))
	if err != nil {
		m.Fatal(err)
	}
	var out []*door
	for _, c := range m.all {
		rc := rest.CopyConfig(conf)
		rc.TLSClientConfig.ServerName = "kubernetes"
		h, err := rest.HTTPClientFor(rc)
		if err != nil {
			m.Fatal(err)
		}
		out = append(out, &door{c.Host, "https://" + c.Port, h})
	}
	return out
}

// ask sends a request that must be answered within wait.
func (d *door) ask(wait time.Duration, method, path, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.c.Do(req)
	if err != nil {
		d.c.CloseIdleConnections() // the next try is a new client's
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// writer makes ConfigMaps through every door in turn, and remembers which were
// acknowledged. It never writes more than a few hundred.
type writer struct {
	t     testing.TB
	name  string // what it writes is called by
	doors []*door
	g     *run.Group

	mu    sync.Mutex
	acked []string
	at    map[string][]time.Time // of the acknowledgements, by door
	tried int
}

// writes begins a writer that ends with the test or with stop.
func (m *masters) writes(doors []*door) *writer {
	m.Helper()
	m.writers++ // a name that an earlier one wrote would be refused
	w := &writer{t: m.T, name: fmt.Sprintf("written-%d", m.writers), doors: doors, g: run.New(context.Background()), at: map[string][]time.Time{}}
	for _, d := range doors {
		w.g.Go("writer "+d.name, func(ctx context.Context) error {
			for range 2000 {
				w.write(d)
				if clock.Sleep(ctx, 100*time.Millisecond) != nil {
					return nil
				}
			}
			return nil
		})
	}
	m.Cleanup(w.stop)
	return w
}

func (w *writer) stop() {
	w.g.Stop()
	_ = w.g.Wait()
}

func (w *writer) write(d *door) {
	w.mu.Lock()
	w.tried++
	name := fmt.Sprintf("%s-%d", w.name, w.tried)
	w.mu.Unlock()
	code, _, err := d.ask(3*time.Second, http.MethodPost, "/api/v1/namespaces/default/configmaps", `{"metadata": {"name": "`+name+`"}}`)
	if err != nil || code != http.StatusCreated {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, name)
	w.at[d.name] = append(w.at[d.name], clock.Now())
}

// through waits until a write begun after start was acknowledged through every
// one of the doors.
func (w *writer) through(start time.Time, doors []*door) time.Duration {
	w.t.Helper()
	lab.Until(w.t, "writes through every door", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range doors {
			if at := w.at[d.name]; len(at) == 0 || at[len(at)-1].Before(start) {
				return fmt.Errorf("none through %s", d.name)
			}
		}
		return nil
	})
	return clock.Since(start)
}

// silence is the longest time since start in which no write was acknowledged
// through one of the doors.
func (w *writer) silence(start time.Time, doors []*door) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range doors {
		last := start
		for _, at := range append(slices.Clone(w.at[d.name]), clock.Now()) {
			if at.After(last) {
				longest = max(longest, at.Sub(last))
				last = at
			}
		}
	}
	return longest
}

// refused waits until a door takes no writes, and a good while longer: what its
// loss does to the others is over then.
func (w *writer) refused(d *door) {
	w.t.Helper()
	lab.Until(w.t, d.name+" is lost", func() error {
		if code, _, err := d.ask(2*time.Second, http.MethodPost, "/api/v1/namespaces/default/configmaps", `{"metadata": {"generateName": "lost-"}}`); err == nil && code == http.StatusCreated {
			return errors.New("it takes writes")
		}
		return nil
	})
	_ = clock.Sleep(context.Background(), 2*actsWithin)
}

// count is how many writes were acknowledged.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// kept checks that what was acknowledged is there, as a consistent read tells.
func (w *writer) kept(d *door) {
	w.t.Helper()
	have := map[string]bool{}
	lab.Until(w.t, "a consistent read", func() error {
		code, text, err := d.ask(10*time.Second, http.MethodGet, "/api/v1/namespaces/default/configmaps", "")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %v %.200s", code, err, text)
		}
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		for _, i := range list.Items {
			have[i.Metadata.Name] = true
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.acked {
		if !have[name] {
			w.t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	w.t.Logf("%d of %d writes acknowledged, all there", len(w.acked), w.tried)
}

// acts waits until a Deployment made now has a pod that was given a node: the
// controllers made it, the scheduler placed it.
func (m *masters) acts(d *door, name string, start time.Time) time.Duration {
	m.Helper()
	deployment := `{"metadata": {"name": "` + name + `"}, "spec": {"selector": {"matchLabels": {"app": "` + name + `"}}, "template": {"metadata": {"labels": {"app": "` + name + `"}},
		"spec": {"tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]}}}}`
	lab.Until(m, "a Deployment is taken", func() error {
		code, text, err := d.ask(5*time.Second, http.MethodPost, "/apis/apps/v1/namespaces/default/deployments", deployment)
		if err == nil && (code == http.StatusCreated || code == http.StatusConflict) {
			return nil
		}
		return fmt.Errorf("%d %v %.200s", code, err, text)
	})
	lab.Until(m, "its pod has a node", func() error {
		_, text, err := d.ask(5*time.Second, http.MethodGet, "/api/v1/namespaces/default/pods?labelSelector=app%3D"+name, "")
		if err != nil || !strings.Contains(text, `"nodeName"`) {
			return fmt.Errorf("%v %.300s", err, text)
		}
		return nil
	})
	return clock.Since(start)
}

// restarts are the containers' counts of every pod but those on one node.
func (m *masters) restarts(d *door, except string) map[string]int {
	m.Helper()
	out := map[string]int{}
	lab.Until(m, "the pods", func() error {
		code, text, err := d.ask(10*time.Second, http.MethodGet, "/api/v1/pods", "")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %v", code, err)
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name, UID string }
				Spec     struct{ NodeName string }
				Status   struct{ ContainerStatuses []struct{ RestartCount int } }
			}
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.Spec.NodeName == except || p.Spec.NodeName == "" {
				continue
			}
			for _, s := range p.Status.ContainerStatuses {
				out[p.Metadata.Name+" "+p.Metadata.UID] = s.RestartCount
			}
		}
		return nil
	})
	return out
}

// calm checks that no pod of before was replaced or restarted.
func (m *masters) calm(d *door, except string, before map[string]int) {
	m.Helper()
	now := m.restarts(d, except)
	for name, n := range before {
		if got, ok := now[name]; !ok || got != n {
			m.Errorf("pod %s: restarted %d times before, %d now (there: %v)", name, n, got, ok)
		}
	}
}

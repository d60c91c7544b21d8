package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Door is an administrator's way to one API server, or to what balances over
// several, through the port that leads into the lab.
type Door struct {
	testing.TB
	Host, url string
	conf      *rest.Config
}

// Door is the way to what listens on a machine's 6443, for whom a kubeconfig is.
func (m *Machine) Door(kubeconfig string) *Door {
	m.Helper()
	rc, err := clientcmd.RESTConfigFromKubeConfig([]byte(kubeconfig))
	if err != nil {
		m.Fatal(err)
	}
	rc.TLSClientConfig.ServerName = "kubernetes"
	// One's own dialer makes the transport one's own, too: they are shared otherwise.
	rc.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return &Door{m.T, m.Host, "https://" + m.Port, rc}
}

// Ask sends a request that must be answered within wait. Each is a new client's,
// as kubectl is one: a connection through a balancer to a server that was cut off
// is not known to be dead for 45 s.
func (d *Door) Ask(wait time.Duration, method, path, body string) (code int, text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	c, err := rest.HTTPClientFor(d.conf)
	if err != nil {
		return 0, "", err
	}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	return res.StatusCode, string(read), err
}

// Get reads into result, until it is answered.
func (d *Door) Get(path string, result any) {
	d.Helper()
	Until(d, path+" by "+d.Host, func() error {
		code, text, err := d.Ask(10*time.Second, http.MethodGet, path, "")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %v %.200s", code, err, text)
		}
		return json.Unmarshal([]byte(text), result)
	})
}

// Acts waits until a Deployment made now has a pod that was given a node: the
// controllers made it, the scheduler placed it.
func (d *Door) Acts(name string, start time.Time) time.Duration {
	d.Helper()
	deployment := `{"metadata": {"name": "` + name + `"}, "spec": {"selector": {"matchLabels": {"app": "` + name + `"}}, "template": {"metadata": {"labels": {"app": "` + name + `"}},
		"spec": {"tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "Never", "command": ["sleep", "3600"]}]}}}}`
	Until(d, "a Deployment is taken", func() error {
		code, text, err := d.Ask(3*time.Second, http.MethodPost, "/apis/apps/v1/namespaces/default/deployments", deployment)
		if code == http.StatusCreated || code == http.StatusConflict {
			return nil
		}
		return fmt.Errorf("%d %v %.200s", code, err, text)
	})
	Until(d, "its pod has a node", func() error {
		code, text, err := d.Ask(3*time.Second, http.MethodGet, "/api/v1/namespaces/default/pods?labelSelector=app%3D"+name, "")
		if err != nil || !strings.Contains(text, `"nodeName"`) {
			return fmt.Errorf("%d %v %.300s", code, err, text)
		}
		return nil
	})
	return clock.Since(start)
}

// Restarts are the counts of every pod that has a node, but those of one node.
func (d *Door) Restarts(except string) map[string]int {
	d.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, UID string }
			Spec     struct{ NodeName string }
			Status   struct{ ContainerStatuses []struct{ RestartCount int } }
		}
	}
	d.Get("/api/v1/pods", &list)
	out := map[string]int{}
	for _, p := range list.Items {
		if p.Spec.NodeName == except || p.Spec.NodeName == "" {
			continue
		}
		for _, s := range p.Status.ContainerStatuses {
			out[p.Metadata.Name+" "+p.Metadata.UID] += s.RestartCount
		}
	}
	return out
}

// Settled waits until every pod of a node that came back, or every static one, has
// started since: until then the API tells of what was there before.
func (d *Door) Settled(node string, since time.Time, static bool) {
	d.Helper()
	Until(d, "the pods of "+node+" run again", func() error {
		code, text, err := d.Ask(10*time.Second, http.MethodGet, "/api/v1/pods?fieldSelector=spec.nodeName%3D"+node, "")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %v %.200s", code, err, text)
		}
		var list corev1.PodList
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		for _, p := range list.Items {
			if static && p.Annotations[corev1.MirrorPodAnnotationKey] == "" || p.DeletionTimestamp != nil {
				continue
			}
			for _, s := range p.Status.ContainerStatuses {
				if s.State.Running == nil || s.State.Running.StartedAt.Time.Before(since.Truncate(time.Second)) {
					return fmt.Errorf("%s: %+v", p.Name, s.State)
				}
			}
		}
		return nil
	})
}

// Calm checks that no pod of before was replaced or restarted.
func (d *Door) Calm(before map[string]int, except string) {
	d.Helper()
	now := d.Restarts(except)
	for name, n := range before {
		if got, ok := now[name]; !ok || got != n {
			d.Errorf("pod %s: restarted %d times before, %d now (there: %v)", name, n, got, ok)
		}
	}
}

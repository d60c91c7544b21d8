package controlplane

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAComponentInProcessAnswersForItself(t *testing.T) {
	v := newVital()
	ask := func() string {
		msg, err := v.check(t.Context())
		if err != nil {
			return err.Error()
		}
		return msg
	}
	if got := ask(); got != "not started yet" {
		t.Errorf("before the start: %q", got)
	}
	err := v.during(func() error {
		if got := ask(); got != "ok" {
			t.Errorf("while it runs: %q", got)
		}
		return errors.New("lost its way")
	})
	if err == nil || ask() != "ended: lost its way" {
		t.Errorf("after an error: %v, %q", err, ask())
	}
}

func TestAComponentElsewhereIsAsked(t *testing.T) {
	well := true
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || !well {
			http.Error(w, "leader election lost", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("ok"))
	}))
	defer s.Close()
	ask := askHealthz(s.Listener.Addr().(*net.TCPAddr).Port)
	if msg, err := ask(t.Context()); err != nil || msg != "ok" {
		t.Errorf("well: %q, %v", msg, err)
	}
	well = false
	if _, err := ask(t.Context()); err == nil || !strings.Contains(err.Error(), "leader election lost") {
		t.Errorf("unwell: %v", err)
	}
	s.Close()
	if _, err := ask(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("gone: %v", err)
	}
}

// Every etcd that is named is shown, as upstream does.
func TestEveryEtcdIsAsked(t *testing.T) {
	c := &ControlPlane{cfg: Config{EtcdServers: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}}, scheduler: newVital(), controllers: newVital()}
	var names []string
	for _, check := range c.checks() {
		names = append(names, check.Name)
	}
	if got := strings.Join(names, " "); got != "scheduler controller-manager etcd-0 etcd-1" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.checks()[3].Fn(ctx); err == nil {
		t.Error("an etcd that nobody runs is healthy")
	}
}

package balance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

const patience = time.Minute

// api is an API server as far as a balancer can tell.
type api struct {
	*httptest.Server
	unready, hangs, slow atomic.Bool
	asked                atomic.Int64
}

func newAPI(t *testing.T, name string) *api {
	a := &api{}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case a.hangs.Load(), a.slow.Load() && r.URL.Path == "/readyz":
			<-r.Context().Done()
		case r.URL.Path == "/livez":
		case r.URL.Path != "/readyz":
			fmt.Fprint(w, name)
		case a.unready.Load():
			a.asked.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		default:
			a.asked.Add(1)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) addr() string { return a.Listener.Addr().String() }

// balanced is a running balancer and a client of it that keeps its connection.
type balanced struct {
	*testing.T
	*Balancer
	metrics *prometheus.Registry
	url     string
	client  *http.Client
}

func start(t *testing.T, cfg Config, servers ...*api) *balanced {
	pool := x509.NewCertPool()
	for _, s := range servers {
		pool.AddCert(s.Certificate())
		cfg.Servers = append(cfg.Servers, s.addr())
	}
	tc := &tls.Config{RootCAs: pool, ServerName: "example.com"}
	cfg.Listen, cfg.TLS, cfg.Period = []string{"127.0.0.1:0"}, tc, 20*time.Millisecond
	b := &balanced{T: t, metrics: prometheus.NewRegistry()}
	var err error
	if b.Balancer, err = New(cfg, b.metrics, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("balancer", b.Balancer.Run)
	at, err := b.Addrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.url = "https://" + at[0].String()
	b.client = &http.Client{Transport: &http.Transport{TLSClientConfig: tc.Clone()}, Timeout: patience}
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		g.Stop()
		_ = g.Wait()
	})
	return b
}

func (b *balanced) get() (string, error) {
	resp, err := b.client.Get(b.url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func (b *balanced) until(what string, fn func() bool) {
	b.Helper()
	for began := clock.Now(); clock.Since(began) < patience; _ = clock.Sleep(context.Background(), 5*time.Millisecond) {
		if fn() {
			return
		}
	}
	b.Fatal("not in time: " + what)
}

func (b *balanced) answers(name string) {
	b.Helper()
	b.until(name+" answers", func() bool {
		got, err := b.get()
		return err == nil && got == name
	})
}

// known waits until every server was asked.
func (b *balanced) known() {
	b.Helper()
	b.until("every server was asked", func() bool {
		for _, v := range b.views() {
			if v.State == Unknown {
				return false
			}
		}
		return true
	})
}

// A server that says it is not ready, that dies, or that hangs loses its
// clients to another, those too whose connections were there.
func TestClientsLeaveAServerThatFails(t *testing.T) {
	for name, fail := range map[string]func(a *api){
		"not ready": func(a *api) { a.unready.Store(true) },
		"dies":      func(a *api) { a.Listener.Close(); a.CloseClientConnections() },
		"hangs":     func(a *api) { a.hangs.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			one, two := newAPI(t, "one"), newAPI(t, "two")
			b := start(t, Config{Prefer: one.addr(), Timeout: 5 * time.Second}, one, two)
			b.known()
			b.answers("one")
			fail(one)
			b.answers("two")
			for range 20 {
				if got, err := b.get(); err != nil || got != "two" {
					t.Fatalf("%q %v, want two from now on", got, err)
				}
			}
		})
	}
}

// Where nobody is ready, who answers serves: reads from memory are better than none.
func TestNobodyIsReady(t *testing.T) {
	one, two := newAPI(t, "one"), newAPI(t, "two")
	one.unready.Store(true)
	two.unready.Store(true)
	b := start(t, Config{Timeout: 10 * time.Second}, one, two)
	b.known()
	if _, err := b.get(); err != nil {
		t.Fatal(err)
	}
	if closed := testutil.CollectAndCount(b.Balancer.metrics.closed); closed != 0 {
		t.Error("connections were closed though no server was better")
	}
}

// Who lives but cannot tell whether it is ready is better than who does not answer.
func TestLivesAndDoesNotKnow(t *testing.T) {
	dead, slow := newAPI(t, "dead"), newAPI(t, "slow")
	b := start(t, Config{Prefer: dead.addr(), Timeout: 3 * time.Second}, dead, slow)
	b.known()
	b.answers("dead")
	slow.slow.Store(true)
	dead.hangs.Store(true)
	b.client.Timeout = 5 * time.Second
	b.answers("slow")
}

// A balancer that starts without the server it was told of uses those that it knew before.
func TestTheListIsRemembered(t *testing.T) {
	gone, alive := newAPI(t, "gone"), newAPI(t, "alive")
	file := filepath.Join(t.TempDir(), "deep", "servers")
	first := start(t, Config{File: file, Timeout: 10 * time.Second}, gone, alive)
	first.Set([]string{gone.addr(), alive.addr()})
	first.Set(nil)
	first.Set([]string{alive.addr()})
	text, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(text)) != alive.addr() {
		t.Fatalf("%q %v, want the last list", text, err)
	}
	gone.Close()
	b := start(t, Config{File: file, Timeout: 10 * time.Second}, gone)
	b.client.Transport.(*http.Transport).TLSClientConfig.RootCAs.AddCert(alive.Certificate())
	b.answers("alive")
}

// A single server is not asked for what would change nothing.
func TestASingleServerIsLeftInPeace(t *testing.T) {
	one := newAPI(t, "one")
	b := start(t, Config{Timeout: 10 * time.Second}, one)
	b.answers("one")
	if n := one.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	two := newAPI(t, "two")
	b.Set([]string{one.addr(), two.addr()})
	b.until("both are asked", func() bool { return one.asked.Load() > 0 && two.asked.Load() > 0 })
}

func TestCheck(t *testing.T) {
	for want, cfg := range map[string]Config{
		"nowhere to listen":  {TLS: &tls.Config{}},
		"address and a port": {TLS: &tls.Config{}, Listen: []string{"127.0.0.1"}},
		"no authority":       {Listen: []string{"127.0.0.1:1"}},
	} {
		if _, err := New(cfg, nil, slog.Default()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

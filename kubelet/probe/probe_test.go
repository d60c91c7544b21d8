package probe

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// script answers by the probe's command.
type script map[string]Result

// player answers from a script that a test goes on writing.
type player struct {
	mu  sync.Mutex
	now script
}

func (p *player) Ask(_ context.Context, _ *Target, pr *corev1.Probe) (Result, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now[pr.Exec.Command[0]], "said so"
}

func (p *player) set(s script) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.now, s)
}

func probeOf(name string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}},
		PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
	}
}

func TestVerdicts(t *testing.T) {
	type step struct {
		wait time.Duration
		set  script
		want Verdict
	}
	for _, tt := range []struct {
		name  string
		c     corev1.Container
		steps []step
	}{
		{"no probes", corev1.Container{}, []step{{0, nil, Verdict{Started: true, Ready: true}}}},
		{"readiness comes and goes", corev1.Container{ReadinessProbe: probeOf("ready")}, []step{
			{time.Second, script{"ready": Failure}, Verdict{Started: true}},
			{10 * time.Second, script{"ready": Success}, Verdict{Started: true, Ready: true}},
			{20 * time.Second, script{"ready": Failure}, Verdict{Started: true, Ready: true}}, // two failures are not three
			{10 * time.Second, nil, Verdict{Started: true}},
		}},
		{"a program that needs a moment is ready a moment later", corev1.Container{ReadinessProbe: probeOf("ready")}, []step{
			{500 * time.Millisecond, script{"ready": Failure}, Verdict{Started: true}},
			{600 * time.Millisecond, script{"ready": Success}, Verdict{Started: true, Ready: true}},
		}},
		{"one that needs long is asked less and less often, then once a period", corev1.Container{ReadinessProbe: probeOf("ready")}, []step{
			{24 * time.Second, script{"ready": Failure}, Verdict{Started: true}}, // asked at 0, 1, 3, 7, 15 and 25 s
			{900 * time.Millisecond, script{"ready": Success}, Verdict{Started: true}},
			{200 * time.Millisecond, nil, Verdict{Started: true, Ready: true}},
		}},
		{"liveness fails at the third", corev1.Container{LivenessProbe: probeOf("live")}, []step{
			{time.Second, script{"live": Failure}, Verdict{Started: true, Ready: true}},
			{10 * time.Second, nil, Verdict{Started: true, Ready: true}},
			{10 * time.Second, nil, Verdict{Started: true, Ready: true, Dead: true}},
		}},
		{"nothing else is asked before the start", corev1.Container{StartupProbe: probeOf("start"), LivenessProbe: probeOf("live")}, []step{
			{time.Second, script{"start": Failure, "live": Failure}, Verdict{}},
			{10 * time.Second, script{"start": Success, "live": Success}, Verdict{Started: true, Ready: true}},
			{30 * time.Second, nil, Verdict{Started: true, Ready: true}},
		}},
		{"a start that fails", corev1.Container{StartupProbe: probeOf("start")}, []step{
			{25 * time.Second, script{"start": Failure}, Verdict{StartFailed: true}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &player{now: script{}}
				m := New(Deps{Ask: s, Log: slog.New(slog.DiscardHandler), Changed: func(types.UID) {}, Event: func(*Target, string, string, string) {}})
				ctx, cancel := context.WithCancel(t.Context())
				s.set(tt.steps[0].set)
				m.Watch(ctx, Target{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, Container: &tt.c, ID: "id", Started: time.Now()}, false, false)
				for i, st := range tt.steps {
					synctest.Wait()
					s.set(st.set)
					time.Sleep(st.wait)
					synctest.Wait()
					if got, _ := m.Verdict("id"); got != st.want {
						t.Errorf("step %d: %+v, want %+v", i, got, st.want)
					}
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

func TestFailuresAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		m := New(Deps{Ask: &player{now: script{"live": Failure}}, Log: slog.New(slog.DiscardHandler), Changed: func(types.UID) {}, Event: func(_ *Target, kind, reason, msg string) {
			told = append(told, fmt.Sprint(kind, " ", reason, " ", msg))
		}})
		ctx, cancel := context.WithCancel(t.Context())
		m.Watch(ctx, Target{Pod: &corev1.Pod{}, Container: &corev1.Container{LivenessProbe: probeOf("live")}, ID: "id", Started: time.Now()}, false, false)
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if want := []string{"Warning Unhealthy Liveness probe failed: said so"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/agent":
			if r.UserAgent() != "kube-probe/1.37" {
				w.WriteHeader(http.StatusTeapot)
			}
		}
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/": "0 ", "/agent": "0 ", "/bad": "1 HTTP probe failed with statuscode: 500",
	} {
		r, msg, err := Get(t.Context(), &Target{Container: &corev1.Container{}, IP: "127.0.0.1"}, &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(int32(port))})
		if got := fmt.Sprint(int(r), " ", msg); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if r, _, err := Get(t.Context(), &Target{Container: &corev1.Container{}, IP: "127.0.0.1"}, &corev1.HTTPGetAction{Path: "/away", Port: intstr.FromInt32(int32(port))}); err != nil || r != Warning {
		t.Errorf("a redirect to elsewhere: %v, %v; want a warning", r, err)
	}
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	fakecri "github.com/sampan-dev/sampan/kubelet/cri/fake"
)

type host struct{ last *corev1.PodLogOptions }

func (h *host) Pods() []*corev1.Pod {
	return []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}}
}

func (h *host) Find(_ context.Context, ns, pod, c string) (string, error) {
	if pod != "p" {
		return "", fmt.Errorf("pod %q: %w", pod, ErrNotFound)
	}
	return "id-" + ns + "-" + c, nil
}

func (h *host) Logs(_ context.Context, _, pod, _ string, o *corev1.PodLogOptions, out, _ io.Writer) error {
	h.last = o
	if pod != "p" {
		return fmt.Errorf("pod %q: %w", pod, ErrNotFound)
	}
	_, err := io.WriteString(out, "line\n")
	return err
}
func (h *host) Configuration() any            { return map[string]string{"a": "b"} }
func (h *host) Healthy(context.Context) error { return nil }
func (h *host) NodeName() string              { return "n1" }
func (h *host) Cores() int                    { return 2 }
func (h *host) Machine() Machine {
	return Machine{CPU: 5e9, Memory: 300, WorkingSet: 200, Available: 800, Root: "/"}
}
func (h *host) Disk(context.Context, *corev1.Pod) Disk { return Disk{} }

// rule lets requests in that carry its word.
type rule string

func (r rule) Check(_ context.Context, req *http.Request, _ bool) (int, error) {
	if req.Header.Get("Word") != string(r) {
		return http.StatusUnauthorized, errors.New("Unauthorized")
	}
	return 0, nil
}

// streaming is a runtime whose Exec names an endpoint.
type streaming struct {
	*fakecri.Runtime
	url  string
	exec *runtimeapi.ExecRequest
}

func (s *streaming) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	s.exec = r
	return &runtimeapi.ExecResponse{Url: s.url}, nil
}

func TestServer(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "streamed by ", r.URL.Path)
	}))
	defer backend.Close()
	h := &host{}
	rt := &streaming{Runtime: fakecri.New(), url: backend.URL + "/exec/token"}
	s := httptest.NewServer(New(Config{}, Deps{Host: h, Runtime: rt, Images: rt, Auth: rule("open"), Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	for _, tt := range []struct{ word, method, path, want string }{
		{"", "GET", "/pods", "401 Unauthorized"},
		{"", "GET", "/metrics/resource", "401 Unauthorized"},
		{"open", "GET", "/healthz", "200 ok"},
		{"open", "GET", "/pods", `200 {"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"p"}`},
		{"open", "GET", "/runningpods/", `200 {"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`},
		{"open", "GET", "/containerLogs/ns/p/c?tailLines=3&follow=false&timestamps=true", "200 line"},
		{"open", "GET", "/containerLogs/ns/no/c", `404 pod "no": not found`},
		{"open", "GET", "/containerLogs/ns/p/c?tailLines=x", "422 tailLines"},
		{"open", "POST", "/exec/ns/p/c?command=ls&command=-l&output=1&error=1", "200 streamed by /exec/token"},
		{"open", "POST", "/exec/ns/no/c?command=ls", `404 pod "no": not found`},
		{"open", "GET", "/configz", `200 {"kubeletconfig":{"a":"b"}}`},
		{"open", "GET", "/stats/summary", `200 {"node":{"nodeName":"n1"`},
		{"open", "GET", "/stats", `200 {"node":{"nodeName":"n1"`},
		{"open", "GET", "/stats/", `200 {"node":{"nodeName":"n1"`},
		{"open", "GET", "/spec", `200 {"architecture":"`},
		{"", "GET", "/spec", "401 Unauthorized"},
		{"", "GET", "/debug/pprof/", "401 Unauthorized"},
		{"open", "GET", "/runningpods", `200 {"kind":"PodList"`},
		{"open", "GET", "/debug/pprof/cmdline", "200 "},
		{"open", "GET", "/metrics/resource", "200 # HELP node_cpu_usage_seconds_total"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, s.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Word", tt.word)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", string(body)); err != nil || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s %s: %q, %v; want %q", tt.method, tt.path, got, err, tt.want)
		}
		if strings.Contains(tt.path, "tailLines=3") && (h.last == nil || *h.last.TailLines != 3 || h.last.Follow || !h.last.Timestamps) {
			t.Errorf("log options %+v", h.last)
		}
	}
	if e := rt.exec; e == nil || e.ContainerId != "id-ns-c" || strings.Join(e.Cmd, " ") != "ls -l" || !e.Stdout || !e.Stderr || e.Stdin || e.Tty {
		t.Errorf("exec request %+v", e)
	}
}

func TestRequestsNeedTheRightSubresource(t *testing.T) {
	for path, want := range map[string]string{
		"/stats/summary": "stats", "/metrics/cadvisor": "metrics", "/logs/x": "log", "/pods": "pods proxy", "/exec/a/b/c": "proxy", "/healthz": "healthz proxy", "/statsx": "proxy",
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if verb, subs := attributes(r); verb != "get" || strings.Join(subs, " ") != want {
			t.Errorf("%s: %s %v, want get %s", path, verb, subs, want)
		}
	}
}

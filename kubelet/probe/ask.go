package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kubelet/cri"
)

// maxBody is how much of an answer a message may quote.
const maxBody = 10 << 10

// Network asks as the API describes: by HTTP, TCP, gRPC, or a command in the container.
type Network struct{ Runtime cri.Runtime }

// Ask runs one probe.
func (n Network) Ask(ctx context.Context, t *Target, p *corev1.Probe) (Result, string) {
	switch {
	case p.Exec != nil:
		return n.exec(ctx, t, p)
	case p.HTTPGet != nil:
		r, msg, err := Get(ctx, t, p.HTTPGet)
		if err != nil {
			return Failure, err.Error()
		}
		return r, msg
	case p.TCPSocket != nil:
		return dial(ctx, t, p.TCPSocket)
	case p.GRPC != nil:
		return health(ctx, t, p.GRPC)
	}
	return Unknown, fmt.Sprintf("missing probe handler for %s:%s", t.Pod.Name, t.Container.Name)
}

func (n Network) exec(ctx context.Context, t *Target, p *corev1.Probe) (Result, string) {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	out, errOut, err := n.Runtime.ExecSync(ctx, t.ID, p.Exec.Command, timeout)
	text := string(out) + string(errOut)
	if len(text) > maxBody {
		text = text[:maxBody]
	}
	var code interface{ ExitStatus() int }
	switch {
	case err == nil:
		return Success, text
	case errors.As(err, &code):
		if code.ExitStatus() == 0 {
			return Success, text
		}
		return Failure, text
	case errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timed out") || strings.Contains(err.Error(), "DeadlineExceeded") || strings.Contains(err.Error(), "deadline exceeded"):
		return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(p.Exec.Command, " "), timeout)
	}
	return Unknown, err.Error()
}

// Port finds the number of a container's port by number or name.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		n = -1
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				n = int(cp.ContainerPort)
			}
		}
		if n < 0 {
			var err error
			if n, err = strconv.Atoi(p.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port %q in container %q", p.StrVal, c.Name)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

// Get asks by HTTP.
func Get(ctx context.Context, t *Target, g *corev1.HTTPGetAction) (Result, string, error) {
	port, err := Port(g.Port, t.Container)
	if err != nil {
		return Unknown, err.Error(), nil
	}
	host := g.Host
	if host == "" {
		host = t.IP
	}
	u, err := url.Parse(g.Path)
	if err != nil {
		u = &url.URL{Path: g.Path}
	}
	u.Scheme = "http"
	if g.Scheme != "" {
		u.Scheme = strings.ToLower(string(g.Scheme))
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Failure, "", err
	}
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "kube-probe/1.37")
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	}
	c := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse // another host is not ours to judge
			}
			return nil
		},
	}
	resp, err := c.Do(req)
	if err != nil {
		return Failure, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return Failure, "", err
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return Warning, fmt.Sprintf("Probe terminated redirects, Response body: %s", body), nil
	case resp.StatusCode >= 200 && resp.StatusCode < 400:
		return Success, string(body), nil
	}
	return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
}

func dial(ctx context.Context, t *Target, a *corev1.TCPSocketAction) (Result, string) {
	port, err := Port(a.Port, t.Container)
	if err != nil {
		return Unknown, err.Error()
	}
	host := a.Host
	if host == "" {
		host = t.IP
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Failure, err.Error()
	}
	_ = conn.Close()
	return Success, ""
}

func health(ctx context.Context, t *Target, a *corev1.GRPCAction) (Result, string) {
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.37"))
	if err != nil {
		return Failure, fmt.Sprintf("error: %v", err)
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within the probe's timeout: %v", addr, err)
	}
	if s := resp.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", s)
	}
	return Success, "service healthy"
}

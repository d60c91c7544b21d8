package apiserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
	req "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// byHeader takes the user from a header, as a front proxy's would be.
type byHeader struct{}

func (byHeader) Authenticate(r *http.Request) (*req.User, bool, error) {
	name := r.Header.Get("X-Test-User")
	return &req.User{Name: name, Groups: []string{req.Authenticated}}, name != "", nil
}

// serve runs a server on the loopback until the test ends and returns its URL.
func serve(t testing.TB, c apiserver.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Listener, c.Anonymous = l, true
	s := newServerWith(t, c, byHeader{})
	g := run.New(context.Background())
	g.Go("server", s.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	<-s.Serving()
	return "http://" + l.Addr().String()
}

// patient is how long a test waits for what should come: a computer that has
// much else to do may take its time.
const patient = 2 * time.Minute

// others asks what an innocent client would and fails the test if it is not
// answered in time. A request that the computer was too busy for is made again.
func others(t testing.TB, url string) time.Duration {
	t.Helper()
	began := time.Now()
	said := ""
	for time.Since(began) < patient {
		if said = innocent(t, url); said == "" {
			return time.Since(began)
		}
	}
	t.Fatalf("an innocent client: %s", said)
	return 0
}

// innocent asks once and says what went wrong.
func innocent(t testing.TB, url string) string {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/namespaces/default", nil)
	r.Header.Set("X-Test-User", "innocent")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != 200 {
		return resp.Status
	}
	return ""
}

func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// closed waits until the server gives a connection up.
func closed(t testing.TB, conn net.Conn, within time.Duration) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(within))
	said, err := io.ReadAll(conn)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Errorf("after %v the server still has the connection; it said %.100q", within, said)
	}
	return string(said)
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("not in time:", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Clients that are slow on purpose keep neither the others nor memory waiting.
func TestSlowClients(t *testing.T) {
	url := serve(t, apiserver.Config{Fairness: true, HeaderTimeout: time.Second, Timeout: 2 * time.Second, Stall: time.Second})
	await(t, "default namespace", func() bool {
		r, err := http.Get(url + "/api/v1/namespaces/default")
		if err == nil {
			r.Body.Close()
		}
		return err == nil && r.StatusCode == 200
	})
	t.Run("head", func(t *testing.T) {
		var conns []net.Conn
		for range 100 {
			c := dial(t, url)
			fmt.Fprintf(c, "GET /api HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			conns = append(conns, c)
		}
		others(t, url)
		for _, c := range conns {
			closed(t, c, patient)
		}
	})
	t.Run("body", func(t *testing.T) {
		var conns []net.Conn
		for range 100 {
			c := dial(t, url)
			fmt.Fprintf(c, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nX-Test-User: slow\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
			conns = append(conns, c)
		}
		others(t, url)
		for _, c := range conns {
			if said := closed(t, c, patient); strings.HasPrefix(said, "HTTP/1.1 20") {
				t.Errorf("half a body was accepted: %.100s", said)
			}
		}
	})
	fill(t, url, 40, 200<<10)
	t.Run("reader", func(t *testing.T) {
		// The answer, 8 MB, is larger than all buffers on the way.
		var conns []net.Conn
		for range 20 {
			c := dial(t, url)
			c.(*net.TCPConn).SetReadBuffer(4096)
			fmt.Fprintf(c, "GET /api/v1/configmaps HTTP/1.1\r\nHost: x\r\nX-Test-User: slow\r\n\r\n")
			conns = append(conns, c)
		}
		others(t, url)
		await(t, "the server to give them up", func() bool {
			return metric(t, url, `apiserver_current_inflight_requests{request_kind="readOnly"}`) <= 1
		})
		_ = conns
	})
	t.Run("watcher", func(t *testing.T) {
		for range 20 {
			c := dial(t, url)
			c.(*net.TCPConn).SetReadBuffer(4096)
			fmt.Fprintf(c, "GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\nX-Test-User: slow\r\n\r\n")
		}
		others(t, url)
		await(t, "the server to give them up", func() bool {
			return metric(t, url, `apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="WATCH",version="v1"}`) == 0
		})
	})
}

// fill stores n config maps of size bytes.
func fill(t testing.TB, url string, n, size int) {
	t.Helper()
	deadline := time.Now().Add(patient)
	for i := 0; i < n; i++ {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", url+"/api/v1/namespaces/default/configmaps", strings.NewReader(configJSON(fmt.Sprint("fill", i), strings.Repeat("x", size))))
		r.Header.Set("Content-Type", jsonType)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		switch busy := resp.StatusCode == 504 || resp.StatusCode == 408; {
		case resp.StatusCode == 201 || resp.StatusCode == 409: // a write that was given up may have happened
		case busy && time.Now().Before(deadline):
			i--
		default:
			t.Fatal(resp.Status)
		}
	}
}

// metric reads one value from /metrics, 0 when it is not there.
func metric(t testing.TB, url, name string) float64 {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			var v float64
			fmt.Sscan(rest, &v)
			return v
		}
	}
	return 0
}

// Connections that do nothing cost little memory and nobody else's time.
func TestIdleConnections(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	url := serve(t, apiserver.Config{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := heap()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dial(t, url)
		fmt.Fprintf(conns[i], "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	for _, c := range conns {
		if _, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil); err != nil {
			t.Fatal(err)
		}
	}
	took := others(t, url)
	each := int64(heap()-before) / int64(n)
	t.Logf("%d idle connections: %d bytes each, both ends; an answer took %v", n, each, took)
	if each > 64<<10 {
		t.Errorf("%d bytes per idle connection", each)
	}
}

// One client that floods is told to wait; the others do not notice.
func TestFlood(t *testing.T) {
	url := serve(t, apiserver.Config{Fairness: true, MaxReads: 20, MaxWrites: 10})
	fill(t, url, 20, 100<<10)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	tr := &http.Transport{MaxIdleConnsPerHost: 200}
	defer tr.CloseIdleConnections()
	flooder := &http.Client{Transport: tr}
	var served, refused atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Add(1)
		run.Detach(ctx, "flooder", func(ctx context.Context) {
			defer wg.Done()
			for ctx.Err() == nil {
				r, _ := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/configmaps", nil)
				r.Header.Set("X-Test-User", "flooder")
				resp, err := flooder.Do(r)
				if err != nil {
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode == 429 {
					refused.Add(1)
				} else {
					served.Add(1)
				}
			}
		})
	}
	worst, n := time.Duration(0), 0
	for ; n < 5 || ctx.Err() == nil && n < 50; n++ {
		worst = max(worst, others(t, url))
	}
	cancel()
	wg.Wait()
	t.Logf("flooder: %d served, %d refused; others: %d, the slowest in %v", served.Load(), refused.Load(), n, worst)
	if worst > 30*time.Second {
		t.Errorf("the others were kept waiting %v", worst)
	}
}

// Requests that are bad in themselves are refused with a Status, quickly.
func TestMonsters(t *testing.T) {
	url := serve(t, apiserver.Config{})
	ask := func(path, media string, body io.Reader, head http.Header) (int, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), "POST", url+path, body)
		r.Header = head
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("Content-Type", media)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return resp.StatusCode, string(b)
	}
	maps := "/api/v1/namespaces/default/configmaps"
	for name, c := range map[string]struct {
		media string
		body  []byte
		code  int
	}{
		"deep list":     {jsonType, bytes.Repeat([]byte("["), 3<<20-1), 400},
		"deep object":   {jsonType, append([]byte(`{"kind":"ConfigMap","apiVersion":"v1","data":`), bytes.Repeat([]byte(`{"a":`), 100_000)...), 400},
		"alias bomb":    {"application/yaml", []byte(bomb()), 400},
		"huge number":   {jsonType, []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"n","generation":1` + strings.Repeat("0", 100_000) + `}}`), 400},
		"bad UTF-8":     {jsonType, []byte("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"\xff\xfe\"}}"), 422},
		"broken proto":  {"application/vnd.kubernetes.protobuf", []byte("k8s\x00\x0a\xff\xff\xff\xff\x7f"), 400},
		"endless proto": {"application/vnd.kubernetes.protobuf", append([]byte("k8s\x00"), bytes.Repeat([]byte{0x0a}, 1<<20)...), 400},
		"too large":     {jsonType, make([]byte, 3<<20+1), 413},
		"nothing":       {jsonType, nil, 400},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			code, said := ask(maps, c.media, bytes.NewReader(c.body), nil)
			var st struct{ Kind, Status string }
			if code != c.code || json.Unmarshal([]byte(said), &st) != nil || st.Kind != "Status" || st.Status != "Failure" {
				t.Errorf("%d %.200s", code, said)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	if code, _ := ask(maps, jsonType, nil, http.Header{"X-Huge": {strings.Repeat("x", 2<<20)}}); code != 431 {
		t.Errorf("a huge header: %d", code)
	}
	others(t, url)
}

// bomb is YAML that is small and means gigabytes.
func bomb() string {
	var b strings.Builder
	b.WriteString("kind: ConfigMap\napiVersion: v1\nmetadata: {name: b}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [", i, i)
		for k := range 9 {
			if k > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, "*a%d", i-1)
		}
		b.WriteString("]\n")
	}
	return b.String()
}

// A request whose time is over, a handler that panics and the pages about the
// server itself answer as upstream's.
func TestAnswersOfTheServerItself(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{Flags: map[string]string{"v": "2"}, Goaway: 0.01, StrictTransport: []string{"max-age=1", "includeSubDomains"}, CORS: []string{`^https://ok\.example$`}}).Handler()}
	get := func(path string, head http.Header) (int, string, http.Header) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x"+path, nil)
		for k, v := range head {
			r.Header[k] = v
		}
		w := recorder()
		c.h.ServeHTTP(w, r)
		return w.Code, w.Body.String(), w.Header()
	}
	code, body, h := get("/statusz", nil)
	if code != 200 || !strings.Contains(body, "kube-apiserver statusz") || !strings.Contains(body, "Go version: ") || h.Get("Strict-Transport-Security") != "max-age=1; includeSubDomains" {
		t.Errorf("/statusz: %d %s %v", code, body, h)
	}
	if _, body, _ = get("/statusz", http.Header{"Accept": {"application/json;as=Statusz;v=v1beta1;g=config.k8s.io"}}); !strings.Contains(body, `"apiVersion": "config.k8s.io/v1beta1"`) {
		t.Errorf("/statusz as JSON: %s", body)
	}
	if code, body, _ = get("/flagz", nil); code != 200 || !strings.Contains(body, "kube-apiserver flagz") || !strings.Contains(body, "\nv=2\n") {
		t.Errorf("/flagz: %d %s", code, body)
	}
	if code, _, _ = get("/flagz", http.Header{"Accept": {"application/json"}}); code != 406 {
		t.Errorf("/flagz without a kind: %d", code)
	}
	for _, path := range []string{"/livez?exclude=ping", "/readyz?verbose&exclude=etcd"} {
		if code, body, _ = get(path, nil); code == 404 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, _, h = get("/version", http.Header{"Origin": {"https://ok.example"}}); h.Get("Access-Control-Allow-Origin") != "https://ok.example" {
		t.Errorf("an allowed origin: %v", h)
	}
	if _, _, h = get("/version", http.Header{"Origin": {"https://evil.example"}}); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %v", h)
	}
}

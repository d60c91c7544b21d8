package apiserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/kit/run"
)

// quantile of what is sorted, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Microseconds()) / 1000
}

// drive does n operations by so many clients over HTTP and returns how long each
// took, sorted.
func drive(b *testing.B, url string, clients, n int, ask func(i int64) *http.Request, want int) []time.Duration {
	tr := &http.Transport{MaxIdleConnsPerHost: clients}
	defer tr.CloseIdleConnections()
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		run.Detach(b.Context(), "client", func(context.Context) {
			defer wg.Done()
			mine := make([]time.Duration, 0, n/clients+1)
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				began := time.Now()
				resp, err := tr.RoundTrip(ask(i))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if mine = append(mine, time.Since(began)); resp.StatusCode != want {
					b.Error(resp.Status)
					return
				}
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

// BenchmarkClients is create, update and get of a ConfigMap of 1 KiB by 1, 16 and
// 64 clients over HTTP on 127.0.0.1; the processor time is both sides'.
func BenchmarkClients(b *testing.B) {
	const ops = 3000
	url := serve(b, apiserver.Config{MaxReads: -1, MaxWrites: -1})
	value := strings.Repeat("x", 1024)
	ask := func(method, name, body string) *http.Request {
		path := url + base + "configmaps"
		if name != "" {
			path += "/" + name
		}
		r, _ := http.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", jsonType)
		r.Header.Set("X-Test-User", "client")
		return r
	}
	var made atomic.Int64
	for _, clients := range []int{1, 16, 64} {
		for _, verb := range []struct {
			name string
			want int
			ask  func(i int64) *http.Request
		}{
			{"create", 201, func(int64) *http.Request {
				return ask("POST", "", configJSON(fmt.Sprint("m", made.Add(1)), value))
			}},
			{"update", 200, func(i int64) *http.Request {
				name := fmt.Sprint("m", 1+i%1000)
				return ask("PUT", name, configJSON(name, fmt.Sprint(value, clients, i)))
			}},
			{"get", 200, func(i int64) *http.Request { return ask("GET", fmt.Sprint("m", 1+i%1000), "") }},
		} {
			b.Run(fmt.Sprint(verb.name, "/", clients), func(b *testing.B) {
				for b.Loop() {
					cpu, began := processorTime(), time.Now()
					took := drive(b, url, clients, ops, verb.ask, verb.want)
					seconds := time.Since(began).Seconds()
					figure(b, fmt.Sprint(verb.name, "/", clients), map[string]any{"clients": clients, "operations": ops, "per_s": ops / seconds,
						"p50_ms": quantile(took, 0.5), "p99_ms": quantile(took, 0.99), "cpu_ms_each": float64(processorTime()-cpu) / ops / 1e6})
				}
			})
		}
	}
}

// crowdEnv tells a second process of this test where to connect to.
const crowdEnv = "SAMPAN_TEST_CROWD"

// TestCrowd is that process: connections that ask once and then do nothing, until
// its standard input ends. It does nothing when it is not told where.
func TestCrowd(t *testing.T) {
	address, count, ok := strings.Cut(os.Getenv(crowdEnv), "|")
	if !ok {
		return
	}
	var n int
	fmt.Sscan(count, &n)
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	fmt.Println("crowded")
	io.Copy(io.Discard, os.Stdin)
}

// BenchmarkIdleConnections is what 10,000 connections that do nothing cost the
// server: memory each, processor time, and what others notice.
func BenchmarkIdleConnections(b *testing.B) {
	const n = 10_000
	url := serve(b, apiserver.Config{})
	memory := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	for b.Loop() {
		others(b, url)
		before := memory()
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestCrowd$")
		cmd.Env = append(os.Environ(), crowdEnv+"="+strings.TrimPrefix(url, "http://")+fmt.Sprint("|", n))
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		began := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "crowded" {
		}
		connected := time.Since(began)
		each := (memory() - before) / n
		cpu := processorTime()
		time.Sleep(3 * time.Second)
		idle := float64(processorTime()-cpu) / 3e9 * 100
		var took []time.Duration
		for range 200 {
			took = append(took, others(b, url))
		}
		slices.Sort(took)
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		figure(b, "idle connections", map[string]any{"connections": n, "connected_in_s": connected.Seconds(), "KiB_each": each / 1024,
			"idle_cpu_percent": idle, "others_p50_ms": quantile(took, 0.5), "others_p99_ms": quantile(took, 0.99)})
		bearable(b, "idle connections", quantile(took, 0.99), each*n/(1<<20))
	}
}

// bearable fails when others were kept waiting, or memory grew, beyond all that a
// busy computer explains.
func bearable(b *testing.B, name string, p99ms, MiB float64) {
	b.Helper()
	if p99ms > 5000 {
		b.Errorf("%s: others waited %v ms", name, p99ms)
	}
	if MiB > 1024 {
		b.Errorf("%s: %v MiB more", name, MiB)
	}
}

// weather measures what an innocent client notices, and the peak of memory, while
// bad is going on; bad returns what ends it.
func weather(b *testing.B, name, url string, bad func(ctx context.Context) map[string]any) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	runtime.GC()
	before, peak := heapMiB(), 0.0
	calm := sample(b, url, 200)
	done := make(chan map[string]any, 1)
	run.Detach(ctx, name, func(ctx context.Context) { done <- bad(ctx) })
	var took []time.Duration
	for {
		took = append(took, others(b, url))
		peak = max(peak, heapMiB())
		select {
		case said := <-done:
			slices.Sort(took)
			if said == nil {
				said = map[string]any{}
			}
			said["calm_p50_ms"], said["calm_p99_ms"] = quantile(calm, 0.5), quantile(calm, 0.99)
			said["others_p50_ms"], said["others_p99_ms"], said["others"] = quantile(took, 0.5), quantile(took, 0.99), len(took)
			said["peak_over_MiB"] = max(0, peak-before)
			figure(b, name, said)
			bearable(b, name, quantile(took, 0.99), peak-before)
			return
		default:
		}
	}
}

func sample(b *testing.B, url string, n int) []time.Duration {
	took := make([]time.Duration, 0, n)
	for range n {
		took = append(took, others(b, url))
	}
	slices.Sort(took)
	return took
}

// BenchmarkWeather is what an innocent client notices of watchers that never
// read, of heads and bodies that never end, and of a client that floods.
func BenchmarkWeather(b *testing.B) {
	url := serve(b, apiserver.Config{Fairness: true, MaxReads: 40, MaxWrites: 20, HeaderTimeout: 5 * time.Second, Timeout: 10 * time.Second, Stall: 3 * time.Second})
	fill(b, url, 40, 200<<10) // 8 MB: more than the buffers on the way hold
	hold := func(n int, say string) func() {
		conns := make([]net.Conn, n)
		for i := range conns {
			conns[i] = dial(b, url)
			conns[i].(*net.TCPConn).SetReadBuffer(4096)
			fmt.Fprint(conns[i], say)
		}
		return func() {
			for _, c := range conns {
				c.Close()
			}
		}
	}
	watch := `apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="WATCH",version="v1"}`
	for b.Loop() {
		weather(b, "100 watchers that never read", url, func(ctx context.Context) map[string]any {
			end := hold(100, "GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\nX-Test-User: slow\r\n\r\n")
			defer end()
			began := time.Now()
			await(b, "watchers", func() bool { return metric(b, url, watch) > 0 })
			await(b, "the server to give them up", func() bool { return metric(b, url, watch) == 0 })
			return map[string]any{"given_up_after_s": time.Since(began).Seconds()}
		})
		weather(b, "500 heads that never end", url, func(ctx context.Context) map[string]any {
			defer hold(500, "GET /api HTTP/1.1\r\nHost: x\r\nX-Slow: ")()
			pause(ctx, 6*time.Second)
			return nil
		})
		weather(b, "500 bodies that never end", url, func(ctx context.Context) map[string]any {
			defer hold(500, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nX-Test-User: slow\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")()
			pause(ctx, 11*time.Second)
			return nil
		})
		for _, conns := range []int{50, 100} {
			weather(b, fmt.Sprintf("a flood of lists by %d connections of one client", conns), url, func(ctx context.Context) map[string]any {
				return flood(ctx, url, conns, 5*time.Second)
			})
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// floodEnv tells a second process of this test whom to flood: URL|connections|seconds.
const floodEnv = "SAMPAN_TEST_FLOOD"

// TestFlooder is that process: it lists as fast as so many connections can, and
// says how often it was served and refused. It does nothing when it is not told whom.
func TestFlooder(t *testing.T) {
	url, rest, ok := strings.Cut(os.Getenv(floodEnv), "|")
	if !ok {
		return
	}
	var conns, seconds int
	fmt.Sscanf(rest, "%d|%d", &conns, &seconds)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	tr := &http.Transport{MaxIdleConnsPerHost: conns, DisableCompression: true}
	defer tr.CloseIdleConnections()
	var served, refused, untold atomic.Int64
	var wg sync.WaitGroup
	for range conns {
		wg.Add(1)
		run.Detach(ctx, "flooder", func(ctx context.Context) {
			defer wg.Done()
			for ctx.Err() == nil {
				r, _ := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/configmaps", nil)
				r.Header.Set("X-Test-User", "flooder")
				resp, err := tr.RoundTrip(r)
				if err != nil {
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				switch {
				case resp.StatusCode != 429:
					served.Add(1)
				case resp.Header.Get("Retry-After") == "":
					untold.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("flooded %d %d %d\n", served.Load(), refused.Load(), untold.Load())
}

// flood has another process list as fast as so many connections can: its own work
// is not to be taken for the server's.
func flood(ctx context.Context, url string, conns int, d time.Duration) map[string]any {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFlooder$")
	cmd.Env = append(os.Environ(), fmt.Sprint(floodEnv, "=", url, "|", conns, "|", int(d.Seconds())))
	out, _ := cmd.Output()
	var served, refused, untold int
	if _, said, ok := strings.Cut(string(out), "flooded "); ok {
		fmt.Sscan(said, &served, &refused, &untold)
	}
	return map[string]any{"flooder_served": served, "flooder_refused": refused, "refused_without_retry_after": untold}
}

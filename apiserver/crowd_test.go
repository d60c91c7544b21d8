package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/kit/run"
)

// figure writes one figure as a JSON line.
func figure(b *testing.B, name string, values map[string]any) {
	values["bench"] = name
	json.NewEncoder(os.Stdout).Encode(values)
	for k, v := range values {
		if f, ok := v.(float64); ok {
			b.ReportMetric(f, k)
		}
	}
}

func heapMiB() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse) / (1 << 20)
}

// BenchmarkFiftyLists is what fifty clients that list 10,000 pods at once cost
// in memory.
func BenchmarkFiftyLists(b *testing.B) {
	h := newServer(b, apiserver.Config{MaxReads: -1, MaxWrites: -1}).Handler()
	c := client{b, h}
	for i := range 10000 {
		if code, doc, _ := c.do("POST", base+"pods", jsonType, richPod(fmt.Sprint("p", i))); code != 201 {
			b.Fatal(doc)
		}
	}
	for _, f := range []struct{ name, accept string }{
		{"json", "application/json"}, {"protobuf", "application/vnd.kubernetes.protobuf"}, {"table", "application/json;as=Table;v=v1;g=meta.k8s.io"},
	} {
		b.Run(f.name, func(b *testing.B) {
			ask := func() int64 {
				r := request("GET", "/api/v1/pods", "")
				r.Header.Set("Accept", f.accept)
				s := &sink{h: http.Header{}}
				h.ServeHTTP(s, r)
				return s.n
			}
			size := ask() // the forms of the objects are made once
			for b.Loop() {
				runtime.GC()
				before, peak := heapMiB(), 0.0
				began := time.Now()
				var wg sync.WaitGroup
				for range 50 {
					wg.Add(1)
					run.Detach(b.Context(), "list", func(context.Context) { defer wg.Done(); ask() })
				}
				done := make(chan struct{})
				run.Detach(b.Context(), "wait", func(context.Context) { wg.Wait(); close(done) })
				for running := true; running; {
					select {
					case <-done:
						running = false
					case <-time.After(5 * time.Millisecond):
						peak = max(peak, heapMiB())
					}
				}
				figure(b, "lists/"+f.name, map[string]any{"clients": 50, "pods": 10000, "bytes_each": size,
					"seconds": time.Since(began).Seconds(), "peak_over_MiB": max(0, peak-before)})
				bearable(b, "50 lists as "+f.name, 0, peak-before)
			}
		})
	}
}

// BenchmarkWatchers is how many events arrive a second, and how late, when so
// many watch updates of one object, over HTTP, made one after the other without a pause or a
// hundred a second; the processor time is both sides'.
func BenchmarkWatchers(b *testing.B) {
	for _, c := range []struct {
		n, updates int
		pause      time.Duration
	}{{1, 1000, 0}, {100, 1000, 0}, {500, 500, 0}, {1000, 1000, 0}, {500, 500, 10 * time.Millisecond}} {
		n, updates, pause := c.n, c.updates, c.pause
		b.Run(fmt.Sprint(n, "/", pause), func(b *testing.B) {
			s := newServer(b, apiserver.Config{MaxReads: -1, MaxWrites: -1})
			srv := httptest.NewServer(s.Handler())
			defer srv.Close()
			c := client{b, s.Handler()}
			c.do("POST", base+"configmaps", jsonType, configJSON("c", "v"))
			for b.Loop() {
				watchAll(b, srv.URL, c, n, updates, pause)
			}
		})
	}
}

func watchAll(b *testing.B, url string, c client, n, updates int, every time.Duration) {
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	_, doc, _ := c.do("GET", base+"configmaps/c", "", "")
	version := at(doc, "metadata.resourceVersion")
	start := time.Now()
	sent := make([]atomic.Int64, updates) // since start
	var mu sync.Mutex                     // of late
	var late []time.Duration
	var ready, done sync.WaitGroup
	for range n {
		ready.Add(1)
		done.Add(1)
		run.Detach(ctx, "watcher", func(ctx context.Context) {
			defer done.Done()
			r, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s%sconfigmaps?watch=1&resourceVersion=%v", url, base, version), nil)
			resp, err := tr.RoundTrip(r)
			ready.Done()
			if err != nil {
				b.Error(err)
				return
			}
			defer resp.Body.Close()
			mine := make([]time.Duration, 0, updates)
			for lines := bufio.NewReader(resp.Body); len(mine) < updates; {
				line, err := lines.ReadString('\n')
				if err != nil {
					b.Error(err)
					return
				}
				_, rest, ok := strings.Cut(line, `"k":"n`)
				if !ok {
					continue
				}
				number, _, _ := strings.Cut(rest, " ")
				k, err := strconv.Atoi(number)
				if err != nil {
					b.Error(line)
					return
				}
				mine = append(mine, time.Since(start)-time.Duration(sent[k].Load()))
			}
			mu.Lock()
			late = append(late, mine...)
			mu.Unlock()
		})
	}
	ready.Wait()
	cpu, began := processorTime(), time.Now()
	for k := range updates {
		sent[k].Store(int64(time.Since(start)))
		if code, doc, _ := c.do("PUT", base+"configmaps/c", jsonType, configJSON("c", fmt.Sprintf("n%d ", k))); code != 200 {
			b.Fatal(doc)
		}
		if every > 0 {
			time.Sleep(every)
		}
	}
	done.Wait()
	took := time.Since(began)
	slices.Sort(late)
	if len(late) > 0 {
		figure(b, fmt.Sprintf("watchers/%d", n), map[string]any{"updates": updates, "pause_ms": every.Milliseconds(), "delivered_per_s": float64(len(late)) / took.Seconds(),
			"cpu_s": time.Duration(processorTime() - cpu).Seconds(), "p50_ms": quantile(late, 0.5), "p99_ms": float64(late[len(late)*99/100].Microseconds()) / 1000, "seconds": took.Seconds()})
	}
}

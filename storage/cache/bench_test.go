package cache_test

import (
	"fmt"
	"testing"

	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/mem"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

// stores are what is measured, made once per benchmark.
var stores = []struct {
	name string
	mk   func(b *testing.B) storage.Store
}{
	{"mem", func(*testing.B) storage.Store { return mem.New() }},
	{"etcd", func(b *testing.B) storage.Store { return member(b) }},
	{"cache over etcd", func(b *testing.B) storage.Store {
		return start(b, member(b), cache.Config{}, storagetest.Prefix)
	}},
}

func BenchmarkList10000(b *testing.B) {
	for _, st := range stores {
		b.Run(st.name, func(b *testing.B) {
			s := st.mk(b)
			if err := storagetest.Fill(b.Context(), s, 10_000, 1900); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				p, err := s.List(b.Context(), storagetest.Prefix, storage.ListOptions{})
				if err != nil || len(p.Records) != 10_000 {
					b.Fatal(len(p.Records), err)
				}
			}
		})
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, st := range stores {
		for _, n := range []int{1, 100, 1000} {
			if st.name == "etcd" && n > 100 {
				continue // the API server never does this
			}
			b.Run(fmt.Sprintf("%s/watchers=%d", st.name, n), func(b *testing.B) {
				s := st.mk(b)
				var f storagetest.Fan
				for i := 0; b.Loop(); i++ {
					var err error
					if f, err = storagetest.FanOut(b.Context(), s, n, 1000, fmt.Sprint(i)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(f.Delivered)/f.Took.Seconds(), "delivered/s")
				b.ReportMetric(float64(f.P99.Microseconds())/1000, "p99-ms")
			})
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	for _, st := range stores {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/create/callers=%d", st.name, callers), func(b *testing.B) {
				s := st.mk(b)
				b.ResetTimer()
				if err := storagetest.Creates(b.Context(), s, callers, b.N, "c"); err != nil {
					b.Fatal(err)
				}
			})
			b.Run(fmt.Sprintf("%s/update/callers=%d", st.name, callers), func(b *testing.B) {
				s := st.mk(b)
				b.ResetTimer()
				if err := storagetest.Updates(b.Context(), s, callers, b.N, "u"); err != nil {
					b.Fatal(err)
				}
			})
			b.Run(fmt.Sprintf("%s/get/callers=%d", st.name, callers), func(b *testing.B) {
				s := st.mk(b)
				if err := storagetest.Fill(b.Context(), s, 1000, 1024); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
				if err := storagetest.Gets(b.Context(), s, callers, b.N, 1000); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

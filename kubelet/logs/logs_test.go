package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func entry(sec int, stream, tag, text string) string {
	return fmt.Sprintf("2026-01-01T00:00:%02d.000000001Z %s %s %s\n", sec, stream, tag, text)
}

func ptr[T any](v T) *T { return &v }

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	text := entry(1, "stdout", "F", "one") + entry(2, "stderr", "F", "two") + entry(3, "stdout", "P", "thr") + entry(4, "stdout", "F", "ee")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 2, 0, time.UTC))
	for _, tt := range []struct {
		name     string
		o        corev1.PodLogOptions
		out, err string
	}{
		{"all", corev1.PodLogOptions{}, "one\nthree\n", "two\n"},
		{"tail", corev1.PodLogOptions{TailLines: ptr(int64(2))}, "three\n", ""},
		{"tail of nothing", corev1.PodLogOptions{TailLines: ptr(int64(0))}, "", ""},
		{"a long tail", corev1.PodLogOptions{TailLines: ptr(int64(99))}, "one\nthree\n", "two\n"},
		{"since", corev1.PodLogOptions{SinceTime: &at}, "three\n", "two\n"},
		{"limit", corev1.PodLogOptions{LimitBytes: ptr(int64(6))}, "one\n", "tw"},
		{"times", corev1.PodLogOptions{Timestamps: true, TailLines: ptr(int64(1))}, "2026-01-01T00:00:04.000000001Z ee\n", ""},
		{"one stream", corev1.PodLogOptions{Stream: ptr("Stderr")}, "", "two\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if err := Read(t.Context(), path, &tt.o, nil, &out, &errs); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.out || errs.String() != tt.err {
				t.Errorf("got %q and %q, want %q and %q", out.String(), errs.String(), tt.out, tt.err)
			}
		})
	}
}

func TestAFollowerLosesNothingOverARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "0.log")
		add := func(p, text string) {
			f, err := os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
		add(path, entry(1, "stdout", "F", "a"))
		var out bytes.Buffer
		var alive atomic.Bool
		alive.Store(true)
		done := make(chan error)
		go func() {
			done <- Read(context.Background(), path, &corev1.PodLogOptions{Follow: true}, alive.Load, &out, &out)
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		add(path, entry(2, "stdout", "F", "b"))
		err := Rotate(path, 1, 5, func() error { add(path, entry(3, "stdout", "F", "c")); return nil })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		alive.Store(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if out.String() != "a\nb\nc\n" {
			t.Errorf("followed %q", out.String())
		}
	})
}

func TestRotationKeepsAFewFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "0.log")
		for range 8 {
			err := os.WriteFile(path, []byte(strings.Repeat("x", 100)), 0o600)
			if err == nil {
				err = Rotate(path, 50, 3, func() error { return os.WriteFile(path, nil, 0o600) })
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != 3 {
			t.Errorf("%d files, want the current one and two older: %v", len(all), all)
		}
		small := filepath.Join(dir, "small")
		if err := os.WriteFile(small, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Rotate(small, 50, 3, func() error { t.Error("a small log was rotated"); return nil }); err != nil {
			t.Error(err)
		}
	})
}

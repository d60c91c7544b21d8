package file

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollow: written anew, replaced, touched, and gone for a moment.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	at := time.Now()
	write := func(text string) {
		t.Helper()
		at = at.Add(time.Second)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		done := make(chan error)
		go func() {
			done <- Follow(ctx, path, []byte("one"), time.Second, func(b []byte) { told = append(told, string(b)) })
		}()
		for _, step := range []func(){
			func() {}, func() { write("two") }, func() { write("two") }, func() { os.Remove(path) }, func() { write("three") },
		} {
			step()
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(told) != 2 || told[0] != "two" || told[1] != "three" {
			t.Errorf("told %q", told)
		}
	})
}

package image

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestDirectoryBecomesALayer(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "usr/bin/tool")
	for _, err := range []error{
		os.MkdirAll(filepath.Dir(program), 0o755), os.Mkdir(filepath.Join(dir, "uploads"), 0o700),
		os.WriteFile(program, []byte("program"), 0o755), os.Chmod(program, 0o755|os.ModeSetuid|os.ModeSetgid),
		os.Symlink("usr/bin/tool", filepath.Join(dir, "tool")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	entries, err := DirEntries(dir)
	if err != nil {
		t.Fatal(err)
	}
	img, err := FromDeb(t.Context(), DebOptions{Names: []string{"tool:1"}, Over: entries, Config: Config{Entrypoint: []string{"/tool"}}})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v; want one", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h
	}
	if h := got["usr/bin/tool"]; h == nil || h.Mode != 0o6755 || h.Size != 7 {
		t.Errorf("program: %+v; want 7 bytes, mode 6755", h)
	}
	if h := got["tool"]; h == nil || h.Typeflag != tar.TypeSymlink || h.Linkname != "usr/bin/tool" {
		t.Errorf("link: %+v", h)
	}
	if h := got["uploads/"]; h == nil || h.Typeflag != tar.TypeDir || h.Mode != 0o700 {
		t.Errorf("empty directory: %+v", h)
	}
}

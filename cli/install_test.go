package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/embedded"
)

func TestInstallPutsEveryProgramInItsPlace(t *testing.T) {
	if !slices.Contains(embedded.Files(), embedded.Shim) {
		t.Skip("built without embedded programs: run make build")
	}
	bin, cni := filepath.Join(t.TempDir(), "bin"), filepath.Join(t.TempDir(), "cni")
	for range 2 { // the second time finds all of it there
		made, err := install("/usr/bin/sampan", bin, cni)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(programs) + len(plugins) + 3; len(made) != want {
			t.Errorf("%d paths, want %d: %q", len(made), want, made)
		}
	}
	for _, name := range plugins {
		if st, err := os.Stat(filepath.Join(cni, name)); err != nil || st.Mode().Perm()&0o111 == 0 {
			t.Errorf("the plugin %s: %v, %v", name, st, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(bin, "kubelet")); err != nil || to != "/usr/bin/sampan" {
		t.Errorf("kubelet is a link to %q, %v", to, err)
	}
	if st, err := os.Stat(filepath.Join(bin, "containerd-shim-runc-v2")); err != nil || st.Mode().Perm()&0o111 == 0 {
		t.Errorf("the shim: %v, %v", st, err)
	}
	if st, err := os.Stat(filepath.Join(cni, embedded.CNI)); err != nil || st.Mode().Perm()&0o111 == 0 {
		t.Errorf("the network plugin: %v, %v", st, err)
	}
}

func TestInstallLeavesOthersFilesAlone(t *testing.T) {
	dir := t.TempDir()
	stock := filepath.Join(dir, "kubectl")
	if err := os.WriteFile(stock, []byte("somebody's"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := install("/usr/bin/sampan", dir, dir)
	if err == nil || !strings.Contains(err.Error(), "kubectl is there and not a link of ours") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(stock); string(b) != "somebody's" {
		t.Error("the file was changed")
	}
	if err := errors.Join(os.Remove(stock), os.Symlink("/opt/other/thing", stock)); err != nil {
		t.Fatal(err)
	}
	if _, err := install("/usr/bin/sampan", dir, dir); err == nil || !strings.Contains(err.Error(), "is a link to /opt/other/thing") {
		t.Errorf("over a link: %v", err)
	}
}

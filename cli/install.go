package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
)

// programs are what the binary is under another name.
var programs = []string{"kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "etcd", "coredns", "containerd", "kubeadm", "flanneld"}

// plugins are what the network plugin is under another name. flannel is first and
// a file of its own: manifests put theirs over it.
var plugins = []string{"flannel", "bridge", "host-local", "loopback", "portmap"}

func installCommand() *cobra.Command {
	var bin, cni string
	cmd := &cobra.Command{
		Use: "install", Short: "Put the components where a hand-made cluster looks for them", Args: cobra.NoArgs,
		Long: `Put the components where a hand-made cluster looks for them: a link to this
binary under each component's own name, containerd's shim beside them, and the
network plugins among the other plugins: Sampan's own, and flannel, bridge,
host-local, loopback and portmap where nobody else's are there. "sampan up" and "sampan server" need
none of this.`,
		Example: "  sampan install\n  sampan install --bin-dir ~/bin --cni-bin-dir ~/cni",
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			made, err := install(self, bin, cni)
			for _, path := range made {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&bin, "bin-dir", "/usr/local/bin", "where programs go")
	cmd.Flags().StringVar(&cni, "cni-bin-dir", "/opt/cni/bin", "where network plugins go")
	return cmd
}

// install makes the links and files and returns their paths. What somebody else
// put there stays, and is an error.
func install(self, bin, cni string) (made []string, err error) {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	for _, name := range programs {
		path := filepath.Join(bin, name)
		if err := link(self, path); err != nil {
			return made, err
		}
		made = append(made, path)
	}
	for _, p := range []struct{ dir, name string }{{bin, embedded.Shim}, {cni, embedded.CNI}} {
		if err := embedded.Install(p.dir, p.name); err != nil {
			return made, err
		}
		made = append(made, filepath.Join(p.dir, p.name))
	}
	for i, name := range plugins {
		path := filepath.Join(cni, name)
		if others(path) {
			continue // they know the same configurations
		}
		if i == 0 {
			err = duplicate(filepath.Join(cni, embedded.CNI), path)
		} else {
			err = link(embedded.CNI, path)
		}
		if err != nil {
			return made, err
		}
		made = append(made, path)
	}
	shim := filepath.Join(bin, "containerd-shim-runc-v2")
	return append(made, shim), link(embedded.Shim, shim)
}

// others says whether somebody else put a plugin there.
func others(path string) bool {
	to, err := os.Readlink(path)
	if err == nil {
		return to != embedded.CNI
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	mine, err := os.ReadFile(mark(path))
	return err != nil || string(mine) != sum(text)
}

// mark names the file that says a copy beside it is ours as long as it has that sum.
func mark(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".sum")
}

func sum(text []byte) string { return fmt.Sprintf("%x\n", sha256.Sum256(text)) }

// duplicate copies a program; the copy is whole or absent.
func duplicate(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".tmp", text, 0o755); err != nil {
		return err
	}
	if err := os.Rename(to+".tmp", to); err != nil {
		return err
	}
	return os.WriteFile(mark(to), []byte(sum(text)), 0o644)
}

// link makes path a link to target, unless a file of somebody else's is there.
func link(target, path string) error {
	was, err := os.Readlink(path)
	switch {
	case err == nil && was == target:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is there and not a link of ours: move it away, or choose another directory", path)
	case err == nil && filepath.Base(was) != filepath.Base(target):
		return fmt.Errorf("%s is a link to %s: move it away, or choose another directory", path, was)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Symlink(target, path)
}

// system imports what every cluster's manifests call for.
func (o *imageOptions) system() *cobra.Command {
	return &cobra.Command{
		Use: "system", Short: "Import the images made of this binary: pause, coredns and the components", Args: cobra.NoArgs,
		Long: `Import the images made of this binary: pause, coredns and the components, under
the names that manifests call them by. Nodes made by "sampan up" and "sampan
server" have them; a containerd of your own needs --address.`,
		Example: "  sampan image system --address /run/containerd/containerd.sock",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.address == "" {
				return errors.New("--address: Required value: the socket of a containerd; the nodes of local clusters have these images")
			}
			return seedSystem(cmd.Context(), o.address)
		},
	}
}

func seedSystem(ctx context.Context, address string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sampan-programs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	imgs, err := image.System(self, dir, image.DefaultSystem())
	if err != nil {
		return fmt.Errorf("system images: %w", err)
	}
	s, err := store.Open(address)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Seed(ctx, imgs...)
}

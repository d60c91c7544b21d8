package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const registry = "registry.k8s.io/e2e-test-images/"

// file is one thing laid over an image's packages.
type file struct {
	path, from string      // its place, and the file of this computer it is a copy of …
	text       string      // … or its words
	link       string      // … or, for a link, its target
	dir        bool        // … or nothing, for a directory
	mode       fs.FileMode // 0644 or 0755 if not said
}

// recipe is one image of the suite.
type recipe struct {
	names      []string
	packages   []string // Debian's; one of sampan's own recipes if it is one word known to it
	files      []file
	entrypoint []string
	cmd        []string
}

// base is what the suite's images have in their shells and beyond.
var base = []string{
	"busybox-static", "bash", "coreutils", "sed", "grep", "findutils", "mawk", "libc-bin", "util-linux", "mount",
	"bind9-dnsutils", "curl", "netcat-openbsd", "iproute2", "iperf", "hostname", "ca-certificates",
}

// The suite asks for a user of the image who is in a group of the image.
const (
	agnhostUsers = `root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
user-defined-in-image:x:1000:1000:,,,:/home/user-defined-in-image:/bin/sh
`
	agnhostGroups = `root:x:0:
tty:x:5:
www-data:x:33:
nogroup:x:65534:
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
`
)

// recipes lists the images. source is where the suite's own images are described.
func (c *config) recipes(source string) []recipe {
	// A shell of busybox would run its own small nc and wget whatever is installed.
	shell := file{path: "/usr/bin/sh", link: "bash"}
	agnhost := []file{
		shell,
		{path: "/agnhost", from: c.program("agnhost"), mode: 0o755},
		{path: "/agnhost-2", link: "agnhost"},
		{path: "/uploads", dir: true},
		{path: "/coredns", from: c.program("coredns"), mode: 0o755},
		{path: "/localhost.crt", from: filepath.Join(source, "agnhost/porter/localhost.crt")},
		{path: "/localhost.key", from: filepath.Join(source, "agnhost/porter/localhost.key")},
		{path: "/etc/passwd", text: agnhostUsers},
		{path: "/etc/group", text: agnhostGroups},
		{path: "/usr/local/bin/iperf", link: "/usr/bin/iperf"},
		{path: "/usr/bin/nc", link: "nc.openbsd"},
	}
	with := func(files []file, more ...file) []file { return append(slices.Clone(files), more...) }
	release := func(name string) file {
		return file{path: "/etc/os-release", text: fmt.Sprintf("NAME=%q\nID=%s\nPRETTY_NAME=%q\n", name, strings.ToLower(strings.Fields(name)[0]), name)}
	}
	run := []string{"/agnhost"}
	return []recipe{
		{names: []string{registry + "agnhost:2.63.0"}, packages: base, files: with(agnhost, release("Alpine Linux")), entrypoint: run, cmd: []string{"pause"}},
		// An update from one to the other must be a change, so they differ in a file.
		{names: []string{registry + "agnhost:2.55"}, packages: base, files: with(agnhost, release("Alpine Linux"), file{path: "/VERSION", text: "2.55\n"}), entrypoint: run, cmd: []string{"pause"}},
		{names: []string{registry + "nautilus:1.8"}, packages: base, entrypoint: run, cmd: []string{"test-webserver"}, files: with(agnhost, release("Alpine Linux"),
			file{path: "/nautilus.jpg", from: filepath.Join(source, "nautilus/html/nautilus.jpg")}, file{path: "/data.json", from: filepath.Join(source, "nautilus/html/data.json")})},
		{names: []string{registry + "kitten:1.8"}, packages: base, entrypoint: run, cmd: []string{"test-webserver"}, files: with(agnhost, release("Alpine Linux"),
			file{path: "/kitten.jpg", from: filepath.Join(source, "kitten/html/kitten.jpg")}, file{path: "/data.json", from: filepath.Join(source, "kitten/html/data.json")})},
		{names: []string{registry + "busybox:1.37.0-1"}, packages: []string{"busybox-static"}, cmd: []string{"sh"}, files: []file{
			{path: "/usr/bin/sh", from: c.program("sh"), mode: 0o755}}},
		{names: []string{registry + "nginx:1.15-4"}, packages: []string{"nginx"}},
		{names: []string{registry + "glibc-dns-testing:2.0.0"}, packages: base, files: []file{shell, {path: "/coredns", from: c.program("coredns"), mode: 0o755}}, cmd: []string{"bash"}},
		{names: []string{registry + "nonewprivs:1.4"}, packages: base, files: []file{shell,
			{path: "/usr/local/bin/nnp", from: c.program("nnp"), mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid}}, cmd: []string{"nnp"}},
		{names: []string{registry + "sample-apiserver:1.29.2"}, files: []file{{path: "/sample-apiserver", from: c.program("sample-apiserver"), mode: 0o755}}, entrypoint: []string{"/sample-apiserver"}},
		{names: []string{"registry.k8s.io/etcd:3.6.8-0"}, packages: []string{"busybox-static"}, files: []file{{path: "/usr/local/bin/etcd", from: c.program("etcd"), mode: 0o755}}, cmd: []string{"etcd"}},
	}
}

// images makes what is missing or changed; the cluster's nodes import them when
// they start.
func (c *config) images(ctx context.Context) error {
	if err := c.build(ctx); err != nil {
		return err
	}
	agnhost, err := moduleDir(ctx, "k8s.io/kubernetes/test/images/agnhost")
	if err != nil {
		return err
	}
	for _, r := range c.recipes(filepath.Dir(agnhost)) {
		if err := c.image(ctx, r); err != nil {
			return fmt.Errorf("image %s: %w", r.names[0], err)
		}
	}
	return nil
}

func (c *config) image(ctx context.Context, r recipe) error {
	sum, err := r.sum()
	if err != nil {
		return err
	}
	stamp := filepath.Join(c.home, "stamps", strings.NewReplacer("/", "_", ":", "_").Replace(r.names[0]))
	if have, err := os.ReadFile(stamp); err == nil && string(have) == sum {
		return nil
	}
	root, err := os.MkdirTemp(c.home, "root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, f := range r.files {
		if err := f.lay(root); err != nil {
			return err
		}
	}
	args := []string{"image", "build", "--cluster", c.cluster, "--cache", filepath.Join(c.home, "cache")}
	flags := map[string][]string{"--from-deb": r.packages, "--cmd": r.cmd, "--entrypoint": r.entrypoint, "-t": r.names}
	for _, name := range []string{"--from-deb", "-t", "--entrypoint", "--cmd"} {
		if v := flags[name]; len(v) > 0 {
			args = append(args, name, strings.Join(v, ","))
		}
	}
	if slices.Contains(r.packages, "busybox-static") {
		args = append(args, "--applets", "/bin/busybox")
	}
	if len(r.files) > 0 {
		args = append(args, "--from-dir", root)
	}
	if err := step("image "+r.names[0], c.command(ctx, args...)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(stamp), 0o755); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(sum), 0o644)
}

// command is sampan with its own home and kubeconfig.
func (c *config) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.sampan, args...)
	cmd.Env = append(os.Environ(), "SAMPAN_HOME="+c.home, "KUBECONFIG="+filepath.Join(c.home, "kubeconfig"))
	return cmd
}

// sum names all that makes the image what it is.
func (r recipe) sum() (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode([]any{r.names, r.packages, r.entrypoint, r.cmd}); err != nil {
		return "", err
	}
	for _, f := range r.files {
		fmt.Fprintf(h, "%s %s %s %v %o\n", f.path, f.text, f.link, f.dir, f.mode)
		if f.from == "" {
			continue
		}
		in, err := os.Open(f.from)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, in)
		in.Close()
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// lay puts the file below root.
func (f file) lay(root string) error {
	at := filepath.Join(root, f.path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	switch {
	case f.dir:
		return os.Mkdir(at, 0o777)
	case f.link != "":
		return os.Symlink(f.link, at)
	}
	data := []byte(f.text)
	if f.from != "" {
		var err error
		if data, err = os.ReadFile(f.from); err != nil {
			return err
		}
	}
	mode := f.mode
	if mode == 0 {
		mode = 0o644
	}
	if err := os.WriteFile(at, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}

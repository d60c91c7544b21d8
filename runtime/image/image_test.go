package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"github.com/sampan-dev/sampan/embedded"
)

func sample(t *testing.T) []Entry {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, bytes.Repeat([]byte("x"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	return []Entry{
		{Path: "/usr/bin/program", Mode: 0o4755, Source: source},
		{Path: "/bin", Link: "usr/bin"},
		{Path: "/etc/passwd", Data: []byte("root")},
		{Path: "/a-hard-link", HardLink: "/usr/bin/program"},
		{Path: "/home/user", Dir: true, Mode: 0o700, UID: 1000, GID: 1001},
	}
}

func TestLayerHoldsWhatWasAskedInOrder(t *testing.T) {
	l, err := NewLayer(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
		if h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("%s carries the time %v and the user %q", h.Name, h.ModTime, h.Uname)
		}
		switch h.Name {
		case "usr/bin/program":
			data, err := io.ReadAll(tr)
			if err != nil || len(data) != 1000 || h.Mode != 0o4755 {
				t.Errorf("program: %d bytes, mode %o, %v", len(data), h.Mode, err)
			}
		case "home/user/":
			if h.Uid != 1000 || h.Gid != 1001 || h.Mode != 0o700 {
				t.Errorf("home: %+v", h)
			}
		}
	}
	want := []string{"bin", "etc/", "etc/passwd", "home/", "home/user/", "usr/", "usr/bin/", "usr/bin/program", "a-hard-link"}
	if !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
}

func TestSameInputSameDigest(t *testing.T) {
	entries := sample(t)
	backwards := slices.Clone(entries)
	slices.Reverse(backwards)
	if err := os.Chtimes(entries[0].Source, time.Unix(9, 0), time.Unix(9, 0)); err != nil {
		t.Fatal(err)
	}
	a, b := digest(t, entries), digest(t, backwards)
	if a != b {
		t.Errorf("two digests: %v and %v", a, b)
	}
	entries[0].Mode = 0o755
	if digest(t, entries) == a {
		t.Error("a changed mode did not change the digest")
	}
}

func digest(t *testing.T, entries []Entry) v1.Hash {
	t.Helper()
	l, err := NewLayer(entries)
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func made(t *testing.T, names ...string) Image {
	t.Helper()
	l, err := NewLayer(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	img, err := New(Config{Cmd: []string{"/usr/bin/program", names[0]}, Ports: []string{"80/tcp"}}, names, l)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func same(t *testing.T, got, want Image) {
	t.Helper()
	if !slices.Equal(got.Names, want.Names) {
		t.Errorf("names %q, want %q", got.Names, want.Names)
	}
	g, err := got.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	w, _ := want.ConfigName()
	if g != w {
		t.Errorf("configuration %v, want %v", g, w)
	}
	// Reading all of it checks every layer's digest.
	if n, err := io.Copy(io.Discard, mutate.Extract(got)); err != nil || n == 0 {
		t.Errorf("contents: %d bytes, %v", n, err)
	}
}

func TestArchiveRoundTrip(t *testing.T) {
	one, two := made(t, "nginx", "nginx:1.25"), made(t, "registry.k8s.io/pause:3.10.2")
	var plain bytes.Buffer
	if err := Write(&plain, one, two); err != nil {
		t.Fatal(err)
	}
	var zipped, zst bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	gz.Write(plain.Bytes())
	gz.Close()
	zw, _ := zstd.NewWriter(&zst)
	zw.Write(plain.Bytes())
	zw.Close()
	for what, data := range map[string][]byte{"plain": plain.Bytes(), "gzip": zipped.Bytes(), "zstd": zst.Bytes()} {
		file := filepath.Join(t.TempDir(), "images")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Open(file)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(a.Images) != 2 {
			t.Fatalf("%s: %d images", what, len(a.Images))
		}
		same(t, a.Images[0], one)
		same(t, a.Images[1], two)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	var again bytes.Buffer
	if err := Write(&again, one, two); err != nil || !bytes.Equal(again.Bytes(), plain.Bytes()) {
		t.Errorf("a second writing differs (%v)", err)
	}
}

func TestDockerArchiveIsRead(t *testing.T) {
	img := made(t, "docker.io/library/nginx:1.25")
	tag, err := name.NewTag("nginx:1.25")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(file, tag, img.Image); err != nil {
		t.Fatal(err)
	}
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(a.Images) != 1 {
		t.Fatalf("%d images", len(a.Images))
	}
	same(t, a.Images[0], img)
}

func TestBadArchivesAreRefused(t *testing.T) {
	for what, data := range map[string]string{"empty": "", "noise": strings.Repeat("no archive ", 200), "cut off": "\x1f\x8b\x08"} {
		file := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Open(file); err == nil {
			a.Close()
			t.Errorf("%s: was read", what)
		}
	}
}

func TestNormalize(t *testing.T) {
	got, err := Normalize("nginx", "nginx:1.25", "me/app", "registry.k8s.io/pause:3.10.2", "docker.io/library/busybox")
	want := []string{
		"docker.io/library/nginx:latest", "docker.io/library/nginx:1.25", "docker.io/me/app:latest",
		"registry.k8s.io/pause:3.10.2", "docker.io/library/busybox:latest",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Normalize("UPPER CASE"); err == nil {
		t.Error("a bad name was taken")
	}
}

func TestSystemImagesShareOneLayer(t *testing.T) {
	if len(embedded.Files()) == 0 {
		t.Skip("needs the embedded programs: run make build")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "sampan")
	if err := os.WriteFile(binary, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := System(binary, dir, DefaultSystem())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	layers := map[v1.Hash]bool{}
	for _, img := range all {
		names = append(names, img.Names...)
		ls, err := img.Layers()
		if err != nil || len(ls) == 0 {
			t.Fatalf("%v: %d layers, %v", img.Names, len(ls), err)
		}
		for _, l := range ls {
			h, _ := l.Digest()
			layers[h] = true
		}
	}
	for _, want := range []string{"registry.k8s.io/coredns/coredns:v1.15.0", "registry.k8s.io/kube-proxy:v1.37.2", "registry.k8s.io/pause:3.10.2",
		"ghcr.io/flannel-io/flannel:v0.28.0", "quay.io/coreos/flannel:v0.28.0", "ghcr.io/flannel-io/flannel-cni-plugin:v1.8.0-flannel1"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %q", want, names)
		}
	}
	if len(layers) != 5 {
		t.Errorf("%d different layers, want the binary's, CoreDNS's, pause's, that of the network plugins, and the root they stand on", len(layers))
	}
}

func TestParseURIs(t *testing.T) {
	const text = `'http://a.example/pool/z/zlib1g_1.2_amd64.deb' zlib1g_1%3a1.2_amd64.deb 86684 MD5Sum:ec42
'http://a.example/pool/b/bash_5_amd64.deb' bash_5_amd64.deb 12 
Reading package lists...
`
	if got, want := parseURIs(text), []string{"bash_5_amd64.deb", "zlib1g_1%3a1.2_amd64.deb"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestReadTarMergesUsrAndDropsDocumentation(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2, Uid: 7},
		{Name: "./lib64/ld.so", Typeflag: tar.TypeSymlink, Linkname: "/lib/x"},
		{Name: "./bin/hard", Typeflag: tar.TypeLink, Linkname: "./bin/sh"},
		{Name: "./usr/share/doc/x", Typeflag: tar.TypeReg},
		{Name: "./dev/null", Typeflag: tar.TypeChar},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "sh")
		}
	}
	w.Close()
	got, err := readTar(&b)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range got {
		paths = append(paths, e.Path)
	}
	if want := []string{"/usr/bin", "/usr/bin/sh", "/usr/lib64/ld.so", "/usr/bin/hard"}; !slices.Equal(paths, want) {
		t.Fatalf("got %q, want %q", paths, want)
	}
	if got[1].UID != 7 || string(got[1].Data) != "sh" || got[3].HardLink != "/usr/bin/sh" {
		t.Errorf("got %+v", got)
	}
}

func TestRecipe(t *testing.T) {
	o, err := Recipe("nginx", "nginx:1.25")
	if err != nil || !slices.Equal(o.Names, []string{"docker.io/library/nginx:latest", "docker.io/library/nginx:1.25"}) {
		t.Errorf("got %q, %v", o.Names, err)
	}
	for _, names := range [][]string{{"redis"}, {"nginx", "busybox"}, {}} {
		if _, err := Recipe(names...); err == nil {
			t.Errorf("%q: a recipe was found", names)
		}
	}
}

func TestBusyboxFromPackages(t *testing.T) {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: the image is made of Debian's packages", tool)
		}
	}
	o, err := Recipe("busybox")
	if err != nil {
		t.Fatal(err)
	}
	o.Cache = t.TempDir()
	img, err := FromDeb(t.Context(), o)
	if err != nil {
		if strings.Contains(err.Error(), "apt-get") {
			t.Skipf("needs Debian's package archive: %v", err)
		}
		t.Fatal(err)
	}
	files := map[string]string{}
	r := mutate.Extract(img)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = h.Linkname
	}
	for _, want := range []string{"usr/bin/busybox", "usr/bin/sh", "usr/bin/wget", "bin", "etc/passwd", "tmp"} {
		if _, ok := files[want]; !ok {
			t.Errorf("no %s", want)
		}
	}
	if files["usr/bin/sh"] != "busybox" || files["bin"] != "usr/bin" {
		t.Errorf("sh -> %q, bin -> %q", files["usr/bin/sh"], files["bin"])
	}
	// The second time nothing is fetched: the cache has the layer.
	t.Setenv("PATH", t.TempDir())
	again, err := FromDeb(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	same(t, again, img)
}

func TestRegistryKeepsWhatItTook(t *testing.T) {
	dir := t.TempDir()
	img := made(t, "nginx:1.25")
	serve := func() (string, func()) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ServeOn(ctx, l, dir) }()
		return l.Addr().String(), func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("registry: %v", err)
			}
		}
	}
	addr, stop := serve()
	if err := Push(t.Context(), addr, img); err != nil {
		t.Fatal(err)
	}
	stop()
	addr, stop = serve()
	defer stop()
	ref, err := name.ParseReference(addr+"/library/nginx:1.25", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	same(t, Image{Names: img.Names, Image: got}, img)
}

func TestRegistryServesOnlyThisComputer(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ServeOn(t.Context(), l, t.TempDir()); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
}

func TestWriteMirrors(t *testing.T) {
	dir := t.TempDir()
	if err := WriteMirrors(dir, "docker.io", "http://127.0.0.1:5000"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "docker.io", "hosts.toml"))
	want := "server = \"https://registry-1.docker.io\"\n\n[host.\"http://127.0.0.1:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	if err := WriteMirrors(dir, "docker.io", "not an address"); err == nil {
		t.Error("a bad endpoint was written")
	}
}

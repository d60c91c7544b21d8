package image

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sampan-dev/sampan/embedded"
)

// SystemOptions say which versions the system images claim to be.
type SystemOptions struct {
	Kubernetes string // v1.37.2
	CoreDNS    string // v1.15.0
	Etcd       string // 3.7.3-0
	Pause      string // the pause image's whole name
	Flannel    string // v0.28.0
	FlannelCNI string // v1.8.0-flannel1
}

// DefaultSystem are the versions that this release's manifests call for.
func DefaultSystem() SystemOptions {
	return SystemOptions{
		Kubernetes: "v1.37.2", CoreDNS: "v1.15.0", Etcd: "3.7.3-0", Pause: "registry.k8s.io/pause:3.10.2",
		Flannel: "v0.28.0", FlannelCNI: "v1.8.0-flannel1",
	}
}

// component is one program inside the binary that manifests run as an image.
type component struct {
	path string
	name func(SystemOptions) string
}

func kubernetes(program string) component {
	return component{
		path: "/usr/local/bin/" + program,
		name: func(o SystemOptions) string { return "registry.k8s.io/" + program + ":" + o.Kubernetes },
	}
}

// components is the list of the system images that are the binary. They share
// one layer.
func components() []component {
	return []component{
		kubernetes("kube-apiserver"), kubernetes("kube-controller-manager"), kubernetes("kube-scheduler"), kubernetes("kube-proxy"),
		{path: "/usr/local/bin/etcd", name: func(o SystemOptions) string { return "registry.k8s.io/etcd:" + o.Etcd }},
	}
}

// Part is some of the system images, made together.
type Part struct {
	Name string
	Make func() ([]Image, error)
}

// Parts returns the system images in the order in which a node that starts
// needs them: what every pod has, the name server, then the programs that only
// clusters made of manifests run, whose one layer is the whole binary.
// CoreDNS and the plugin are read from dir, where they are put.
func Parts(path, dir string, o SystemOptions) []Part {
	return []Part{
		{"pause", func() ([]Image, error) { return one(Pause(o.Pause)) }},
		{"coredns", func() ([]Image, error) { return one(coreDNS(dir, "registry.k8s.io/coredns/coredns:"+o.CoreDNS)) }},
		{"programs", func() ([]Image, error) { return programs(path, dir, o) }},
	}
}

func one(img Image, err error) ([]Image, error) { return []Image{img}, err }

// System returns every image that a cluster's own manifests call for, made of
// the binary at path and the programs that it carries, so that a node without
// a registry wants for nothing.
func System(path, dir string, o SystemOptions) ([]Image, error) {
	var all []Image
	for _, p := range Parts(path, dir, o) {
		imgs, err := p.Make()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		all = append(all, imgs...)
	}
	return all, nil
}

func programs(path, dir string, o SystemOptions) ([]Image, error) {
	layer, err := binaryLayer(path)
	if err != nil {
		return nil, err
	}
	var all []Image
	for _, c := range components() {
		img, err := New(Config{Cmd: []string{c.path}, WorkingDir: "/"}, []string{c.name(o)}, layer)
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	overlay, err := flannel(layer, dir, o)
	return append(all, overlay...), err
}

// flannel returns the images that flannel's manifests call for, of any age: the
// program, and the plugin that they put in place with cp.
func flannel(binary v1.Layer, dir string, o SystemOptions) ([]Image, error) {
	if err := embedded.Install(dir, embedded.CNI); err != nil {
		return nil, err
	}
	plugins, err := NewLayer([]Entry{
		{Path: "/usr/bin/cp", Mode: 0o755, Source: filepath.Join(dir, embedded.CNI)}, {Path: "/flannel", Mode: 0o755, HardLink: "/usr/bin/cp"},
	})
	if err != nil {
		return nil, err
	}
	root, err := NewLayer(minimalRoot())
	if err != nil {
		return nil, err
	}
	names := func(tag string, repos ...string) (out []string) {
		for _, r := range repos {
			out = append(out, r+":"+tag)
		}
		return out
	}
	program, err := New(Config{Entrypoint: []string{"/opt/bin/flanneld"}, WorkingDir: "/"},
		names(o.Flannel, "ghcr.io/flannel-io/flannel", "docker.io/flannel/flannel", "docker.io/rancher/mirrored-flannelcni-flannel", "quay.io/coreos/flannel"), binary, plugins)
	if err != nil {
		return nil, err
	}
	plugin, err := New(Config{WorkingDir: "/"},
		names(o.FlannelCNI, "ghcr.io/flannel-io/flannel-cni-plugin", "docker.io/flannel/flannel-cni-plugin", "docker.io/rancher/mirrored-flannelcni-flannel-cni-plugin"), root, plugins)
	return []Image{program, plugin}, err
}

// coreDNS returns the image of the cluster's name server.
func coreDNS(dir string, names ...string) (Image, error) {
	if err := embedded.Install(dir, embedded.CoreDNS); err != nil {
		return Image{}, err
	}
	program := Entry{Path: "/coredns", Mode: 0o755, Source: filepath.Join(dir, embedded.CoreDNS)}
	layer, err := NewLayer(append(minimalRoot(), program))
	if err != nil {
		return Image{}, err
	}
	return New(Config{Entrypoint: []string{"/coredns"}, User: "65532:65532", WorkingDir: "/"}, names, layer)
}

// FromBinary returns an image whose only program is the binary at path.
func FromBinary(path string, names ...string) (Image, error) {
	layer, err := binaryLayer(path)
	if err != nil {
		return Image{}, err
	}
	return New(Config{Entrypoint: []string{"/sampan"}, WorkingDir: "/"}, names, layer)
}

// binaryLayer holds the binary, links by the names it answers to, and the few
// files that a program without a distribution around it still looks for.
func binaryLayer(path string) (v1.Layer, error) {
	entries := append(minimalRoot(), Entry{Path: "/sampan", Mode: 0o755, Source: path}, Entry{Path: "/kube-proxy", Link: "/sampan"}, Entry{Path: "/opt/bin/flanneld", Link: "/sampan"})
	for _, c := range components() {
		entries = append(entries, Entry{Path: c.path, Link: "/sampan"})
	}
	return NewLayer(entries)
}

// minimalRoot is what every root has.
func minimalRoot() []Entry {
	return []Entry{
		{Path: "/etc/passwd", Data: []byte(strings.Join([]string{
			"root:x:0:0:root:/root:/bin/sh", "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin", "bin:x:2:2:bin:/bin:/usr/sbin/nologin",
			"sys:x:3:3:sys:/dev:/usr/sbin/nologin", "mail:x:8:8:mail:/var/mail:/usr/sbin/nologin",
			"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin", "nonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin",
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin", "",
		}, "\n"))},
		{Path: "/etc/group", Data: []byte(strings.Join([]string{
			"root:x:0:", "daemon:x:1:", "bin:x:2:", "sys:x:3:", "adm:x:4:", "tty:x:5:", "mail:x:8:", "www-data:x:33:",
			"shadow:x:42:", "utmp:x:43:", "staff:x:50:", "users:x:100:", "nonroot:x:65532:", "nogroup:x:65534:", "",
		}, "\n"))},
		{Path: "/etc/nsswitch.conf", Data: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/run", Dir: true},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/var/tmp", Dir: true, Mode: 0o1777},
	}
}

// Pause returns the image whose one process holds a pod's namespaces.
func Pause(names ...string) (Image, error) {
	r, err := embedded.Open(embedded.Pause)
	if err != nil {
		return Image{}, err
	}
	defer r.Close()
	program, err := io.ReadAll(r)
	if err != nil {
		return Image{}, fmt.Errorf("pause image: %w", err)
	}
	layer, err := NewLayer([]Entry{{Path: "/pause", Mode: 0o755, Data: program}})
	if err != nil {
		return Image{}, err
	}
	return New(Config{Entrypoint: []string{"/pause"}, User: "65535:65535", WorkingDir: "/"}, names, layer)
}

// Package volume puts a pod's volumes where its containers find them.
//
// Job: directories, memory filesystems and projected files under
// /var/lib/kubelet/pods/UID, kept up to date, owned as fsGroup says; paths for
// hostPath and local volumes; safe sub paths; removal after the pod.
//
// Not its job: telling the runtime (kubelet), attaching disks.
//
// Invariants: projected content appears all at once, through one symbolic link;
// a sub path never leaves its volume; nothing below a mount of somebody else is
// removed.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Source reads what volumes are made of.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Claim returns the volume that a claim of pod is bound to.
	Claim(ctx context.Context, pod *corev1.Pod, name string) (*corev1.PersistentVolume, error)
	Token(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	// Field and Resource answer the downward API.
	Field(pod *corev1.Pod, path string) (string, error)
	Resource(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error)
}

// DriverVolume is a volume that a storage driver provides.
type DriverVolume struct {
	Pod                     *corev1.Pod
	Name                    string // the PersistentVolume's, or the pod's own
	Source                  *corev1.CSIPersistentVolumeSource
	Modes                   []corev1.PersistentVolumeAccessMode
	Options                 []string
	Block, ReadOnly, Inline bool
	Dir                     string // where the pod keeps it
}

// Drivers are the storage drivers of the node.
type Drivers interface {
	// Mount makes a volume be at path. own: its files shall be the pod's group's.
	Mount(ctx context.Context, v *DriverVolume) (path string, own bool, err error)
	Unmount(ctx context.Context, uid types.UID, dir string) error
	// Release is told that none of a pod's volumes is mounted, nor will be.
	Release(uid types.UID)
	Inline(pod *corev1.Pod, volume string) (handle string)
}

// Manager keeps the volumes of all pods. Make one with New.
type Manager struct {
	root    string // /var/lib/kubelet
	src     Source
	drivers Drivers

	mu      sync.Mutex
	tokens  map[string]token
	mounted map[string]string // paths of drivers' volumes, by directory
}

type token struct {
	value   string
	expires time.Time
	refresh time.Time
}

// New returns a manager of the volumes below root. drivers may be nil.
func New(root string, src Source, drivers Drivers) *Manager {
	return &Manager{root: root, src: src, drivers: drivers, tokens: map[string]token{}, mounted: map[string]string{}}
}

// PodDir is where all of a pod lies.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.root, "pods", string(uid)) }

func (m *Manager) dir(uid types.UID, plugin, name string) string {
	return filepath.Join(m.PodDir(uid), "volumes", "kubernetes.io~"+plugin, name)
}

// Volume is where a volume is found on the node.
type Volume struct {
	Path     string // "" for those that the runtime makes, such as images
	ReadOnly bool
	Block    bool // Path is a device, which containers get raw
}

// EmptyDir is where a pod's empty directory lies.
func (m *Manager) EmptyDir(uid types.UID, name string) string {
	return m.dir(uid, "empty-dir", name)
}

// Setup makes or renews all volumes of pod and returns them by name. It is cheap
// when nothing changed and is called at every sync.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) (map[string]Volume, error) {
	out := map[string]Volume{}
	if err := os.MkdirAll(m.PodDir(pod.UID), 0o750); err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		at, err := m.setup(ctx, pod, v)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		out[v.Name] = at
	}
	return out, nil
}

func (m *Manager) setup(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (at Volume, err error) {
	switch {
	case v.EmptyDir != nil:
		at.Path, err = m.emptyDir(pod, v)
	case v.HostPath != nil:
		at.Path, err = v.HostPath.Path, checkHostPath(v.HostPath)
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		at.Path, err = m.project(ctx, pod, v)
	case v.PersistentVolumeClaim != nil:
		return m.claim(ctx, pod, v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly)
	case v.Ephemeral != nil:
		return m.claim(ctx, pod, pod.Name+"-"+v.Name, false)
	case v.CSI != nil:
		return m.inline(ctx, pod, v)
	case v.Image != nil: // the runtime mounts it
	default:
		err = errors.New("no volume plugin matched")
	}
	return at, err
}

// claim finds a claim's volume; hostPath and local ones are known.
func (m *Manager) claim(ctx context.Context, pod *corev1.Pod, name string, readOnly bool) (Volume, error) {
	pv, err := m.src.Claim(ctx, pod, name)
	if err != nil {
		return Volume{}, err
	}
	at := Volume{ReadOnly: readOnly, Block: pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock}
	switch {
	case pv.Spec.HostPath != nil:
		at.Path, err = pv.Spec.HostPath.Path, checkHostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		at.Path, err = m.local(pod, pv, at)
	case pv.Spec.CSI != nil:
		at.ReadOnly = at.ReadOnly || pv.Spec.CSI.ReadOnly
		at.Path, err = m.driven(ctx, &DriverVolume{
			Pod: pod, Name: pv.Name, Source: pv.Spec.CSI, Modes: pv.Spec.AccessModes, Options: pv.Spec.MountOptions, Block: at.Block, ReadOnly: at.ReadOnly,
		})
	default:
		err = fmt.Errorf("no volume plugin matched for persistent volume %s", pv.Name)
	}
	return at, err
}

// local finds the directory or device of a local volume.
func (m *Manager) local(pod *corev1.Pod, pv *corev1.PersistentVolume, at Volume) (string, error) {
	path := pv.Spec.Local.Path
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("path %q does not exist", path)
	case at.Block && (info.Mode()&fs.ModeDevice == 0 || info.Mode()&fs.ModeCharDevice != 0):
		return "", fmt.Errorf("path %q is not a block device", path)
	case at.Block || at.ReadOnly:
		return path, nil
	case !info.IsDir():
		return "", fmt.Errorf("path %q is not a directory", path)
	}
	return path, own(path, pod, false)
}

func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) (string, error) {
	path := m.dir(pod.UID, "empty-dir", v.Name)
	marker := filepath.Join(m.PodDir(pod.UID), "plugins", "kubernetes.io~empty-dir", v.Name, "ready")
	if _, err := os.Stat(marker); err == nil {
		if v.EmptyDir.Medium != corev1.StorageMediumMemory || mounted(path) {
			return path, nil
		}
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return "", err
	}
	if v.EmptyDir.Medium == corev1.StorageMediumMemory && !mounted(path) {
		opts := ""
		if size := memorySize(pod, v.EmptyDir); size > 0 {
			opts = fmt.Sprintf("size=%d", size)
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, opts); err != nil {
			return "", fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return "", err
	}
	if err := own(path, pod, false); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(marker), 0o750); err != nil {
		return "", err
	}
	return path, os.WriteFile(marker, nil, 0o640)
}

// memorySize bounds an emptyDir in memory: by its own limit and by what the
// pod's containers may use together; 0 is no bound.
func memorySize(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) int64 {
	lim := semantics.Limits(pod)
	size := lim.Memory().Value()
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Resources.Limits.Memory().IsZero() && (pod.Spec.Resources == nil || pod.Spec.Resources.Limits.Memory().IsZero()) {
			size = 0 // one without a limit may use all
		}
	}
	if l := e.SizeLimit; l != nil && l.Value() > 0 && (size == 0 || l.Value() < size) {
		size = l.Value()
	}
	return size
}

// mounted says whether path is the root of a mount.
func mounted(path string) bool {
	var st, up unix.Stat_t
	return unix.Lstat(path, &st) == nil && unix.Lstat(filepath.Dir(path), &up) == nil && st.Dev != up.Dev
}

// own gives a volume to the pod's group: fsGroup may read and write it, and new
// files belong to it.
func own(path string, pod *corev1.Pod, readOnly bool) error {
	s := pod.Spec.SecurityContext
	if s == nil || s.FSGroup == nil {
		return nil
	}
	gid := int(*s.FSGroup)
	if s.FSGroupChangePolicy != nil && *s.FSGroupChangePolicy == corev1.FSGroupChangeOnRootMismatch && owned(path, gid, readOnly) {
		return nil
	}
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(p, -1, gid); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		more := fs.FileMode(0o660)
		if readOnly {
			more = 0o440
		}
		if d.IsDir() {
			more |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(p, info.Mode()|more)
	})
}

// owned says whether the root of a volume is as own would make it.
func owned(path string, gid int, readOnly bool) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || int(st.Gid) != gid {
		return false
	}
	want := uint32(0o770 | unix.S_ISGID)
	if readOnly {
		want = 0o550 | unix.S_ISGID
	}
	return st.Mode&want == want
}

// checkHostPath sees that a host path is what its type says, or makes it so.
func checkHostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	info, err := os.Stat(h.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	bad := func(what string) error { return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, what) }
	want := func(what string, ok func() bool) error {
		if missing || !ok() {
			return bad(what)
		}
		return nil
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil // the runtime makes it if it is missing
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(h.Path, 0o755)
		}
		return want("directory", func() bool { return info.IsDir() })
	case corev1.HostPathDirectory:
		return want("directory", func() bool { return info.IsDir() })
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return fmt.Errorf("hostPath type check failed: %w", err)
			}
			return f.Close()
		}
		return want("file", func() bool { return info.Mode().IsRegular() })
	case corev1.HostPathFile:
		return want("file", func() bool { return info.Mode().IsRegular() })
	case corev1.HostPathSocket:
		return want("socket file", func() bool { return info.Mode()&fs.ModeSocket != 0 })
	case corev1.HostPathCharDev:
		return want("character device", func() bool { return info.Mode()&fs.ModeCharDevice != 0 })
	case corev1.HostPathBlockDev:
		return want("block device", func() bool { return info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0 })
	}
	return fmt.Errorf("%s is an invalid volume type", kind)
}

// Teardown removes all that a pod left, mounts first.
func (m *Manager) Teardown(uid types.UID) error {
	dir := m.PodDir(uid)
	if err := m.undrive(uid); err != nil {
		return fmt.Errorf("teardown: pod %s: %w", uid, err)
	}
	if err := unmountBelow(dir); err != nil {
		return fmt.Errorf("teardown: pod %s: %w", uid, err)
	}
	m.mu.Lock()
	for k := range m.tokens {
		if strings.HasPrefix(k, string(uid)+"/") {
			delete(m.tokens, k)
		}
	}
	m.mu.Unlock()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("teardown: pod %s: %w", uid, err)
	}
	return nil
}

// unmountBelow takes away every mount under dir, the deepest first, and fails
// when one stays: what is behind it must not be removed with the directory.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 {
			p := unescape(f[4])
			if strings.HasPrefix(p, dir+"/") {
				points = append(points, p)
			}
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Orphans returns the pods that have a directory here.
func (m *Manager) Orphans() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.root, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []types.UID
	for _, e := range entries {
		out = append(out, types.UID(e.Name()))
	}
	return out, err
}

package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// SubPath makes the part sub of a volume visible at a path of its own, which
// stays the same file or directory whatever links the pod plants in the volume.
func (m *Manager) SubPath(pod *corev1.Pod, volume, path, container string, index int, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q must be a relative path that does not contain '..'", sub)
	}
	fd, err := openBeneath(path, sub, pod)
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", volume, container, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(m.PodDir(pod.UID), "volume-subpaths", volume, container, strconv.Itoa(index))
	if bound(target, fd) {
		return target, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", err
	}
	if mounted(target) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("subPath: %w", err)
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.MkdirAll(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	// The descriptor, not the name, is what is bound: nobody can exchange it meanwhile.
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("subPath: bind: %w", err)
	}
	return target, nil
}

// bound says whether target already shows what fd is.
func bound(target string, fd int) bool {
	var a, b unix.Stat_t
	return unix.Stat(target, &a) == nil && unix.Fstat(fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// openBeneath opens sub below root, made as a directory if it is missing. No
// link leads out of root.
func openBeneath(root, sub string, pod *corev1.Pod) (int, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(base)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(base, filepath.Clean(sub), how)
	if err == nil {
		return fd, nil
	}
	if errors.Is(err, unix.EXDEV) {
		return -1, fmt.Errorf("subpath %q escapes its volume", sub)
	}
	if !errors.Is(err, unix.ENOENT) {
		return -1, err
	}
	if parent := filepath.Dir(filepath.Clean(sub)); parent != "." {
		pfd, err := openBeneath(root, parent, pod)
		if err != nil {
			return -1, err
		}
		defer unix.Close(pfd)
		return makeIn(pfd, filepath.Base(sub), pod)
	}
	return makeIn(base, filepath.Clean(sub), pod)
}

func makeIn(dir int, name string, pod *corev1.Pod) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	mode := os.FileMode(0o777)
	if s := pod.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		if err := os.Chown(path, -1, int(*s.FSGroup)); err != nil {
			return -1, err
		}
		mode |= os.ModeSetgid
	}
	if err := os.Chmod(path, mode); err != nil {
		return -1, err
	}
	return fd, nil
}

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` looks, so that a curious user can too.
const netnsDir = "/run/netns"

func netnsPath(name string) string { return filepath.Join(netnsDir, name) }

// inNetNS calls fn on a thread that is inside the named network namespace.
// Sockets made by fn stay there; goroutines started by it do not run there.
func inNetNS(name string, fn func() error) error {
	target, err := os.Open(netnsPath(name))
	if err != nil {
		return err
	}
	defer target.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return fn()
	})
}

// onOwnThread calls fn on a locked thread and puts the thread back into its
// network namespace afterwards.
func onOwnThread(fn func() error) (err error) {
	goruntime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		goruntime.UnlockOSThread()
		return err
	}
	defer home.Close()
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked and so ends with its goroutine: no other
			// may ever run in the wrong network.
			err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		goruntime.UnlockOSThread()
	}()
	return fn()
}

// createNetNS makes a named network namespace that lives without a process.
func createNetNS(name string) error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	path := netnsPath(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	f.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return nil
}

// deleteNetNS removes a named network namespace; it is no error if it is gone.
func deleteNetNS(name string) error {
	path := netnsPath(name)
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err == nil {
			continue // mounted more than once
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete network namespace %s: %w", name, err)
		}
		break
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// isNetNS says whether name is a namespace, and not a mere file left behind by
// a computer that went down.
func isNetNS(name string) bool {
	var st unix.Statfs_t
	const nsfs = 0x6e736673
	return unix.Statfs(netnsPath(name), &st) == nil && st.Type == nsfs
}

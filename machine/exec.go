package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/run"
)

// ErrStopped is returned for a machine that does not run.
var ErrStopped = errors.New("machine is not running")

// Stdio are the streams of a program run by Exec. A terminal is handed to the
// program as it is, and so stays a terminal.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exec runs a program inside the machine and waits for it; an exit code other
// than zero is an *exec.ExitError. The program is in all of the machine's
// namespaces and cgroups, and ends with the machine.
func (m *Machine) Exec(ctx context.Context, argv []string, stdio Stdio) error {
	p, err := m.process()
	if err != nil {
		return err
	}
	if !p.alive() {
		return fmt.Errorf("exec in %s: %w", m.Spec.Name, ErrStopped)
	}
	if len(argv) == 0 {
		return fmt.Errorf("exec in %s: nothing to run", m.Spec.Name)
	}
	var cmd *exec.Cmd
	started := make(chan error, 1)
	onDoomedThread(ctx, "exec in "+m.Spec.Name, func(ctx context.Context) {
		started <- func() error {
			cgroup, leave, err := m.enterCgroups()
			defer leave()
			if err != nil {
				return err
			}
			defer cgroup.Close() // a nil file may be closed, too
			if err := enter(p.PID); err != nil {
				return err
			}
			cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Env = append(m.environment(), "TERM="+os.Getenv("TERM"))
			cmd.Dir = "/"
			cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.In, stdio.Out, stdio.Err
			if cgroup != nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
			}
			return cmd.Start()
		}()
	})
	if err := <-started; err != nil {
		return fmt.Errorf("exec %s in %s: %w", argv[0], m.Spec.Name, err)
	}
	return cmd.Wait()
}

// enter moves the calling thread into the machine. Its children are then born
// there; the thread itself keeps its process id.
func enter(pid int) error {
	// A thread may only change its mounts when it shares its root and working
	// directory with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var spaces []*os.File
	defer func() { closeAll(spaces) }()
	kinds := []struct {
		name string
		flag int
	}{
		{"cgroup", unix.CLONE_NEWCGROUP}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
		{"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
	}
	// All are opened before the first is entered: after that /proc is another.
	for _, k := range kinds {
		f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns", k.name))
		if err != nil {
			return err
		}
		spaces = append(spaces, f)
	}
	for i, k := range kinds {
		if err := unix.Setns(int(spaces[i].Fd()), k.flag); err != nil {
			return fmt.Errorf("enter %s namespace: %w", k.name, err)
		}
	}
	return nil
}

// onDoomedThread calls fn on a thread that enters places it cannot come back
// from: the thread belongs to a goroutine that ends, and ends with it. The main
// thread never ends and stands for the process in /proc, so it is not used.
func onDoomedThread(ctx context.Context, name string, fn func(context.Context)) {
	run.Detach(ctx, name, func(ctx context.Context) {
		goruntime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn(ctx)
			return // still locked
		}
		done := make(chan struct{})
		run.Detach(ctx, name, func(ctx context.Context) { // elsewhere: this thread is taken
			defer close(done)
			goruntime.LockOSThread()
			fn(ctx)
		})
		<-done
		goruntime.UnlockOSThread()
	})
}

// enterCgroups moves the calling thread, and so its children, into the
// machine's cgroups until leave is called. v2 moves whole processes only; there
// it returns the cgroup that a child is to be born in.
func (m *Machine) enterCgroups() (birth *os.File, leave func(), err error) {
	var homes []*os.File
	leave = func() {
		for _, f := range homes {
			// A thread that is left there ends soon anyway.
			_, _ = f.WriteString("0")
			f.Close()
		}
	}
	trees, err := hierarchies()
	if err != nil {
		return nil, leave, err
	}
	own, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, leave, err
	}
	for _, h := range trees {
		if h.V2 {
			birth, err = os.Open(filepath.Join(h.Mount, m.id(), initCgroup))
			return birth, leave, err
		}
		home, err := os.OpenFile(filepath.Join(h.Mount, h.pathIn(string(own)), "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return nil, leave, err
		}
		homes = append(homes, home)
		file := filepath.Join(h.Mount, m.id(), "tasks")
		if err := os.WriteFile(file, []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
			return nil, leave, fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil, leave, nil
}

package machine

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// The descriptors Start hands to init.
const (
	goFD = 3 + iota
	resultFD
	firstListenerFD
)

// Main is process 1 of a machine. args is the applet's word and the machine's
// directory; the return value is the exit code.
func Main(args []string) int {
	// The cgroup namespace below is this thread's; children come from it, and
	// /proc/PID/ns shows the main thread's.
	goruntime.LockOSThread()
	if len(args) != 2 || os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "%s: runs only as process 1 of a machine\n", Applet)
		return 2
	}
	if unix.Gettid() != unix.Getpid() {
		err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		fmt.Fprintf(os.Stderr, "%s: %v\n", Applet, err)
		return 1
	}
	result := os.NewFile(resultFD, "result")
	start := os.NewFile(goFD, "go")
	if _, err := start.Read(make([]byte, 1)); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the starter is gone: %v\n", Applet, err)
		return 1
	}
	start.Close()
	i, err := newInit(args[1])
	if err == nil {
		err = i.start()
	}
	if err != nil {
		fmt.Fprintf(result, "%v", err)
		fmt.Fprintf(os.Stderr, "%s: %v\n", Applet, err)
		return 1
	}
	fmt.Fprint(result, "ok")
	result.Close()
	return i.serve()
}

// initProcess looks after one program and everybody's orphans.
type initProcess struct {
	spec    Spec
	signals chan os.Signal
	child   int // the program's id
	policy  backoff.Policy
}

func newInit(dir string) (*initProcess, error) {
	m, err := Open(dir)
	if err != nil {
		return nil, err
	}
	for fd := range len(m.Spec.Forwards) {
		syscall.CloseOnExec(firstListenerFD + fd)
	}
	syscall.CloseOnExec(resultFD)
	if err := m.furnish(); err != nil {
		return nil, err
	}
	i := &initProcess{
		spec: m.Spec, signals: make(chan os.Signal, 64),
		policy: backoff.Policy{First: 100 * time.Millisecond, Max: 10 * time.Second},
	}
	// Before the first child, so that none ends unnoticed.
	signal.Notify(i.signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	return i, i.forward(context.Background())
}

// forward serves the listening sockets that were made outside.
func (i *initProcess) forward(ctx context.Context) error {
	for n, f := range i.spec.Forwards {
		file := os.NewFile(uintptr(firstListenerFD+n), f.Listen)
		l, err := net.FileListener(file)
		file.Close()
		if err != nil {
			return fmt.Errorf("forward from %s: %w", f.Listen, err)
		}
		var d net.Dialer
		dial := func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", f.Target) }
		run.Detach(ctx, "forward "+f.Listen, func(ctx context.Context) { _ = relay(ctx, l, dial) })
	}
	return nil
}

// start runs the machine's program.
func (i *initProcess) start() error {
	argv := i.spec.Argv
	path, err := lookPath(argv[0])
	if err != nil {
		return err
	}
	i.child, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return nil
}

// lookPath finds a program as a shell does. (os/exec is avoided here: it would
// wait for children too, and they are init's to collect.)
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		path := dir + "/" + name
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("run %s: not found on the PATH", name)
}

// serve collects ended processes and passes signals on until the program ends,
// and returns its exit code. Its end is the machine's: the kernel then kills
// every process in it.
func (i *initProcess) serve() int {
	var stopping bool
	var again <-chan time.Time
	began, failures := clock.Now(), 0
	for {
		select {
		case s := <-i.signals:
			if s != unix.SIGCHLD {
				stopping = stopping || s == unix.SIGTERM || s == unix.SIGINT
				if i.child == 0 && stopping {
					return 0
				}
				i.pass(s.(syscall.Signal))
				continue
			}
			status, ended := i.reap()
			if !ended {
				continue
			}
			i.child = 0
			if stopping || !i.spec.Restart || status == 0 {
				return status
			}
			if clock.Since(began) > time.Minute {
				failures = 0
			}
			failures++
			wait := i.policy.After(failures)
			slog.Warn("program failed; starting it again", "program", i.spec.Argv[0], "code", status, "wait", wait)
			again = clock.NewTimer(wait).C
		case <-again:
			again, began = nil, clock.Now()
			if err := i.start(); err != nil {
				slog.Error("program cannot be started again", "err", err)
				return 1
			}
		}
	}
}

func (i *initProcess) pass(s syscall.Signal) {
	if i.child > 0 {
		_ = unix.Kill(i.child, s)
	}
}

// reap collects every ended child, and says if the program was among them.
// Signals merge, so there may be many, or none.
func (i *initProcess) reap() (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if pid == i.child {
			ended, status = true, ws.ExitStatus()
			if ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
		}
	}
}

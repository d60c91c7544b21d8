package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// ErrRunning is returned by Start for a machine that runs already.
var ErrRunning = errors.New("machine is already running")

// bootLimit is how long init may take to set its namespaces up; it takes
// milliseconds, but a loaded computer is a loaded computer.
const bootLimit = 30 * time.Second

// Start boots the machine and returns when its program has been started. What
// an earlier, killed life left behind is removed first, as a reboot would.
// The machine outlives this process.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.Spec.Check(); err != nil {
		return err
	}
	st, err := m.State()
	if err != nil {
		return err
	}
	if st.Running {
		return fmt.Errorf("start %s: %w", m.Spec.Name, ErrRunning)
	}
	if err := m.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("start machine %s: %w", m.Spec.Name, err), m.powerOff(context.WithoutCancel(ctx)))
	}
	return nil
}

func (m *Machine) boot(ctx context.Context) error {
	if err := m.powerOff(ctx); err != nil {
		return err
	}
	for _, dir := range persistent {
		if err := os.MkdirAll(m.path("root", dir), 0o755); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.Spec.Program = self
	if err := m.save(); err != nil {
		return err
	}
	sw := Switch{Cluster: m.Spec.Cluster, Subnet: m.Spec.Address.Masked()}
	if err := sw.Ensure(); err != nil {
		return err
	}
	if err := createNetNS(m.id()); err != nil {
		return err
	}
	if err := sw.plug(m.id(), m.Spec.Address); err != nil {
		return err
	}
	if err := makeCgroups(m.id()); err != nil {
		return err
	}
	return m.launch(ctx)
}

// launch starts init inside the machine's namespaces. init waits for a byte on
// its go pipe, which comes when it is in its cgroups, and then writes what went
// wrong, or nothing, to its result pipe.
func (m *Machine) launch(ctx context.Context) error {
	console, err := os.OpenFile(m.path("console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer goRead.Close()
	defer goWrite.Close()
	resultRead, resultWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer resultRead.Close()
	defer resultWrite.Close()
	listeners, err := m.listen()
	if err != nil {
		return err
	}
	defer closeAll(listeners)

	p, err := m.spawnInit(append([]*os.File{nil, console, console, goRead, resultWrite}, listeners...))
	if err != nil {
		return err
	}
	// If this process lives on it must collect init's exit; if not, the
	// computer's own init does.
	run.Detach(context.WithoutCancel(ctx), "machine "+m.Spec.Name, func(context.Context) { _, _ = p.Wait() })
	if _, err := m.remember(p.Pid); err != nil {
		return err
	}
	if err := joinCgroups(m.id(), p.Pid); err != nil {
		return err
	}
	goRead.Close()
	resultWrite.Close()
	if _, err := goWrite.Write([]byte{1}); err != nil {
		return err
	}
	if err := resultRead.SetReadDeadline(clock.Now().Add(bootLimit)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = resultRead.SetReadDeadline(clock.Now()) })
	defer stop()
	result, err := io.ReadAll(resultRead)
	if err != nil {
		return fmt.Errorf("wait for init: %w", err)
	}
	if text := string(result); text != "ok" {
		if text == "" {
			text = "init ended early; see " + m.path("console.log")
		}
		return errors.New(text)
	}
	return nil
}

func (m *Machine) spawnInit(files []*os.File) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files[0] = null
	program, argv := m.Spec.Init, []string{Applet, m.Dir}
	if program == "" {
		program, argv = m.Spec.Program, []string{"sampan", Applet, m.Dir}
	}
	var p *os.Process
	err = inNetNS(m.id(), func() error {
		p, err = os.StartProcess(program, argv, &os.ProcAttr{
			Dir: "/", Files: files, Env: m.environment(),
			Sys: &syscall.SysProcAttr{
				Setsid:     true,
				Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
			},
		})
		return err
	})
	return p, err
}

// environment is what init and the machine's program see.
func (m *Machine) environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"SAMPAN_CLUSTER=" + m.Spec.Cluster, "SAMPAN_MACHINE=" + m.Spec.Name,
	}
	if n := m.Spec.Capacity.CPUs; n > 0 {
		env = append(env, fmt.Sprintf("SAMPAN_CPUS=%d", n))
	}
	if n := m.Spec.Capacity.Memory; n > 0 {
		env = append(env, fmt.Sprintf("SAMPAN_MEMORY=%d", n))
	}
	return append(env, m.Spec.Env...)
}

// listen opens the forwards' listening sockets. A socket stays in the network
// it was made in, so init can serve them from inside the machine.
func (m *Machine) listen() ([]*os.File, error) {
	var files []*os.File
	for _, f := range m.Spec.Forwards {
		l, err := net.Listen("tcp", f.Listen)
		if err == nil {
			var file *os.File
			file, err = l.(*net.TCPListener).File()
			l.Close()
			files = append(files, file)
		}
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("forward from %s: %w", f.Listen, err)
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Stop asks the machine's program to end, waits for grace, and then turns the
// machine off. It is no error if it does not run.
func (m *Machine) Stop(ctx context.Context, grace time.Duration) error {
	p, err := m.process()
	if err != nil {
		return err
	}
	if p.alive() && grace > 0 {
		if err := unix.Kill(p.PID, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop machine %s: %w", m.Spec.Name, err)
		}
		waitCtx, cancel := context.WithTimeout(ctx, grace)
		_ = awaitEnd(waitCtx, p)
		cancel()
	}
	if err := m.powerOff(ctx); err != nil {
		return fmt.Errorf("stop machine %s: %w", m.Spec.Name, err)
	}
	return nil
}

// powerOff kills init, and with it everything inside, and takes the namespace,
// the switch port and the cgroups away. Only the directory stays.
func (m *Machine) powerOff(ctx context.Context) error {
	p, err := m.process()
	if err != nil {
		return err
	}
	if p.alive() {
		if err := unix.Kill(p.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if err := awaitEnd(ctx, p); err != nil {
		return err
	}
	sw := Switch{Cluster: m.Spec.Cluster, Subnet: m.Spec.Address.Masked()}
	return errors.Join(
		os.RemoveAll(m.path("init.json")),
		sw.unplug(m.Spec.Address.Addr()),
		deleteNetNS(m.id()),
		removeCgroups(ctx, m.id()),
	)
}

// awaitEnd waits until p has ended; p need not be our child.
func awaitEnd(ctx context.Context, p process) error {
	for p.alive() {
		if err := clock.Sleep(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("process %d did not end: %w", p.PID, err)
		}
	}
	return nil
}

// Delete turns the machine off and removes all of it. The last machine of a
// cluster takes the switch with it.
func (m *Machine) Delete(ctx context.Context) error {
	if err := m.powerOff(ctx); err != nil {
		return fmt.Errorf("delete machine %s: %w", m.Spec.Name, err)
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("delete machine %s: %w", m.Spec.Name, err)
	}
	cluster := filepath.Dir(m.Dir)
	others, err := os.ReadDir(cluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(others) > 0 {
		return err
	}
	sw := Switch{Cluster: m.Spec.Cluster, Subnet: m.Spec.Address.Masked()}
	return errors.Join(sw.Delete(), os.Remove(cluster))
}

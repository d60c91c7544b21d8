package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/logx"
)

const (
	stopGrace = 10 * time.Second // between asking containerd to end and making it
	steady    = time.Minute      // a life this long ends a row of failures
)

// Deps are what a Runtime needs from its surroundings.
type Deps struct {
	Log    *slog.Logger // nil: the default
	Output io.Writer    // containerd's own output; nil: Log, at debug level
}

// Runtime is one containerd. Make one with New.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	output  io.Writer
	backoff backoff.Policy
}

// New checks cfg and returns a Runtime that has not been started.
func New(cfg Config, deps Deps) (*Runtime, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if len(cfg.Command) == 0 {
		cfg.Command = []string{filepath.Join(filepath.Dir(cfg.Shim), embedded.Containerd)}
	}
	r := &Runtime{
		cfg: cfg, log: deps.Log, output: deps.Output,
		backoff: backoff.Policy{First: 100 * time.Millisecond, Max: 10 * time.Second},
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.output == nil {
		r.output = logx.Lines(r.log.With("program", "containerd"), slog.LevelDebug)
	}
	return r, nil
}

// Address is containerd's socket as CRI clients write it.
func (r *Runtime) Address() string { return "unix://" + r.cfg.Address }

// Run installs the embedded programs, runs containerd and starts it again when
// it ends, until ctx does. Containers stay.
func (r *Runtime) Run(ctx context.Context) error {
	if err := r.prepare(); err != nil {
		return fmt.Errorf("containerd: prepare: %w", err)
	}
	// containerd is asked to end when the thread that started it does, so that
	// a killed parent leaves no containerd behind to hold the database's lock.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	for failures := 0; ; {
		began := clock.Now()
		err := r.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if clock.Since(began) > steady {
			failures = 0
		}
		failures++
		wait := r.backoff.After(failures)
		r.log.Warn("containerd ended; starting it again", "err", err, "wait", wait)
		if clock.Sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// prepare makes the directories, programs and files that containerd expects.
func (r *Runtime) prepare() error {
	c := r.cfg
	for _, dir := range []string{c.Root, c.State, filepath.Dir(c.Address), c.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := embedded.Install(filepath.Dir(c.Shim), embedded.Containerd, embedded.Shim); err != nil {
		// A shim that somebody else put there will do.
		if _, statErr := os.Stat(c.Shim); statErr != nil {
			return err
		}
	}
	if err := embedded.Install(c.CNIBinDir, embedded.CNI); err != nil && !errors.Is(err, embedded.ErrNotBuilt) {
		return err
	}
	if err := link(c.Shim); err != nil {
		return err
	}
	runc, err := exec.LookPath(c.Runc)
	if err != nil {
		return fmt.Errorf("OCI runtime %q: %w (Debian: apt-get install runc)", c.Runc, err)
	}
	c.Runc = runc
	return os.WriteFile(c.configFile(), []byte(render(c)), 0o600)
}

// link gives the shim the name by which containerd looks for it, beside it.
func link(shim string) error {
	name := filepath.Join(filepath.Dir(shim), "containerd-shim-runc-v2")
	if to, err := os.Readlink(name); err == nil && to == filepath.Base(shim) || name == shim {
		return nil
	}
	tmp := name + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.Symlink(filepath.Base(shim), tmp)); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// runOnce lives as long as one containerd process.
func (r *Runtime) runOnce(ctx context.Context) error {
	argv := append(append([]string(nil), r.cfg.Command...), "--config", r.cfg.configFile())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(r.cfg.Shim)+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = r.output, r.output
	// A process group of its own: Ctrl-C on a terminal is the parent's business.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return err
	}
	r.log.Debug("containerd started", "pid", cmd.Process.Pid)
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		// A shim inherited the output pipe; containerd itself is gone.
		return nil
	}
	return err
}

// Ready waits until the CRI socket answers.
func (r *Runtime) Ready(ctx context.Context) error {
	conn, err := grpc.NewClient(r.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		return fmt.Errorf("containerd: %s: %w", r.cfg.Address, err)
	}
	defer conn.Close()
	client := cri.NewRuntimeServiceClient(conn)
	for {
		// gRPC backs off by seconds after a refused connection; a socket that
		// is about to be there should not be waited for that long.
		conn.ResetConnectBackoff()
		_, err := client.Version(ctx, &cri.VersionRequest{})
		if err == nil {
			return nil
		}
		if clock.Sleep(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("containerd: %s does not answer: %w", r.cfg.Address, err)
		}
	}
}

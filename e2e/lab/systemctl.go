package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

const (
	// stateDir holds a file per service that was started, and its socket.
	stateDir = "/run/units"
	// journalDir holds what services said; it outlives a reboot.
	journalDir = "/var/log/units"
	// startLimit is systemd's DefaultTimeoutStartSec.
	startLimit = 90 * time.Second
	// keeper is the word by which systemctl runs itself as a service's parent.
	keeper = "keep-service"
)

// state is what is known of a service.
type state struct {
	Active   string // active, activating, failed, inactive
	Sub      string
	PID      int // of the service's main process
	Keeper   int // of the process that looks after it
	Restarts int
	Since    time.Time
}

func (s state) save(name string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, name+".json")
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func loadState(name string) state {
	s := state{Active: "inactive", Sub: "dead"}
	if text, err := os.ReadFile(filepath.Join(stateDir, name+".json")); err == nil {
		_ = json.Unmarshal(text, &s)
	}
	return s
}

// systemctl is the laboratory's init system: it runs the services' own unit
// files. It understands start, stop, restart, enable, disable, status, is-active,
// daemon-reload, and default, which a machine does when it boots.
func systemctl(args []string, out io.Writer) int {
	var names []string
	for _, a := range args[min(1, len(args)):] {
		if !strings.HasPrefix(a, "-") {
			names = append(names, strings.TrimSuffix(a, ".service"))
		}
	}
	if len(args) == 0 {
		fmt.Fprintln(out, "systemctl: what?")
		return 1
	}
	each := map[string]func(string, io.Writer) error{
		"start": startService, "stop": stopService, "enable": enableService, "disable": disableService, "status": showService, keeper: keepService,
		"restart":   func(n string, out io.Writer) error { return errors.Join(stopService(n, out), startService(n, out)) },
		"is-active": func(n string, out io.Writer) error { _, err := fmt.Fprintln(out, loadState(n).Active); return err },
	}[args[0]]
	switch {
	case args[0] == "daemon-reload": // files are read whenever they are needed
		return 0
	case args[0] == "default":
		names, each = enabled(), startService
	case each == nil:
		fmt.Fprintf(out, "Unknown command verb %s.\n", args[0])
		return 1
	}
	for _, n := range names {
		if n == "firewalld" {
			continue // not installed, and the guides only stop it
		}
		if err := each(n, out); err != nil {
			fmt.Fprintln(out, err)
			return 1
		}
	}
	return 0
}

// startService starts the service's keeper and waits until it says how it went.
func startService(name string, _ io.Writer) error {
	if s := loadState(name); s.Active == "active" || s.Active == "activating" {
		return nil
	}
	if _, err := loadUnit("/", name); err != nil {
		return fmt.Errorf("Failed to start %s.service: %w", name, err)
	}
	if err := errors.Join(os.MkdirAll(stateDir, 0o755), os.MkdirAll(journalDir, 0o755), state{Active: "activating", Sub: "start", Since: clock.Now()}.save(name)); err != nil {
		return err
	}
	journal, err := os.OpenFile(journal(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer journal.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, keeper, name)
	cmd.Args[0] = "systemctl"
	cmd.Stdout, cmd.Stderr = journal, journal
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	for until := clock.Now().Add(startLimit); clock.Now().Before(until); {
		switch loadState(name).Active {
		case "active":
			return nil
		case "failed":
			return fmt.Errorf("Job for %s.service failed.\nSee \"systemctl status %s.service\" for details.", name, name)
		}
		_ = clock.Sleep(context.Background(), 20*time.Millisecond)
	}
	return fmt.Errorf("Job for %s.service failed because a timeout was exceeded.", name)
}

func journal(name string) string { return filepath.Join(journalDir, name+".log") }

// keepService is a service's parent: it starts it, hears that it is ready, and
// starts it again as its unit file says.
func keepService(name string, out io.Writer) error {
	u, err := loadUnit("/", name)
	if err != nil {
		return err
	}
	k := &serviceKeeper{u: u, out: out, s: state{Active: "activating", Sub: "start", Keeper: os.Getpid(), Since: clock.Now()}}
	for {
		code, err := k.once()
		if err != nil {
			fmt.Fprintln(out, "systemd:", err)
		}
		again := u.Restart == "always" || u.Restart == "on-failure" && (code != 0 || err != nil)
		if !again {
			k.s.Active, k.s.Sub, k.s.PID = "inactive", "dead", 0
			if code != 0 || err != nil {
				k.s.Active, k.s.Sub = "failed", "failed"
			}
			return k.s.save(name)
		}
		k.s.Active, k.s.Sub, k.s.PID = "activating", "auto-restart", 0
		k.s.Restarts++
		if err := k.s.save(name); err != nil {
			return err
		}
		_ = clock.Sleep(context.Background(), u.RestartSec)
	}
}

// serviceKeeper looks after one service.
type serviceKeeper struct {
	u   *unit
	out io.Writer
	s   state
}

// became says that the service is active, with a main process.
func (k *serviceKeeper) became(pid int) error {
	k.s.Active, k.s.Sub, k.s.PID, k.s.Since = "active", "running", pid, clock.Now()
	return k.s.save(k.u.Name)
}

func (k *serviceKeeper) exec(line string, more ...string) (cmd *exec.Cmd, mayFail bool) {
	argv, mayFail := k.u.command(line)
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), k.u.Env...), more...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = k.u.Dir, k.out, k.out
	return cmd, mayFail
}

// once runs the service until it ends, and returns its exit code.
func (k *serviceKeeper) once() (int, error) {
	for _, line := range k.u.Before {
		if cmd, mayFail := k.exec(line); true {
			if err := cmd.Run(); err != nil && !mayFail {
				return 1, fmt.Errorf("ExecStartPre: %w", err)
			}
		}
	}
	socket, heard, err := k.listen()
	if err != nil {
		return 1, err
	}
	defer socket.Close()
	cmd, _ := k.exec(k.u.Start, "NOTIFY_SOCKET="+socket.LocalAddr().String())
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	switch k.u.Kind {
	case "forking", "oneshot":
		if err := cmd.Wait(); err != nil {
			return cmd.ProcessState.ExitCode(), err
		}
		return 0, k.forked()
	case "notify":
		ended := make(chan error, 1)
		run.Detach(context.Background(), "wait", func(context.Context) { ended <- cmd.Wait() })
		select {
		case <-heard:
			if err := k.became(cmd.Process.Pid); err != nil {
				return 1, err
			}
			err = <-ended
		case err = <-ended:
		}
	default:
		if err := k.became(cmd.Process.Pid); err != nil {
			return 1, err
		}
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fmt.Fprintf(k.out, "systemd: %s.service: Main process exited, code=%d\n", k.u.Name, exit.ExitCode())
		if st, ok := exit.Sys().(unix.WaitStatus); ok && st.Signaled() && st.Signal() == unix.SIGTERM {
			return 0, nil
		}
		return max(1, exit.ExitCode()), nil
	}
	return 0, err
}

// forked follows a service that went into the background by its PID file.
func (k *serviceKeeper) forked() error {
	if k.u.PIDFile == "" {
		return k.became(0)
	}
	pid := 0
	for range 250 {
		text, _ := os.ReadFile(k.u.PIDFile)
		if pid, _ = strconv.Atoi(strings.TrimSpace(string(text))); pid > 0 {
			break
		}
		_ = clock.Sleep(context.Background(), 20*time.Millisecond)
	}
	if err := k.became(pid); err != nil {
		return err
	}
	for unix.Kill(pid, 0) == nil {
		_ = clock.Sleep(context.Background(), 100*time.Millisecond)
	}
	return nil
}

// listen opens the socket by which a service says that it is ready.
func (k *serviceKeeper) listen() (*net.UnixConn, <-chan struct{}, error) {
	path := filepath.Join(stateDir, k.u.Name+".notify")
	_ = os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, nil, err
	}
	heard := make(chan struct{})
	run.Detach(context.Background(), "notify socket", func(context.Context) {
		b, told := make([]byte, 4096), false
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if !told && strings.Contains(string(b[:n]), "READY=1") {
				told = true
				close(heard)
			}
		}
	})
	return conn, heard, nil
}

// stopService ends a service and its keeper.
func stopService(name string, _ io.Writer) error {
	s := loadState(name)
	kill := func(pid int, sig unix.Signal) {
		if pid > 0 {
			_ = unix.Kill(pid, sig)
		}
	}
	kill(s.Keeper, unix.SIGKILL) // first, so that it starts nothing again
	kill(s.PID, unix.SIGTERM)
	for until := clock.Now().Add(20 * time.Second); s.PID > 0 && unix.Kill(s.PID, 0) == nil; {
		if clock.Now().After(until) {
			kill(s.PID, unix.SIGKILL)
		}
		_ = clock.Sleep(context.Background(), 20*time.Millisecond)
	}
	if s.Active == "inactive" {
		return nil
	}
	return state{Active: "inactive", Sub: "dead", Since: clock.Now()}.save(name)
}

// wants is where links to services lie that start when a machine boots.
const wants = "/etc/systemd/system/multi-user.target.wants"

func enableService(name string, out io.Writer) error {
	u, err := loadUnit("/", name)
	if err != nil {
		return fmt.Errorf("Failed to enable unit: %w", err)
	}
	link := filepath.Join(wants, name+".service")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(u.Path, link); err != nil {
		return nil // it is enabled
	}
	_, err = fmt.Fprintf(out, "Created symlink %s → %s.\n", link, u.Path)
	return err
}

func disableService(name string, out io.Writer) error {
	link := filepath.Join(wants, name+".service")
	if err := os.Remove(link); err != nil {
		return nil
	}
	_, err := fmt.Fprintf(out, "Removed %s.\n", link)
	return err
}

func enabled() (names []string) {
	links, _ := filepath.Glob(filepath.Join(wants, "*.service"))
	for _, l := range links {
		names = append(names, strings.TrimSuffix(filepath.Base(l), ".service"))
	}
	return names
}

// showService prints what systemctl status does.
func showService(name string, out io.Writer) error {
	u, err := loadUnit("/", name)
	if err != nil {
		return err
	}
	s, on := loadState(name), "disabled"
	if _, err := os.Lstat(filepath.Join(wants, name+".service")); err == nil {
		on = "enabled"
	}
	fmt.Fprintf(out, "● %s.service - %s\n   Loaded: loaded (%s; %s)\n   Active: %s (%s) since %s\n", name, u.Description, u.Path, on, s.Active, s.Sub, s.Since.Format("Mon 2006-01-02 15:04:05 MST"))
	if s.PID > 0 {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.PID))
		argv := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		fmt.Fprintf(out, " Main PID: %d (%s)\n   CGroup: /system.slice/%s.service\n           └─%d %s\n", s.PID, filepath.Base(argv[0]), name, s.PID, strings.Join(argv, " "))
	}
	said, _ := os.ReadFile(journal(name))
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	_, err = fmt.Fprintf(out, "\n%s\n", strings.Join(lines[max(0, len(lines)-10):], "\n"))
	return err
}

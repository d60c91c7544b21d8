package planes

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
)

const virtual = "100.64.0.200"

// sh runs a script on a machine.
func (f *fleet) sh(i int, script string) (string, error) {
	var out bytes.Buffer
	err := f.machine(i).Exec(context.Background(), []string{"sh", "-c", script}, machine.Stdio{Out: &out, Err: &out})
	return out.String(), err
}

// speaks starts a program of VRRP on a machine; it ends with the test or by silence.
func (f *fleet) speaks(i int, program string) {
	f.Helper()
	g := run.New(context.Background())
	m := f.machine(i)
	var out bytes.Buffer
	g.Go("VRRP", func(ctx context.Context) error {
		_ = m.Exec(ctx, []string{"sh", "-c", "echo $$ > /run/vrrp.pid; exec " + program}, machine.Stdio{Out: &out, Err: &out})
		return nil
	})
	f.Cleanup(func() {
		g.Stop()
		_ = g.Wait()
		if f.Failed() {
			f.Logf("VRRP on %s:\n%s", m.Spec.Name, out.String())
		}
	})
}

// silence ends a machine's program of VRRP.
func (f *fleet) silence(i int, signal string) {
	f.Helper()
	if out, err := f.sh(i, "kill -"+signal+" $(cat /run/vrrp.pid)"); err != nil {
		f.Fatalf("%v: %s", err, out)
	}
}

// holders are the machines that have the virtual address.
func (f *fleet) holders() string {
	var list []string
	for i := range 3 {
		if out, err := f.sh(i, "ip -4 -o addr show dev eth0"); err == nil && strings.Contains(out, " "+virtual+"/") {
			list = append(list, fmt.Sprint(i))
		}
	}
	return strings.Join(list, " ")
}

// held waits until those machines, and no other, have the address.
func (f *fleet) held(what string, by ...string) string {
	f.Helper()
	var got string
	took := f.until(what, func(context.Context) error {
		got = f.holders()
		for _, want := range by {
			if got == want {
				return nil
			}
		}
		return fmt.Errorf("held by %q, want %q", got, by)
	})
	f.Logf("%s: held by %q after %.1f s", what, got, took.Seconds())
	return got
}

// served waits until the API answers at the address, as seen from a machine.
func (f *fleet) served(from int) {
	f.Helper()
	took := f.until("the API at the virtual address", func(context.Context) error {
		out, err := f.sh(from, "curl -sk --max-time 1 https://"+virtual+":6443/readyz")
		if err != nil || out != "ok" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	f.Logf("served there after %.1f s more", took.Seconds())
}

const vipProgram = machine.Binary + " vip --vip " + virtual + " --certificate-authority /var/lib/sampan/pki/ca.crt "

// A virtual address is where an API server is ready, whatever becomes of its
// holder; and keepalived takes part.
func TestVirtualAddress(t *testing.T) {
	f := launch(t)
	f.speaks(0, vipProgram)
	first := f.held("the first", "0")
	f.speaks(1, vipProgram)
	f.served(2)
	f.server(0, syscall.SIGSTOP)
	f.held("its API server stopped", "1")
	f.served(2)
	f.server(0, syscall.SIGCONT)
	f.all()
	f.held("it goes on, and the other keeps the address", "1")
	must(t, f.machine(1).CutOff())
	f.held("the holder is cut off, and not ready", "0", "0 1")
	f.served(2)
	must(t, f.machine(1).Reconnect())
	f.all()
	f.held("it is back", first)
	f.silence(0, "KILL")
	f.held("the holder's process was killed", "1")
	f.served(2)
	f.silence(1, "TERM")
	f.held("the last one leaves", "")

	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("keepalived is not installed")
	}
	for version, options := range map[string]string{"2": "--vip-vrrp-version 2 --vip-password secret", "3": "--vip-interval 1s"} {
		f.speaks(0, vipProgram+options)
		f.held("version "+version+" alone", "0")
		conf := "global_defs {\\n vrrp_version " + version + "\\n}\\nvrrp_instance api {\\n state BACKUP\\n interface eth0\\n virtual_router_id 51\\n priority 150\\n advert_int 1\\n"
		if version == "2" {
			conf += " authentication {\\n  auth_type PASS\\n  auth_pass secret\\n }\\n"
		}
		conf += " virtual_ipaddress {\\n  " + virtual + "/32\\n }\\n}\\n"
		if out, err := f.sh(2, "printf '"+conf+"' > /run/keepalived.conf && chmod 600 /run/keepalived.conf"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f.speaks(2, "keepalived --dont-fork --log-console --use-file=/run/keepalived.conf --pid=/run/keepalived.pid --vrrp_pid=/run/keepalived_vrrp.pid --checkers_pid=/run/keepalived_c.pid")
		f.held("keepalived of higher priority, version "+version, "2")
		f.silence(2, "TERM")
		f.held("keepalived leaves", "0")
		f.silence(0, "TERM")
		f.held("nobody is left", "")
	}
}

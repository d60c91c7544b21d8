package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

const token = "fleet0.0123456789abcdef"

// fleet is a cluster of machines that run `sampan server`, the first of them its
// control plane, all with the same further flags.
func fleet(t *testing.T, names []string, args ...string) []*lab.Computer {
	t.Helper()
	l := lab.New(t)
	args = append([]string{"--token=" + token, "--import-images=/run/hand/images", "--eviction-hard=memory.available<100Mi", "--image-gc-high-threshold=100"}, args...)
	var all []*lab.Computer
	for i, name := range names {
		c := &lab.Computer{Machine: l.Machine(name)}
		for _, archive := range lab.Images(t) {
			text, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			c.File(filepath.Join("images", filepath.Base(archive)), string(text))
		}
		own := args
		if i > 0 {
			own = append([]string{"--join=https://100.64.0.2:6443", "--certificate-authority=" + c.File("ca.crt", all[0].Do("cat", "/var/lib/sampan/pki/ca.crt"))}, args...)
		}
		c.File("flags", strings.Join(own, "\n"))
		sail(c)
		all = append(all, c)
		if i == 0 {
			lab.Until(t, "the control plane answers", func() error {
				if out, err := c.Try("test", "-f", "/var/lib/sampan/admin.conf"); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				c.Sh("mkdir -p /etc/kubernetes && ln -sf /var/lib/sampan/admin.conf /etc/kubernetes/admin.conf")
				out, err := c.Kubectl("get", "--raw", "/readyz")
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			// The first range is the control plane's.
			c.Sees([]string{`^10\.244\.0\.0/24$`}, "get", "node", name, "-o", "jsonpath={.spec.podCIDR}")
		}
	}
	for _, name := range names {
		all[0].Sees([]string{name + ` `}, "get", "nodes")
	}
	return all
}

// sail starts a machine's server, which another may not run beside.
func sail(c *lab.Computer) {
	c.Helper()
	c.Start("server", "sh", "-c", `set -f; IFS=$(printf '\n_'); IFS=${IFS%_}; exec `+lab.InBin+` server $(cat /run/hand/flags)`)
}

// sink ends a machine's server at once; its containers live on.
func sink(c *lab.Computer) {
	c.Helper()
	c.Stop("server", "KILL")
	c.Sh("while [ -d /proc/$(cat /run/server.pid) ]; do sleep 0.1; done")
}

// ready waits until a node is.
func ready(master *lab.Computer, names ...string) {
	master.Helper()
	for _, name := range names {
		master.Sees([]string{name + ` +Ready`}, "get", "nodes")
	}
}

// doctor waits until the doctor, on a machine, says and ends as it should.
func doctor(c *lab.Computer, code int, want []string, args ...string) string {
	c.Helper()
	var out string
	lab.Within(c, 3*lab.Limit, "sampan doctor "+strings.Join(args, " "), func() error {
		var err error
		out, err = c.Try("sh", "-c", lab.InBin+" doctor "+strings.Join(args, " ")+"; echo code $?")
		for _, text := range append([]string{fmt.Sprintf("\ncode %d\n", code)}, want...) {
			if err != nil || !strings.Contains(out, text) {
				return fmt.Errorf("%v: no %q in:\n%s", err, text, out)
			}
		}
		return nil
	})
	return out
}

// timed prints how long something took.
func timed(c *lab.Computer, what string, fn func()) {
	c.Helper()
	start := clock.Now()
	fn()
	c.Logf("%s: %.1f s", what, clock.Since(start).Seconds())
}

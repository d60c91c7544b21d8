package lab

import (
	"os"
	"strings"
	"testing"
)

// What is written to a machine's own directories is neither another machine's nor
// the computer's, and is there again after its power was off.
func TestDirectoriesOfAMachine(t *testing.T) {
	l := New(t)
	a, b := l.Machine("a"), l.Machine("b")
	const dirs = "/root /mnt /etc /opt /var/lib /var/log /run"
	a.Sh("for d in " + dirs + "; do echo a > $d/lab-own; done")
	if out := b.Sh("for d in " + dirs + "; do cat $d/lab-own 2>/dev/null; done; true"); out != "" {
		t.Errorf("another machine sees %q", out)
	}
	for dir := range strings.FieldsSeq(dirs) {
		if _, err := os.Stat(dir + "/lab-own"); err == nil {
			t.Errorf("%s is the computer's", dir)
		}
	}
	a.PowerOff()
	a.Boot()
	if out := a.Sh("for d in " + dirs + "; do [ ! -e $d/lab-own ] || echo $d; done"); strings.Join(strings.Fields(out), " ") != "/root /mnt /etc /opt /var/lib /var/log" {
		t.Errorf("kept over a restart: %q", out)
	}
}

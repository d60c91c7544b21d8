package machine

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestSpecCheck(t *testing.T) {
	good := Spec{Name: "n1", Cluster: "demo", Address: netip.MustParsePrefix("100.64.0.10/24"), Argv: []string{"x"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Spec){
		"machine name":     func(s *Spec) { s.Name = "../etc" },
		"cluster name":     func(s *Spec) { s.Cluster = "" },
		"address":          func(s *Spec) { s.Address = netip.MustParsePrefix("100.64.0.1/24") },
		"nothing to run":   func(s *Spec) { s.Argv = nil },
		"of 127.0.0.1":     func(s *Spec) { s.Forwards = []Forward{{"0.0.0.0:80", "127.0.0.1:80"}} },
		"forward to \"x\"": func(s *Spec) { s.Forwards = []Forward{{"127.0.0.1:80", "x"}} },
	} {
		s := good
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

func TestParseHierarchies(t *testing.T) {
	const hybrid = `30 20 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /mnt/with\040space rw - ext4 /dev/sda1 rw
`
	got, err := parseHierarchies(strings.NewReader(hybrid))
	want := []hierarchy{
		{Mount: "/sys/fs/cgroup/systemd", Options: "none,name=systemd"},
		{Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("hybrid: got %+v, %v", got, err)
	}
	got, err = parseHierarchies(strings.NewReader("31 30 0:27 / /sys/fs/cgroup rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"))
	if want := []hierarchy{{Mount: "/sys/fs/cgroup", V2: true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("v2: got %+v, %v", got, err)
	}
	if _, err := parseHierarchies(strings.NewReader("")); err == nil {
		t.Error("no cgroups at all were accepted")
	}
}

func TestRecycledProcessIDIsNotOurs(t *testing.T) {
	p, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Error("this process is not alive")
	}
	for what, other := range map[string]process{
		"another start time": {p.PID, p.Start + 1, p.Boot},
		"another boot":       {p.PID, p.Start, "earlier"},
		"none":               {},
	} {
		if other.alive() {
			t.Errorf("%s: taken for ours", what)
		}
	}
}

func TestParseStatCopesWithAnyName(t *testing.T) {
	line := "42 (a) b (c)) S 1" + strings.Repeat(" 0", 17) + " 777 0 0"
	if ticks, alive, err := parseStat([]byte(line)); err != nil || !alive || ticks != 777 {
		t.Errorf("got %d, %v, %v", ticks, alive, err)
	}
	if _, alive, err := parseStat([]byte(strings.Replace(line, " S ", " Z ", 1))); err != nil || alive {
		t.Errorf("a zombie is alive, or %v", err)
	}
}

package planes

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

// servers are machines on which sampan server is started by the commands of
// docs/high-availability.md.
type servers struct {
	*lab.Lab
	first *server
	hash  string
	more  []string // flags of every server
}

// server is one such machine.
type server struct {
	*lab.Machine
	argv  []string
	ended <-chan error
}

const (
	token = "3x4mpl.0123456789abcdef"
	key   = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	conf  = "--kubeconfig=/var/lib/sampan/admin.conf"
)

// slack is how much longer than promised a computer may take that is busy with
// all the machines of a test, and with other tests: what is promised is printed
// beside what it was.
const slack = 3

// promised prints a time and fails beyond what a busy computer explains.
func promised(t testing.TB, what string, took, bound time.Duration) {
	t.Helper()
	t.Logf("%s: %.1f s (promised: %s)", what, took.Seconds(), bound)
	if took > slack*bound {
		t.Errorf("%s took %s; promised are %s", what, took, bound)
	}
}

// begin starts the first control plane. Servers run no node unless flags say so.
func begin(t *testing.T, name string, more ...string) *servers {
	t.Helper()
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	s := &servers{Lab: lab.New(t), more: append([]string{"--disable-node"}, more...)}
	s.first = s.start(s.Machine(name), "--cluster-init")
	s.first.ready()
	out := s.first.Sh("openssl x509 -pubkey -noout -in /var/lib/sampan/pki/ca.crt | openssl pkey -pubin -outform der | sha256sum")
	s.hash = "sha256:" + strings.Fields(out)[0]
	return s
}

func (s *servers) start(m *lab.Machine, flags ...string) *server {
	o := &server{Machine: m, argv: append(append([]string{lab.InBin, "server", "--token", token, "--certificate-key", key}, flags...), s.more...)}
	o.run()
	return o
}

// join starts one more control plane, and waits until it serves and votes.
func (s *servers) join(m *lab.Machine, flags ...string) *server {
	s.Helper()
	o := s.start(m, append([]string{"--join", "https://" + s.first.Addr.String() + ":6443", "--control-plane", "--discovery-token-ca-cert-hash", s.hash}, flags...)...)
	took := o.ready()
	s.Logf("%s joined after %.1f s", m.Host, took.Seconds())
	return o
}

func (o *server) run() { o.ended = o.Start("server", o.argv...) }

// ready waits until the server serves.
func (o *server) ready() time.Duration {
	o.Helper()
	return lab.Within(o, 2*lab.Limit, o.Host+" is ready", func() error {
		if out, err := o.Try("curl", "-sk", "--max-time", "2", "https://127.0.0.1:6443/readyz"); err != nil || out != "ok" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// ends waits until the server's process is gone.
func (o *server) ends() {
	o.Helper()
	select {
	case <-o.ended:
	case <-clock.NewTimer(2 * lab.Limit).C:
		o.Fatalf("%s: the server does not end:\n%s", o.Host, o.Said("server"))
	}
}

func (o *server) stop(signal string) {
	o.Helper()
	o.Stop("server", signal)
	o.ends()
}

// kubectl speaks to the machine's own API server.
func (o *server) kubectl(args ...string) (string, error) {
	return o.Try(append([]string{lab.InBin, "kubectl", conf}, args...)...)
}

// writes waits until a write by the machine's API server is taken.
func (o *server) writes(name string) time.Duration {
	o.Helper()
	return lab.Within(o, 2*lab.Limit, o.Host+" writes", func() error {
		out, err := o.kubectl("--request-timeout=5s", "create", "configmap", name)
		if err != nil && !strings.Contains(out, "already exists") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// has fails unless all of the ConfigMaps are there.
func (o *server) has(names ...string) {
	o.Helper()
	out, err := o.kubectl("get", "configmaps", "-o", "name")
	for _, name := range names {
		if err != nil || !strings.Contains(out, "configmap/"+name+"\n") {
			o.Errorf("%s: %s is not there: %v %s", o.Host, name, err, out)
		}
	}
}

// members waits until the control planes are those, of which all vote and answer.
func (o *server) members(names ...string) {
	o.Helper()
	lab.Within(o, 2*lab.Limit, "the members are "+strings.Join(names, " "), func() error {
		out, err := o.Try(lab.InBin, "server", "members")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		lines := regexp.MustCompile(`(?m)^(\S+) +100\.64\.0\.\d+ +(?:voter|leader) +answers$`).FindAllStringSubmatch(out, -1)
		var got []string
		for _, l := range lines {
			got = append(got, l[1])
		}
		if strings.Join(got, " ") != strings.Join(names, " ") || strings.Count(out, "\n") != len(names)+1 || strings.Count(out, "leader") != 1 {
			return fmt.Errorf("they are:\n%s", out)
		}
		return nil
	})
}

// remove takes a control plane out, by another's machine.
func (o *server) remove(name string) {
	o.Helper()
	if out, err := o.Try(lab.InBin, "server", "remove", name); err != nil || !strings.Contains(out, name+" is no control plane any more") {
		o.Fatalf("remove %s: %v %s", name, err, out)
	}
}

// outcast checks that the server of a control plane that was removed ends by
// itself and does not come back.
func (o *server) outcast() {
	o.Helper()
	o.ends()
	o.run()
	o.ends()
	if said := o.Said("server"); !strings.Contains(said, "was removed from its cluster") {
		o.Errorf("%s does not say that it was removed:\n%s", o.Host, said[max(0, len(said)-1500):])
	}
}

// One control plane becomes three, five, three and one again; whoever is lost for
// ever is replaced, under its name and under another; who was removed stays away.
func TestMembersComeAndGo(t *testing.T) {
	s := begin(t, "a")
	a := s.first
	a.writes("one")
	b, c := s.join(s.Machine("b")), s.join(s.Machine("c"))
	a.members("a", "b", "c")
	c.has("one")
	b.writes("three")
	d, e := s.join(s.Machine("d")), s.join(s.Machine("e"))
	a.members("a", "b", "c", "d", "e")
	e.has("one", "three")

	b.Stop("server", "KILL")
	c.Stop("server", "KILL")
	promised(t, "two of five are killed: a write", d.writes("five"), 5*time.Second)
	b.run()
	c.run()
	b.ready()
	c.ready()
	a.members("a", "b", "c", "d", "e")
	b.has("one", "three", "five")

	if out, err := a.Try(lab.InBin, "server", "remove", "nobody"); err == nil || !strings.Contains(out, "no control plane has that name; there are a, b, c, d, e") {
		t.Errorf("remove nobody: %v %s", err, out)
	}
	a.remove("e")
	a.remove(d.Addr.String())
	a.members("a", "b", "c")
	e.outcast()
	d.outcast()
	a.members("a", "b", "c")
	a.writes("three-again")

	// b's machine is lost for ever; another takes its name, at another address.
	b.PowerOff()
	b = s.join(s.Machine("f"), "--node-name=b")
	a.members("a", "b", "c")
	b.has("one", "three", "five", "three-again")

	// c's is lost, too; another comes under a name of its own.
	c.PowerOff()
	if out, err := a.Try(lab.InBin, "server", "members"); err != nil || !strings.Contains(out, "does not answer") {
		t.Errorf("c is lost: %v\n%s", err, out)
	}
	a.remove("c")
	g := s.join(s.Machine("g"))
	a.members("a", "b", "g")
	g.writes("replaced")

	a.remove("g")
	g.outcast()
	a.remove("b")
	b.outcast()
	a.members("a")
	a.writes("one-again")
	a.has("one", "three", "five", "three-again", "replaced", "one-again")
	if out, err := a.Try(lab.InBin, "server", "remove", "a"); err == nil || !strings.Contains(out, "the only control plane") {
		t.Errorf("remove the only one: %v %s", err, out)
	}
	// Who was removed may join as a new member.
	d.Sh("rm -rf /var/lib/sampan/etcd")
	d.run()
	d.ready()
	a.members("a", "d")
}

// Two of three are lost: what is in memory is served, writes are refused in
// words, one that returns is enough; and one that is alone for ever goes on by
// the documented command.
func TestOneSurvivor(t *testing.T) {
	s := begin(t, "a")
	a := s.first
	b, c := s.join(s.Machine("b")), s.join(s.Machine("c"))
	a.members("a", "b", "c")
	a.writes("before")
	b.stop("KILL")
	c.stop("KILL")
	served := lab.Within(t, lab.Limit, "reads from memory", func() error {
		out, err := a.kubectl("--request-timeout=5s", "get", "--raw", "/api/v1/namespaces/default/configmaps?resourceVersion=0")
		if err != nil || !strings.Contains(out, `"before"`) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	promised(t, "two of three are killed: a read from memory", served, 5*time.Second)
	for what, args := range map[string][]string{"write": {"create", "configmap", "refused"}, "read that must be fresh": {"get", "configmap", "before"}} {
		start := clock.Now()
		out, err := a.kubectl(append([]string{"--request-timeout=60s"}, args...)...)
		took := clock.Since(start)
		if err == nil || !strings.Contains(strings.ToLower(out), "timeout") && !strings.Contains(out, "timed out") {
			t.Errorf("a %s without a majority: %v %s", what, err, out)
		}
		promised(t, "a "+what+" is refused ("+strings.TrimSpace(out)+")", took, 10*time.Second)
	}
	b.run()
	promised(t, "one returns: a write", a.writes("again"), 10*time.Second)
	c.run()
	a.members("a", "b", "c")

	b.PowerOff()
	c.PowerOff()
	a.stop("TERM")
	out, err := a.Try(append(a.argv[:len(a.argv):len(a.argv)], "--force-new-cluster")...)
	if err != nil || !strings.Contains(out, "is now the only one of its cluster") {
		t.Fatalf("--force-new-cluster: %v\n%s", err, out)
	}
	a.run()
	promised(t, "the only survivor: started, it serves", a.ready(), 10*time.Second)
	a.members("a")
	a.writes("alone")
	a.has("before", "again", "alone")
	for _, o := range []*server{b, c} {
		o.Boot()
		o.Sh("rm -rf /var/lib/sampan/etcd")
		o.run()
		o.ready()
	}
	a.members("a", "b", "c")
	c.has("before", "again", "alone")
	a.stop("KILL")
	promised(t, "and one of three may be lost again: a write", b.writes("whole"), 5*time.Second)
}

// Snapshots are taken on their schedule, and as many are kept as was said; one of
// them is what a cluster goes on from.
func TestSnapshotsOfServers(t *testing.T) {
	s := begin(t, "a", "--etcd-snapshot-directory=/var/lib/snapshots", "--etcd-snapshot-interval=2s", "--etcd-snapshot-keep=3")
	a := s.first
	b := s.join(s.Machine("b"))
	a.members("a", "b")
	a.writes("before")
	list := func() []string { return strings.Fields(a.Sh("ls /var/lib/snapshots")) }
	from := list()
	lab.Within(t, 2*lab.Limit, "three others are there", func() error {
		now := list()
		if len(now) != 3 || len(from) == 0 || now[0] <= from[len(from)-1] {
			return fmt.Errorf("there are %v, and were %v", now, from)
		}
		return nil
	})
	a.stop("TERM")
	b.stop("KILL") // it has no majority any more to end by
	newest := list()[2]
	a.Says(a.Do(lab.InBin, "etcdctl", "snapshot", "status", "/var/lib/snapshots/"+newest, "-w", "json"), `"totalKey":`)
	a.Sh("cp /var/lib/snapshots/" + newest + " /var/lib/good.db; head -c 20000 /var/lib/good.db > /var/lib/cut.db")
	a.run()
	b.run()
	a.ready()
	b.ready()
	a.writes("after")
	a.stop("TERM")
	b.stop("KILL")

	restore := func(file string) (string, error) {
		return a.Try(append(a.argv[:len(a.argv):len(a.argv)], "--restore-snapshot", file)...)
	}
	if out, err := restore("/var/lib/cut.db"); err == nil || !strings.Contains(out, "cut.db") {
		t.Errorf("half a snapshot: %v\n%s", err, out)
	}
	if out, err := restore("/var/lib/good.db"); err != nil || !strings.Contains(out, "is now the only one of its cluster") {
		t.Fatalf("--restore-snapshot: %v\n%s", err, out)
	}
	a.run()
	promised(t, "restored: it serves", a.ready(), 10*time.Second)
	a.members("a")
	a.has("before")
	if out, err := a.kubectl("get", "configmap", "after"); err == nil || !strings.Contains(out, "NotFound") {
		t.Errorf("what was written after the snapshot: %v %s", err, out)
	}
	a.Says(a.Sh("ls -d /var/lib/sampan/etcd.before-*"), "etcd.before-")
	a.writes("restored")
	b.Sh("rm -rf /var/lib/sampan/etcd")
	b.run()
	b.ready()
	a.members("a", "b")
	b.has("before", "restored")
}

// The virtual address that servers hold themselves moves to another when its
// holder is killed, stops, is cut off, or loses its power; kubectl by that address
// goes on, and what it was told is written is.
func TestServersHoldAnAddress(t *testing.T) {
	s := begin(t, "a", "--vip", virtual)
	all := []*server{s.first, s.join(s.Machine("b")), s.join(s.Machine("c"))}
	s.first.members("a", "b", "c")
	user := s.Machine("user")
	user.File("admin.conf", strings.ReplaceAll(s.first.Sh("cat /var/lib/sampan/admin.conf"), s.first.Addr.String()+":", virtual+":"))
	user.File("writes.sh", `n=0
while :; do
	n=$((n+1))
	`+lab.InBin+` kubectl --kubeconfig=/run/hand/admin.conf --request-timeout=2s create configmap w-$n > /dev/null 2>&1 && echo w-$n
	sleep 0.1
done
`)
	user.Start("writer", "sh", "/run/hand/writes.sh")
	holder := func() (found *server) {
		for _, o := range all {
			if out, err := o.Try("ip", "-4", "-o", "addr", "show", "dev", "eth0"); err == nil && strings.Contains(out, " "+virtual+"/") {
				found = o
			}
		}
		return found
	}
	answers := func() error {
		if out, err := user.Try("curl", "-sk", "--max-time", "1", "https://"+virtual+":6443/readyz"); err != nil || out != "ok" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	}
	for _, loss := range []struct {
		name       string
		lose, mend func(o *server)
	}{
		{"killed", func(o *server) { o.Stop("server", "KILL") }, (*server).run},
		{"stopped", func(o *server) { o.Stop("server", "STOP") }, func(o *server) { o.Stop("server", "CONT") }},
		{"cut off", func(o *server) { o.CutOff() }, func(o *server) { o.Reconnect() }},
		{"without power", func(o *server) { o.PowerOff() }, func(o *server) { o.Boot(); o.run() }},
	} {
		var lost *server
		lab.Within(t, 2*lab.Limit, "one holds the address, and serves", func() error {
			if lost = holder(); lost == nil {
				return fmt.Errorf("nobody has it")
			}
			return answers()
		})
		before := len(strings.Fields(user.Said("writer")))
		loss.lose(lost)
		moved := lab.Within(t, 2*lab.Limit, "the address moves", func() error {
			for _, o := range all {
				if o == lost {
					continue
				}
				if out, err := o.Try("ip", "-4", "-o", "addr", "show", "dev", "eth0"); err == nil && strings.Contains(out, " "+virtual+"/") {
					return nil
				}
			}
			return fmt.Errorf("it is with nobody else")
		})
		promised(t, lost.Host+", which held the address, is "+loss.name+": another has it", moved, 3*time.Second)
		promised(t, "the API there answers, after that", lab.Within(t, 2*lab.Limit, "the API at the address", answers), 5*time.Second)
		lab.Within(t, 2*lab.Limit, "kubectl by the address goes on", func() error {
			if now := len(strings.Fields(user.Said("writer"))); now < before+3 {
				return fmt.Errorf("%d writes since", now-before)
			}
			return nil
		})
		loss.mend(lost)
		lost.ready()
		s.first.members("a", "b", "c")
	}
	user.Stop("writer", "KILL")
	told := strings.Fields(user.Said("writer"))
	s.first.has(told...)
	t.Logf("%d writes were acknowledged through the address, and are there", len(told))
}

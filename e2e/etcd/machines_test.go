package etcd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// fleet is etcd on three machines over TLS, started as the guide's unit does.
type fleet struct {
	*testing.T
	lab      *lab.Lab
	ca       *pki.Pair
	machines []*lab.Machine
}

const certs = "--cert-file=/etc/etcd/etcd.pem --key-file=/etc/etcd/etcd-key.pem --trusted-ca-file=/etc/etcd/ca.pem " +
	"--peer-cert-file=/etc/etcd/etcd.pem --peer-key-file=/etc/etcd/etcd-key.pem --peer-trusted-ca-file=/etc/etcd/ca.pem"

func newFleet(t *testing.T) *fleet {
	ca, err := pki.NewCA("etcd-ca", "")
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{T: t, lab: lab.New(t), ca: ca}
}

// machine is one with certificates as cfssl makes them: one for all uses.
func (f *fleet) machine(name string) *lab.Machine {
	f.Helper()
	m := f.lab.Machine(name)
	leaf, err := f.ca.Issue(pki.Request{CommonName: "etcd", Hosts: []string{m.Addr.String(), "127.0.0.1"}, Server: true, Client: true})
	if err != nil {
		f.Fatal(err)
	}
	key, err := leaf.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	links(m)
	m.Sh("mkdir -p /etc/etcd")
	for file, text := range map[string][]byte{"ca.pem": f.ca.CertPEM(), "etcd.pem": leaf.CertPEM(), "etcd-key.pem": key} {
		m.Sh("cp " + m.File(file, string(text)) + " /etc/etcd/" + file)
	}
	f.machines = append(f.machines, m)
	return m
}

// etcd starts a member; more are further flags.
func (f *fleet) etcd(m *lab.Machine, cluster string, more ...string) {
	at := m.Addr.String()
	line := fmt.Sprintf("etcd --name=%[1]s %[3]s --initial-advertise-peer-urls=https://%[2]s:2380 --listen-peer-urls=https://%[2]s:2380 "+
		"--listen-client-urls=https://%[2]s:2379,http://127.0.0.1:2379 --advertise-client-urls=https://%[2]s:2379 "+
		"--initial-cluster-token=etcd-cluster-0 --initial-cluster=%[4]s --data-dir=/var/lib/etcd/ --log-level=warn", m.Host, at, certs, cluster)
	m.Start("etcd", append(strings.Fields(line), more...)...)
}

func (f *fleet) initial() string {
	var all []string
	for _, m := range f.machines {
		all = append(all, fmt.Sprintf("%s=https://%s:2380", m.Host, m.Addr))
	}
	return strings.Join(all, ",")
}

// until repeats a command on a machine until it shows what it should.
func until(m *lab.Machine, want, script string) float64 {
	m.Helper()
	return lab.Within(m, 2*lab.Limit, m.Host+": "+script, func() error {
		out, err := m.Try("sh", "-c", script)
		if err == nil && strings.Contains(out, want) {
			return nil
		}
		return errors.Join(err, errors.New(out))
	}).Seconds()
}

// TestMachinesAreLost: of three members over TLS one is killed, one is cut off,
// one is replaced, and two are lost for good; each time what was acknowledged is
// there.
func TestMachinesAreLost(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	f := newFleet(t)
	m1, m2, m3 := f.machine("m1"), f.machine("m2"), f.machine("m3")
	for _, m := range f.machines {
		f.etcd(m, f.initial(), "--initial-cluster-state=new")
	}
	for _, m := range f.machines {
		until(m, "is healthy", "etcdctl endpoint health 2>&1")
	}
	tls := "--cacert=/etc/etcd/ca.pem --cert=/etc/etcd/etcd.pem --key=/etc/etcd/etcd-key.pem"
	everywhere := fmt.Sprintf("--endpoints=https://%s:2379,https://%s:2379,https://%s:2379 %s", m1.Addr, m2.Addr, m3.Addr, tls)
	until(m1, "OK", "etcdctl put first 1 "+everywhere+" 2>&1")
	until(m1, "1", "etcdctl set /v2/first 1 2>&1")
	until(m1, "https://"+m3.Addr.String()+":2379", "etcdctl member list -w table 2>&1 | grep started")
	until(m2, "got healthy result from https://"+m2.Addr.String()+":2379",
		fmt.Sprintf("etcdctl --endpoints=https://%s:2379 --ca-file=/etc/etcd/ca.pem --cert-file=/etc/etcd/etcd.pem --key-file=/etc/etcd/etcd-key.pem cluster-health", m1.Addr))
	if out, err := m2.Try("sh", "-c", fmt.Sprintf("etcdctl --endpoints=https://%s:2379 --cacert=/etc/etcd/ca.pem --command-timeout=3s get first 2>&1", m1.Addr)); err == nil {
		t.Errorf("without a certificate: %s", out)
	}

	m1.Stop("etcd", "KILL")
	start := clock.Now()
	until(m2, "OK", "etcdctl put killed 1 --command-timeout=1s 2>&1")
	t.Logf("killed: written again after %.1f s", clock.Since(start).Seconds())
	f.etcd(m1, f.initial())
	until(m1, "killed", "etcdctl get killed 2>&1")

	m2.CutOff()
	start = clock.Now()
	until(m3, "OK", "etcdctl put cut 1 --command-timeout=1s 2>&1")
	t.Logf("cut off: written again by the others after %.1f s", clock.Since(start).Seconds())
	if out, err := m2.Try("sh", "-c", "etcdctl get first --command-timeout=3s 2>&1"); err == nil {
		t.Errorf("the member that is cut off answers a consistent read: %s", out)
	}
	if out, err := m2.Try("sh", "-c", "etcdctl get first --consistency=s --command-timeout=3s 2>/dev/null"); err != nil || out != "first\n1\n" {
		t.Errorf("the member that is cut off does not show what it has to who asks for that: %v %s", err, out)
	}
	m2.Reconnect()
	t.Logf("reconnected: shows what was missed after %.1f s", until(m2, "cut", "etcdctl get cut 2>&1"))

	m3.PowerOff()
	// What is asked while a leader is looked for is asked again.
	until(m1, "removed from cluster", `etcdctl member remove $(etcdctl member list 2>/dev/null | grep ", m3," | cut -d, -f1) 2>&1`)
	m4 := f.machine("m4")
	peer := fmt.Sprintf("https://%s:2380", m4.Addr)
	until(m1, peer, "etcdctl member add m4 --learner --peer-urls="+peer+" > /root/added 2>&1; etcdctl member list 2>/dev/null")
	f.etcd(m4, fmt.Sprintf("m1=https://%s:2380,m2=https://%s:2380,m4=%s", m1.Addr, m2.Addr, peer), "--initial-cluster-state=existing")
	until(m1, "promoted", "etcdctl member promote $(etcdctl member list 2>/dev/null | grep "+peer+" | cut -d, -f1) 2>&1")
	until(m4, "first\n1", "etcdctl get first 2>&1")
	until(m4, "cut\n1\n1\n", "etcdctl get cut 2>/dev/null; ETCDCTL_API=2 etcdctl get /v2/first")

	m1.PowerOff()
	m4.PowerOff()
	if out, err := m2.Try("sh", "-c", "etcdctl put refused 1 --command-timeout=3s 2>&1"); err == nil {
		t.Errorf("one of three writes: %s", out)
	}
	m2.Stop("etcd", "TERM")
	lab.Until(m2, "etcd ends", func() error {
		if out, err := m2.Try("sh", "-c", "kill -0 $(cat /run/etcd.pid)"); err == nil {
			return errors.New("it lives " + out)
		}
		return nil
	})
	f.etcd(m2, f.initial(), "--force-new-cluster")
	until(m2, "OK", "etcdctl put survived 1 --command-timeout=1s 2>&1")
	until(m2, "first\n1\nkilled\n1\ncut\n1\nsurvived\n1\n1\n", "for k in first killed cut survived; do etcdctl get $k 2>/dev/null; done; ETCDCTL_API=2 etcdctl get /v2/first")
	if out := m2.Sh("etcdctl member list 2>/dev/null"); strings.Count(out, "started") != 1 || !strings.Contains(out, "m2") {
		t.Errorf("members after the recovery:\n%s", out)
	}
}

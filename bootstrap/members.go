package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Planes are the control planes of a cluster, as one of them knows and changes them.
type Planes struct {
	dir     string
	members *etcd.Members
}

// Plane is one control plane.
type Plane struct {
	Name    string // empty until it has started
	Address string // where its peers reach it
	Role    string // leader, voter or learner
	State   error  // nil: it answers

	member etcd.Member
}

// planePatience bounds each question about control planes.
const planePatience = 10 * time.Second

// OpenPlanes is for the machine of a control plane that runs; dataDir is its
// server's. Close it.
func OpenPlanes(dataDir string) (*Planes, error) {
	p := &Planes{dir: dataDir}
	var err error
	p.members, err = etcd.OpenMembers([]string{"https://" + address(loopback, etcdClientPort)}, p.tls())
	if err != nil {
		return nil, fmt.Errorf("%s is not of one of several control planes: %w", dataDir, err)
	}
	return p, nil
}

func (p *Planes) tls() etcd.TLS { return memberTLS(p.dir) }

func memberTLS(dataDir string) etcd.TLS {
	at := func(name string) string { return filepath.Join(dataDir, "pki", "etcd", name) }
	return etcd.TLS{CA: at("ca.crt"), Cert: at("healthcheck-client.crt"), Key: at("healthcheck-client.key")}
}

// Close ends the connection.
func (p *Planes) Close() error { return p.members.Close() }

// List returns the control planes by their names.
func (p *Planes) List(ctx context.Context) ([]Plane, error) {
	ctx, cancel := context.WithTimeout(ctx, planePatience)
	defer cancel()
	list, err := p.members.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; this is asked of the server of this machine, which must run", err)
	}
	var out []Plane
	for _, m := range list {
		one := Plane{Name: m.Name, Role: "voter", State: errors.New("it has not started yet"), member: m}
		if m.Learner {
			one.Role = "learner"
		}
		if len(m.PeerURLs) > 0 {
			one.Address = hostOf(m.PeerURLs[0])
		}
		if len(m.ClientURLs) > 0 {
			var leader uint64
			if leader, one.State = p.leader(ctx, m.ClientURLs[0]); one.State == nil && leader == m.ID {
				one.Role = "leader"
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Plane) int { return strings.Compare(a.Name+a.Address, b.Name+b.Address) })
	return out, nil
}

// leader asks one member who leads.
func (p *Planes) leader(ctx context.Context, at string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return p.members.Leader(ctx, at)
}

func hostOf(peer string) string {
	u, err := url.Parse(peer)
	if err != nil {
		return peer
	}
	return u.Hostname()
}

// ErrNoPlane means that nobody has the name.
var ErrNoPlane = errors.New("no control plane has that name")

// Remove takes a control plane, by its name or its address, out of the cluster:
// its member of etcd, which never comes back, and its Node. Its machine need not
// be there any more.
func (p *Planes) Remove(ctx context.Context, name string) error {
	all, err := p.List(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(o Plane) bool { return name != "" && (o.Name == name || o.Address == name) })
	if i < 0 {
		return fmt.Errorf("%s: %w", name, ErrNoPlane)
	}
	if len(all) == 1 {
		return fmt.Errorf("%s is the only control plane: without it there is no cluster", name)
	}
	if all[i].Role == "leader" {
		p.resign(ctx, all, all[i])
	}
	// Etcd counts as connected who has been so for five seconds.
	unhealthy := func(err error) bool { return strings.Contains(err.Error(), "unhealthy cluster") }
	err = patiently(ctx, planePatience, quiet{}, func(ctx context.Context) error { return p.members.Remove(ctx, all[i].member.ID) },
		func(err error) bool { return !unhealthy(err) })
	if err != nil {
		if unhealthy(err) {
			return fmt.Errorf("%w: without %s there would be no majority of control planes that answer: bring another back first, or remove one that is lost", err, name)
		}
		return err
	}
	if all[i].Name == "" {
		return nil
	}
	admin, err := client.FromKubeconfig(filepath.Join(p.dir, "admin.conf"), "")
	if err == nil {
		err = patiently(ctx, planePatience, quiet{}, func(ctx context.Context) error {
			return client.Of[corev1.Node](admin, "").Delete(ctx, all[i].Name, nil)
		}, apierrors.IsNotFound)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s is no control plane any more, but its Node is still there: %w", name, err)
	}
	return nil
}

// resign has a leader give way to another, so that nobody waits for an election.
// If it does not, there is one.
func (p *Planes) resign(ctx context.Context, all []Plane, leader Plane) {
	ctx, cancel := context.WithTimeout(ctx, planePatience)
	defer cancel()
	ms, err := etcd.OpenMembers(leader.member.ClientURLs, p.tls())
	if err != nil {
		return
	}
	defer ms.Close()
	for _, o := range all {
		if o.Role == "voter" && o.State == nil && ms.MoveLeader(ctx, o.member.ID) == nil {
			return
		}
	}
}

// quiet is a log of nothing.
type quiet struct{}

// Info implements patiently's log.
func (quiet) Info(string, ...any) {}

// predecessor is the member that this machine's name belonged to at another
// address. One that still answers is no predecessor but a rival.
func (s *session) predecessor(ctx context.Context, ms *etcd.Members, m etcd.Member) error {
	for _, u := range m.ClientURLs {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := ms.Leader(try, u)
		cancel()
		if err == nil {
			return &final{fmt.Errorf("a control plane of the name %s is there already, at %s: choose another --node-name, or stop that one and run `sampan server remove %[1]s` on a control plane", m.Name, u)}
		}
	}
	s.log.Info("a control plane of this name was lost at another address: this one takes its place", "name", m.Name, "was", strings.Join(m.PeerURLs, ", "))
	return ms.Remove(ctx, m.ID)
}

// ownURL says whether a member is reached at this machine.
func ownURL(self netip.Addr, m etcd.Member) bool {
	return slices.Contains(m.PeerURLs, "https://"+address(self, etcdPeerPort))
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
)

// A cluster of several control planes has one machine more: the door, which
// spreads connections over their API servers, as kind's load balancer does. By
// it this computer reaches the API whichever of them is down.

// doorName is what the door's machine is called.
func doorName(cluster string) string { return cluster + "-door" }

// doorAddress is the last host address of the machines' network.
func doorAddress() netip.Prefix {
	a := machine.DefaultSubnet.Addr().As4()
	a[3] = 254
	return netip.PrefixFrom(netip.AddrFrom4(a), machine.DefaultSubnet.Bits())
}

func isDoor(m *machine.Machine) bool { return m.Spec.Name == doorName(m.Spec.Cluster) }

// isPlane says whether a machine runs a control plane.
func isPlane(m *machine.Machine) bool {
	return slices.Contains(m.Spec.Argv, "--control-plane") || !slices.ContainsFunc(m.Spec.Argv, func(a string) bool { return strings.HasPrefix(a, "--join=") })
}

// openDoor returns the door's machine of a cluster; nil when it has none.
func openDoor(cluster string) (*machine.Machine, error) {
	m, err := machine.Open(filepath.Join(machinesDir(), cluster, doorName(cluster)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return m, err
}

// listenerOf is the address of this computer at which a cluster's API is
// reached, and the machine that listens there.
func listenerOf(first *machine.Machine) (string, error) {
	door, err := openDoor(first.Spec.Cluster)
	if err != nil {
		return "", err
	}
	if door == nil {
		door = first
	}
	if len(door.Spec.Forwards) == 0 {
		return "", nil
	}
	return door.Spec.Forwards[0].Listen, nil
}

// newDoor describes the door of a cluster.
func newDoor(spec machine.Spec, planes int) (*machine.Machine, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	var servers []string
	for i := range planes {
		servers = append(servers, apiAddress(nodeAddress(i+1)))
	}
	spec.Name, spec.Address = doorName(spec.Cluster), doorAddress()
	spec.Argv = []string{machine.Binary, "balancer", "--listen=" + apiAddress(doorAddress()), "--servers=" + strings.Join(servers, ","), "--certificate-authority=" + caMount}
	spec.Forwards = []machine.Forward{{Listen: listen, Target: apiAddress(doorAddress())}}
	return machine.New(machinesDir(), spec), nil
}

func apiAddress(p netip.Prefix) string { return p.Addr().String() + ":" + strconv.Itoa(apiPort) }

// planesArgs are what the servers of a cluster of several control planes are
// told: the i-th machine's, from 1.
func planesArgs(i, planes int) []string {
	door := doorAddress().Addr().String()
	join := []string{"--join=https://" + apiAddress(doorAddress()), "--certificate-authority=" + caMount}
	public := []string{"--tls-san=127.0.0.1", "--tls-san=localhost", "--tls-san=" + door}
	switch {
	case i == 1:
		return append(public, "--cluster-init", "--control-plane-endpoint="+apiAddress(doorAddress()))
	case i <= planes:
		return append(append(public, "--control-plane"), join...)
	}
	return join
}

// checkPlanes says what is wrong with a number of control planes.
func checkPlanes(planes, nodes int) error {
	switch {
	case planes < 1 || planes > 7:
		return fmt.Errorf("--control-planes %d: want 1, 3, 5 or 7", planes)
	case planes%2 == 0:
		return fmt.Errorf("--control-planes %d: want an odd number: %d outlive the loss of as many, for less", planes, planes-1)
	case planes > nodes:
		return fmt.Errorf("--control-planes %d: --nodes %d are not enough for them", planes, nodes)
	}
	return nil
}

// hasJoined says whether a control plane has been a member of its cluster's etcd.
func hasJoined(m *machine.Machine) bool {
	logs, err := filepath.Glob(inside(m, "/var/lib/sampan/etcd/member/wal/*.wal"))
	return err == nil && len(logs) > 0
}

// handOver gives a new control plane what it shares with the first.
func handOver(first, to *machine.Machine) error {
	if hasJoined(to) {
		return nil
	}
	const dir = "/var/lib/sampan/pki"
	for _, path := range bootstrap.SharedFiles() {
		text, err := os.ReadFile(inside(first, filepath.Join(dir, path)))
		if err != nil {
			return fmt.Errorf("hand certificates over: %w", err)
		}
		dest, mode := inside(to, filepath.Join(dir, path)), os.FileMode(0o644)
		if strings.HasSuffix(path, ".key") {
			mode = 0o600
		}
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return err
		}
		if err := pki.WriteFile(dest, text, mode); err != nil {
			return fmt.Errorf("hand certificates over: %w", err)
		}
	}
	return nil
}

// startPlanes starts the control planes that were members before, since they form
// their cluster together, and the door; a cluster that is new begins with its first.
func startPlanes(ctx context.Context, p *progress, ms []*machine.Machine, door *machine.Machine) error {
	for i, m := range ms {
		if !isPlane(m) || i > 0 && !hasJoined(m) {
			continue
		}
		var first *machine.Machine
		if i > 0 {
			first = ms[0]
		}
		if err := p.step(ctx, "start node "+m.Spec.Name, func(ctx context.Context) error { return ensureRunning(ctx, m, first) }); err != nil {
			return err
		}
	}
	if door == nil {
		return nil
	}
	return p.step(ctx, "open the door", func(ctx context.Context) error {
		if err := appears(ctx, inside(ms[0], "/var/lib/sampan/pki/ca.crt")); err != nil {
			return explain(ms[0], err)
		}
		return ensureRunning(ctx, door, ms[0])
	})
}

// appears waits for a file.
func appears(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if err := clock.Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%s does not appear: %w", path, err)
		}
	}
}

// stopAll stops machines together: the last of several control planes could not
// end in order by itself, without the others to agree.
func stopAll(ctx context.Context, ms []*machine.Machine) error {
	g := run.New(ctx)
	errs := make([]error, len(ms))
	for i, m := range ms {
		g.Go("stop "+m.Spec.Name, func(context.Context) error {
			errs[i] = m.Stop(ctx, stopGrace)
			return nil
		})
	}
	return errors.Join(errors.Join(g.Wait()), errors.Join(errs...))
}

// Clusters of this computer are told apart by their names, whichever SAMPAN_HOME
// they are kept in: their networks are the computer's. A claim says whose a name is.

func claimPath(cluster string) string { return filepath.Join("/run/sampan/clusters", cluster) }

// claimedElsewhere returns an error if a cluster's name belongs to another home.
func claimedElsewhere(cluster string) error {
	text, err := os.ReadFile(claimPath(cluster))
	if err != nil {
		return nil
	}
	owner := strings.TrimSpace(string(text))
	if owner == "" || owner == machinesDir() {
		return nil
	}
	ms, err := machine.List(owner, cluster)
	if err != nil || len(ms) == 0 {
		return nil // it was removed by other means
	}
	return fmt.Errorf("cluster %q belongs to SAMPAN_HOME=%s; choose another name, or set SAMPAN_HOME to that", cluster, filepath.Dir(owner))
}

// claim takes a cluster's name for this home.
func claim(cluster string) error {
	if err := claimedElsewhere(cluster); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(claimPath(cluster)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(claimPath(cluster), []byte(machinesDir()+"\n"), 0o644)
}

// ownSwitch says whether a cluster's switch, if there is one, may be removed: it
// is of this home, or of nobody's and machines of this home were on it.
func ownSwitch(cluster string, had bool) bool {
	text, err := os.ReadFile(claimPath(cluster))
	if err != nil {
		return had
	}
	return strings.TrimSpace(string(text)) == machinesDir()
}

func unclaim(cluster string) error {
	err := os.Remove(claimPath(cluster))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/sampan-dev/sampan/machine"
)

// stateDir is where clusters of this computer live.
func stateDir() string {
	if d := os.Getenv("SAMPAN_HOME"); d != "" {
		return d
	}
	return "/var/lib/sampan"
}

func machinesDir() string { return filepath.Join(stateDir(), "clusters") }
func imagesDir() string   { return filepath.Join(stateDir(), "images") }

// DefaultCluster is the cluster of a command that names none.
const DefaultCluster = "default"

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$`)

func checkName(name string) error {
	if !clusterName.MatchString(name) {
		return fmt.Errorf("cluster name %q: want 1 to 20 lower case letters, digits and '-', as in \"default\" or \"ci-1\"", name)
	}
	return nil
}

// nodeName names the i-th machine of a cluster, from 1.
func nodeName(cluster string, i int) string { return fmt.Sprintf("%s-%d", cluster, i) }

// nodeAddress is the i-th machine's address on its switch.
func nodeAddress(i int) netip.Prefix {
	a := machine.DefaultSubnet.Addr()
	for range i + 1 { // .1 is the switch's
		a = a.Next()
	}
	return netip.PrefixFrom(a, machine.DefaultSubnet.Bits())
}

// apiPort is where the API server listens inside a machine.
const apiPort = 6443

// needRoot explains why a command cannot go on without root.
func needRoot(what string) error {
	if os.Getuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s makes namespaces, mounts and cgroups, which needs root: run it with sudo", what)
}

// freePort finds a port of 127.0.0.1 that nobody holds.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// clusterMachines returns a cluster's nodes in order of their numbers; of all
// clusters when cluster is empty.
func clusterMachines(cluster string) ([]*machine.Machine, error) {
	ms, err := machine.List(machinesDir(), cluster)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	ms = slices.DeleteFunc(ms, isDoor)
	slices.SortStableFunc(ms, func(a, b *machine.Machine) int {
		return cmp.Or(cmp.Compare(a.Spec.Cluster, b.Spec.Cluster), a.Spec.Address.Addr().Compare(b.Spec.Address.Addr()))
	})
	return ms, err
}

// runningMachine returns a machine of a cluster by name, or the first.
func runningMachine(cluster, node string) (*machine.Machine, error) {
	ms, err := clusterMachines(cluster)
	if err != nil {
		return nil, err
	}
	if len(ms) == 0 {
		return nil, fmt.Errorf("there is no cluster %q; `sampan ls` lists those there are, `sampan up %s` makes it", cluster, cluster)
	}
	for _, m := range ms {
		if node != "" && m.Spec.Name != node {
			continue
		}
		st, err := m.State()
		if err != nil {
			return nil, err
		}
		if !st.Running {
			return nil, fmt.Errorf("node %s is not running; `sampan up %s` starts it", m.Spec.Name, cluster)
		}
		return m, nil
	}
	return nil, fmt.Errorf("cluster %q has no node %q", cluster, node)
}

// inside returns the path on this computer of a file in a machine's /var/lib.
func inside(m *machine.Machine, path string) string { return filepath.Join(m.Dir, "root", path) }

// adminConf is where a node's server writes the administrator's kubeconfig.
const adminConf = "/var/lib/sampan/admin.conf"

// exitCode carries a program's exit code through an error.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

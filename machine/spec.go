package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// Applet is the word by which a program that is to be process 1 must call Main.
const Applet = "machine-init"

// Binary is where a machine finds the binary that started it, whatever its
// path outside is.
const Binary = "/run/sampan/sampan"

// DefaultSubnet is the machines' network. Every switch may use the same one:
// nothing connects two switches. It lies outside the usual service and pod
// ranges, whose unused addresses a node drops.
var DefaultSubnet = netip.MustParsePrefix("100.64.0.0/24")

// Spec describes one machine; it is kept as machine.json in its directory.
type Spec struct {
	Name    string       `json:"name"`    // the host name, unique in the cluster
	Cluster string       `json:"cluster"` // the switch it is plugged into
	Address netip.Prefix `json:"address"` // its address and the subnet's length

	// Program is the binary that the machine shows as Binary; Start fills it in
	// with the one that runs. Init is process 1, a program that calls Main with
	// its arguments; empty is Program, called with the word Applet.
	Program string `json:"program"`
	Init    string `json:"init,omitempty"`

	// Capacity is told to what runs inside, since the kernel shows every
	// namespace the whole computer.
	Capacity Capacity `json:"capacity"`

	Argv []string `json:"argv"` // what init runs; it ends when that ends
	Env  []string `json:"env"`
	// Restart runs Argv again when it fails, so that containers outlive a
	// crash of the program that looks after them. Exit code 0 still ends init.
	Restart  bool      `json:"restart,omitempty"`
	Binds    []Bind    `json:"binds,omitempty"`
	Forwards []Forward `json:"forwards,omitempty"`
	// Hosts are more lines for /etc/hosts, "address name".
	Hosts []string `json:"hosts,omitempty"`
}

// Capacity is how large a machine claims to be; zero means all there is.
type Capacity struct {
	CPUs   int   `json:"cpus,omitempty"`
	Memory int64 `json:"memory,omitempty"` // bytes
}

// Bind shows a path of this computer inside the machine.
type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Forward makes Listen, an address on 127.0.0.1 of this computer, reach Target
// inside the machine's network.
type Forward struct {
	Listen string `json:"listen"`
	Target string `json:"target"`
}

// Names become part of host names, directory names and cgroup names.
var nameFormat = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$`)

// Check says everything that is wrong with s.
func (s Spec) Check() error {
	var errs []error
	if !nameFormat.MatchString(s.Name) {
		errs = append(errs, fmt.Errorf("machine name %q: must be lower case letters, digits and '-'", s.Name))
	}
	if !nameFormat.MatchString(s.Cluster) {
		errs = append(errs, fmt.Errorf("cluster name %q: must be lower case letters, digits and '-'", s.Cluster))
	}
	if !s.Address.IsValid() || !s.Address.Addr().Is4() || s.Address.Addr() == gateway(s.Address) || s.Address.Addr() == s.Address.Masked().Addr() {
		errs = append(errs, fmt.Errorf("machine %s: address %s: must be an IPv4 host address with its subnet's length", s.Name, s.Address))
	}
	if len(s.Argv) == 0 {
		errs = append(errs, fmt.Errorf("machine %s: nothing to run", s.Name))
	}
	for _, f := range s.Forwards {
		at, err := netip.ParseAddrPort(f.Listen)
		if err != nil || !at.Addr().IsLoopback() {
			errs = append(errs, fmt.Errorf("machine %s: forward from %q: must be an address and port of 127.0.0.1", s.Name, f.Listen))
		}
		if _, err := netip.ParseAddrPort(f.Target); err != nil {
			errs = append(errs, fmt.Errorf("machine %s: forward to %q: must be an address and port", s.Name, f.Target))
		}
	}
	return errors.Join(errs...)
}

// gateway is the switch's own address, the first of the subnet.
func gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// Machine is one machine, running or not. Get one with New, Open or List.
type Machine struct {
	Spec Spec
	Dir  string // BASE/CLUSTER/NAME
}

// New returns the machine that spec describes, kept under base. Nothing is
// written before Start.
func New(base string, spec Spec) *Machine {
	return &Machine{Spec: spec, Dir: filepath.Join(base, spec.Cluster, spec.Name)}
}

// Open reads a machine's description from its directory.
func Open(dir string) (*Machine, error) {
	m := &Machine{Dir: dir}
	data, err := os.ReadFile(m.path("machine.json"))
	if err != nil {
		return nil, fmt.Errorf("open machine: %w", err)
	}
	if err := json.Unmarshal(data, &m.Spec); err != nil {
		return nil, fmt.Errorf("open machine: %s: %w", m.path("machine.json"), err)
	}
	return m, nil
}

// List returns the machines kept under base, of one cluster or, when cluster
// is empty, of all, in the order of their names.
func List(base, cluster string) ([]*Machine, error) {
	if cluster == "" {
		cluster = "*"
	}
	files, err := filepath.Glob(filepath.Join(base, cluster, "*", "machine.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []*Machine
	for _, f := range files {
		m, err := Open(filepath.Dir(f))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (m *Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Dir}, elem...)...)
}

// id names the machine's network namespace and cgroups on this computer.
func (m *Machine) id() string { return "sampan-" + m.Spec.Cluster + "-" + m.Spec.Name }

// save writes the description, whole or not at all.
func (m *Machine) save() error {
	data, err := json.MarshalIndent(m.Spec, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(m.path("machine.json"), append(data, '\n'))
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

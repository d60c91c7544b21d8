package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attachment is what one ADD made, as kept on disk.
type attachment struct {
	Container string        `json:"container"`
	Interface string        `json:"interface"`
	Address   netip.Addr    `json:"address"`
	Boot      string        `json:"boot"` // the boot it was made in
	Ports     []PortMapping `json:"ports,omitempty"`
}

// ledger is the attachments of one node, held under a file lock from open to close.
type ledger struct {
	dir  string
	lock *os.File
	boot string
	all  map[string]attachment // by file name
	last netip.Addr            // the address given out last
}

var errExhausted = errors.New("no IP addresses available in range")

func openLedger(dir string) (*ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	l := &ledger{dir: dir, lock: lock, all: map[string]attachment{}}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		l.boot = strings.TrimSpace(string(b)) + initStart()
	}
	if err := l.load(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// initStart tells a restarted node in its own pid namespace from the one before
// it, whose containers are gone though the machine did not reboot.
func initStart() string {
	b, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return ""
	}
	if i := strings.LastIndexByte(string(b), ')'); i >= 0 {
		if f := strings.Fields(string(b[i+1:])); len(f) > 19 {
			return "/" + f[19]
		}
	}
	return ""
}

func (l *ledger) load() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var a attachment
		data, err := os.ReadFile(filepath.Join(l.dir, e.Name()))
		if err != nil {
			return err
		}
		if json.Unmarshal(data, &a) != nil || a.Boot != l.boot {
			os.Remove(filepath.Join(l.dir, e.Name())) // torn, or of another boot: its container is gone
			continue
		}
		l.all[e.Name()] = a
	}
	if b, err := os.ReadFile(filepath.Join(l.dir, "last")); err == nil {
		l.last, _ = netip.ParseAddr(strings.TrimSpace(string(b)))
	}
	return nil
}

func (l *ledger) close() { l.lock.Close() }

func fileOf(container, ifname string) string {
	clean := strings.NewReplacer("/", "_", "\x00", "_")
	return clean.Replace(container) + "." + clean.Replace(ifname) + ".json"
}

// get returns what was made for a container's interface.
func (l *ledger) get(container, ifname string) (attachment, bool) {
	a, ok := l.all[fileOf(container, ifname)]
	return a, ok
}

// take gives out the next free address of subnet after the last one, so that an
// address is reused as late as possible.
func (l *ledger) take(subnet netip.Prefix, container, ifname string, ports []PortMapping) (attachment, error) {
	used := map[netip.Addr]bool{}
	for _, a := range l.all {
		used[a.Address] = true
	}
	first := subnet.Addr().Next().Next() // after the network's and the bridge's
	at := l.last
	if !subnet.Contains(at) || at.Less(first) {
		at = first.Prev()
	}
	for range uint64(1) << (32 - subnet.Bits()) {
		if at = at.Next(); !subnet.Contains(at) || !subnet.Contains(at.Next()) { // the last one is the broadcast's
			at = first
		}
		if !used[at] {
			a := attachment{Container: container, Interface: ifname, Address: at, Boot: l.boot, Ports: ports}
			l.last = at
			return a, l.put(a)
		}
	}
	return attachment{}, fmt.Errorf("%w: %s", errExhausted, subnet)
}

func (l *ledger) put(a attachment) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	name := fileOf(a.Container, a.Interface)
	if err := writeFile(filepath.Join(l.dir, name), data); err != nil {
		return err
	}
	l.all[name] = a
	return writeFile(filepath.Join(l.dir, "last"), []byte(a.Address.String()))
}

// drop forgets an attachment; one that is not there is no error.
func (l *ledger) drop(container, ifname string) error {
	name := fileOf(container, ifname)
	delete(l.all, name)
	if err := os.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

package cni

import (
	"errors"
	"net/netip"
	"testing"
)

func open(t *testing.T, dir string) *ledger {
	t.Helper()
	l, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAddressesAreUniqueAndReusedLate(t *testing.T) {
	dir, subnet := t.TempDir(), netip.MustParsePrefix("10.244.0.0/29") // .2 to .6
	l := open(t, dir)
	seen := map[netip.Addr]bool{}
	for _, id := range []string{"a", "b", "c", "d"} {
		a, err := l.take(subnet, id, "eth0", nil)
		if err != nil {
			t.Fatal(err)
		}
		if seen[a.Address] || !subnet.Contains(a.Address) || a.Address == subnet.Addr().Next() {
			t.Errorf("%s got %s", id, a.Address)
		}
		seen[a.Address] = true
	}
	if err := l.drop("a", "eth0"); err != nil {
		t.Fatal(err)
	}
	l.close()

	l = open(t, dir) // the next call is another process
	defer l.close()
	e, err := l.take(subnet, "e", "eth0", nil)
	if err != nil || e.Address != netip.MustParseAddr("10.244.0.6") {
		t.Errorf("the address just freed was handed out before a never used one: %v %v", e.Address, err)
	}
	f, err := l.take(subnet, "f", "eth0", nil)
	if err != nil || f.Address != netip.MustParseAddr("10.244.0.2") {
		t.Errorf("a freed address was not reused: %v %v", f.Address, err)
	}
	if _, err := l.take(subnet, "g", "eth0", nil); !errors.Is(err, errExhausted) {
		t.Errorf("a full range gave %v", err)
	}
}

func TestStateOfAnotherBootIsForgotten(t *testing.T) {
	dir, subnet := t.TempDir(), netip.MustParsePrefix("10.244.0.0/24")
	l := open(t, dir)
	l.boot = "yesterday"
	if _, err := l.take(subnet, "a", "eth0", nil); err != nil {
		t.Fatal(err)
	}
	l.close()
	l = open(t, dir)
	defer l.close()
	if _, held := l.get("a", "eth0"); held {
		t.Error("an address of a container that died with the last boot is still held")
	}
}

func TestDropIsIdempotent(t *testing.T) {
	l := open(t, t.TempDir())
	defer l.close()
	if err := l.drop("never", "eth0"); err != nil {
		t.Error(err)
	}
}

func TestConfigRefusesWhatCannotWork(t *testing.T) {
	for _, bad := range []string{`{`, `{"subnet":"10.244.0.0"}`, `{"subnet":"fd00::/64"}`, `{"subnet":"10.244.0.0/31"}`} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	c, err := parse([]byte(`{"subnet":"10.244.3.7/24"}`))
	if err != nil || c.gateway().String() != "10.244.3.1/24" || c.Bridge != "cni0" {
		t.Errorf("%+v %v", c, err)
	}
}

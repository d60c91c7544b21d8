package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/mem"
)

var _ resource.Ledger = (*Tx)(nil)

func start(t *testing.T, store storage.Store, b *requesttest.Backend, cidr string) *Ledger {
	t.Helper()
	l, err := New(Config{CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr), netip.MustParsePrefix("fd00::/112")}, FirstPort: 30000, LastPort: 30063}, store, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSafetyNeverTwice lets several API servers take and give back at once: no
// value has two holders, and what failed requests took comes back.
func TestSafetyNeverTwice(t *testing.T) {
	store, b := mem.New(), requesttest.New()
	servers := []*Ledger{start(t, store, b, "10.96.0.0/27"), start(t, store, b, "10.96.0.0/27"), start(t, store, b, "10.96.0.0/27")}
	var mu sync.Mutex
	held := map[string]string{}
	hold := func(what, who string) {
		mu.Lock()
		defer mu.Unlock()
		if had := held[what]; had != "" {
			t.Errorf("%s belongs to %s and to %s", what, had, who)
		}
		held[what] = who
	}
	drop := func(what string) { mu.Lock(); delete(held, what); mu.Unlock() }
	var wg sync.WaitGroup
	for n := range 9 {
		l, r := servers[n%3], clock.Rand(uint64(n))
		wg.Go(func() {
			for k := range 40 {
				owner := fmt.Sprintf("y/s%d-%d", n, k)
				tx := l.Begin()
				ip, err1 := tx.TakeIP(t.Context(), "IPv4", "", owner)
				port, err2 := tx.TakePort(t.Context(), "TCP", 0, owner)
				if err1 != nil || err2 != nil {
					if !errors.Is(errors.Join(err1, err2), ErrFull) {
						t.Error(err1, err2)
					}
					if err := tx.Rollback(t.Context()); err != nil {
						t.Error(err)
					}
					continue
				}
				if r.IntN(3) == 0 {
					if err := tx.Rollback(t.Context()); err != nil {
						t.Error(err)
					}
					continue
				}
				hold(ip, owner)
				hold(fmt.Sprint(port), owner)
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				drop(ip)
				drop(fmt.Sprint(port))
				end := l.Begin()
				end.FreeIP(ip)
				end.FreePort("TCP", port)
				if err := end.Commit(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Everything was given back: the whole range can be taken, and no more.
	l, tx := servers[0], servers[0].Begin()
	for i := range 30 {
		if _, err := tx.TakeIP(t.Context(), "IPv4", "", "y/all"); err != nil {
			t.Fatalf("address %d: %v", i, err)
		}
	}
	if _, err := tx.TakeIP(t.Context(), "IPv4", "", "y/all"); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	for i := range 64 {
		if _, err := l.Begin().TakePort(t.Context(), "TCP", 0, "y/all"); err != nil {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	if _, err := l.Begin().TakePort(t.Context(), "TCP", 0, "y/all"); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
}

func TestWishes(t *testing.T) {
	l := start(t, mem.New(), requesttest.New(), "10.96.0.0/16")
	tx := l.Begin()
	take := func(family, want, says string) {
		t.Helper()
		got, err := tx.TakeIP(t.Context(), family, want, "y/s")
		switch {
		case says == "" && (err != nil || want != "" && got != want):
			t.Errorf("%s: %s %v", want, got, err)
		case says != "" && (err == nil || err.Error() != says):
			t.Errorf("%s: got %v, want %s", want, err, says)
		}
	}
	take("IPv4", "10.96.0.10", "")
	take("IPv4", "10.96.0.10", "provided IP is already allocated")
	take("IPv4", "10.97.0.1", "the provided network does not match the current range")
	take("IPv4", "10.96.0.0", "the provided network does not match the current range")
	take("IPv4", "10.96.255.255", "the provided network does not match the current range")
	take("IPv6", "fd00::a", "")
	take("", "", "")
	for range 50 { // automatic taking stays out of the static band
		got, err := tx.TakeIP(t.Context(), "IPv4", "", "y/s")
		if a := netip.MustParseAddr(got); err != nil || a.Compare(netip.MustParseAddr("10.96.1.1")) < 0 {
			t.Fatalf("%s %v", got, err)
		}
	}
	if got := l.FirstIP(); got != "10.96.0.1" {
		t.Error(got)
	}
}

func TestPorts(t *testing.T) {
	l := start(t, mem.New(), requesttest.New(), "10.96.0.0/24")
	tx := l.Begin()
	if p, err := tx.TakePort(t.Context(), "TCP", 30005, "y/dns"); p != 30005 || err != nil {
		t.Fatal(p, err)
	}
	if _, err := tx.TakePort(t.Context(), "UDP", 30005, "y/dns"); err != nil {
		t.Errorf("one service, two protocols: %v", err)
	}
	if _, err := l.Begin().TakePort(t.Context(), "UDP", 30005, "y/other"); !errors.Is(err, ErrPortTaken) {
		t.Errorf("another service: %v", err)
	}
	if _, err := tx.TakePort(t.Context(), "TCP", 80, "y/dns"); err == nil || err.Error() != "provided port is not in the valid range. The range of valid ports is 30000-30063" {
		t.Error(err)
	}
	free := l.Begin()
	free.FreePort("TCP", 30005)
	if err := free.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Begin().TakePort(t.Context(), "TCP", 30005, "y/other"); !errors.Is(err, ErrPortTaken) {
		t.Errorf("UDP still uses it: %v", err)
	}
	free = l.Begin()
	free.FreePort("UDP", 30005)
	if err := free.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Begin().TakePort(t.Context(), "TCP", 30005, "y/other"); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
}

func TestLivenessRepair(t *testing.T) {
	store := mem.New()
	b := requesttest.New().With(services(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "restored"},
		Spec:       corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.20"}, Ports: []corev1.ServicePort{{Protocol: "TCP", NodePort: 30040}}},
	})
	l := start(t, store, b, "10.96.0.0/24")
	if _, err := l.Begin().TakeIP(t.Context(), "IPv4", "10.96.0.20", "y/x"); !errors.Is(err, ErrAddrTaken) {
		t.Errorf("a restored service's address was handed out: %v", err)
	}
	if _, err := l.Begin().TakePort(t.Context(), "TCP", 30040, "y/x"); !errors.Is(err, ErrPortTaken) {
		t.Errorf("a restored service's port was handed out: %v", err)
	}
	if _, err := l.Begin().TakePort(t.Context(), "TCP", 30041, "y/crashed"); err != nil { // and nobody ends the request
		t.Fatal(err)
	}
	var suspects map[int32]bool
	for range 2 {
		var err error
		if suspects, err = l.repair(t.Context(), suspects); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, store, b, "10.96.0.0/24")
	if _, err := again.Begin().TakePort(t.Context(), "TCP", 30041, "y/x"); err != nil {
		t.Errorf("the leaked port is lost: %v", err)
	}
}

// TestRanges: addresses come from any ready ServiceCIDR, the oldest first, and
// from none that is being deleted; what a service holds it keeps.
func TestRanges(t *testing.T) {
	store := mem.New()
	keep := func(c *networkingv1.ServiceCIDR) {
		t.Helper()
		c.APIVersion, c.Kind = "networking.k8s.io/v1", "ServiceCIDR"
		var buf bytes.Buffer
		if err := api.Encode(api.FormatProtobuf, c, &buf); err != nil {
			t.Fatal(err)
		}
		key := rangePrefix + c.Name
		r, err := store.Get(t.Context(), key, 0)
		if err == nil {
			_, err = store.Update(t.Context(), key, buf.Bytes(), r.Rev, 0)
		} else {
			_, err = store.Create(t.Context(), key, buf.Bytes(), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name, prefix string, second int64) *networkingv1.ServiceCIDR {
		return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(second, 0)},
			Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{prefix}}}
	}
	keep(at("kubernetes", "10.96.0.0/29", 1))
	l := start(t, store, requesttest.New(), "10.96.0.0/16")
	take := func(want string) (string, error) { return l.Begin().TakeIP(t.Context(), "IPv4", want, "y/s") }
	within := func(prefix string, n int) {
		t.Helper()
		for i := range n {
			got, err := take("")
			if err != nil || !netip.MustParsePrefix(prefix).Contains(netip.MustParseAddr(got)) {
				t.Fatalf("address %d of %s: %q %v", i, prefix, got, err)
			}
		}
	}
	within("10.96.0.0/29", 6) // the object's range, not the flag's
	if _, err := take(""); !errors.Is(err, ErrFull) {
		t.Errorf("a full range: %v", err)
	}
	if _, err := take("10.97.0.2"); !errors.Is(err, ErrNoRange) {
		t.Errorf("an address of no range: %v", err)
	}
	keep(at("more", "10.97.0.0/29", 2))
	if got, err := take("10.97.0.2"); err != nil || got != "10.97.0.2" {
		t.Errorf("an address of the new range: %s %v", got, err)
	}
	within("10.97.0.0/29", 3)
	going := at("more", "10.97.0.0/29", 2)
	going.DeletionTimestamp = &metav1.Time{Time: time.Unix(9, 0)}
	keep(going)
	if err := l.readRanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := take(""); !errors.Is(err, ErrFull) {
		t.Errorf("a range that is going: %v", err)
	}
	// Given back to the first, an address is there again.
	free := l.Begin()
	free.FreeIP("10.96.0.3")
	if err := free.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := take(""); err != nil || got != "10.96.0.3" {
		t.Errorf("given back: %s %v", got, err)
	}
	// Two families, overlapping ranges, one that nobody may use yet.
	keep(at("both", "10.97.0.0/30", 3))
	keep(at("six", "fd00:1::/120", 4))
	unready := at("unready", "10.98.0.0/24", 5)
	unready.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionFalse}}
	keep(unready)
	if got, err := l.Begin().TakeIP(t.Context(), "IPv6", "", "y/s"); err != nil || !netip.MustParsePrefix("fd00:1::/120").Contains(netip.MustParseAddr(got)) {
		t.Errorf("the other family: %s %v", got, err)
	}
	if _, err := take("10.97.0.2"); !errors.Is(err, ErrAddrTaken) {
		t.Errorf("taken from a range that is gone: %v", err)
	}
	if _, err := take("10.98.0.2"); !errors.Is(err, ErrNoRange) {
		t.Errorf("a range that is not ready: %v", err)
	}
}

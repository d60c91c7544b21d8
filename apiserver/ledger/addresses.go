package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

const managedBy = "ipallocator.k8s.io"

// pool is one range of addresses. Ranges may overlap.
type pool struct {
	family string
	prefix netip.Prefix
	size   uint64 // how many can be handed out, from the prefix's base + 1
	static uint64 // the first so many are for those who ask by name, while others last
	taken  uint64 // how many are known to belong to somebody
}

func newPool(p netip.Prefix) *pool {
	q := &pool{family: "IPv4", prefix: p}
	whole := uint64(1) << min(p.Addr().BitLen()-p.Bits(), 32)
	q.size = whole - 1 // all but the base
	if p.Addr().Is6() {
		q.family = "IPv6"
	} else {
		q.size -= min(q.size, 1) // and the broadcast address
	}
	if whole > 16 {
		q.static = band(whole, 16, 256, 16)
	}
	return q
}

// band is how much of a range is kept for explicit wishes.
func band(size, least, most, step uint64) uint64 {
	if size < least {
		return 0
	}
	return min(max(size/step, least), most)
}

// at returns the pool's address number i, counted from 0.
func (p *pool) at(i uint64) netip.Addr {
	b := p.prefix.Addr().As16()
	carry := i + 1
	for k := 15; k >= 0 && carry > 0; k-- {
		carry += uint64(b[k])
		b[k] = byte(carry)
		carry >>= 8
	}
	a := netip.AddrFrom16(b)
	if p.family == "IPv4" {
		return a.Unmap()
	}
	return a
}

func (p *pool) holds(a netip.Addr) bool {
	if !p.prefix.Contains(a) || a == p.prefix.Addr() {
		return false
	}
	return p.family != "IPv4" || p.size > 0 && a.Compare(p.at(p.size-1)) <= 0
}

// mark notes whether an address belongs to somebody. l.mu is held.
func (l *Ledger) mark(a netip.Addr, taken bool) {
	if l.taken[a] == taken {
		return
	}
	if taken {
		l.taken[a] = true
	} else {
		delete(l.taken, a)
	}
	for _, p := range l.pools {
		switch {
		case !p.holds(a):
		case taken:
			p.taken++
		default:
			p.taken--
		}
	}
}

// count finds out how much of each pool is taken. l.mu is held.
func (l *Ledger) count() {
	for _, p := range l.pools {
		p.taken = 0
		for a := range l.taken {
			if p.holds(a) {
				p.taken++
			}
		}
	}
}

// fill reads which addresses are taken.
func (l *Ledger) fill(ctx context.Context) error {
	after := ""
	found := map[netip.Addr]bool{}
	for {
		page, err := l.store.List(ctx, addressPrefix, storage.ListOptions{After: after, Limit: 1000})
		if err != nil {
			return fmt.Errorf("ledger: list addresses: %w", err)
		}
		for _, r := range page.Records {
			after = r.Key
			if a, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addressPrefix)); err == nil {
				found[a] = true
			}
		}
		if !page.More {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = found
	l.count()
	return nil
}

// takeIP creates the IPAddress object of an address. When nothing will do, what
// is remembered of ranges and addresses may be old: it is read anew, once.
func (l *Ledger) takeIP(ctx context.Context, family, want, owner string) (netip.Addr, error) {
	try := func() (netip.Addr, error) { return l.takeAny(ctx, family, owner) }
	if want != "" {
		a, err := netip.ParseAddr(want)
		if err != nil {
			return a, ErrNoRange
		}
		try = func() (netip.Addr, error) {
			if !l.within(a) {
				return a, ErrNoRange
			}
			return a, l.claim(ctx, a, owner)
		}
	}
	a, err := try()
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrNoRange) {
		return a, err
	}
	if err := errors.Join(l.readRanges(ctx), l.fill(ctx)); err != nil {
		return netip.Addr{}, err
	}
	return try()
}

// within says whether some range holds the address.
func (l *Ledger) within(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pools {
		if p.holds(a) {
			return true
		}
	}
	return false
}

func (l *Ledger) takeAny(ctx context.Context, family, owner string) (netip.Addr, error) {
	for {
		a, ok := l.suggest(family)
		if !ok {
			return a, ErrFull
		}
		if err := l.claim(ctx, a, owner); !errors.Is(err, ErrAddrTaken) {
			return a, err
		}
	}
}

// suggest names an address not known to be taken, of the first range that has
// one: a random one above the static band, else one within it.
func (l *Ledger) suggest(family string) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := clock.Rand(clock.Seed())
	for _, p := range l.pools {
		if p.family != family || p.taken >= p.size {
			continue
		}
		for _, part := range [][2]uint64{{p.static, p.size}, {0, p.static}} {
			n := part[1] - part[0]
			if n == 0 {
				continue
			}
			start := r.Uint64N(n)
			for i := uint64(0); i < n && i <= p.taken; i++ {
				if a := p.at(part[0] + (start+i)%n); !l.taken[a] {
					return a, true
				}
			}
		}
	}
	return netip.Addr{}, false
}

func familyOf(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// claim makes the address owner's, or returns ErrAddrTaken.
func (l *Ledger) claim(ctx context.Context, a netip.Addr, owner string) error {
	namespace, name, _ := strings.Cut(owner, "/")
	obj := &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{
			Name: a.String(), UID: uuid.NewUUID(), CreationTimestamp: metav1.NewTime(clock.Now().Truncate(time.Second)),
			Labels: map[string]string{networkingv1.LabelIPAddressFamily: familyOf(a), networkingv1.LabelManagedBy: managedBy},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: namespace, Name: name}},
	}
	var buf bytes.Buffer
	if err := api.Encode(api.FormatProtobuf, obj, &buf); err != nil {
		return fmt.Errorf("ledger: encode %s: %w", a, err)
	}
	_, err := l.store.Create(ctx, addressPrefix+a.String(), buf.Bytes(), 0)
	if err == nil || errors.Is(err, storage.ErrExists) {
		l.mu.Lock()
		l.mark(a, true)
		l.mu.Unlock()
	}
	if errors.Is(err, storage.ErrExists) {
		return ErrAddrTaken
	}
	return err
}

// freeIP deletes the address's object, whatever its revision.
func (l *Ledger) freeIP(ctx context.Context, addr string) error {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil //nolint:nilerr // "None" and the like were never taken
	}
	key := addressPrefix + a.String()
	for {
		r, err := l.store.Get(ctx, key, 0)
		if err == nil {
			_, err = l.store.Delete(ctx, key, r.Rev)
		}
		if conflict := (*storage.ConflictError)(nil); errors.As(err, &conflict) {
			continue
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("ledger: free %s: %w", a, err)
		}
		break
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(a, false)
	return nil
}

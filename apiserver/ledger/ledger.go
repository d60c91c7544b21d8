// Package ledger hands out what must be unique in the cluster: service
// addresses and node ports.
//
// Job: taking, giving back, and repairing the books after a crash.
//
// Not its job: which services need what (resource/service).
//
// Invariants: no address or port belongs to two services, however many API
// servers there are, because every taking is one compare-and-swap in the store:
// an address is an IPAddress object created under its own name, as upstream has
// done since v1.33; the ports are one RangeAllocation object. Memory only
// suggests what may be free. What a failed request took is given back; what a
// crash left behind is found by Repair.
package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// Where the books are kept.
const (
	addressPrefix = "/registry/ipaddresses/"
	portsKey      = "/registry/ranges/servicenodeports"
)

// Upstream's words.
var (
	ErrFull      = errors.New("range is full")
	ErrAddrTaken = errors.New("provided IP is already allocated")
	ErrPortTaken = errors.New("provided port is already allocated")
)

// Config says what there is to hand out.
type Config struct {
	CIDRs               []netip.Prefix // one per family, the primary first
	FirstPort, LastPort int32          // 0, 0 means 30000–32767
}

// Ledger is the books. Make one with New, then Start it.
type Ledger struct {
	c     Config
	store storage.Store
	back  request.Backend

	mu    sync.Mutex
	pools []*pool
	users map[int32]map[string]string // port -> protocol -> owner, as far as known here
}

// pool is one family's addresses.
type pool struct {
	family string
	prefix netip.Prefix
	size   uint64 // how many can be handed out, from the prefix's base + 1
	static uint64 // the first so many are for those who ask by name, while others last
	used   map[netip.Addr]bool
}

// New returns a ledger that has read nothing yet.
func New(c Config, store storage.Store, back request.Backend) (*Ledger, error) {
	if c.FirstPort == 0 && c.LastPort == 0 {
		c.FirstPort, c.LastPort = 30000, 32767
	}
	if c.LastPort < c.FirstPort {
		return nil, fmt.Errorf("ledger: ports %d-%d: no range", c.FirstPort, c.LastPort)
	}
	l := &Ledger{c: c, store: store, back: back, users: map[int32]map[string]string{}}
	for _, p := range c.CIDRs {
		q, err := newPool(p.Masked())
		if err != nil {
			return nil, err
		}
		l.pools = append(l.pools, q)
	}
	if len(l.pools) == 0 {
		return nil, errors.New("ledger: no service CIDR")
	}
	return l, nil
}

func newPool(p netip.Prefix) (*pool, error) {
	q := &pool{family: "IPv4", prefix: p, used: map[netip.Addr]bool{}}
	bits := p.Addr().BitLen() - p.Bits()
	if p.Addr().Is6() {
		q.family = "IPv6"
	}
	if bits < 2 {
		return nil, fmt.Errorf("ledger: service CIDR %s is too small", p)
	}
	q.size = 1<<min(bits, 32) - 1 // all but the base
	if q.family == "IPv4" {
		q.size-- // and the broadcast address
	}
	q.static = band(q.size, 16, 256, 16)
	return q, nil
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
	return p.family != "IPv4" || a.Compare(p.at(p.size-1)) <= 0
}

// Families are the cluster's address families in order.
func (l *Ledger) Families() []string {
	var out []string
	for _, p := range l.pools {
		out = append(out, p.family)
	}
	return out
}

// FirstIP is the address of the service "kubernetes".
func (l *Ledger) FirstIP() string { return l.pools[0].at(0).String() }

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
	for _, p := range l.pools {
		clear(p.used)
		for a := range found {
			if p.prefix.Contains(a) {
				p.used[a] = true
			}
		}
	}
	return nil
}

// takeIP creates the IPAddress object of an address.
func (l *Ledger) takeIP(ctx context.Context, p *pool, want, owner string) (netip.Addr, error) {
	if want != "" {
		a, err := netip.ParseAddr(want)
		if err != nil || !p.holds(a) {
			return a, fmt.Errorf("the provided IP (%s) is not in the valid range. The range of valid IPs is %s", want, p.prefix)
		}
		return a, l.claim(ctx, p, a, owner)
	}
	for round := range 2 {
		for {
			a, ok := l.suggest(p)
			if !ok {
				break
			}
			err := l.claim(ctx, p, a, owner)
			if !errors.Is(err, ErrAddrTaken) {
				return a, err
			}
		}
		if round == 0 { // others may have given some back
			if err := l.fill(ctx); err != nil {
				return netip.Addr{}, err
			}
		}
	}
	return netip.Addr{}, ErrFull
}

// suggest names an address not known to be taken: a random one above the static
// band, else one within it.
func (l *Ledger) suggest(p *pool) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uint64(len(p.used)) >= p.size {
		return netip.Addr{}, false
	}
	r := clock.Rand(clock.Seed())
	for _, part := range [][2]uint64{{p.static, p.size}, {0, p.static}} {
		n := part[1] - part[0]
		if n == 0 {
			continue
		}
		start := r.Uint64N(n)
		for i := uint64(0); i < n && i <= uint64(len(p.used)); i++ {
			if a := p.at(part[0] + (start+i)%n); !p.used[a] {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// claim makes the address owner's, or returns ErrAddrTaken.
func (l *Ledger) claim(ctx context.Context, p *pool, a netip.Addr, owner string) error {
	namespace, name, _ := strings.Cut(owner, "/")
	obj := &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{
			Name: a.String(), UID: uuid.NewUUID(), CreationTimestamp: metav1.NewTime(clock.Now().Truncate(time.Second)),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: p.family,
				networkingv1.LabelManagedBy:       "ipallocator.k8s.io",
			},
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
		p.used[a] = true
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
	for _, p := range l.pools {
		delete(p.used, a)
	}
	return nil
}

// observe learns from services who uses which port.
func (l *Ledger) observe(old, now api.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := old.(*corev1.Service); ok && s != nil {
		for _, u := range portsOf(s) {
			if l.users[u.port][u.protocol] == u.owner {
				delete(l.users[u.port], u.protocol)
			}
		}
	}
	if s, ok := now.(*corev1.Service); ok && s != nil {
		for _, u := range portsOf(s) {
			l.use(u)
		}
	}
}

type use struct {
	port            int32
	protocol, owner string
}

func (l *Ledger) use(u use) {
	if l.users[u.port] == nil {
		l.users[u.port] = map[string]string{}
	}
	l.users[u.port][u.protocol] = u.owner
}

func portsOf(s *corev1.Service) (out []use) {
	owner := s.Namespace + "/" + s.Name
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, use{p.NodePort, string(p.Protocol), owner})
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		out = append(out, use{s.Spec.HealthCheckNodePort, "TCP", owner})
	}
	return out
}

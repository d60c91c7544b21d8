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
// crash left behind is found by Repair. Addresses are taken from the ranges that
// ready ServiceCIDR objects name; a cluster that has none yet takes them from the
// ranges it was configured with.
package ledger

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/storage"
)

// Where the books are kept.
const (
	addressPrefix = "/registry/ipaddresses/"
	rangePrefix   = "/registry/servicecidrs/"
	portsKey      = "/registry/ranges/servicenodeports"
)

// Upstream's words.
var (
	ErrFull      = errors.New("range is full")
	ErrAddrTaken = errors.New("provided IP is already allocated")
	ErrNoRange   = errors.New("the provided network does not match the current range")
	ErrPortTaken = errors.New("provided port is already allocated")
)

// Config says what there is to hand out.
type Config struct {
	// CIDRs are one per family, the primary first. They say which families the
	// cluster has; addresses come from ServiceCIDR objects once there are any.
	CIDRs               []netip.Prefix
	FirstPort, LastPort int32 // 0, 0 means 30000–32767
}

// Ledger is the books. Make one with New, then Start it.
type Ledger struct {
	c     Config
	store storage.Store
	back  request.Backend

	own []*pool // the configured ranges

	mu     sync.Mutex
	pools  []*pool                     // what may be taken from, in the order in which it is
	ranges map[string]rangeOf          // ServiceCIDR objects by name
	taken  map[netip.Addr]bool         // addresses known to belong to somebody
	users  map[int32]map[string]string // port -> protocol -> owner, as far as known here
}

// New returns a ledger that has read nothing yet.
func New(c Config, store storage.Store, back request.Backend) (*Ledger, error) {
	if c.FirstPort == 0 && c.LastPort == 0 {
		c.FirstPort, c.LastPort = 30000, 32767
	}
	if c.LastPort < c.FirstPort {
		return nil, fmt.Errorf("ledger: ports %d-%d: no range", c.FirstPort, c.LastPort)
	}
	l := &Ledger{c: c, store: store, back: back, users: map[int32]map[string]string{}, taken: map[netip.Addr]bool{}, ranges: map[string]rangeOf{}}
	for _, p := range c.CIDRs {
		if p.Addr().BitLen()-p.Bits() < 2 {
			return nil, fmt.Errorf("ledger: service CIDR %s is too small", p.Masked())
		}
		l.own = append(l.own, newPool(p.Masked()))
	}
	if len(l.own) == 0 {
		return nil, errors.New("ledger: no service CIDR")
	}
	l.pools = l.own
	return l, nil
}

// Families are the cluster's address families in order.
func (l *Ledger) Families() []string {
	var out []string
	for _, p := range l.own {
		out = append(out, p.family)
	}
	return out
}

// FirstIP is the address of the service "kubernetes".
func (l *Ledger) FirstIP() string { return l.own[0].at(0).String() }

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

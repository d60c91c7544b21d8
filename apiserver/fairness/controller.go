package fairness

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/flow"
)

// Controller sorts requests and gives them seats.
type Controller struct {
	c   Config
	d   Deps
	met *metrics
	mix *mix

	table   atomic.Pointer[[]*schema] // in the order of precedence
	watches watches
	retry   drops
	lending atomic.Bool // an adjustment is due
	rev     chan struct{}
	once    sync.Once
	loaded  chan struct{} // closed when the store's objects are in force

	mu     sync.Mutex // of what follows; taken before a level's
	levels map[string]*level
	fair   float64
}

// New returns a controller that knows the objects every cluster begins with.
func New(c Config, d Deps) (*Controller, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("fairness: config: %w", err)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	f := &Controller{c: c, d: d, mix: newMix(c.Seats), levels: map[string]*level{}, rev: make(chan struct{}, 1), loaded: make(chan struct{})}
	met, err := newMetrics(f)
	if err != nil {
		return nil, fmt.Errorf("fairness: metrics: %w", err)
	}
	f.met = met
	must, may := flow.Mandatory(), flow.Suggested()
	f.configure(append(must.Levels, may.Levels...), append(must.Schemas, may.Schemas...))
	return f, nil
}

// configure makes the objects what is done from now on. The mandatory ones are
// there even when the store has lost them.
func (c *Controller) configure(levels []*flowv1.PriorityLevelConfiguration, schemas []*flowv1.FlowSchema) {
	must := flow.Mandatory()
	levels = with(levels, must.Levels, func(l *flowv1.PriorityLevelConfiguration) string { return l.Name })
	schemas = with(schemas, must.Schemas, func(s *flowv1.FlowSchema) string { return s.Name })
	now := clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	shares := make([]share, len(levels))
	for i, l := range levels {
		shares[i] = shareOf(l)
	}
	byName := map[string]*flowv1.PriorityLevelConfiguration{}
	for i, b := range divide(c.c.Seats, shares) {
		l := levels[i]
		byName[l.Name] = l
		queues, hand, length := queuing(l)
		c.level(l.Name, now).configure(shares[i], b, queues, hand, length, now)
	}
	c.retire(byName)
	var table []*schema
	for _, s := range schemas {
		if l, ok := byName[s.Spec.PriorityLevelConfiguration.Name]; ok {
			table = append(table, c.schema(s, l))
		}
	}
	slices.SortFunc(table, compareSchemas)
	c.table.Store(&table)
	for _, l := range c.levels {
		l.forget(table)
	}
}

// with adds to list those of more that it lacks by name, and sorts by name.
func with[T any](list, more []T, name func(T) string) []T {
	list = slices.Clone(list)
	for _, m := range more {
		if !slices.ContainsFunc(list, func(x T) bool { return name(x) == name(m) }) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return list
}

func shareOf(l *flowv1.PriorityLevelConfiguration) share {
	if l.Spec.Type == flowv1.PriorityLevelEnablementExempt {
		s := share{exempt: true}
		if e := l.Spec.Exempt; e != nil {
			s.shares, s.lendable = ptr.Deref(e.NominalConcurrencyShares, 0), ptr.Deref(e.LendablePercent, 0)
		}
		return s
	}
	lim := ptr.Deref(l.Spec.Limited, flowv1.LimitedPriorityLevelConfiguration{})
	return share{shares: ptr.Deref(lim.NominalConcurrencyShares, 30), lendable: ptr.Deref(lim.LendablePercent, 0), borrowing: lim.BorrowingLimitPercent}
}

func queuing(l *flowv1.PriorityLevelConfiguration) (queues, hand, length int) {
	if l.Spec.Limited == nil || l.Spec.Limited.LimitResponse.Queuing == nil {
		return 0, 0, 0
	}
	q := l.Spec.Limited.LimitResponse.Queuing
	return int(q.Queues), int(min(q.HandSize, q.Queues)), int(q.QueueLengthLimit)
}

// level returns the level of that name, a new one if need be.
func (c *Controller) level(name string, now time.Time) *level {
	l := c.levels[name]
	if l == nil {
		l = &level{name: name, met: newLevelMetrics(), need: c.lendSoon, flows: map[string]*flowStats{}}
		l.demand.since, l.demand.at = now, now
		c.levels[name] = l
	}
	return l
}

// retire forgets levels whose objects are gone, once they have drained.
func (c *Controller) retire(wanted map[string]*flowv1.PriorityLevelConfiguration) {
	for name, l := range c.levels {
		if wanted[name] != nil {
			continue
		}
		l.mu.Lock()
		l.gone = true
		idle := l.executing == 0 && l.waiting == 0
		l.mu.Unlock()
		if idle {
			delete(c.levels, name)
		}
	}
}

func (c *Controller) schema(s *flowv1.FlowSchema, l *flowv1.PriorityLevelConfiguration) *schema {
	lv := c.levels[l.Name]
	lv.mu.Lock()
	defer lv.mu.Unlock()
	f := lv.flows[s.Name]
	if f == nil {
		f = c.met.flow(l.Name, s.Name)
		lv.flows[s.Name] = f
	}
	out := &schema{
		name: s.Name, uid: []string{string(s.UID)}, precedence: s.Spec.MatchingPrecedence, rules: s.Spec.Rules,
		level: lv, levelUID: []string{string(l.UID)}, flows: f, maxSeats: maxSeats(lv.bounds.nominal, lv.hand),
	}
	if lv.exempt {
		out.maxSeats = maxListSeats
	}
	if s.Spec.DistinguisherMethod != nil {
		out.by = s.Spec.DistinguisherMethod.Type
	}
	return out
}

// forget drops the numbers of schemas that lead elsewhere now.
func (l *level) forget(table []*schema) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, f := range l.flows {
		busy := f.executing > 0 || f.waiting > 0
		if !busy && !slices.ContainsFunc(table, func(s *schema) bool { return s.flows == f }) {
			delete(l.flows, name)
		}
	}
}

// classify finds the schema of a request: the first that matches.
func (c *Controller) classify(u *request.User, i *request.Info) *schema {
	table := *c.table.Load()
	var last *schema
	for _, s := range table {
		if s.match(u, i) {
			return s
		}
		if s.name == flowv1.FlowSchemaNameCatchAll {
			last = s
		}
	}
	return last // catch-all takes what nothing matches: users outside of all groups
}

// adjustEvery is how often limits are adjusted while levels borrow.
const adjustEvery = 10 * time.Second

// lendSoon has the limits adjusted in a moment, unless they are to be anyway.
func (c *Controller) lendSoon() {
	if c.lending.CompareAndSwap(false, true) {
		clock.AfterFunc(10*time.Millisecond, c.adjust)
	}
}

// adjust lends idle seats to levels that could use more than their own, again
// every while until none could.
func (c *Controller) adjust() {
	now := clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var ls []*level
	for _, l := range c.levels {
		if !l.gone {
			ls = append(ls, l)
		}
	}
	slices.SortFunc(ls, func(a, b *level) int { return cmp.Compare(a.name, b.name) })
	shares, bs, ds := make([]share, len(ls)), make([]bounds, len(ls)), make([]demand, len(ls))
	needy := false
	for i, l := range ls {
		l.mu.Lock()
		l.advance(now)
		l.demand.close(now, l.wants(), adjustEvery)
		shares[i], bs[i], ds[i] = l.share, l.bounds, l.demand
		needy = needy || !l.exempt && l.demand.high > l.bounds.nominal
		l.mu.Unlock()
	}
	if !needy {
		for _, l := range ls {
			l.setLimit(l.bounds.nominal, now)
		}
		c.fair = 0
		c.lending.Store(false)
		return
	}
	limits, fair := lend(shares, bs, ds)
	c.fair = fair
	for i, l := range ls {
		l.setLimit(limits[i], now)
	}
	clock.AfterFunc(adjustEvery, c.adjust)
}

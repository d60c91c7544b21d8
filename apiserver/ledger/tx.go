package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Tx is what one request takes and gives back. It is a resource.Ledger; end it
// with Commit or Rollback.
type Tx struct {
	l *Ledger

	mu         sync.Mutex
	tookIP     []string
	freesIP    []string
	took       []use
	newPorts   []int32 // those of took that set a bit
	freesPorts []use
}

// Begin returns an empty transaction.
func (l *Ledger) Begin() *Tx { return &Tx{l: l} }

// Families are the cluster's address families in order.
func (t *Tx) Families() []string { return t.l.Families() }

// TakeIP takes an address of the family; want "" means any, family "" the first.
func (t *Tx) TakeIP(ctx context.Context, family, want, owner string) (string, error) {
	if family == "" {
		family = t.l.own[0].family
	}
	a, err := t.l.takeIP(ctx, family, want, owner)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tookIP = append(t.tookIP, a.String())
	return a.String(), nil
}

// FreeIP gives an address back once the request succeeds.
func (t *Tx) FreeIP(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freesIP = append(t.freesIP, addr)
}

// TakePort takes a node port; want 0 means any. One owner's ports of different
// protocols may have the same number.
func (t *Tx) TakePort(ctx context.Context, protocol string, want int32, owner string) (int32, error) {
	if want != 0 && t.shares(protocol, want, owner) {
		t.note(use{want, protocol, owner}, false)
		return want, nil
	}
	port, err := t.l.takePort(ctx, want)
	if err != nil {
		return 0, err
	}
	t.note(use{port, protocol, owner}, true)
	return port, nil
}

// shares says whether owner holds the number already for other protocols only.
func (t *Tx) shares(protocol string, port int32, owner string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	known := t.l.users[port]
	if known[protocol] != "" {
		// The port may be moving between entries of one service: given up and
		// taken again by the same request.
		return known[protocol] == owner && slices.Contains(t.freesPorts, use{port, protocol, owner})
	}
	for _, o := range known {
		if o == owner {
			return true
		}
	}
	return false
}

func (t *Tx) note(u use, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took = append(t.took, u)
	if fresh {
		t.newPorts = append(t.newPorts, u.port)
	}
	t.l.mu.Lock()
	t.l.use(u)
	t.l.mu.Unlock()
}

// FreePort gives a port back once the request succeeds.
func (t *Tx) FreePort(protocol string, port int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.l.mu.Lock()
	owner := t.l.users[port][protocol]
	t.l.mu.Unlock()
	t.freesPorts = append(t.freesPorts, use{port, protocol, owner})
}

// Commit makes what was given back free. What fails here, Repair finds.
func (t *Tx) Commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // the object is stored: the books must follow
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, a := range t.freesIP {
		if !slices.Contains(t.tookIP, a) {
			errs = append(errs, t.l.freeIP(ctx, a))
		}
	}
	for _, u := range t.freesPorts {
		if slices.ContainsFunc(t.took, func(o use) bool { return o.port == u.port && o.protocol == u.protocol }) {
			continue
		}
		errs = append(errs, t.drop(ctx, u))
	}
	return errors.Join(errs...)
}

// Rollback gives back what was taken.
func (t *Tx) Rollback(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, a := range t.tookIP {
		errs = append(errs, t.l.freeIP(ctx, a))
	}
	for _, u := range t.took {
		if !slices.ContainsFunc(t.freesPorts, func(o use) bool { return o.port == u.port && o.protocol == u.protocol }) {
			errs = append(errs, t.drop(ctx, u))
		}
	}
	return errors.Join(errs...)
}

// drop forgets one use of a port and frees the number with its last use.
func (t *Tx) drop(ctx context.Context, u use) error {
	t.l.mu.Lock()
	delete(t.l.users[u.port], u.protocol)
	last := len(t.l.users[u.port]) == 0
	if last {
		delete(t.l.users, u.port)
	}
	t.l.mu.Unlock()
	if !last {
		return nil
	}
	return t.l.freePort(ctx, u.port)
}

package request

import (
	"context"
	"maps"
	"sync"
)

// Annotations is what the server's parts put down about one request for the
// audit log: how it was decided, who changed the object on the way.
type Annotations struct {
	mu sync.Mutex
	m  map[string]string
}

// WithAnnotations returns ctx with a fresh collection. Only a request that is
// audited has one.
func WithAnnotations(ctx context.Context) (context.Context, *Annotations) {
	a := &Annotations{}
	return context.WithValue(ctx, auditKey, a), a
}

// Audited says whether anybody will read annotations of ctx, for those whose
// values cost something to make.
func Audited(ctx context.Context) bool { return ctx.Value(auditKey) != nil }

// Annotate puts value down under key, which is a domain name, a slash and a
// name. The first value of a key stays. It does nothing when the request is not
// audited.
func Annotate(ctx context.Context, key, value string) {
	if a, ok := ctx.Value(auditKey).(*Annotations); ok {
		a.Put(key, value)
	}
}

// Put puts value down under key unless there is one.
func (a *Annotations) Put(key, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, has := a.m[key]; has {
		return
	}
	if a.m == nil {
		a.m = map[string]string{}
	}
	a.m[key] = value
}

// Map returns a copy of what was put down so far, nil when that is nothing.
func (a *Annotations) Map() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.m)
}

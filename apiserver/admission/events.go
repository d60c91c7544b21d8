package admission

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/lru"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"

	"golang.org/x/time/rate"
)

// eventRate refuses events that come too fast.
type eventRate struct {
	onCreateUpdate
	limits []*eventLimit
}

// eventLimit is one rule: a bucket for everybody, or one per namespace, user or object.
type eventLimit struct {
	Type             string
	QPS, Burst, Size int32

	mu      sync.Mutex
	buckets *lru.Cache
}

// The sorts of limit.
const (
	perServer    = "Server"
	perNamespace = "Namespace"
	perUser      = "User"
	perObject    = "SourceAndObject"

	defaultBuckets = 4096
)

func newEventRate(d Deps) (request.Plugin, error) {
	var c struct {
		Limits []struct {
			Type      string `json:"type"`
			QPS       int32  `json:"qps"`
			Burst     int32  `json:"burst"`
			CacheSize int32  `json:"cacheSize"`
		} `json:"limits"`
	}
	if err := d.Config.read("EventRateLimit", &c); err != nil {
		return nil, err
	}
	p, path := &eventRate{}, field.NewPath("limits")
	var errs field.ErrorList
	if _, configured := d.Config["EventRateLimit"]; configured && len(c.Limits) == 0 {
		errs = append(errs, field.Invalid(path, c.Limits, "must not be empty"))
	}
	seen := sets.New[string]()
	for i, l := range c.Limits {
		at := path.Index(i)
		if l.Type != perServer && l.Type != perNamespace && l.Type != perUser && l.Type != perObject {
			errs = append(errs, field.NotSupported(at.Child("type"), l.Type, []string{perNamespace, perServer, perObject, perUser}))
		}
		if seen.Has(l.Type) {
			errs = append(errs, field.Duplicate(at.Child("type"), l.Type))
		}
		seen.Insert(l.Type)
		if l.Burst <= 0 {
			errs = append(errs, field.Invalid(at.Child("burst"), l.Burst, "must be positive"))
		}
		if l.QPS <= 0 {
			errs = append(errs, field.Invalid(at.Child("qps"), l.QPS, "must be positive"))
		}
		if l.Type != perServer && l.CacheSize < 0 {
			errs = append(errs, field.Invalid(at.Child("cacheSize"), l.CacheSize, "must not be negative"))
		}
		size := l.CacheSize
		if size <= 0 {
			size = defaultBuckets
		}
		p.limits = append(p.limits, &eventLimit{Type: l.Type, QPS: l.QPS, Burst: l.Burst, Size: size, buckets: lru.New(int(size))})
	}
	if err := errs.ToAggregate(); err != nil {
		return nil, fmt.Errorf("couldn't init admission plugin %q: %w", "EventRateLimit", err)
	}
	return p, nil
}

func (*eventRate) Name() string { return "EventRateLimit" }

func (p *eventRate) Validate(_ context.Context, a *request.Attributes) error {
	if a.Kind.Kind != "Event" || a.Kind.Group != "" && a.Kind.Group != "events.k8s.io" || a.DryRun {
		return nil
	}
	var errs []error
	for _, l := range p.limits {
		if key := l.key(a); !l.accept(key) {
			errs = append(errs, fmt.Errorf("limit reached on type %v for key %v", l.Type, key))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewTooManyRequestsError(err.Error())
	}
	return nil
}

func (l *eventLimit) key(a *request.Attributes) string {
	switch l.Type {
	case perNamespace:
		return a.Namespace
	case perUser:
		if a.User != nil {
			return a.User.Name
		}
	case perObject:
		if e, ok := a.Object.(*corev1.Event); ok {
			o := &e.InvolvedObject
			return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
		}
	}
	return ""
}

func (l *eventLimit) accept(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket, ok := l.buckets.Get(key)
	if !ok {
		bucket = rate.NewLimiter(rate.Limit(l.QPS), int(l.Burst))
		l.buckets.Add(key, bucket)
	}
	return bucket.(*rate.Limiter).AllowN(clock.Now(), 1)
}

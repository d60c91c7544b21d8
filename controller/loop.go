package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/queue"
	"github.com/sampan-dev/sampan/kit/run"
)

// Key names the object a loop works on.
type Key = client.Key

// Controller is a named task that runs until its context ends.
type Controller interface {
	Name() string
	Run(ctx context.Context) error
}

// Deps are what every loop needs.
type Deps struct {
	// As returns the connection of the named controller's service account.
	As func(controller string) client.Interface
	// Own is the connection of the process itself, for what accounts depend on.
	Own client.Interface
	// Mirrors are shared by all loops of a process.
	Mirrors *client.Mirrors
	// Metrics may be nil.
	Metrics *Metrics
	Log     *slog.Logger
}

// WithClient returns Deps where every loop acts as c.
func WithClient(c client.Interface) Deps {
	return Deps{As: func(string) client.Interface { return c }, Own: c, Mirrors: client.NewMirrors(c), Log: slog.Default()}
}

// Policy is upstream's wait between tries of a failing key.
var policy = backoff.Policy{First: 5 * time.Millisecond, Max: 1000 * time.Second}

// Loop works on keys. Make one with NewLoop.
type Loop struct {
	Client client.Interface
	Events *client.EventRecorder
	Log    *slog.Logger
	Unseen Unseen

	name      string
	workers   int
	reconcile func(ctx context.Context, k Key) error
	mirrors   *client.Mirrors
	queue     *queue.Queue[Key]
	meter     *meter
	synced    []func(ctx context.Context) error
	begin     []func()
	every     []periodic
}

type periodic struct {
	period time.Duration
	fn     func(ctx context.Context)
}

// NewLoop returns a loop that is called name, as in "replicaset", whose events
// come from name-controller. reconcile is called for one key at a time per key,
// and by up to so many workers at once; an error brings the key back later.
func NewLoop(d Deps, name string, workers int, reconcile func(ctx context.Context, k Key) error) *Loop {
	log := d.Log
	if log == nil {
		log = slog.Default()
	}
	account := name + "-controller"
	c := d.As(account)
	l := &Loop{
		Client: c, Events: client.Recorder(c, account, ""), Log: log.With("room", "controller", "controller", name),
		name: name, workers: workers, reconcile: reconcile, mirrors: d.Mirrors, queue: queue.New[Key](policy),
	}
	l.meter = d.Metrics.meter(name, l.queue.Len)
	return l
}

// As changes the name under which the loop acts, where it is not NAME-controller.
func (l *Loop) As(d Deps, account string) *Loop {
	l.Client = d.As(account)
	l.Events = client.Recorder(l.Client, account, "")
	return l
}

// Input makes the loop see all objects of T. keys says what a change of one
// asks to be worked on; nil means nothing. old or new is nil when the object
// comes or goes.
func Input[T any](l *Loop, keys func(old, new *T) []Key) *client.Mirror[T] {
	m := client.MirrorOf[T](l.mirrors, client.MirrorOptions{})
	Watch(l, m, keys)
	return m
}

// Watch is Input for a mirror that is at hand.
func Watch[T any](l *Loop, m *client.Mirror[T], keys func(old, new *T) []Key) {
	l.synced = append(l.synced, m.WaitSynced)
	if keys == nil {
		return
	}
	l.begin = append(l.begin, func() {
		m.OnChange(func(old, new *T) {
			for _, k := range keys(old, new) {
				l.Add(k)
			}
		})
	})
}

// Self is the mapping of an object to itself, also when it is gone.
func Self[T any](old, new *T) []Key {
	if new == nil {
		new = old
	}
	return []Key{client.KeyOf(new)}
}

// Every makes the loop call fn once in a period, from its start on.
func (l *Loop) Every(period time.Duration, fn func(ctx context.Context)) {
	l.every = append(l.every, periodic{period, fn})
}

// Name returns the loop's name.
func (l *Loop) Name() string { return l.name }

// Add asks for k to be worked on.
func (l *Loop) Add(k Key) {
	l.meter.added(k)
	l.queue.Add(k)
}

// After asks for k to be worked on after d.
func (l *Loop) After(k Key, d time.Duration) { l.queue.AddAfter(k, max(d, 0)) }

// Run works until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	for _, wait := range l.synced {
		if err := wait(ctx); err != nil {
			return nil
		}
	}
	for _, fn := range l.begin {
		fn()
	}
	g := run.New(ctx)
	for i := range max(l.workers, 1) {
		if l.reconcile == nil {
			break
		}
		g.Go(fmt.Sprintf("%s worker %d", l.name, i), l.work)
	}
	for _, p := range l.every {
		g.Go(l.name+" periodic", func(ctx context.Context) error {
			for {
				p.fn(ctx)
				if err := clock.Sleep(ctx, p.period); err != nil {
					return nil
				}
			}
		})
	}
	err := g.Wait()
	l.queue.Close()
	return err
}

func (l *Loop) work(ctx context.Context) error {
	for {
		k, err := l.queue.Get(ctx)
		if err != nil {
			return nil
		}
		l.one(ctx, k)
	}
}

func (l *Loop) one(ctx context.Context, k Key) {
	defer l.queue.Done(k)
	done := l.meter.begin(k)
	defer done()
	if !l.Unseen.Settled(k) {
		// The change that settles it brings the key back; the timer is for
		// objects that came and went while a watch was broken.
		l.queue.AddAfter(k, unseenRetry)
		return
	}
	err := l.guard(ctx, k)
	if err == nil || ctx.Err() != nil {
		l.queue.Forget(k)
		return
	}
	if apierrors.IsConflict(err) {
		l.Log.Debug("conflict; trying again", "key", k.String(), "err", err)
	} else {
		l.Log.Warn("could not reconcile", "key", k.String(), "err", err)
	}
	l.meter.retried()
	l.queue.Retry(k)
}

const unseenRetry = 2 * time.Second

// guard makes a panic in one key's work an error of that key alone.
func (l *Loop) guard(ctx context.Context, k Key) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return l.reconcile(ctx, k)
}

// Ignore returns nil for errors that mean the work is done or moot: kinds are
// tests such as apierrors.IsNotFound.
func Ignore(err error, kinds ...func(error) bool) error {
	for _, is := range kinds {
		if err != nil && is(err) {
			return nil
		}
	}
	return err
}

// ErrPanic is what a batch's panicking call returns.
var ErrPanic = errors.New("call panicked")

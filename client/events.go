package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// How the recorder keeps noise down: upstream's figures.
const (
	eventQueue       = 1000             // events waiting to be written; more are dropped
	eventMemory      = 4096             // distinct events remembered
	aggregateAfter   = 10               // similar events within the interval before they become one
	aggregateFor     = 10 * time.Minute // the interval
	spamBurst        = 25               // events about one object at once
	spamRefill       = 5 * time.Minute  // one more per
	eventWriteLimit  = 30 * time.Second // for one write
	aggregatedPrefix = "(combined from similar events): "
)

// EventRecorder writes Events about objects. It never blocks: what the server
// does not take in time is dropped. Make one with Recorder.
type EventRecorder struct {
	c      Interface
	source corev1.EventSource
	log    *slog.Logger

	mu      sync.Mutex
	queue   []pending
	running bool
	stamp   int64 // of the latest event's name: two events never share one
	known   map[string]*knownEvent
	similar map[string]*similarEvents
	spam    map[string]*bucket
}

type pending struct {
	event *corev1.Event
	patch []byte // set when the event is there already
}

// knownEvent is an event that was written.
type knownEvent struct {
	name  string
	count int32
	first metav1.Time
}

type similarEvents struct {
	messages map[string]bool
	last     time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// Recorder returns a recorder that reports as component on host.
func Recorder(c Interface, component, host string) *EventRecorder {
	return &EventRecorder{
		c: c, source: corev1.EventSource{Component: component, Host: host}, log: slog.Default().With("room", "client"),
		known: map[string]*knownEvent{}, similar: map[string]*similarEvents{}, spam: map[string]*bucket{},
	}
}

// Event tells that something happened to obj. kind is Normal or Warning.
func (r *EventRecorder) Event(obj api.Object, kind, reason, format string, args ...any) {
	r.EventRef(Reference(obj), kind, reason, format, args...)
}

// Reference returns the reference to obj that events carry.
func Reference(obj api.Object) *corev1.ObjectReference {
	gvk, err := api.KindOf(obj)
	if err != nil {
		gvk = obj.GetObjectKind().GroupVersionKind()
	}
	version, kind := gvk.ToAPIVersionAndKind()
	return &corev1.ObjectReference{
		APIVersion: version, Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName(),
		UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
	}
}

// EventRef is Event about a reference, which may point to a part of an object.
func (r *EventRecorder) EventRef(ref *corev1.ObjectReference, kind, reason, format string, args ...any) {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	if r == nil {
		return
	}
	now := metav1.Time{Time: clock.Now()}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace},
		InvolvedObject: *ref, Reason: reason, Message: message, Type: kind, Source: r.source,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: r.source.Component, ReportingInstance: r.source.Host,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp = max(r.stamp+1, now.UnixNano())
	e.Name = fmt.Sprintf("%s.%x", ref.Name, r.stamp)
	p, ok := r.correlate(e)
	if !ok || len(r.queue) >= eventQueue {
		return
	}
	r.queue = append(r.queue, p)
	if !r.running {
		r.running = true
		run.Detach(context.Background(), "events of "+r.source.Component, r.drain)
	}
}

// correlate decides what becomes of e: nothing, a new Event, or a higher count.
func (r *EventRecorder) correlate(e *corev1.Event) (pending, bool) {
	now := e.LastTimestamp.Time
	r.trim()
	o := &e.InvolvedObject
	about := strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "\x00")
	if !r.allow(about, now) {
		return pending{}, false
	}
	group := strings.Join([]string{about, o.FieldPath, e.Type, e.Reason, e.ReportingController, e.ReportingInstance}, "\x00")
	s := r.similar[group]
	if s == nil || now.Sub(s.last) > aggregateFor {
		s = &similarEvents{messages: map[string]bool{}}
		r.similar[group] = s
	}
	s.last = now
	s.messages[e.Message] = true
	key := group + "\x00" + e.Message
	if len(s.messages) > aggregateAfter {
		delete(s.messages, e.Message)
		key = group
		e.Message = aggregatedPrefix + e.Message
	}
	k := r.known[key]
	if k == nil {
		r.known[key] = &knownEvent{name: e.Name, count: 1, first: e.FirstTimestamp}
		return pending{event: e}, true
	}
	k.count++
	e.Name, e.Count, e.FirstTimestamp = k.name, k.count, k.first
	patch, err := json.Marshal(map[string]any{"count": e.Count, "lastTimestamp": e.LastTimestamp, "message": e.Message})
	if err != nil {
		return pending{}, false
	}
	return pending{event: e, patch: patch}, true
}

// allow takes a token of the object's bucket.
func (r *EventRecorder) allow(about string, now time.Time) bool {
	b := r.spam[about]
	if b == nil {
		b = &bucket{tokens: spamBurst, at: now}
		r.spam[about] = b
	}
	b.tokens = min(spamBurst, b.tokens+float64(now.Sub(b.at))/float64(spamRefill))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// trim forgets all when too much is remembered: noise then costs one more Event each.
func (r *EventRecorder) trim() {
	if len(r.known) > eventMemory {
		clear(r.known)
	}
	if len(r.similar) > eventMemory {
		clear(r.similar)
	}
	if len(r.spam) > eventMemory {
		clear(r.spam)
	}
}

// drain writes what is queued and ends when nothing is left.
func (r *EventRecorder) drain(ctx context.Context) {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.running, r.queue = false, nil
			r.mu.Unlock()
			return
		}
		p := r.queue[0]
		r.queue = r.queue[1:]
		r.mu.Unlock()
		if err := r.write(ctx, p); err != nil {
			r.log.Debug("event dropped", "event", p.event.Namespace+"/"+p.event.Name, "err", err)
		}
	}
}

func (r *EventRecorder) write(ctx context.Context, p pending) error {
	ctx, cancel := context.WithTimeout(ctx, eventWriteLimit)
	defer cancel()
	events := Of[corev1.Event](r.c, p.event.Namespace)
	if p.patch != nil {
		_, err := events.Patch(ctx, p.event.Name, "", types.StrategicMergePatchType, p.patch)
		if !apierrors.IsNotFound(err) {
			return err
		}
		// It expired meanwhile: tell it again.
		p.event.ResourceVersion = ""
	}
	for try := 1; ; try++ {
		_, err := events.Create(ctx, p.event)
		if err == nil || answered(err) || try == 3 {
			return err
		}
		if err := clock.Sleep(ctx, time.Duration(try)*time.Second); err != nil {
			return err
		}
	}
}

// answered says that the server gave its last word.
func answered(err error) bool {
	s := apierrors.APIStatus(nil)
	if !errors.As(err, &s) {
		return false
	}
	return s.Status().Code < 500 && s.Status().Code != 429
}

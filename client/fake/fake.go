// Package fake is a small API server in memory, for the tests of actors.
//
// Job: implement client.Interface over a map, with revisions, watches,
// conflicts, generated names, selectors, finalizers, subresource status and
// the pods/binding and pods/eviction subresources.
//
// Not its job: validation, defaulting, admission, authorization; conditions a
// test wants, it writes.
//
// Invariants: stored objects are never modified: writers' objects are copied in.
package fake

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Server is the fake. Make one with New.
type Server struct {
	// Hook, when set, may refuse any write before it is done; set it before use.
	Hook func(Call) error

	mu      sync.Mutex
	rev     int64
	names   int64
	objects map[schema.GroupVersionResource]map[types.NamespacedName]api.Object
	log     []change
	floor   int64 // watches from before it are expired
	signal  chan struct{}
	raw     map[string][]byte
	calls   []Call
}

// Call is one write that was asked for.
type Call struct {
	Verb     string
	Resource schema.GroupVersionResource
	Sub      string
	Key      types.NamespacedName
	Object   api.Object
	Delete   *metav1.DeleteOptions
}

type change struct {
	rev      int64
	kind     watch.EventType
	resource schema.GroupVersionResource
	old, now api.Object
}

var _ client.Interface = (*Server)(nil)

// New returns a server that holds objs, each under the resource its type guesses.
func New(objs ...api.Object) *Server {
	s := &Server{objects: map[schema.GroupVersionResource]map[types.NamespacedName]api.Object{}, signal: make(chan struct{}), raw: map[string][]byte{}}
	for _, o := range objs {
		s.Put(o)
	}
	return s
}

// Put stores o as it is, without any rule.
func (s *Server) Put(o api.Object) api.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	o = o.DeepCopyObject().(api.Object)
	s.identify(o)
	return s.store(guess(o), o)
}

// SetRaw makes Raw answer body for path.
func (s *Server) SetRaw(path string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw[path] = body
}

// Expire forgets the history, so that watches from before now end with 410.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor, s.log = s.rev, nil
	s.wake()
}

// Calls returns the writes that were asked for, and forgets them.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls
	s.calls = nil
	return c
}

func guess(o api.Object) schema.GroupVersionResource {
	gvk, err := api.KindOf(o)
	if err != nil {
		panic(err)
	}
	return resourceOf(gvk)
}

func (s *Server) identify(o api.Object) {
	if o.GetUID() == "" {
		s.names++
		o.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", s.names)))
	}
	if t := o.GetCreationTimestamp(); t.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(clock.Now().Truncate(1e9)))
	}
	if o.GetGeneration() == 0 {
		o.SetGeneration(1)
	}
}

func (s *Server) wake() {
	close(s.signal)
	s.signal = make(chan struct{})
}

// store keeps o as the next revision.
func (s *Server) store(r schema.GroupVersionResource, o api.Object) api.Object {
	s.rev++
	o.SetResourceVersion(strconv.FormatInt(s.rev, 10))
	if gvk, err := api.KindOf(o); err == nil {
		api.SetKind(o, gvk)
	}
	m := s.objects[r]
	if m == nil {
		m = map[types.NamespacedName]api.Object{}
		s.objects[r] = m
	}
	k := key(o)
	kind := watch.Added
	if m[k] != nil {
		kind = watch.Modified
	}
	s.log = append(s.log, change{s.rev, kind, r, m[k], o})
	m[k] = o
	s.wake()
	return o
}

func (s *Server) drop(r schema.GroupVersionResource, o api.Object) {
	s.rev++
	gone := o.DeepCopyObject().(api.Object)
	gone.SetResourceVersion(strconv.FormatInt(s.rev, 10))
	delete(s.objects[r], key(o))
	s.log = append(s.log, change{s.rev, watch.Deleted, r, o, gone})
	s.wake()
}

func key(o api.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (s *Server) find(r schema.GroupVersionResource, namespace, name string) (api.Object, error) {
	o := s.objects[r][types.NamespacedName{Namespace: namespace, Name: name}]
	if o == nil {
		return nil, apierrors.NewNotFound(r.GroupResource(), name)
	}
	return o, nil
}

func (s *Server) note(c Call) error {
	s.calls = append(s.calls, c)
	if s.Hook != nil {
		return s.Hook(c)
	}
	return nil
}

// Get implements client.Interface.
func (s *Server) Get(_ context.Context, r schema.GroupVersionResource, namespace, name, _ string, _ *metav1.GetOptions) (api.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(r, namespace, name)
}

// List implements client.Interface.
func (s *Server) List(_ context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error) {
	match, err := matcher(namespace, o)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &api.Listed{ResourceVersion: strconv.FormatInt(s.rev, 10)}
	for _, obj := range s.objects[r] {
		if match(obj) {
			l.Items = append(l.Items, obj)
		}
	}
	slices.SortFunc(l.Items, func(a, b api.Object) int { return strings.Compare(key(a).String(), key(b).String()) })
	return l, nil
}

// Watch implements client.Interface.
func (s *Server) Watch(_ context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error) {
	match, err := matcher(namespace, o)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &cursor{s: s, resource: r, match: match, rev: s.rev}
	if o != nil && o.ResourceVersion != "" && o.ResourceVersion != "0" {
		if c.rev, err = strconv.ParseInt(o.ResourceVersion, 10, 64); err != nil {
			return nil, apierrors.NewBadRequest("invalid resource version")
		}
	}
	return c, nil
}

type cursor struct {
	s        *Server
	resource schema.GroupVersionResource
	match    func(api.Object) bool
	rev      int64
	stopped  bool
}

// Next implements api.Events.
func (c *cursor) Next(ctx context.Context) (watch.Event, error) {
	for {
		c.s.mu.Lock()
		if c.stopped {
			c.s.mu.Unlock()
			return watch.Event{}, io.EOF
		}
		if c.rev < c.s.floor {
			c.s.mu.Unlock()
			return watch.Event{}, apierrors.NewResourceExpired("too old resource version")
		}
		i, _ := slices.BinarySearchFunc(c.s.log, c.rev+1, func(ch change, rev int64) int { return int(ch.rev - rev) })
		for ; i < len(c.s.log); i++ {
			ch := c.s.log[i]
			c.rev = ch.rev
			if ch.resource != c.resource {
				continue
			}
			if e, ok := c.event(ch); ok {
				c.s.mu.Unlock()
				return e, nil
			}
		}
		signal := c.s.signal
		c.s.mu.Unlock()
		select {
		case <-signal:
		case <-ctx.Done():
			return watch.Event{}, ctx.Err()
		}
	}
}

// event shows a change as the cursor's selectors see it.
func (c *cursor) event(ch change) (watch.Event, bool) {
	was := ch.old != nil && c.match(ch.old)
	is := ch.kind != watch.Deleted && c.match(ch.now)
	switch {
	case is && was:
		return watch.Event{Type: watch.Modified, Object: ch.now}, true
	case is:
		return watch.Event{Type: watch.Added, Object: ch.now}, true
	case was && ch.kind == watch.Deleted:
		return watch.Event{Type: watch.Deleted, Object: ch.now}, true
	case was:
		gone := ch.old.DeepCopyObject().(api.Object)
		gone.SetResourceVersion(strconv.FormatInt(ch.rev, 10))
		return watch.Event{Type: watch.Deleted, Object: gone}, true
	}
	return watch.Event{}, false
}

// Stop implements api.Events.
func (c *cursor) Stop() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.stopped = true
	c.s.wake()
}

// Raw implements client.Interface.
func (s *Server) Raw(_ context.Context, method, path string, _ []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body, ok := s.raw[path]; ok {
		return body, nil
	}
	return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, method, schema.GroupResource{}, path, "not found", 0, true)
}

// Bind is what pods/binding does.
func (s *Server) bind(r schema.GroupVersionResource, namespace, name string, b *corev1.Binding) (api.Object, error) {
	o, err := s.find(r, namespace, name)
	if err != nil {
		return nil, err
	}
	pod := o.DeepCopyObject().(*corev1.Pod)
	if pod.Spec.NodeName != "" {
		return nil, apierrors.NewConflict(r.GroupResource(), name, fmt.Errorf("pod %s is already assigned to node %q", name, pod.Spec.NodeName))
	}
	pod.Spec.NodeName = b.Target.Name
	pod.Status.Conditions = slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(clock.Now())})
	s.store(r, pod)
	return nil, nil
}

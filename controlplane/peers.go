package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// Upstream's lease of an API server's place among the endpoints of
// default/kubernetes: who does not write its own any more leaves them.
const (
	mastersPrefix = "/registry/masterleases/"
	mastersTTL    = 15 // seconds
	mastersEvery  = 5 * time.Second
)

// settle makes the member of this process a full one of its cluster: its peers
// know where it is, and it has a vote.
func (c *ControlPlane) settle(ctx context.Context) error {
	if len(c.cfg.Etcd.AdvertisePeer) == 0 {
		return nil
	}
	for {
		var err error
		if c.etcd.Learner() {
			err = c.etcd.Promote(ctx)
		} else if err = c.etcd.Advertise(ctx, c.cfg.Etcd.AdvertisePeer); err == nil {
			return nil
		}
		if err != nil {
			c.deps.Log.Info("etcd member is not settled yet", "err", err)
		}
		if clock.Sleep(ctx, 250*time.Millisecond) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// masters keeps the list of API servers that live.
type masters struct {
	store storage.Store
	back  request.Backend
	self  netip.Addr
}

// runMasters keeps this server's lease, and takes servers without one out of the
// endpoints. A server that ends in order goes at once.
func (c *ControlPlane) runMasters(ctx context.Context) error {
	m := &masters{store: storage.Under(c.store, c.cfg.EtcdPrefix), back: c.gate.back, self: c.cfg.Advertise}
	for {
		if err := m.keep(ctx); err != nil && ctx.Err() == nil {
			c.deps.Log.Warn("leases of API servers", "err", err)
		}
		if clock.Sleep(ctx, mastersEvery) != nil {
			break
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := m.leave(end); err != nil {
		c.deps.Log.Info("this server stays among the endpoints for a while", "err", err)
	}
	return nil
}

func (m *masters) key() string { return mastersPrefix + m.self.String() }

// keep writes this server's lease and reconciles the endpoints.
func (m *masters) keep(ctx context.Context) error {
	var value bytes.Buffer
	lease := &corev1.Endpoints{Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: m.self.String()}}}}}
	if err := api.Encode(api.FormatProtobuf, lease, &value); err != nil {
		return err
	}
	r, err := m.store.Get(ctx, m.key(), 0)
	if errors.Is(err, storage.ErrNotFound) {
		_, err = m.store.Create(ctx, m.key(), value.Bytes(), mastersTTL)
	} else if err == nil {
		_, err = m.store.Update(ctx, m.key(), value.Bytes(), r.Rev, mastersTTL)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", m.key(), err)
	}
	return m.reconcile(ctx, true)
}

// leave takes this server out.
func (m *masters) leave(ctx context.Context) error {
	r, err := m.store.Get(ctx, m.key(), 0)
	if err == nil {
		_, err = m.store.Delete(ctx, m.key(), r.Rev)
	}
	if err != nil {
		return err
	}
	return m.reconcile(ctx, false)
}

// reconcile removes the addresses whose server has no lease, and puts this one's
// in if it serves: it may have been away. The last address stays, since nobody
// would be served better by none. The objects themselves are the API server's.
func (m *masters) reconcile(ctx context.Context, serves bool) error {
	page, err := m.store.List(ctx, mastersPrefix, storage.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %s: %w", mastersPrefix, err)
	}
	alive := map[string]bool{}
	for _, r := range page.Records {
		alive[path.Base(r.Key)] = true
	}
	if len(alive) == 0 {
		return nil
	}
	gone := func(address string) bool { return !alive[address] }
	ready := true
	err = change(ctx, m.back, schema.GroupResource{Resource: "endpoints"}, func(e *corev1.Endpoints) {
		for i := range e.Subsets {
			list := without(e.Subsets[i].Addresses, func(a corev1.EndpointAddress) bool { return gone(a.IP) })
			if serves && !slices.ContainsFunc(list, func(a corev1.EndpointAddress) bool { return a.IP == m.self.String() }) {
				list = append(list, corev1.EndpointAddress{IP: m.self.String()})
			}
			e.Subsets[i].Addresses = list
		}
	})
	return errors.Join(err, change(ctx, m.back, schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}, func(s *discoveryv1.EndpointSlice) {
		s.Endpoints = without(s.Endpoints, func(e discoveryv1.Endpoint) bool { return len(e.Addresses) == 1 && gone(e.Addresses[0]) })
		if serves && !slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, m.self.String()) }) {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{m.self.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
	}))
}

// without returns list less what is gone, or list as it is if nothing would stay.
func without[T any](list []T, gone func(T) bool) []T {
	if left := slices.DeleteFunc(slices.Clone(list), gone); len(left) > 0 {
		return left
	}
	return list
}

// change edits the object called kubernetes of the namespace default, if it is
// there and the edit makes a difference.
func change[T any, P interface {
	*T
	api.Object
}](ctx context.Context, b request.Backend, gr schema.GroupResource, edit func(P)) error {
	cur, err := b.Get(ctx, gr, metav1.NamespaceDefault, "kubernetes")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	probe, ok := cur.DeepCopyObject().(P)
	if !ok {
		return nil
	}
	if edit(probe); equality.Semantic.DeepEqual(probe, cur) {
		return nil
	}
	_, err = b.Modify(ctx, gr, metav1.NamespaceDefault, "kubernetes", "", func(o api.Object) error {
		if now, ok := o.(P); ok {
			edit(now)
		}
		return nil
	})
	return err
}

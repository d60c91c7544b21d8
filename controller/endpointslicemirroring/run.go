// Package endpointslicemirroring copies hand-written Endpoints of services
// without a selector into EndpointSlices, which is what proxies read.
//
// Not its job: services with a selector (endpointslice).
package endpointslicemirroring

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

type loop struct {
	*controller.Loop
	endpoints *client.Mirror[corev1.Endpoints]
	services  *client.Mirror[corev1.Service]
	slices    *client.Mirror[discoveryv1.EndpointSlice]
}

const byEndpoints = "mirrored endpoints"

// New returns the endpointslicemirroring loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "endpointslicemirroring", 5, l.reconcile)
	l.endpoints = controller.Input(l.Loop, controller.Self[corev1.Endpoints])
	l.services = controller.Input(l.Loop, controller.Self[corev1.Service])
	l.slices = controller.Input(l.Loop, func(old, new *discoveryv1.EndpointSlice) []controller.Key {
		return append(keysOf(old), keysOf(new)...)
	})
	l.slices.Index(byEndpoints, func(s *discoveryv1.EndpointSlice) []string {
		var out []string
		for _, k := range keysOf(s) {
			out = append(out, k.String())
		}
		return out
	})
	return l
}

func keysOf(s *discoveryv1.EndpointSlice) []controller.Key {
	if s == nil || s.Labels[discoveryv1.LabelManagedBy] != manager {
		return nil
	}
	return []controller.Key{{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}}
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	var p plan
	e, ok := l.endpoints.Get(k.Namespace, k.Name)
	s, served := l.services.Get(k.Namespace, k.Name)
	have := l.slices.By(byEndpoints, k.String())
	if ok && served && mirrored(e, s) {
		p = decide(e, have)
	} else {
		p.remove = have
	}
	if err := l.apply(ctx, k, p); err != nil {
		return fmt.Errorf("mirror endpoints %s (%s): %w", k, describe(p), err)
	}
	return nil
}

func (l *loop) apply(ctx context.Context, k controller.Key, p plan) error {
	typed := client.Of[discoveryv1.EndpointSlice](l.Client, k.Namespace)
	for _, s := range p.create {
		out, err := typed.Create(ctx, s)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			return err
		}
		controller.Wrote(&l.Unseen, k, l.slices, out)
	}
	for _, s := range p.update {
		out, err := typed.Update(ctx, s)
		if err != nil {
			return err
		}
		controller.Wrote(&l.Unseen, k, l.slices, out)
	}
	for _, s := range p.remove {
		if err := controller.Ignore(typed.Delete(ctx, s.Name, nil), apierrors.IsNotFound); err != nil {
			return err
		}
		controller.Removed(&l.Unseen, k, l.slices, s)
	}
	return nil
}

// Package servicecidr watches over the ranges of services' addresses.
//
// Job: the Ready condition and the finalizer of every ServiceCIDR; a range being
// deleted stays while addresses depend on it alone.
//
// Not its job: handing out addresses (apiserver/ledger).
//
// Invariants: a range goes no sooner than ten seconds after its deletion, for
// servers may not have heard of it yet.
package servicecidr

import (
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	grace     = 10 * time.Second
)

type loop struct {
	*controller.Loop
	ranges    *client.Mirror[networkingv1.ServiceCIDR]
	addresses *client.Mirror[networkingv1.IPAddress]
}

// New returns the servicecidr loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "service-cidrs", 5, l.reconcile)
	l.Events = client.Recorder(l.Client, "service-cidr-controller", "")
	l.ranges = controller.Input(l.Loop, func(old, new *networkingv1.ServiceCIDR) []controller.Key {
		keys := controller.Self(old, new)
		if old == nil || new == nil { // others may now go, or no longer
			for _, c := range l.ranges.List("") {
				if c.DeletionTimestamp != nil {
					keys = append(keys, client.KeyOf(c))
				}
			}
		}
		return keys
	})
	l.addresses = controller.Input(l.Loop, func(old, new *networkingv1.IPAddress) []controller.Key {
		if old != nil && new != nil {
			return nil
		}
		if new == nil {
			new = old
		}
		ip, err := netip.ParseAddr(new.Name)
		if err != nil {
			return nil
		}
		var keys []controller.Key
		for _, c := range holding(l.ranges.List(""), ip) {
			if c.DeletionTimestamp != nil {
				keys = append(keys, client.KeyOf(c))
			}
		}
		return keys
	})
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	c, ok := l.ranges.Get("", k.Name)
	if !ok {
		return nil
	}
	has := slices.Contains(c.Finalizers, finalizer)
	if c.DeletionTimestamp == nil {
		if !has {
			next := c.DeepCopy()
			next.Finalizers = append(next.Finalizers, finalizer)
			return l.wrote(k)(client.Of[networkingv1.ServiceCIDR](l.Client, "").Update(ctx, next))
		}
		err := l.ready(ctx, c, metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready")
		if err != nil {
			l.Events.Event(c, corev1.EventTypeWarning, "KubernetesServiceCIDRError", "The ServiceCIDR Status can not be set to Ready=True")
		}
		return err
	}
	if !has {
		return nil
	}
	if !free(c, l.ranges.List(""), l.addresses.List("")) {
		return l.ready(ctx, c, metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating,
			"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR")
	}
	if left := clock.Until(c.DeletionTimestamp.Add(grace)); left > 0 {
		l.After(k, left)
		return nil
	}
	next := c.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	return l.wrote(k)(client.Of[networkingv1.ServiceCIDR](l.Client, "").Update(ctx, next))
}

func (l *loop) ready(ctx context.Context, c *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string) error {
	next := c.DeepCopy()
	changed := meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: status,
		Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(clock.Now())})
	if !changed {
		return nil
	}
	return l.wrote(client.KeyOf(c))(client.Of[networkingv1.ServiceCIDR](l.Client, "").UpdateStatus(ctx, next))
}

// wrote notes a write of the key's object.
func (l *loop) wrote(k controller.Key) func(*networkingv1.ServiceCIDR, error) error {
	return func(c *networkingv1.ServiceCIDR, err error) error {
		if err == nil {
			controller.Wrote(&l.Unseen, k, l.ranges, c)
		}
		return controller.Ignore(err, apierrors.IsNotFound)
	}
}

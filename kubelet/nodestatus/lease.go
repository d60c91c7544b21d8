package nodestatus

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// lease renews the node's lease four times as often as it would run out.
func (m *Manager) lease(ctx context.Context) error {
	for {
		wait := m.cfg.Lease / 4
		if err := m.renew(ctx); err != nil && ctx.Err() == nil {
			m.d.Log.Warn("node lease failed", "err", err)
			wait = min(wait, time.Second)
		}
		if clock.Sleep(ctx, clock.Jitter(wait, 0.04)) != nil {
			return nil
		}
	}
}

func (m *Manager) renew(ctx context.Context) error {
	leases := client.Of[coordinationv1.Lease](m.d.Client, corev1.NamespaceNodeLease)
	now := metav1.MicroTime{Time: clock.Now()}
	m.mu.Lock()
	node := m.node
	m.mu.Unlock()
	l, err := leases.Get(ctx, m.cfg.Name)
	if apierrors.IsNotFound(err) {
		seconds := int32(m.cfg.Lease / time.Second)
		fresh := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: m.cfg.Name, Namespace: corev1.NamespaceNodeLease},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &m.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		fresh.APIVersion, fresh.Kind = "coordination.k8s.io/v1", "Lease"
		if node != nil {
			fresh.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		}
		_, err = leases.Create(ctx, fresh)
		return err
	}
	if err != nil {
		return err
	}
	l = l.DeepCopy()
	l.Spec.RenewTime, l.Spec.HolderIdentity = &now, &m.cfg.Name
	if len(l.OwnerReferences) == 0 && node != nil {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	}
	_, err = leases.Update(ctx, l)
	return err
}

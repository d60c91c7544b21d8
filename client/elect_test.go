package client_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// A holder with more patience than a candidate is given the time that it said it
// would take: upstream's programs and ours may elect among each other.
func TestALeaseLastsAsItsHolderSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		holder, seconds, now := "upstream", int32(15), metav1.MicroTime{Time: clock.Now()}
		srv := fake.New(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "lock"},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now, AcquireTime: &now}})
		var leads atomic.Bool
		g := run.New(t.Context())
		g.Go("candidate", func(ctx context.Context) error {
			return client.Elect(ctx, srv, client.ElectionConfig{Name: "lock", Identity: "quick", LeaseDuration: 5 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 500 * time.Millisecond}, func(ctx context.Context) error {
				leads.Store(true)
				<-ctx.Done()
				return ctx.Err()
			})
		})
		_ = clock.Sleep(t.Context(), 12*time.Second)
		if leads.Load() {
			t.Error("the lease was taken before its time")
		}
		_ = clock.Sleep(t.Context(), 18*time.Second)
		if !leads.Load() {
			t.Error("the lease was not taken after its time")
		}
		g.Stop()
		_ = g.Wait()
	})
}

// Package storagemigration has stored objects written again, in the version and
// with the encryption of today.
//
// Job: for every StorageVersionMigration write every object that is older than
// the migration once more, unchanged, and tell how that went.
//
// Not its job: which version is stored, and how (the API server).
//
// Invariants: an object that changed since the migration began is left alone,
// for the change has written it; a migration ends once, well or not.
package storagemigration

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

type migration = migrationv1.StorageVersionMigration

const (
	name = "storage-version-migrator-controller"
	// patience is how long a resource may be unknown: it may just be coming.
	patience = time.Minute
	pause    = 5 * time.Second
)

type loop struct {
	*controller.Loop
	migrations *client.Mirror[migration]
	objects    client.Interface // reads metadata alone
}

// New returns the storagemigration loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "storage-version-migrator", 1, l.reconcile)
	l.objects = client.Metadata(l.Client)
	l.migrations = controller.Input(l.Loop, controller.Self[migration])
	return l
}

func is(m *migration, kind migrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(kind))
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	m, ok := l.migrations.Get("", k.Name)
	if !ok || m.DeletionTimestamp != nil || is(m, migrationv1.MigrationSucceeded) || is(m, migrationv1.MigrationFailed) {
		return nil
	}
	if !is(m, migrationv1.MigrationRunning) {
		return l.tell(ctx, m, migrationv1.MigrationRunning, "StorageVersionMigrationInProgress", "", "")
	}
	served, err := l.find(ctx, m)
	switch {
	case err != nil:
		return err
	case served == nil && clock.Since(m.CreationTimestamp.Time) < patience:
		l.After(k, pause)
		return nil
	case served == nil:
		return l.fail(ctx, m, "resource does not exist in discovery")
	case !served.Has("get", "list", "patch", "update"):
		return l.fail(ctx, m, fmt.Sprintf("resource %q does not support discovery operations: %v", served.GroupVersionResource, []string{"list", "watch", "create", "patch", "update"}))
	}
	list, err := l.objects.List(ctx, served.GroupVersionResource, "", nil)
	if err != nil {
		return err
	}
	if m.Status.ResourceVersion == "" {
		return l.tell(ctx, m, "", "", "", list.ResourceVersion)
	}
	for _, o := range list.Items {
		newer, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), m.Status.ResourceVersion)
		if err != nil {
			return l.fail(ctx, m, err.Error())
		}
		if newer > 0 {
			continue
		}
		patch, err := json.Marshal(map[string]any{"apiVersion": served.GroupVersion().String(), "kind": served.Kind,
			"metadata": map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()}})
		if err != nil {
			return err
		}
		_, err = l.Client.Patch(ctx, served.GroupVersionResource, o.GetNamespace(), o.GetName(), "", types.ApplyPatchType, patch, &metav1.PatchOptions{FieldManager: name})
		switch {
		case err == nil, apierrors.IsConflict(err), apierrors.IsNotFound(err):
		case passing(err):
			return err
		default:
			return l.fail(ctx, m, fmt.Sprintf("migration encountered unhandled error: %s", err))
		}
	}
	return l.tell(ctx, m, migrationv1.MigrationSucceeded, "StorageVersionMigrationSucceeded", "", "")
}

// passing says whether an error may be gone the next time.
func passing(err error) bool {
	return !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) && !apierrors.IsBadRequest(err) && !apierrors.IsMethodNotSupported(err)
}

func (l *loop) find(ctx context.Context, m *migration) (*client.Served, error) {
	all, err := client.Discover(ctx, l.Client)
	for i := range all {
		if s := &all[i]; s.Group == m.Spec.Resource.Group && s.Resource == m.Spec.Resource.Resource {
			return s, nil
		}
	}
	return nil, err
}

func (l *loop) fail(ctx context.Context, m *migration, message string) error {
	return l.tell(ctx, m, migrationv1.MigrationFailed, "StorageVersionMigrationFailed", message, "")
}

// tell writes a condition, and the version up to which objects are migrated.
func (l *loop) tell(ctx context.Context, m *migration, kind migrationv1.MigrationConditionType, reason, message, version string) error {
	next := m.DeepCopy()
	if version != "" {
		next.Status.ResourceVersion = version
	}
	set := func(kind migrationv1.MigrationConditionType, status metav1.ConditionStatus) {
		meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: string(kind), Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(clock.Now())})
	}
	if kind != "" {
		set(kind, metav1.ConditionTrue)
	}
	if kind == migrationv1.MigrationSucceeded || kind == migrationv1.MigrationFailed {
		set(migrationv1.MigrationRunning, metav1.ConditionFalse)
	}
	wrote, err := client.Of[migration](l.Client, "").UpdateStatus(ctx, next)
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(m), l.migrations, wrote)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

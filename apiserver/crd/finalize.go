package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// finalize starts to remove the objects of definitions that are on their way out.
func (s *Server) finalize(g *run.Group) {
	for name, crd := range s.known {
		if crd.DeletionTimestamp == nil || s.removing[name] || !apihelpers.CRDHasFinalizer(crd, apiextensionsv1.CustomResourceCleanupFinalizer) {
			continue
		}
		s.removing[name] = true
		g.Go("remove "+name, func(ctx context.Context) error {
			defer func() {
				s.mu.Lock()
				delete(s.removing, name)
				s.mu.Unlock()
				s.ring() // it may be there again already
			}()
			for wait := 50 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
				err := s.remove(ctx, crd)
				if err == nil || ctx.Err() != nil || apierrors.IsNotFound(err) || errors.Is(err, errMoved) {
					return nil
				}
				s.d.Log.Warn("objects of a definition", "name", name, "err", err)
				if clock.Sleep(ctx, wait) != nil {
					return nil
				}
			}
		})
	}
}

// terminating says how the removal of a definition's objects goes.
func (s *Server) terminating(ctx context.Context, crd *definition, status apiextensionsv1.ConditionStatus, reason, message string) error {
	_, err := s.d.Back.Modify(ctx, definitions, "", crd.Name, "status", func(obj api.Object) error {
		d := obj.(*definition)
		if d.UID != crd.UID {
			return errMoved
		}
		c := condition{
			Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message,
			LastTransitionTime: metav1.NewTime(clock.Now().Truncate(time.Second)), ObservedGeneration: d.Generation,
		}
		if old := apihelpers.FindCRDCondition(d, c.Type); old != nil && old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		setCondition(d, c)
		return nil
	})
	return err
}

// remove deletes all objects of a definition, waits until they are gone and
// lets go of it.
func (s *Server) remove(ctx context.Context, crd *definition) error {
	if err := s.terminating(ctx, crd, apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress"); err != nil {
		return err
	}
	gr := schema.GroupResource{Group: crd.Spec.Group, Resource: crd.Status.AcceptedNames.Plural}
	reason, message := "InstanceDeletionCompleted", "removed all instances"
	switch {
	case s.d.Builtin != nil && s.d.Builtin(gr):
		reason, message = "OverlappingBuiltInResource", "instances overlap with built-in resources in storage"
	case !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established):
		reason, message = "NeverEstablished", "resource was never established"
	default:
		if failed, err := s.removeObjects(ctx, gr); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return errors.Join(err, s.terminating(ctx, crd, apiextensionsv1.ConditionTrue, failed, err.Error()))
		}
	}
	if err := s.terminating(ctx, crd, apiextensionsv1.ConditionFalse, reason, message); err != nil {
		return err
	}
	_, err := s.d.Back.Modify(ctx, definitions, "", crd.Name, "", func(obj api.Object) error {
		d := obj.(*definition)
		if d.UID != crd.UID {
			return errMoved
		}
		d.Finalizers = slices.DeleteFunc(slices.Clone(d.Finalizers), func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
		return nil
	})
	return err
}

// removeObjects returns when there are none any more, or with the reason why not.
func (s *Server) removeObjects(ctx context.Context, gr schema.GroupResource) (reason string, err error) {
	list, err := s.d.Back.List(ctx, gr, "")
	if err != nil {
		return "InstanceDeletionFailed", fmt.Errorf("could not list instances: %w", err)
	}
	var errs []error
	for _, obj := range list {
		err := s.d.Back.Delete(ctx, gr, obj.GetNamespace(), obj.GetName(), nil)
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "InstanceDeletionFailed", fmt.Errorf("could not issue all deletes: %w", err)
	}
	wctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := s.untilNone(wctx, gr); err != nil {
		return "InstanceDeletionCheck", fmt.Errorf("could not confirm zero CustomResources remaining: %w", err)
	}
	return "", nil
}

// untilNone waits until a kind has no objects: others' finalizers take their
// time, so it looks less and less often.
func (s *Server) untilNone(ctx context.Context, gr schema.GroupResource) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		list, err := s.d.Back.List(ctx, gr, "")
		if err != nil || len(list) == 0 {
			return err
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

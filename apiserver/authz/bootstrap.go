package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// bootWriters is how many roles are written at once: the store joins them in
// few disk writes.
const bootWriters = 24

// Bootstrap makes the roles and bindings of the policy, or adds what existing
// ones lack, unless their autoupdate annotation says "false". Rights an
// administrator added are left alone. ctx must act as a privileged user, and
// the namespaces kube-system and kube-public must exist.
func Bootstrap(ctx context.Context, back request.Backend) error {
	steps := []struct {
		gr   schema.GroupResource
		want []api.Object
	}{
		{clusterRolesGR, objects(clusterRoles())},
		{clusterRoleBindingsGR, objects(clusterBindings())},
		{rolesGR, objects(roles())},
		{roleBindingsGR, objects(roleBindings())},
	}
	for _, s := range steps {
		if err := ensureAll(ctx, back, s.gr, s.want); err != nil {
			return err
		}
	}
	return nil
}

func objects[T api.Object](list []T) []api.Object {
	out := make([]api.Object, len(list))
	for i, o := range list {
		out[i] = o
	}
	return out
}

func ensureAll(ctx context.Context, back request.Backend, gr schema.GroupResource, want []api.Object) error {
	have, err := back.List(ctx, gr, "")
	if err != nil {
		return fmt.Errorf("bootstrap roles: list %s: %w", gr, err)
	}
	found := map[string]api.Object{}
	for _, o := range have {
		found[o.GetNamespace()+"/"+o.GetName()] = o
	}
	var (
		mu   sync.Mutex
		errs []error
		next = make(chan api.Object)
		all  = run.New(ctx)
	)
	for range min(bootWriters, len(want)) {
		all.Go("bootstrap "+gr.Resource, func(ctx context.Context) error {
			for o := range next {
				if err := ensure(ctx, back, gr, o, found[o.GetNamespace()+"/"+o.GetName()]); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("bootstrap roles: %s %s: %w", gr, o.GetName(), err))
					mu.Unlock()
				}
			}
			return nil
		})
	}
	for _, o := range want {
		next <- o
	}
	close(next)
	return errors.Join(append(errs, all.Wait())...)
}

func ensure(ctx context.Context, back request.Backend, gr schema.GroupResource, want, have api.Object) error {
	if have == nil {
		_, err := back.Create(ctx, gr, want, nil)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		if have, err = back.Get(ctx, gr, want.GetNamespace(), want.GetName()); err != nil {
			return err
		}
	}
	if have.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return nil
	}
	if otherRole(want, have) {
		// roleRef cannot be changed: upstream too makes such a binding anew.
		if err := back.Delete(ctx, gr, have.GetNamespace(), have.GetName(), nil); err != nil {
			return err
		}
		_, err := back.Create(ctx, gr, want, nil)
		return err
	}
	if probe := have.DeepCopyObject().(api.Object); !complete(probe, want) {
		return nil
	}
	_, err := back.Modify(ctx, gr, want.GetNamespace(), want.GetName(), "", func(o api.Object) error {
		complete(o, want)
		return nil
	})
	return err
}

func otherRole(want, have api.Object) bool {
	switch w := want.(type) {
	case *rbacv1.ClusterRoleBinding:
		return w.RoleRef != have.(*rbacv1.ClusterRoleBinding).RoleRef
	case *rbacv1.RoleBinding:
		return w.RoleRef != have.(*rbacv1.RoleBinding).RoleRef
	}
	return false
}

// complete adds to obj what want has and it lacks, and says whether it did.
func complete(obj, want api.Object) (changed bool) {
	labels, c1 := union(obj.GetLabels(), want.GetLabels())
	annotations, c2 := union(obj.GetAnnotations(), want.GetAnnotations())
	if changed = c1 || c2; changed {
		obj.SetLabels(labels)
		obj.SetAnnotations(annotations)
	}
	switch w := want.(type) {
	case *rbacv1.ClusterRole:
		o := obj.(*rbacv1.ClusterRole)
		if w.AggregationRule != nil { // its rules are the aggregation's
			if !equality.Semantic.DeepEqual(o.AggregationRule, w.AggregationRule) {
				o.AggregationRule, changed = w.AggregationRule, true
			}
			return changed
		}
		if missing := covers(o.Rules, w.Rules); len(missing) > 0 {
			o.Rules, changed = append(slices.Clone(o.Rules), compact(missing)...), true
		}
	case *rbacv1.Role:
		o := obj.(*rbacv1.Role)
		if missing := covers(o.Rules, w.Rules); len(missing) > 0 {
			o.Rules, changed = append(slices.Clone(o.Rules), compact(missing)...), true
		}
	case *rbacv1.ClusterRoleBinding:
		o := obj.(*rbacv1.ClusterRoleBinding)
		o.Subjects, changed = addSubjects(o.Subjects, w.Subjects, changed)
	case *rbacv1.RoleBinding:
		o := obj.(*rbacv1.RoleBinding)
		o.Subjects, changed = addSubjects(o.Subjects, w.Subjects, changed)
	}
	return changed
}

func union(have, want map[string]string) (map[string]string, bool) {
	out, changed := maps.Clone(have), false
	if out == nil {
		out = map[string]string{}
	}
	for k, v := range want {
		if _, ok := out[k]; !ok {
			out[k], changed = v, true
		}
	}
	return out, changed
}

func addSubjects(have, want []rbacv1.Subject, changed bool) ([]rbacv1.Subject, bool) {
	for _, s := range want {
		if !slices.Contains(have, s) {
			have, changed = append(slices.Clone(have), s), true
		}
	}
	return have, changed
}

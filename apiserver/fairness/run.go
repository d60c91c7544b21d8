package fairness

import (
	"context"
	"fmt"
	"strconv"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apischema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/flow"
)

var (
	schemasGR = apischema.GroupResource{Group: flowv1.GroupName, Resource: "flowschemas"}
	levelsGR  = apischema.GroupResource{Group: flowv1.GroupName, Resource: "prioritylevelconfigurations"}
)

// settle is how long changes are collected before they are looked at.
const settle = 20 * time.Millisecond

// Run follows the objects until ctx, which carries the server's own user, ends.
func (c *Controller) Run(ctx context.Context) error {
	g := run.New(ctx)
	changed := func(_, _ api.Object) {
		select {
		case c.rev <- struct{}{}:
		default:
		}
	}
	for _, gr := range []apischema.GroupResource{schemasGR, levelsGR} {
		g.Go("changes of "+gr.Resource, func(ctx context.Context) error { return c.d.Back.Changes(ctx, gr, changed) })
	}
	g.Go("priority and fairness", func(ctx context.Context) error {
		for {
			select {
			case <-c.rev:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := clock.Sleep(ctx, settle); err != nil {
				return err
			}
			if err := c.sync(ctx); err != nil && ctx.Err() == nil {
				c.d.Log.Warn("priority and fairness: configuration not taken over", "err", err)
				changed(nil, nil)
				clock.Sleep(ctx, time.Second)
			}
		}
	})
	return g.Wait()
}

// sync takes over what the store has, and puts right what must be there.
func (c *Controller) sync(ctx context.Context) error {
	levels, err := listOf[*flowv1.PriorityLevelConfiguration](ctx, c.d.Back, levelsGR)
	if err != nil {
		return err
	}
	schemas, err := listOf[*flowv1.FlowSchema](ctx, c.d.Back, schemasGR)
	if err != nil {
		return err
	}
	c.configure(levels, schemas)
	c.once.Do(func() { close(c.loaded) })
	names := map[string]bool{}
	for _, l := range levels {
		names[l.Name] = true
	}
	for _, s := range schemas {
		if err := c.tell(ctx, s, names[s.Spec.PriorityLevelConfiguration.Name]); err != nil {
			return err
		}
	}
	return ensureMandatory(ctx, c.d.Back)
}

func listOf[T api.Object](ctx context.Context, b request.Backend, gr apischema.GroupResource) ([]T, error) {
	objs, err := b.List(ctx, gr, "")
	if err != nil {
		return nil, fmt.Errorf("list: %s: %w", gr, err)
	}
	out := make([]T, len(objs))
	for i, o := range objs {
		out[i] = o.(T)
	}
	return out, nil
}

// tell keeps a schema's condition that says whether its level is there.
func (c *Controller) tell(ctx context.Context, s *flowv1.FlowSchema, found bool) error {
	want := dangling(s.Spec.PriorityLevelConfiguration.Name, found)
	same := func(have []flowv1.FlowSchemaCondition) bool {
		for _, h := range have {
			if h.Type == want.Type {
				return h.Status == want.Status && h.Reason == want.Reason && h.Message == want.Message
			}
		}
		return false
	}
	if same(s.Status.Conditions) {
		return nil
	}
	want.LastTransitionTime = metav1.Time{Time: clock.Now()}
	_, err := c.d.Back.Modify(ctx, schemasGR, "", s.Name, "status", func(o api.Object) error {
		conditions := &o.(*flowv1.FlowSchema).Status.Conditions
		for i, h := range *conditions {
			if h.Type == want.Type {
				if h.Status == want.Status {
					want.LastTransitionTime = h.LastTransitionTime
				}
				(*conditions)[i] = want
				return nil
			}
		}
		*conditions = append(*conditions, want)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// dangling is the condition of a schema by whether its level was found.
func dangling(level string, found bool) flowv1.FlowSchemaCondition {
	c := flowv1.FlowSchemaCondition{
		Type: flowv1.FlowSchemaConditionDangling, Status: flowv1.ConditionTrue, Reason: "NotFound",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level),
	}
	if found {
		c.Status, c.Reason = flowv1.ConditionFalse, "Found"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level)
	}
	return c
}

// Bootstrap makes what every cluster begins with, and brings up to date what
// users left to the server.
func Bootstrap(ctx context.Context, b request.Backend) error {
	may := flow.Suggested()
	if err := ensure(ctx, b, may, false); err != nil {
		return err
	}
	if err := ensureMandatory(ctx, b); err != nil {
		return err
	}
	return dropStale(ctx, b)
}

func ensureMandatory(ctx context.Context, b request.Backend) error {
	return ensure(ctx, b, flow.Mandatory(), true)
}

// ensure creates the objects that are missing and, where it may, puts back the
// spec of the others.
func ensure(ctx context.Context, b request.Backend, o flow.Objects, mandatory bool) error {
	for _, want := range o.Levels {
		err := ensureOne(ctx, b, levelsGR, want, mandatory, func(have *flowv1.PriorityLevelConfiguration) bool {
			if mandatory && have.Name == flowv1.PriorityLevelConfigurationNameExempt && have.Spec.Exempt != nil {
				want.Spec.Exempt = have.Spec.Exempt.DeepCopy() // the one part that is the users'
			}
			return equality.Semantic.DeepEqual(have.Spec, want.Spec)
		}, func(have *flowv1.PriorityLevelConfiguration) { have.Spec = *want.Spec.DeepCopy() })
		if err != nil {
			return err
		}
	}
	for _, want := range o.Schemas {
		err := ensureOne(ctx, b, schemasGR, want, mandatory, func(have *flowv1.FlowSchema) bool {
			return equality.Semantic.DeepEqual(have.Spec, want.Spec)
		}, func(have *flowv1.FlowSchema) { have.Spec = *want.Spec.DeepCopy() })
		if err != nil {
			return err
		}
	}
	return nil
}

func ensureOne[T api.Object](ctx context.Context, b request.Backend, gr apischema.GroupResource, want T, mandatory bool, same func(T) bool, put func(T)) error {
	name := want.GetName()
	cur, err := b.Get(ctx, gr, "", name)
	if apierrors.IsNotFound(err) {
		_, err = b.Create(ctx, gr, want, &metav1.CreateOptions{FieldManager: "api-priority-and-fairness-config-producer-v1"})
		if err == nil || apierrors.IsAlreadyExists(err) {
			return nil
		}
		return fmt.Errorf("create: %s: %s: %w", gr, name, err)
	}
	if err != nil {
		return fmt.Errorf("get: %s: %s: %w", gr, name, err)
	}
	have := cur.(T)
	ours := mandatory || isOurs(have)
	note := have.GetAnnotations()[flowv1.AutoUpdateAnnotationKey]
	stale := ours && !same(have)
	if !stale && note == strconv.FormatBool(ours) {
		return nil
	}
	_, err = b.Modify(ctx, gr, "", name, "", func(o api.Object) error {
		notes := map[string]string{}
		for k, v := range o.GetAnnotations() {
			notes[k] = v
		}
		notes[flowv1.AutoUpdateAnnotationKey] = strconv.FormatBool(ours)
		o.SetAnnotations(notes)
		if stale {
			put(o.(T))
		}
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update: %s: %s: %w", gr, name, err)
	}
	return nil
}

// isOurs says whether an object is the server's to keep up to date: its
// annotation says so or, without one, nobody has changed it.
func isOurs(o api.Object) bool {
	if b, err := strconv.ParseBool(o.GetAnnotations()[flowv1.AutoUpdateAnnotationKey]); err == nil {
		return b
	}
	return o.GetGeneration() == 1
}

// dropStale deletes what an older server suggested and left in its own care.
func dropStale(ctx context.Context, b request.Backend) error {
	wanted := map[string]bool{}
	for _, o := range []flow.Objects{flow.Mandatory(), flow.Suggested()} {
		for _, l := range o.Levels {
			wanted["l/"+l.Name] = true
		}
		for _, s := range o.Schemas {
			wanted["s/"+s.Name] = true
		}
	}
	for kind, gr := range map[string]apischema.GroupResource{"l/": levelsGR, "s/": schemasGR} {
		objs, err := b.List(ctx, gr, "")
		if err != nil {
			return fmt.Errorf("list: %s: %w", gr, err)
		}
		for _, o := range objs {
			if wanted[kind+o.GetName()] || o.GetAnnotations()[flowv1.AutoUpdateAnnotationKey] != "true" {
				continue
			}
			uid, version := o.GetUID(), o.GetResourceVersion()
			err := b.Delete(ctx, gr, "", o.GetName(), &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete: %s: %s: %w", gr, o.GetName(), err)
			}
		}
	}
	return nil
}

// Synced returns when the store's objects are in force.
func (c *Controller) Synced(ctx context.Context) error {
	select {
	case <-c.loaded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

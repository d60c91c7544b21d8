package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	podsem "github.com/sampan-dev/sampan/semantics/pod"
)

type poster func(ctx context.Context, i *request.Info, parent, body api.Object, o *metav1.CreateOptions) (runtime.Object, error)

// Post serves the subresource.
func (p poster) Post(ctx context.Context, i *request.Info, parent, body api.Object, o *metav1.CreateOptions) (runtime.Object, error) {
	return p(ctx, i, parent, body, o)
}

func pods() schema.GroupResource { return schema.GroupResource{Resource: "pods"} }

func success(code int32) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: code}
}

const created = 201

// Bindings serves the old collection of bindings, which name their pod themselves.
func (s *Streams) Bindings() request.VirtualCreator { return bindings{s} }

type bindings struct{ s *Streams }

func (b bindings) Create(ctx context.Context, i *request.Info, obj api.Object, o *metav1.CreateOptions) (runtime.Object, error) {
	named := *i
	named.Name = obj.GetName()
	return b.s.bind(ctx, &named, nil, obj, o)
}

// bind assigns a pod to a node.
func (s *Streams) bind(ctx context.Context, i *request.Info, _, body api.Object, o *metav1.CreateOptions) (runtime.Object, error) {
	b, ok := body.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %#v", body))
	}
	name := i.Name
	if b.Name != "" && b.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Binding"}, name, errs)
	}
	assign := func(obj api.Object) error { return assignPod(obj, b) }
	if o != nil && len(o.DryRun) > 0 {
		obj, err := s.back.Get(ctx, pods(), i.Namespace, name)
		if err == nil {
			err = assign(obj.DeepCopyObject().(api.Object))
		}
		return success(created), bindError(name, err)
	}
	_, err := s.back.Modify(ctx, pods(), i.Namespace, name, "binding", assign)
	if err != nil {
		return nil, bindError(name, err)
	}
	return success(created), nil
}

func bindError(name string, err error) error {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return err
	}
	if s := (*apierrors.StatusError)(nil); errors.As(err, &s) {
		return err
	}
	return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, name, err)
}

// assignPod writes a binding into a pod.
func assignPod(obj api.Object, b *corev1.Binding) error {
	p, err := pod(obj)
	if err != nil {
		return err
	}
	switch {
	case b.UID != "" && b.UID != p.UID:
		return fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID) //nolint:staticcheck // upstream's words
	case p.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) != 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	p.Spec.NodeName = b.Target.Name
	for k, v := range b.Annotations {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[k] = v
	}
	for k, v := range b.Labels {
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		p.Labels[k] = v
	}
	podsem.SetCondition(&p.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation}, clock.Now())
	return nil
}

// maxDisrupted bounds the disruptions a budget remembers.
const maxDisrupted = 2000

// evict deletes a pod if its disruption budget allows.
func (s *Streams) evict(ctx context.Context, i *request.Info, parent, body api.Object, o *metav1.CreateOptions) (runtime.Object, error) {
	e, ok := body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", body))
	}
	if e.Name != "" && e.Name != i.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	p, err := pod(parent)
	if err != nil {
		return nil, err
	}
	del := e.DeleteOptions.DeepCopy()
	if del == nil {
		del = &metav1.DeleteOptions{}
	}
	if o != nil && len(o.DryRun) > 0 {
		del.DryRun = o.DryRun
	}
	dry := len(del.DryRun) > 0
	if needsBudget(p) {
		if err := s.spend(ctx, p, dry); err != nil {
			return nil, err
		}
		if !dry {
			if err := s.markEvicted(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	if del.Preconditions == nil {
		del.Preconditions = &metav1.Preconditions{UID: &p.UID}
	}
	if err := s.back.Delete(ctx, pods(), p.Namespace, p.Name, del); err != nil {
		return nil, err
	}
	return success(created), nil
}

// needsBudget is false for pods whose end disrupts nothing.
func needsBudget(p *corev1.Pod) bool {
	return !podsem.Finished(p) && p.Status.Phase != corev1.PodPending && p.DeletionTimestamp == nil
}

func budgets() schema.GroupResource {
	return schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudgets"}
}

// spend takes one disruption from the pod's budget, if it has one.
func (s *Streams) spend(ctx context.Context, p *corev1.Pod, dry bool) error {
	list, err := s.back.List(ctx, budgets(), p.Namespace)
	if err != nil {
		return err
	}
	var mine []*policyv1.PodDisruptionBudget
	for _, o := range list {
		b, ok := o.(*policyv1.PodDisruptionBudget)
		if !ok {
			continue
		}
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && sel.Matches(labels.Set(p.Labels)) {
			mine = append(mine, b)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if len(mine) > 1 {
		return apierrors.NewInternalError(errors.New("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")) //nolint:staticcheck,revive // upstream's words
	}
	b := mine[0]
	if !podsem.Ready(p) {
		policy := b.Spec.UnhealthyPodEvictionPolicy
		if policy != nil && *policy == policyv1.AlwaysAllow || b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0 {
			return nil
		}
	}
	if dry {
		return disrupt(b.DeepCopy(), p.Name)
	}
	server := request.WithUser(ctx, &request.User{Name: request.LoopbackUser, Groups: []string{request.Masters}})
	var refusal error
	_, err = s.back.Modify(server, budgets(), b.Namespace, b.Name, "status", func(o api.Object) error {
		now, ok := o.(*policyv1.PodDisruptionBudget)
		if !ok {
			return fmt.Errorf("unexpected type %T", o)
		}
		refusal = disrupt(now, p.Name)
		return refusal
	})
	if refusal != nil {
		return refusal
	}
	return err
}

// disrupt counts one disruption into a budget, or refuses.
func disrupt(b *policyv1.PodDisruptionBudget, pod string) error {
	refuse := func(cause string) error {
		err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
		return err
	}
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name),
		})
		return err
	case b.Status.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(budgets(), b.Name, errors.New("pdb disruptions allowed is negative"))
	case len(b.Status.DisruptedPods) > maxDisrupted:
		return apierrors.NewForbidden(budgets(), b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case b.Status.DisruptionsAllowed == 0:
		return refuse(fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy))
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[pod] = metav1.NewTime(clock.Now())
	return nil
}

func (s *Streams) markEvicted(ctx context.Context, p *corev1.Pod) error {
	server := request.WithUser(ctx, &request.User{Name: request.LoopbackUser, Groups: []string{request.Masters}})
	_, err := s.back.Modify(server, pods(), p.Namespace, p.Name, "status", func(o api.Object) error {
		now, ok := o.(*corev1.Pod)
		if !ok || now.UID != p.UID {
			return nil
		}
		podsem.SetCondition(&now.Status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: now.Generation,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		}, clock.Now())
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

const (
	minTokenLife = 10 * time.Minute
	// mountedLife is asked for by the volumes of the ServiceAccount admission
	// plugin; their tokens really live extendedLife, for clients that read the
	// file only once, and count as stale after mountedLife.
	mountedLife  = (60*60 + 7) * time.Second
	extendedLife = 365 * 24 * time.Hour
)

// token serves TokenRequest.
func (s *Streams) token(ctx context.Context, i *request.Info, parent, body api.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	tr, ok := body.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", body))
	}
	sa, ok := parent.(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a ServiceAccount: %T", parent))
	}
	if s.tokens == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts/token"}, i.Name)
	}
	out := tr.DeepCopy()
	if out.Name != "" && out.Name != sa.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the provided object (%s) does not match the name on the URL (%s)", out.Name, sa.Name))
	}
	out.Name, out.Namespace = sa.Name, sa.Namespace
	out.CreationTimestamp = metav1.NewTime(clock.Now().Truncate(time.Second))
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = s.tokens.Audiences()
	}
	if out.Spec.ExpirationSeconds == nil {
		hour := int64(3600)
		out.Spec.ExpirationSeconds = &hour
	}
	if errs := checkToken(out); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	c := request.TokenClaims{
		Namespace: sa.Namespace, Account: request.Ref{Name: sa.Name, UID: string(sa.UID)},
		Audiences: out.Spec.Audiences, Life: time.Duration(*out.Spec.ExpirationSeconds) * time.Second,
	}
	if err := s.bindToken(ctx, sa, out, &c); err != nil {
		return nil, err
	}
	if s.c.MaxTokenLife > 0 {
		c.Life = min(c.Life, s.c.MaxTokenLife)
	}
	asked := c.Life
	if !s.c.ExactTokens && c.Pod != nil && asked == mountedLife && slices.Equal(c.Audiences, s.tokens.Audiences()) {
		c.Life, c.WarnAfter = extendedLife, mountedLife
	}
	text, expires, _, err := s.tokens.Issue(c)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Status = authenticationv1.TokenRequestStatus{Token: text, ExpirationTimestamp: metav1.NewTime(expires.Add(asked - c.Life).Truncate(time.Second))}
	return out, nil
}

func checkToken(t *authenticationv1.TokenRequest) (errs field.ErrorList) {
	at := field.NewPath("spec", "expirationSeconds")
	life := *t.Spec.ExpirationSeconds
	if life < int64(minTokenLife/time.Second) {
		errs = append(errs, field.Invalid(at, life, "may not specify a duration less than 10 minutes"))
	}
	if life > 1<<32 {
		errs = append(errs, field.Invalid(at, life, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// bindToken looks up what the token is to be bound to.
func (s *Streams) bindToken(ctx context.Context, sa *corev1.ServiceAccount, t *authenticationv1.TokenRequest, c *request.TokenClaims) error {
	ref := t.Spec.BoundObjectRef
	if ref == nil {
		return nil
	}
	kinds := map[string]string{"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
	resource, ok := kinds[ref.Kind]
	if !ok || ref.APIVersion != "v1" {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).String()))
	}
	namespace := sa.Namespace
	if ref.Kind == "Node" {
		namespace = ""
	}
	gr := schema.GroupResource{Resource: resource}
	obj, err := s.back.Get(ctx, gr, namespace, ref.Name)
	if err != nil {
		return err
	}
	if ref.UID != "" && ref.UID != obj.GetUID() {
		return apierrors.NewConflict(gr, ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	bound := &request.Ref{Name: ref.Name, UID: string(obj.GetUID())}
	switch o := obj.(type) {
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != sa.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		c.Pod = bound
		if o.Spec.NodeName != "" {
			c.Node = &request.Ref{Name: o.Spec.NodeName}
			if node, err := s.back.Get(ctx, schema.GroupResource{Resource: "nodes"}, "", o.Spec.NodeName); err == nil {
				c.Node.UID = string(node.GetUID())
			}
		}
	case *corev1.Secret:
		c.Secret = bound
	case *corev1.Node:
		c.Node = bound
	}
	return nil
}

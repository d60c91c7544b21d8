package admission

import (
	"context"
	"fmt"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// podSecurity holds pods to the level their namespace's labels name. The checks
// are the published library's.
type podSecurity struct {
	back     request.Backend
	checks   func() (policy.Evaluator, error)
	defaults psapi.Policy // what namespaces without labels get
	exempt   exemptions
}

// exemptions are who and what is not held to any level.
type exemptions struct {
	Usernames      []string `json:"usernames"`
	RuntimeClasses []string `json:"runtimeClasses"`
	Namespaces     []string `json:"namespaces"`
}

func newPodSecurity(d Deps) (request.Plugin, error) {
	p := &podSecurity{back: d.Back, defaults: privileged(), checks: sync.OnceValues(func() (policy.Evaluator, error) {
		return policy.NewEvaluator(policy.DefaultChecks(), nil)
	})}
	if d.baseline {
		lv := psapi.LevelVersion{Level: psapi.LevelBaseline, Version: psapi.LatestVersion()}
		p.defaults = psapi.Policy{Enforce: lv, Audit: lv, Warn: lv}
		p.exempt.Namespaces = []string{metav1.NamespaceSystem}
	}
	if _, ok := d.Config["PodSecurity"]; !ok {
		return p, nil
	}
	var c struct {
		Defaults   map[string]string `json:"defaults"`
		Exemptions exemptions        `json:"exemptions"`
	}
	if err := d.Config.read("PodSecurity", &c); err != nil {
		return nil, err
	}
	labels := map[string]string{}
	for k, v := range c.Defaults {
		labels["pod-security.kubernetes.io/"+k] = v
	}
	var errs field.ErrorList
	if p.defaults, errs = psapi.PolicyToEvaluate(labels, privileged()); len(errs) > 0 {
		return nil, fmt.Errorf("couldn't init admission plugin %q: %w", "PodSecurity", errs.ToAggregate())
	}
	p.exempt = c.Exemptions
	return p, nil
}

// exempts says that nothing is asked of a pod.
func (e *exemptions) exempts(a *request.Attributes, spec *corev1.PodSpec) bool {
	return slices.Contains(e.Namespaces, a.Namespace) || a.User != nil && slices.Contains(e.Usernames, a.User.Name) ||
		spec.RuntimeClassName != nil && slices.Contains(e.RuntimeClasses, *spec.RuntimeClassName)
}

func (*podSecurity) Name() string { return "PodSecurity" }

func (*podSecurity) Handles(op request.Operation) bool { return onCreateUpdate{}.Handles(op) }

// privileged is what namespaces without labels get.
func privileged() psapi.Policy {
	lv := psapi.LevelVersion{Level: psapi.LevelPrivileged, Version: psapi.LatestVersion()}
	return psapi.Policy{Enforce: lv, Audit: lv, Warn: lv}
}

func (p *podSecurity) Validate(ctx context.Context, a *request.Attributes) error {
	if ns, ok := of[*corev1.Namespace](a); ok {
		return p.namespace(ctx, a, ns)
	}
	meta, spec, isPod := template(a)
	if spec == nil {
		return nil
	}
	if isPod && a.Operation == request.Update {
		if was, ok := old[*corev1.Pod](a); ok && equality.Semantic.DeepEqual(imagesAndSecurity(&was.Spec), imagesAndSecurity(spec)) {
			return nil // nothing a check looks at can have changed
		}
	}
	obj, err := p.back.Get(ctx, core("namespaces"), "", a.Namespace)
	if err != nil {
		return err
	}
	if len(obj.GetLabels()) == 0 && p.defaults.FullyPrivileged() || p.exempt.exempts(a, spec) {
		return nil
	}
	want, errs := psapi.PolicyToEvaluate(obj.GetLabels(), p.defaults)
	if want.FullyPrivileged() && len(errs) == 0 {
		return nil
	}
	checks, err := p.checks()
	if err != nil {
		return fmt.Errorf("pod security: %w", err)
	}
	judge := func(lv psapi.LevelVersion) string {
		if lv.Level == psapi.LevelPrivileged {
			return ""
		}
		r := policy.AggregateCheckResults(checks.EvaluatePod(lv, meta, spec))
		if r.Allowed {
			return ""
		}
		return fmt.Sprintf("violate PodSecurity %q: %s", lv.String(), r.ForbiddenDetail())
	}
	if isPod {
		if bad := judge(want.Enforce); bad != "" {
			if len(errs) > 0 {
				bad += "; invalid policy: " + errs.ToAggregate().Error()
			}
			return forbidf(a, "%s", "violates"+bad[len("violate"):])
		}
		if want.Warn == want.Enforce {
			return nil
		}
	}
	if bad := judge(want.Warn); bad != "" {
		request.Warn(ctx, "would "+bad)
	}
	return nil
}

// namespace refuses labels that name no level.
func (p *podSecurity) namespace(_ context.Context, a *request.Attributes, ns *corev1.Namespace) error {
	_, errs := psapi.PolicyToEvaluate(ns.Labels, privileged())
	if len(errs) == 0 {
		return nil
	}
	if was, ok := old[*corev1.Namespace](a); ok {
		if _, before := psapi.PolicyToEvaluate(was.Labels, privileged()); len(before) > 0 {
			return nil // it was so before: other changes must stay possible
		}
	}
	return invalid(a, errs)
}

// template returns the pod that a would make, itself or later.
func template(a *request.Attributes) (meta *metav1.ObjectMeta, spec *corev1.PodSpec, isPod bool) {
	if pod, ok := of[*corev1.Pod](a, "ephemeralcontainers", "resize"); ok {
		return &pod.ObjectMeta, &pod.Spec, true
	}
	if a.Subresource != "" {
		return nil, nil, false
	}
	var t *corev1.PodTemplateSpec
	switch o := a.Object.(type) {
	case *corev1.PodTemplate:
		t = &o.Template
	case *corev1.ReplicationController:
		t = o.Spec.Template
	case *appsv1.Deployment:
		t = &o.Spec.Template
	case *appsv1.ReplicaSet:
		t = &o.Spec.Template
	case *appsv1.DaemonSet:
		t = &o.Spec.Template
	case *appsv1.StatefulSet:
		t = &o.Spec.Template
	case *batchv1.Job:
		t = &o.Spec.Template
	case *batchv1.CronJob:
		t = &o.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return nil, nil, false
	}
	return &t.ObjectMeta, &t.Spec, false
}

// imagesAndSecurity is the part of a pod that updates can change and checks read.
func imagesAndSecurity(s *corev1.PodSpec) []corev1.EphemeralContainer { return s.EphemeralContainers }

func invalid(a *request.Attributes, errs field.ErrorList) error {
	return invalidError(a.Kind.GroupKind(), nameOf(a), errs)
}

package deployment

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}
}

func made() *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "default"},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}, Template: template()},
	}
	Kind().Default(d)
	return d
}

func TestDefaults(t *testing.T) {
	s := made().Spec
	r := s.Strategy.RollingUpdate
	if *s.Replicas != 1 || *s.RevisionHistoryLimit != 10 || *s.ProgressDeadlineSeconds != 600 ||
		s.Strategy.Type != "RollingUpdate" || r.MaxSurge.String() != "25%" || r.MaxUnavailable.String() != "25%" {
		t.Errorf("defaults: %+v", s)
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *appsv1.Deployment)
		want   string
	}{
		"good":        {func(*appsv1.Deployment) {}, ""},
		"negative":    {func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](-1) }, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"},
		"no selector": {func(d *appsv1.Deployment) { d.Spec.Selector = nil }, "spec.selector: Required value"},
		"empty selector": {func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			"spec.selector: Invalid value: {}: empty selector is invalid for deployment"},
		"labels": {func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"app": "b"} },
			"spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"},
		"restart": {func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" },
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`},
		"deadline": {func(d *appsv1.Deployment) { d.Spec.Template.Spec.ActiveDeadlineSeconds = ptr.To[int64](1) },
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"},
		"no progress": {func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(0)), MaxUnavailable: ptr.To(intstr.FromString("0%"))}
		}, "may not be 0 when `maxSurge` is 0"},
		"recreate": {func(d *appsv1.Deployment) { d.Spec.Strategy.Type = "Recreate" },
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"},
		"more than all": {func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("101%"))
		}, "must not be greater than 100%"},
		"impatient": {func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"},
	} {
		d := made()
		c.change(d)
		errs := Kind().Validate(d, nil)
		if c.want == "" && len(errs) > 0 || c.want != "" && !strings.Contains(errs.ToAggregate().Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
	}
}

func TestSelectorIsImmutable(t *testing.T) {
	next := made()
	next.Spec.Selector.MatchLabels["b"] = "c"
	next.Spec.Template.Labels["b"] = "c"
	errs := Kind().Validate(next, made())
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "spec.selector: Invalid value: ") || !strings.HasSuffix(errs[0].Error(), ": field is immutable") {
		t.Error(errs)
	}
}

func TestColumns(t *testing.T) {
	d := made()
	d.Status.ReadyReplicas, d.Status.UpdatedReplicas, d.Status.AvailableReplicas = 1, 2, 3
	now := time.Unix(1000, 0)
	d.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute))
	got := Kind().Cells(d, now)
	for i, want := range []any{"d", "1/1", int64(2), int64(3), "60s", "c", "nginx", "app=a"} {
		if got[i] != want {
			t.Errorf("column %d: %v, want %v", i, got[i], want)
		}
	}
}

func find(group, version string) resource.Version {
	for _, v := range Kind().Info().Also {
		if v.Group == group && v.Version == version {
			return v
		}
	}
	panic(group + "/" + version)
}

func TestRetiredVersionsSayso(t *testing.T) {
	for _, c := range [][3]string{
		{"extensions", "v1beta1", "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"},
		{"apps", "v1beta1", "apps/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"},
		{"apps", "v1beta2", "apps/v1beta2 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment"},
	} {
		if v := find(c[0], c[1]); !v.Retired || v.Warning != c[2] {
			t.Errorf("%s/%s: retired %v, %q", c[0], c[1], v.Retired, v.Warning)
		}
	}
}

// Users of each old version get the defaults it had.
func TestRetiredDefaults(t *testing.T) {
	stored := func(v resource.Version, obj api.Object) *appsv1.Deployment {
		v.Default(obj)
		out, err := v.Store(obj)
		if err != nil {
			t.Fatal(err)
		}
		Kind().Default(out)
		if errs := Kind().Validate(out, nil); len(errs) > 0 {
			t.Error(errs)
		}
		return out.(*appsv1.Deployment)
	}
	d := stored(find("extensions", "v1beta1"), &extensionsv1beta1.Deployment{Spec: extensionsv1beta1.DeploymentSpec{Template: template()}})
	s := d.Spec
	if s.Selector.MatchLabels["app"] != "a" || d.Labels["app"] != "a" || s.Strategy.RollingUpdate.MaxSurge.IntVal != 1 ||
		s.Strategy.RollingUpdate.MaxUnavailable.IntVal != 1 || *s.RevisionHistoryLimit != 2147483647 || *s.ProgressDeadlineSeconds != 2147483647 {
		t.Errorf("extensions/v1beta1: %+v", s)
	}
	s = stored(find("apps", "v1beta1"), &appsv1beta1.Deployment{Spec: appsv1beta1.DeploymentSpec{Template: template()}}).Spec
	if s.Selector.MatchLabels["app"] != "a" || s.Strategy.RollingUpdate.MaxSurge.String() != "25%" || *s.RevisionHistoryLimit != 2 || *s.ProgressDeadlineSeconds != 600 {
		t.Errorf("apps/v1beta1: %+v", s)
	}
}

func TestStatusSub(t *testing.T) {
	prev := made()
	next := prev.DeepCopy()
	next.Spec.Replicas, next.Labels, next.Status.Replicas = ptr.To[int32](9), map[string]string{"x": "y"}, 3
	sub, _ := Kind().Sub("status")
	sub.Prepare(&resource.Request{}, next, prev)
	if *next.Spec.Replicas != 1 || next.Labels != nil || next.Status.Replicas != 3 {
		t.Errorf("%d replicas, labels %v, status %d", *next.Spec.Replicas, next.Labels, next.Status.Replicas)
	}
}

package all

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	def "github.com/sampan-dev/sampan/resource"
)

func kind(t *testing.T, plural string) def.Kind {
	t.Helper()
	for _, k := range Kinds() {
		if k.Info().Plural == plural {
			return k
		}
	}
	t.Fatalf("no kind %s", plural)
	return nil
}

var (
	app      = map[string]string{"app": "a"}
	selector = &metav1.LabelSelector{MatchLabels: app}
)

func template(policy corev1.RestartPolicy) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: app},
		Spec:       corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}
}

func list(names ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, n := range names {
		k, v, _ := strings.Cut(n, "=")
		out[corev1.ResourceName(k)] = resource.MustParse(v)
	}
	return out
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "default", UID: "1-2-3"}
}

// What users are told about objects that cannot be; "" is a good object.
func TestCreateRules(t *testing.T) {
	sts := func(change func(s *appsv1.StatefulSetSpec)) api.Object {
		s := appsv1.StatefulSetSpec{Selector: selector, Template: template("")}
		change(&s)
		return &appsv1.StatefulSet{ObjectMeta: meta("s"), Spec: s}
	}
	ds := func(change func(s *appsv1.DaemonSetSpec)) api.Object {
		s := appsv1.DaemonSetSpec{Selector: selector, Template: template("")}
		change(&s)
		return &appsv1.DaemonSet{ObjectMeta: meta("d"), Spec: s}
	}
	job := func(change func(s *batchv1.JobSpec)) api.Object {
		s := batchv1.JobSpec{Template: template("Never")}
		change(&s)
		return &batchv1.Job{ObjectMeta: meta("j"), Spec: s}
	}
	cron := func(change func(s *batchv1.CronJobSpec)) api.Object {
		s := batchv1.CronJobSpec{Schedule: "*/5 * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template("Never")}}}
		change(&s)
		return &batchv1.CronJob{ObjectMeta: meta("c"), Spec: s}
	}
	for _, c := range []struct {
		plural string
		obj    api.Object
		want   string
	}{
		{"replicasets", &appsv1.ReplicaSet{ObjectMeta: meta("r"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template("")}}, ""},
		{"replicasets", &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: template("")}}, "spec.selector: Required value"},

		{"replicationcontrollers", &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: ptr.To(template(""))}}, ""},
		{"replicationcontrollers", &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Selector: app}}, "spec.template: Required value"},
		{"replicationcontrollers", &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Selector: map[string]string{"x": "y"}, Template: ptr.To(template(""))}},
			"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"},

		{"statefulsets", sts(func(*appsv1.StatefulSetSpec) {}), ""},
		{"statefulsets", sts(func(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = "Any" }), `spec.podManagementPolicy: Invalid value: "Any": must be 'OrderedReady' or 'Parallel'`},
		{"statefulsets", sts(func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.Type = "Any" }), "must be 'RollingUpdate' or 'OnDelete'"},
		{"statefulsets", sts(func(s *appsv1.StatefulSetSpec) { s.Selector = &metav1.LabelSelector{} }), "spec.selector: Invalid value: {}: empty selector is invalid for statefulset"},
		{"statefulsets", sts(func(s *appsv1.StatefulSetSpec) { s.ServiceName = "a.b" }), `spec.serviceName: Invalid value: "a.b": must not contain dots`},

		{"daemonsets", ds(func(*appsv1.DaemonSetSpec) {}), ""},
		{"daemonsets", ds(func(s *appsv1.DaemonSetSpec) {
			s.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: ptr.To(intstr.FromInt32(1))}}
		}), "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"},

		{"jobs", job(func(*batchv1.JobSpec) {}), ""},
		{"jobs", job(func(s *batchv1.JobSpec) { s.Template.Spec.RestartPolicy = "" }), `spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`},
		{"jobs", job(func(s *batchv1.JobSpec) {
			s.CompletionMode, s.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](1)
		}), "spec.completions: Required value: when completion mode is Indexed"},
		{"jobs", job(func(s *batchv1.JobSpec) {
			s.Template.Labels = map[string]string{"batch.kubernetes.io/job-name": "other"}
		}), "must be 'j'"},
		{"jobs", job(func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = ptr.To[int32](1) }), "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"},

		{"cronjobs", cron(func(*batchv1.CronJobSpec) {}), ""},
		{"cronjobs", cron(func(s *batchv1.CronJobSpec) { s.Schedule = "" }), "spec.schedule: Required value"},
		{"cronjobs", cron(func(s *batchv1.CronJobSpec) { s.Schedule = "1 2" }), `spec.schedule: Invalid value: "1 2": expected exactly 5 fields, found 2: [1 2]`},
		{"cronjobs", cron(func(s *batchv1.CronJobSpec) { s.TimeZone = ptr.To("Nowhere/Land") }), `spec.timeZone: Invalid value: "Nowhere/Land": unknown time zone Nowhere/Land`},
		{"cronjobs", cron(func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = "Some" }), `spec.concurrencyPolicy: Unsupported value: "Some": supported values: "Allow", "Forbid", "Replace"`},

		{"poddisruptionbudgets", &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromString("50%"))}}, ""},
		{"poddisruptionbudgets", &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(1))}},
			"minAvailable and maxUnavailable cannot be both set"},

		{"priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: meta("p"), Value: 5}, ""},
		{"priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: meta("p"), Value: 1000000001}, "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"},
		{"priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: meta("system-mine"), Value: 1},
			"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"},
		{"priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: meta("system-node-critical"), Value: 2000001000}, ""},

		{"runtimeclasses", &nodev1.RuntimeClass{Handler: "runc"}, ""},
		{"runtimeclasses", &nodev1.RuntimeClass{Handler: "Run C"}, `handler: Invalid value: "Run C": a lowercase RFC 1123 label`},

		{"limitranges", &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Container", Max: list("cpu=2"), Min: list("cpu=1")}}}}, ""},
		{"limitranges", &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Pod", Max: list("cpu=1"), Min: list("cpu=2")}}}},
			`spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1`},
		{"limitranges", &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Pod", Default: list("cpu=1")}}}},
			"spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"},

		{"resourcequotas", &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods=1", "limits.cpu=2", "count/deployments.apps=3")}}, ""},
		{"resourcequotas", &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("bananas=1")}}, `spec.hard[bananas]: Invalid value: "bananas": must be a standard resource for quota`},
		{"resourcequotas", &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods=1500m")}}, "must be an integer"},
		{"resourcequotas", &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods=1"), Scopes: []corev1.ResourceQuotaScope{"BestEffort", "NotBestEffort"}}}, "conflicting scopes"},

		{"controllerrevisions", &appsv1.ControllerRevision{}, "data: Required value: data is mandatory"},
		{"podtemplates", &corev1.PodTemplate{Template: template("")}, ""},
		{"podtemplates", &corev1.PodTemplate{}, "template.spec.containers: Required value"},
	} {
		k := kind(t, c.plural)
		k.Default(c.obj)
		k.Prepare(&def.Request{}, c.obj, nil)
		errs := k.Validate(c.obj, nil)
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.plural, errs, c.want)
		}
	}
}

func TestUpdateRules(t *testing.T) {
	sts := &appsv1.StatefulSet{ObjectMeta: meta("s"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template("")}}
	job := &batchv1.Job{ObjectMeta: meta("j"), Spec: batchv1.JobSpec{Template: template("Never")}}
	for _, c := range []struct {
		plural string
		prev   api.Object
		change func(obj api.Object)
		want   string
	}{
		{"statefulsets", sts, func(o api.Object) { o.(*appsv1.StatefulSet).Spec.Replicas = ptr.To[int32](3) }, ""},
		{"statefulsets", sts, func(o api.Object) { o.(*appsv1.StatefulSet).Spec.ServiceName = "x" },
			"spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"},
		{"jobs", job, func(o api.Object) { o.(*batchv1.Job).Spec.Parallelism = ptr.To[int32](3) }, ""},
		{"jobs", job, func(o api.Object) { o.(*batchv1.Job).Spec.Completions = ptr.To[int32](3) }, "spec.completions: Invalid value: 3: field is immutable"},
		{"jobs", job, func(o api.Object) { o.(*batchv1.Job).Spec.Template.Spec.Containers[0].Image = "x" }, "field is immutable"},
		{"priorityclasses", &schedulingv1.PriorityClass{Value: 1}, func(o api.Object) { o.(*schedulingv1.PriorityClass).Value = 2 }, "Forbidden: may not be changed in an update."},
		{"runtimeclasses", &nodev1.RuntimeClass{Handler: "a"}, func(o api.Object) { o.(*nodev1.RuntimeClass).Handler = "b" }, `handler: Invalid value: "b": field is immutable`},
	} {
		k := kind(t, c.plural)
		prev := c.prev.DeepCopyObject().(api.Object)
		k.Default(prev)
		k.Prepare(&def.Request{}, prev, nil)
		next := prev.DeepCopyObject().(api.Object)
		c.change(next)
		errs := k.Validate(next, prev)
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.plural, errs, c.want)
		}
	}
}

// An empty selector means the opposite in the two versions of a budget.
func TestBudgetSelector(t *testing.T) {
	k := kind(t, "poddisruptionbudgets")
	v := k.Info().Also[0]
	b := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}}}
	old, err := v.Show(b)
	if err != nil {
		t.Fatal(err)
	}
	back, err := v.Store(old)
	if err != nil {
		t.Fatal(err)
	}
	if s := back.(*policyv1.PodDisruptionBudget).Spec.Selector; s == nil || len(s.MatchExpressions) != 0 {
		t.Errorf("selecting all came back as %v", s)
	}
	none := v.New()
	if stored, err := v.Store(none); err != nil || stored.(*policyv1.PodDisruptionBudget).Spec.Selector != nil {
		t.Errorf("no selector was stored as one: %v", err)
	}
}

func TestLimitRangeDefaults(t *testing.T) {
	l := &corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Container", Max: list("cpu=2"), Min: list("memory=1Gi")}}}}
	kind(t, "limitranges").Default(l)
	i := l.Spec.Limits[0]
	cpu, mem := i.DefaultRequest["cpu"], i.DefaultRequest["memory"]
	if i.Default.Cpu().String() != "2" || cpu.String() != "2" || mem.String() != "1Gi" {
		t.Errorf("%+v", i)
	}
}

func TestJobSelectsItsOwn(t *testing.T) {
	j := &batchv1.Job{ObjectMeta: meta("j"), Spec: batchv1.JobSpec{Template: template("Never")}}
	k := kind(t, "jobs")
	k.Default(j)
	k.Prepare(&def.Request{}, j, nil)
	if j.Spec.Selector.MatchLabels["batch.kubernetes.io/controller-uid"] != "1-2-3" {
		t.Errorf("selector %v", j.Spec.Selector)
	}
	for _, l := range []string{"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"} {
		if j.Spec.Template.Labels[l] == "" {
			t.Errorf("pods lack the label %s", l)
		}
	}
	if _, ok := j.Labels["job-name"]; ok {
		t.Error("the job's own labels changed with its template's")
	}
}

// Generation counts changes of meaning, not of spelling.
func TestGenerationComparesMeaning(t *testing.T) {
	k := kind(t, "deployments")
	made := func(cpu string) api.Object {
		d := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: selector, Template: template("")}}
		d.Spec.Template.Spec.Containers[0].Resources.Requests = list("cpu=" + cpu)
		k.Default(d)
		return d
	}
	if changed, known := k.SpecChanged(made("0.5"), made("500m")); changed || !known {
		t.Errorf("0.5 is not 500m: changed %v, known %v", changed, known)
	}
	if changed, _ := k.SpecChanged(made("1"), made("2")); !changed {
		t.Error("1 is 2")
	}
}

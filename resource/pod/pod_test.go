package pod

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
)

var now = time.Unix(1700000000, 0)

func made(change func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}
	if change != nil {
		change(p)
	}
	k := Kind()
	k.Default(p)
	return p
}

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func TestColumns(t *testing.T) {
	ended := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	for _, c := range []struct {
		name   string
		change func(p *corev1.Pod)
		want   string // ready status restarts age ip node nominated gates
	}{
		{"pending", func(p *corev1.Pod) { p.Status.Phase = "Pending" }, "0/1|Pending|0|60m|<none>|<none>|<none>|<none>"},
		{"running", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status.PodIP, p.Status.Phase = "n1", "10.1.0.5", "Running"
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running("c")}
		}, "1/1|Running|0|60m|10.1.0.5|n1|<none>|<none>"},
		{"creating", func(p *corev1.Pod) {
			p.Status.Phase = "Pending"
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: waiting("ContainerCreating")}}
		}, "0/1|ContainerCreating|0|60m|<none>|<none>|<none>|<none>"},
		{"crash loop", func(p *corev1.Pod) {
			p.Status.Phase = "Running"
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: 3, State: waiting("CrashLoopBackOff"),
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(now.Add(-5 * time.Second))}}}}
		}, "0/1|CrashLoopBackOff|3 (5s ago)|60m|<none>|<none>|<none>|<none>"},
		{"init", func(p *corev1.Pod) {
			p.Status.Phase = "Pending"
			p.Spec.InitContainers = []corev1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "x"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: ended(0, "Completed")}, {Name: "b", State: waiting("PodInitializing")}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: waiting("PodInitializing")}}
		}, "0/1|Init:1/2|0|60m|<none>|<none>|<none>|<none>"},
		{"init failed", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "a", Image: "x"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: ended(2, "")}}
		}, "0/1|Init:ExitCode:2|0|60m|<none>|<none>|<none>|<none>"},
		{"sidecar", func(p *corev1.Pod) {
			p.Status.Phase = "Running"
			p.Spec.InitContainers = []corev1.Container{{Name: "s", Image: "x", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
			s := running("s")
			s.Started = ptr.To(true)
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{s}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running("c")}
		}, "2/2|Running|0|60m|<none>|<none>|<none>|<none>"},
		{"completed", func(p *corev1.Pod) {
			p.Status.Phase = "Succeeded"
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: ended(0, "Completed")}}
		}, "0/1|Completed|0|60m|<none>|<none>|<none>|<none>"},
		{"one of two completed", func(p *corev1.Pod) {
			p.Status.Phase = "Running"
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "x"})
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: ended(0, "Completed")}, running("d")}
		}, "1/2|NotReady|0|60m|<none>|<none>|<none>|<none>"},
		{"evicted", func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = "Failed", "Evicted" }, "0/1|Evicted|0|60m|<none>|<none>|<none>|<none>"},
		{"terminating", func(p *corev1.Pod) {
			p.Status.Phase, p.DeletionTimestamp = "Running", &metav1.Time{Time: now}
		}, "0/1|Terminating|0|60m|<none>|<none>|<none>|<none>"},
		{"node lost", func(p *corev1.Pod) {
			p.Status.Reason, p.DeletionTimestamp = "NodeLost", &metav1.Time{Time: now}
		}, "0/1|Unknown|0|60m|<none>|<none>|<none>|<none>"},
		{"gated", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: "SchedulingGated"}}
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "a/b"}}
		}, "0/1|SchedulingGated|0|60m|<none>|<none>|<none>|0/1"},
	} {
		var cells []string
		for _, v := range Kind().Cells(made(c.change), now)[1:] {
			cells = append(cells, v.(string))
		}
		if got := strings.Join(cells, "|"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPrepare(t *testing.T) {
	k, r := Kind(), &resource.Request{Now: now}
	p := made(func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodRunning
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}}
		p.Labels = map[string]string{"app": "x"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{LabelSelector: &metav1.LabelSelector{}, MatchLabelKeys: []string{"app", "none"}}}
	})
	k.Prepare(r, p, nil)
	if p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("a new pod has status %+v", p.Status)
	}
	if len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Reason != "SchedulingGated" {
		t.Errorf("a gated pod has conditions %v", p.Status.Conditions)
	}
	if e := p.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions; len(e) != 1 || e[0].Values[0] != "x" {
		t.Errorf("label keys became %v", e)
	}
	next := p.DeepCopy()
	next.Status.Phase = corev1.PodFailed
	k.Prepare(r, next, p)
	if next.Status.Phase != corev1.PodPending {
		t.Error("an update of the pod changed its status")
	}
	status, _ := k.Sub("status")
	next = p.DeepCopy()
	next.Status.Phase, next.Spec.NodeName, next.Status.QOSClass = corev1.PodRunning, "n", ""
	status.Prepare(r, next, p)
	if next.Status.Phase != corev1.PodRunning || next.Spec.NodeName != "" || next.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("an update of the status gave %s, %q, %s", next.Status.Phase, next.Spec.NodeName, next.Status.QOSClass)
	}
}

func TestUpdate(t *testing.T) {
	for _, c := range []struct {
		name         string
		prev, change func(p *corev1.Pod)
		want         string // part of the one error; "" is none
	}{
		{"image", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx:2" }, ""},
		{"labels", nil, func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, ""},
		{"command", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"x"} },
			"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"},
		{"new container", nil, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "x"})
		}, "spec.containers: Forbidden: pod updates may not add or remove containers"},
		{"deadline set", nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, ""},
		{"deadline later", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) },
			func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](6) },
			"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"},
		{"toleration added", nil, func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: "Exists"}} }, ""},
		{"toleration removed", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: "Exists"}} },
			func(p *corev1.Pod) { p.Spec.Tolerations = nil },
			"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"},
		{"gate removed", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}} },
			func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }, ""},
		{"gate added", nil, func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}} },
			"spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"},
		{"gated pod narrowed", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}} },
			func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, ""},
		{"grace to one", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-1) },
			func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) }, ""},
		{"mirror", nil, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} },
			"may not add mirror pod annotation"},
	} {
		prev := made(c.prev)
		next := made(c.prev)
		c.change(next)
		Kind().Default(next)
		errs := Kind().Validate(next, prev)
		if c.want == "" && len(errs) > 0 || c.want != "" && !slices.ContainsFunc(errs.ToAggregate().Errors(), func(err error) bool { return strings.Contains(err.Error(), c.want) }) {
			t.Errorf("%s: %v, want %q", c.name, errs, c.want)
		}
	}
}

func TestGrace(t *testing.T) {
	bound := func(p *corev1.Pod) { p.Spec.NodeName = "n" }
	for _, c := range []struct {
		change func(p *corev1.Pod)
		asked  *int64
		want   int64
	}{
		{nil, nil, 0},
		{bound, nil, 30},
		{bound, ptr.To[int64](0), 0},
		{bound, ptr.To[int64](7), 7},
		{func(p *corev1.Pod) { bound(p); p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-5) }, nil, 1},
		{func(p *corev1.Pod) { bound(p); p.Status.Phase = corev1.PodSucceeded }, nil, 0},
	} {
		if got, ok := Kind().Grace(made(c.change), c.asked); !ok || got != c.want {
			t.Errorf("grace %d, want %d", got, c.want)
		}
	}
}

func TestResize(t *testing.T) {
	amount := func(cpu, mem string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": apiresource.MustParse(cpu), "memory": apiresource.MustParse(mem)}}
	}
	prev := made(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = amount("1", "1Gi") })
	sub, _ := Kind().Sub("resize")
	for name, c := range map[string]struct {
		change func(p *corev1.Pod)
		want   string
	}{
		"more":            {func(p *corev1.Pod) { p.Spec.Containers[0].Resources = amount("2", "2Gi") }, ""},
		"image untouched": {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" }, ""},
		"removed": {func(p *corev1.Pod) { delete(p.Spec.Containers[0].Resources.Requests, "memory") },
			"spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"},
		"class": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = p.Spec.Containers[0].Resources.Requests
		}, "Pod QOS Class may not change as a result of resizing"},
		"storage": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["ephemeral-storage"] = apiresource.MustParse("1Gi")
		}, "spec: Forbidden: only cpu and memory resources are mutable"},
	} {
		next := prev.DeepCopy()
		c.change(next)
		sub.Prepare(&resource.Request{}, next, prev)
		errs := sub.Validate(next, prev)
		if c.want == "" && len(errs) > 0 || c.want != "" && !strings.Contains(errs.ToAggregate().Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
		if next.Spec.Containers[0].Image != "nginx" {
			t.Errorf("%s: a resize changed the image", name)
		}
	}
}

func TestEphemeralContainers(t *testing.T) {
	sub, _ := Kind().Sub("ephemeralcontainers")
	prev := made(nil)
	next := prev.DeepCopy()
	next.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "x"}, TargetContainerName: "c"}}
	next.Spec.NodeName = "other"
	Kind().Default(next)
	sub.Prepare(&resource.Request{}, next, prev)
	if errs := sub.Validate(next, prev); len(errs) > 0 || next.Spec.NodeName != "" {
		t.Errorf("adding one: %v; node %q", errs, next.Spec.NodeName)
	}
	if errs := sub.Validate(prev, next); !strings.Contains(errs.ToAggregate().Error(), `existing ephemeral containers "debug" may not be removed`) {
		t.Errorf("removing one: %v", errs)
	}
	if errs := Kind().Validate(next, nil); !strings.Contains(errs.ToAggregate().Error(), "spec.ephemeralContainers: Forbidden: cannot be set on create") {
		t.Errorf("creating with one: %v", errs)
	}
}

func TestStatusKeepsEndedContainersEnded(t *testing.T) {
	prev := made(func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	})
	next := prev.DeepCopy()
	next.Status.ContainerStatuses[0] = running("c")
	sub, _ := Kind().Sub("status")
	want := "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
	if errs := sub.Validate(next, prev); len(errs) != 1 || errs[0].Error() != want {
		t.Errorf("%v, want %s", errs, want)
	}
}

package podspec

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func good() *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}
	DefaultPod(p)
	return p
}

func list(names ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, n := range names {
		k, v, _ := strings.Cut(n, "=")
		out[corev1.ResourceName(k)] = resource.MustParse(v)
	}
	return out
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *corev1.PodSpec)
		want   []string
	}{
		{"good", func(*corev1.PodSpec) {}, nil},
		{"no containers", func(s *corev1.PodSpec) { s.Containers = nil }, []string{"spec.containers: Required value"}},
		{"no image", func(s *corev1.PodSpec) { s.Containers[0].Image = "" }, []string{"spec.containers[0].image: Required value"}},
		{"bad name", func(s *corev1.PodSpec) { s.Containers[0].Name = "C_1" }, []string{
			`spec.containers[0].name: Invalid value: "C_1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		{"same name", func(s *corev1.PodSpec) { s.Containers = append(s.Containers, s.Containers[0]) }, []string{`spec.containers[1].name: Duplicate value: "c"`}},
		{"init with the same name", func(s *corev1.PodSpec) { s.InitContainers = append(s.InitContainers, s.Containers[0]) }, []string{`spec.initContainers[0].name: Duplicate value: "c"`}},
		{"image with blanks", func(s *corev1.PodSpec) { s.Containers[0].Image = " a" }, []string{`spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace`}},
		{"pull policy", func(s *corev1.PodSpec) { s.Containers[0].ImagePullPolicy = "Often" }, []string{
			`spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"`}},
		{"restart policy", func(s *corev1.PodSpec) { s.RestartPolicy = "Maybe" }, []string{
			`spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"`}},
		{"port range", func(s *corev1.PodSpec) {
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 70000, Protocol: "TCP"}}
		}, []string{"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
		{"port protocol", func(s *corev1.PodSpec) {
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, Protocol: "ICMP"}}
		}, []string{`spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`}},
		{"host ports clash", func(s *corev1.PodSpec) {
			p := corev1.ContainerPort{ContainerPort: 80, HostPort: 80, Protocol: "TCP"}
			s.Containers[0].Ports = []corev1.ContainerPort{p, p}
		}, []string{`spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"`}},
		{"host network port", func(s *corev1.PodSpec) {
			s.HostNetwork = true
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 81, Protocol: "TCP"}}
		}, []string{"spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"}},
		{"env without a source", func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{}}}
		}, []string{"spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"}},
		{"env field", func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "status.phase"}}}}
		}, []string{`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"env unknown field", func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nope"}}}}
		}, []string{`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field label not supported: spec.nope`}},
		{"mount of nothing", func(s *corev1.PodSpec) {
			s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}, []string{`spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		{"two volume types", func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}, HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}, []string{"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"}},
		{"volumes with one name", func(s *corev1.PodSpec) {
			v := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
			s.Volumes = []corev1.Volume{v, v}
		}, []string{`spec.volumes[1].name: Duplicate value: "v"`}},
		{"probe without a handler", func(s *corev1.PodSpec) { s.Containers[0].LivenessProbe = &corev1.Probe{SuccessThreshold: 1} }, []string{
			"spec.containers[0].livenessProbe: Required value: must specify a handler type"}},
		{"liveness successes", func(s *corev1.PodSpec) {
			s.Containers[0].LivenessProbe = &corev1.Probe{SuccessThreshold: 2, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80)}}}
		}, []string{"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"}},
		{"request above limit", func(s *corev1.PodSpec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("cpu=2"), Limits: list("cpu=1")}
		}, []string{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
		{"unknown resource", func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = list("bananas=2")
		}, []string{`spec.containers[0].resources.requests[bananas]: Invalid value: "bananas": must be a standard resource for containers`}},
		{"half a device", func(s *corev1.PodSpec) {
			s.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("x.io/gpu=500m"), Limits: list("x.io/gpu=500m")}
		}, []string{
			`spec.containers[0].resources.limits[x.io/gpu]: Invalid value: "500m": must be an integer`,
			`spec.containers[0].resources.requests[x.io/gpu]: Invalid value: "500m": must be an integer`}},
		{"privileged without escalation", func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false)}
		}, []string{"cannot set `allowPrivilegeEscalation` to false and `privileged` to true"}},
		{"dns none", func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSNone }, []string{"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"}},
		{"toleration", func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{{Value: "x"}} }, []string{
			"spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\""}},
		{"affinity weight", func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 101}}}}
		}, []string{"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"}},
		{"spread", func(s *corev1.PodSpec) {
			s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 0, TopologyKey: "z", WhenUnsatisfiable: "Never"}}
		}, []string{
			"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
			`spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"`}},
		{"life of an init container", func(s *corev1.PodSpec) {
			c := *s.Containers[0].DeepCopy()
			c.Name, c.Lifecycle = "i", &corev1.Lifecycle{}
			s.InitContainers = []corev1.Container{c}
		}, []string{"spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"deadline", func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](0) }, []string{
			"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good()
			c.change(&p.Spec)
			expect(t, Validate(&p.Spec, &p.ObjectMeta, field.NewPath("spec")), c.want)
		})
	}
}

// expect compares errors with what they must at least end in, in order.
func expect(t *testing.T, errs field.ErrorList, want []string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	if !slices.EqualFunc(got, want, strings.HasSuffix) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestDefaults(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{
		HostNetwork: true,
		Containers: []corev1.Container{{
			Image: "reg.example:5000/app", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
			Resources:     corev1.ResourceRequirements{Limits: list("cpu=1", "memory=1Gi"), Requests: list("cpu=100m")},
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{}}},
		}},
		Volumes: []corev1.Volume{{Name: "none"}, {Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}}}}}},
	}}
	DefaultPod(p)
	s, c := &p.Spec, &p.Spec.Containers[0]
	for what, ok := range map[string]bool{
		"dns policy":        s.DNSPolicy == corev1.DNSClusterFirst,
		"restart policy":    s.RestartPolicy == corev1.RestartPolicyAlways,
		"grace":             *s.TerminationGracePeriodSeconds == 30,
		"scheduler":         s.SchedulerName == "default-scheduler",
		"service links":     *s.EnableServiceLinks,
		"security context":  s.SecurityContext != nil,
		"pull policy":       c.ImagePullPolicy == corev1.PullAlways,
		"termination path":  c.TerminationMessagePath == "/dev/termination-log",
		"protocol":          c.Ports[0].Protocol == corev1.ProtocolTCP,
		"host port":         c.Ports[0].HostPort == 80,
		"request of limit":  c.Resources.Requests.Memory().String() == "1Gi",
		"request kept":      c.Resources.Requests.Cpu().String() == "100m",
		"probe":             c.LivenessProbe.PeriodSeconds == 10 && c.LivenessProbe.TimeoutSeconds == 1 && c.LivenessProbe.FailureThreshold == 3,
		"probe path":        c.LivenessProbe.HTTPGet.Path == "/" && c.LivenessProbe.HTTPGet.Scheme == "HTTP",
		"volume":            s.Volumes[0].EmptyDir != nil,
		"mode of projected": *s.Volumes[1].Projected.DefaultMode == 0o644,
		"token lifetime":    *s.Volumes[1].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds == 3600,
	} {
		if !ok {
			t.Errorf("%s: not as users expect", what)
		}
	}
}

func TestTemplateKeepsHostPortsOpen(t *testing.T) {
	p := good()
	p.Spec.HostNetwork = true
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}
	tmpl := &corev1.PodTemplateSpec{Spec: p.Spec}
	DefaultTemplate(tmpl)
	if tmpl.Spec.Containers[0].Ports[0].HostPort != 0 {
		t.Error("a template got host ports")
	}
	expect(t, ValidateTemplate(tmpl, field.NewPath("template")), nil)
}

func TestImageTag(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "latest", "nginx:1": "1", "a.b/c": "latest", "a.b:5000/c": "latest", "a.b:5000/c:v2": "v2",
		"localhost/x": "latest", "x@sha256:aa": "", "x:1@sha256:aa": "1", "": "", "Bad/Name": "", "docker.io/Bad": "",
	} {
		if got := imageTag(image); got != want {
			t.Errorf("%q: %q, want %q", image, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	p := good()
	p.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}
	p.Spec.NodeSelector = map[string]string{"beta.kubernetes.io/os": "linux"}
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}, {Name: "A", Value: "$(A)3"}}
	p.Spec.Containers[0].Resources.Requests = list("memory=1500m")
	want := []string{
		`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "appArmorProfile" field instead`,
		`spec.containers[0].resources.requests[memory]: fractional byte value "1500m" is invalid, must be an integer`,
		`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
	}
	if got := Warnings(&p.Spec, &p.ObjectMeta, nil); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

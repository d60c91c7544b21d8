package admission

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

// --allow-privileged=false: neither a pod nor what makes pods has a privileged
// container; a pod that ran before can still be changed and deleted.
func TestNoPrivileged(t *testing.T) {
	yes, d := true, Deps{Back: &requesttest.Backend{}, NoPrivileged: true}
	privileged := func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	}
	spec := corev1.PodTemplateSpec{Spec: newPod(privileged).Spec}
	cron := &batchv1.CronJob{ObjectMeta: meta("y", "x")}
	cron.Spec.JobTemplate.Spec.Template = spec
	for at, a := range map[string]*request.Attributes{
		"spec.containers[0]":                                create("pods", newPod(privileged)),
		"spec.template.spec.containers[0]":                  create("deployments", &appsv1.Deployment{ObjectMeta: meta("y", "x"), Spec: appsv1.DeploymentSpec{Template: spec}}),
		"spec.jobTemplate.spec.template.spec.containers[0]": create("cronjobs", cron),
		"template.spec.containers[0]":                       create("podtemplates", &corev1.PodTemplate{ObjectMeta: meta("y", "x"), Template: spec}),
	} {
		want := ` "x" is invalid: ` + at + ".securityContext.privileged: Forbidden: disallowed by cluster policy"
		if err := through(t, d, "AlwaysAdmit", a); !strings.Contains(text(err), want) {
			t.Errorf("%s: %v", at, err)
		}
		if err := through(t, Deps{Back: d.Back}, "AlwaysAdmit", a); err != nil {
			t.Errorf("%s, allowed: %v", at, err)
		}
	}
	a := create("pods", newPod(privileged))
	a.Operation, a.Old = request.Update, newPod(privileged)
	if err := through(t, d, "AlwaysAdmit", a); err != nil {
		t.Errorf("a pod that ran before: %v", err)
	}
	debug := newPod(privileged)
	debug.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: &corev1.SecurityContext{Privileged: &yes}}}}
	a.Object, a.Subresource = debug, "ephemeralcontainers"
	if err := through(t, d, "AlwaysAdmit", a); !strings.Contains(text(err), "spec.ephemeralContainers[0].securityContext.privileged: Forbidden") {
		t.Errorf("an ephemeral container: %v", err)
	}
	if err := through(t, d, "AlwaysAdmit", create("pods", newPod(nil))); err != nil {
		t.Errorf("a plain pod: %v", err)
	}
}

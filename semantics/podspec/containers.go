package podspec

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// container judges what all kinds of containers have in common.
func (j *judge) container(c *corev1.Container, path *field.Path) {
	if c.Name == "" {
		j.required(path.Child("name"))
	} else {
		j.say(path.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))
	}
	if c.Image == "" {
		j.required(path.Child("image"))
	}
	mustBeOneOf(j, path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	j.ports(c.Ports, path.Child("ports"))
	j.env(c.Env, path.Child("env"))
	j.envFrom(c.EnvFrom, path.Child("envFrom"))
	j.mounts(c, path.Child("volumeMounts"))
	j.devices(c, path.Child("volumeDevices"))
	mustBeOneOf(j, path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	j.resources(&c.Resources, path.Child("resources"), j.claims)
	j.resizePolicy(c.ResizePolicy, path.Child("resizePolicy"))
	j.security(c.SecurityContext, path.Child("securityContext"))
	if j.isPod() && len(c.Image) != len(strings.TrimSpace(c.Image)) {
		j.add(field.Invalid(path.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
}

func (j *judge) containers(path *field.Path) {
	if len(j.spec.Containers) == 0 {
		j.required(path)
		return
	}
	names := sets.New[string]()
	for i := range j.spec.Containers {
		c, at := &j.spec.Containers[i], path.Index(i)
		j.container(c, at)
		if names.Has(c.Name) {
			j.add(field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		j.lifeAndProbes(c, at)
		j.restartRules(c, at)
	}
	j.hostPortConflicts(j.spec.Containers, path)
}

func (j *judge) initContainers(path *field.Path) {
	names := sets.New[string]()
	for i := range j.spec.Containers {
		names.Insert(j.spec.Containers[i].Name)
	}
	for i := range j.spec.InitContainers {
		c, at := &j.spec.InitContainers[i], path.Index(i)
		j.container(c, at)
		j.restartRules(c, at)
		if c.Name != "" && names.Has(c.Name) {
			j.add(field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		// One runs after the other, so each may have all the host's ports.
		j.hostPortConflicts(j.spec.InitContainers[i:i+1], path)
		if isSidecar(c) {
			j.lifeAndProbes(c, at)
			continue
		}
		j.notForInit(c, at)
	}
}

func (j *judge) notForInit(c *corev1.Container, path *field.Path) {
	const text = "may not be set for init containers without restartPolicy=Always"
	if c.Lifecycle != nil {
		j.add(field.Forbidden(path.Child("lifecycle"), text))
	}
	if c.LivenessProbe != nil {
		j.add(field.Forbidden(path.Child("livenessProbe"), text))
	}
	if c.ReadinessProbe != nil {
		j.add(field.Forbidden(path.Child("readinessProbe"), text))
	}
	if c.StartupProbe != nil {
		j.add(field.Forbidden(path.Child("startupProbe"), text))
	}
	if len(c.ResizePolicy) > 0 {
		j.add(field.Invalid(path.Child("resizePolicy"), c.ResizePolicy, "must not be set for init containers"))
	}
}

// ephemeralFields are those a container for debugging may have.
var ephemeralFields = sets.New("Name", "Image", "Command", "Args", "WorkingDir", "Env", "EnvFrom", "VolumeMounts",
	"VolumeDevices", "TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext",
	"Stdin", "StdinOnce", "TTY")

func (j *judge) ephemeralContainers(path *field.Path) {
	if len(j.spec.EphemeralContainers) == 0 {
		return
	}
	others := sets.New[string]()
	for _, list := range [][]corev1.Container{j.spec.Containers, j.spec.InitContainers} {
		for i := range list {
			others.Insert(list[i].Name)
		}
	}
	all := others.Clone()
	for i := range j.spec.EphemeralContainers {
		ec, at := &j.spec.EphemeralContainers[i], path.Index(i)
		c := corev1.Container(ec.EphemeralContainerCommon)
		j.container(&c, at)
		if all.Has(ec.Name) {
			j.add(field.Duplicate(at.Child("name"), ec.Name))
		}
		all.Insert(ec.Name)
		if ec.TargetContainerName != "" && !others.Has(ec.TargetContainerName) {
			j.add(field.NotFound(at.Child("targetContainerName"), ec.TargetContainerName))
		}
		j.onlyEphemeral(&ec.EphemeralContainerCommon, at)
	}
}

func (j *judge) onlyEphemeral(c *corev1.EphemeralContainerCommon, path *field.Path) {
	const text = "cannot be set for an Ephemeral Container"
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if !ephemeralFields.Has(name) && !v.Field(i).IsZero() {
			j.add(field.Forbidden(path.Child(lowerFirst(name)), text))
		}
	}
	for i, m := range c.VolumeMounts {
		if m.SubPath != "" {
			j.add(field.Forbidden(path.Child("volumeMounts").Index(i).Child("subPath"), text))
		}
		if m.SubPathExpr != "" {
			j.add(field.Forbidden(path.Child("volumeMounts").Index(i).Child("subPathExpr"), text))
		}
	}
}

func (j *judge) resizePolicy(policies []corev1.ContainerResizePolicy, path *field.Path) {
	seen := sets.New[corev1.ResourceName]()
	for i, p := range policies {
		if seen.Has(p.ResourceName) {
			j.add(field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		mustBeOneOf(j, path, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		mustBeOneOf(j, path, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if j.spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			j.add(field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
}

package podspec

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Each visits every container of a specification with its path below spec.
func Each(spec *corev1.PodSpec, path *field.Path, visit func(c *corev1.Container, at *field.Path)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i], path.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		visit(&c, path.Child("ephemeralContainers").Index(i))
	}
}

// os forbids what the pod's operating system does not have.
func (j *judge) os(path *field.Path) {
	if j.spec.OS == nil {
		return
	}
	at := path.Child("os", "name")
	switch name := j.spec.OS.Name; name {
	case "":
		j.required(at)
	case corev1.Linux:
		const text = "windows options cannot be set for a linux pod"
		if c := j.spec.SecurityContext; c != nil && c.WindowsOptions != nil {
			j.add(field.Forbidden(path.Child("securityContext", "windowsOptions"), text))
		}
		Each(j.spec, path, func(c *corev1.Container, at *field.Path) {
			if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
				j.add(field.Forbidden(at.Child("securityContext", "windowsOptions"), text))
			}
		})
	case corev1.Windows:
		j.windows(path)
	default:
		oneOf(j, at, name, corev1.Linux, corev1.Windows)
	}
}

// none forbids fields of a struct, named as in Go, that are set.
func (j *judge) none(obj any, path *field.Path, fields map[string]string) {
	v := reflect.Indirect(reflect.ValueOf(obj))
	if !v.IsValid() {
		return
	}
	for i := range v.NumField() {
		if name, ok := fields[v.Type().Field(i).Name]; ok && !v.Field(i).IsZero() {
			j.add(field.Forbidden(path.Child(name), "cannot be set for a windows pod"))
		}
	}
}

func (j *judge) windows(path *field.Path) {
	j.none(j.spec, path, map[string]string{
		"HostUsers": "hostUsers", "HostPID": "hostPID", "HostIPC": "hostIPC", "ShareProcessNamespace": "shareProcessNamespace",
	})
	j.none(j.spec.SecurityContext, path.Child("securityContext"), map[string]string{
		"AppArmorProfile": "appArmorProfile", "SELinuxOptions": "seLinuxOptions", "SeccompProfile": "seccompProfile",
		"FSGroup": "fsGroup", "FSGroupChangePolicy": "fsGroupChangePolicy", "Sysctls": "sysctls", "RunAsUser": "runAsUser",
		"RunAsGroup": "runAsGroup", "SupplementalGroups": "supplementalGroups",
		"SupplementalGroupsPolicy": "supplementalGroupsPolicy", "SELinuxChangePolicy": "seLinuxChangePolicy",
	})
	Each(j.spec, path, func(c *corev1.Container, at *field.Path) {
		j.none(c.SecurityContext, at.Child("securityContext"), map[string]string{
			"AppArmorProfile": "appArmorProfile", "SELinuxOptions": "seLinuxOptions", "SeccompProfile": "seccompProfile",
			"Capabilities": "capabilities", "ReadOnlyRootFilesystem": "readOnlyRootFilesystem", "Privileged": "privileged",
			"AllowPrivilegeEscalation": "allowPrivilegeEscalation", "ProcMount": "procMount",
			"RunAsUser": "runAsUser", "RunAsGroup": "runAsGroup",
		})
	})
}

// hostProcess demands that host process containers do not mix with others.
func (j *judge) hostProcess(path *field.Path) {
	of := func(o *corev1.WindowsSecurityContextOptions) *bool {
		if o == nil {
			return nil
		}
		return o.HostProcess
	}
	var pod *bool
	if j.spec.SecurityContext != nil {
		pod = of(j.spec.SecurityContext.WindowsOptions)
	}
	all, total := 0, 0
	Each(j.spec, path, func(c *corev1.Container, at *field.Path) {
		own := pod
		if c.SecurityContext != nil && of(c.SecurityContext.WindowsOptions) != nil {
			own = of(c.SecurityContext.WindowsOptions)
			if pod != nil && *pod != *own {
				j.add(field.Invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *own, "pod hostProcess value must be identical if both are specified"))
			}
		}
		total++
		if own != nil && *own {
			all++
		}
	})
	if all == 0 {
		return
	}
	if all != total {
		j.add(field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !j.spec.HostNetwork {
		j.add(field.Invalid(path.Child("hostNetwork"), j.spec.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
}

package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (j *judge) env(vars []corev1.EnvVar, path *field.Path) {
	for i := range vars {
		v, at := &vars[i], path.Index(i)
		if v.Name == "" {
			j.required(at.Child("name"))
		} else {
			j.say(at.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name))
		}
		if v.ValueFrom != nil {
			j.envSource(v, at.Child("valueFrom"))
		}
	}
}

func (j *judge) envSource(v *corev1.EnvVar, path *field.Path) {
	from, sources := v.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		j.fieldRef(from.FieldRef, envFields, path.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		j.resourceRef(from.ResourceFieldRef, false, path.Child("resourceFieldRef"))
	}
	if r := from.ConfigMapKeyRef; r != nil {
		sources++
		j.keyRef(r.Name, r.Key, path.Child("configMapKeyRef"))
	}
	if r := from.SecretKeyRef; r != nil {
		sources++
		j.keyRef(r.Name, r.Key, path.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		sources++
		j.fileKeyRef(from.FileKeyRef, path.Child("fileKeyRef"))
	}
	switch {
	case sources == 0:
		j.add(field.Invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case v.Value != "":
		j.add(field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		j.add(field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
}

func (j *judge) keyRef(name, key string, path *field.Path) {
	j.say(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		j.required(path.Child("key"))
		return
	}
	j.say(path.Child("key"), key, validation.IsConfigMapKey(key))
}

func (j *judge) fileKeyRef(r *corev1.FileKeySelector, path *field.Path) {
	if r.Key == "" {
		j.required(path.Child("key"))
	} else {
		j.say(path.Child("key"), r.Key, validation.IsRelaxedEnvVarName(r.Key))
	}
	if r.VolumeName == "" {
		j.required(path.Child("volumeName"))
	} else if _, ok := j.volumes[r.VolumeName]; !ok {
		j.add(field.NotFound(path.Child("volumeName"), r.VolumeName))
	}
	if r.Path == "" {
		j.required(path.Child("path"))
	} else {
		j.localPath(r.Path, path.Child("path"))
	}
}

func (j *judge) envFrom(sources []corev1.EnvFromSource, path *field.Path) {
	for i, s := range sources {
		at, count := path.Index(i), 0
		if s.Prefix != "" {
			j.say(at.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))
		}
		if s.ConfigMapRef != nil {
			count++
			j.envFromName(s.ConfigMapRef.Name, at.Child("configMapRef", "name"))
		}
		if s.SecretRef != nil {
			count++
			j.envFromName(s.SecretRef.Name, at.Child("secretRef", "name"))
		}
		switch {
		case count == 0:
			j.add(field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case count > 1:
			j.add(field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
}

func (j *judge) envFromName(name string, path *field.Path) {
	if name == "" {
		j.required(path)
		return
	}
	j.say(path, name, apivalidation.NameIsDNSSubdomain(name, true))
}

// What the downward API may tell, in environments and in files.
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	fileFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	// knownFields are those that are fields at all.
	knownFields = append([]string{"metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"}, envFields...)

	resourceFields = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
	sizeDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
)

func (j *judge) fieldRef(r *corev1.ObjectFieldSelector, valid []string, path *field.Path) {
	if r.APIVersion == "" {
		j.required(path.Child("apiVersion"))
		return
	}
	if r.FieldPath == "" {
		j.required(path.Child("fieldPath"))
		return
	}
	at := path.Child("fieldPath")
	name, key, keyed := subscript(r.FieldPath)
	switch {
	case r.APIVersion != "v1":
		j.add(field.Invalid(at, r.FieldPath, "error converting fieldPath: unsupported pod version: "+r.APIVersion))
	case keyed && name == "metadata.annotations":
		j.qualified(strings.ToLower(key), path)
	case keyed && name == "metadata.labels":
		j.qualified(key, path)
	case keyed:
		j.add(field.Invalid(at, r.FieldPath, "error converting fieldPath: field label does not support subscript"))
	case r.FieldPath == "spec.host":
		if !slices.Contains(valid, "spec.nodeName") {
			j.add(field.NotSupported(at, "spec.nodeName", valid))
		}
	case !slices.Contains(knownFields, name):
		j.add(field.Invalid(at, r.FieldPath, "error converting fieldPath: field label not supported: "+r.FieldPath))
	case !slices.Contains(valid, name):
		j.add(field.NotSupported(at, name, valid))
	}
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (name, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return path, "", false
	}
	name, key, ok = strings.Cut(strings.TrimSuffix(path, "']"), "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, key, true
}

func (j *judge) resourceRef(r *corev1.ResourceFieldSelector, file bool, path *field.Path) {
	huge := strings.HasPrefix(r.Resource, "requests.hugepages-") || strings.HasPrefix(r.Resource, "limits.hugepages-")
	switch {
	case file && r.ContainerName == "":
		j.required(path.Child("containerName"))
	case r.Resource == "":
		j.required(path.Child("resource"))
	case !huge && !slices.Contains(resourceFields, r.Resource):
		j.add(field.NotSupported(path.Child("resource"), r.Resource, resourceFields))
	}
	if r.Divisor.IsZero() {
		return
	}
	divisor, at := r.Divisor.String(), path.Child("divisor")
	badSize := !slices.Contains(sizeDivisors, divisor)
	const text = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the %s resource"
	switch _, name, _ := strings.Cut(r.Resource, "."); {
	case name == "cpu" && divisor != "1m" && divisor != "1":
		j.add(field.Invalid(at, r.Resource, "only divisor's values 1m and 1 are supported with the cpu resource"))
	case name == "memory" && badSize:
		j.add(field.Invalid(at, r.Resource, fmt.Sprintf(text, "memory")))
	case name == "ephemeral-storage" && badSize:
		j.add(field.Invalid(at, r.Resource, fmt.Sprintf(text, "local ephemeral storage")))
	case huge && badSize:
		j.add(field.Invalid(at, r.Resource, fmt.Sprintf(text, "hugepages")))
	}
}

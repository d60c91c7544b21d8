package spec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrConfig marks what the user must change before the container can run: the
// container waits with reason CreateContainerConfigError.
var ErrConfig = errors.New("CreateContainerConfigError")

type configError struct{ msg string }

func (e *configError) Error() string { return e.msg }
func (e *configError) Unwrap() error { return ErrConfig }

func configErrorf(format string, args ...any) error {
	return &configError{fmt.Sprintf(format, args...)}
}

// Environ returns the environment of c. Service variables come first, then
// envFrom, then env, each able to refer to what is before it.
func Environ(ctx context.Context, in *Input, objs Objects, services map[string]string) ([]*runtimeapi.KeyValue, error) {
	pod, c := in.Pod, in.Container
	env := map[string]string{}
	for _, from := range c.EnvFrom {
		if err := envFrom(ctx, pod, from, objs, env); err != nil {
			return nil, err
		}
	}
	known := func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		if v, ok := services[name]; ok {
			return v
		}
		return "$(" + name + ")"
	}
	for _, e := range c.Env {
		v, ok := Expand(e.Value, known), true
		if e.Value == "" && e.ValueFrom != nil {
			var err error
			if v, ok, err = valueFrom(ctx, in, e.ValueFrom, objs); err != nil {
				return nil, err
			}
		}
		if ok {
			env[e.Name] = v
		}
	}
	for k, v := range services {
		if _, ok := env[k]; !ok {
			env[k] = v
		}
	}
	out := make([]*runtimeapi.KeyValue, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, &runtimeapi.KeyValue{Key: k, Value: []byte(env[k])})
	}
	return out, nil
}

func envFrom(ctx context.Context, pod *corev1.Pod, from corev1.EnvFromSource, objs Objects, env map[string]string) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		r := from.ConfigMapRef
		cm, err := objs.ConfigMap(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && r.Optional != nil && *r.Optional {
				return nil
			}
			return configErrorf("%s", missing(err, "configmap", r.Name))
		}
		data = cm.Data
	case from.SecretRef != nil:
		r := from.SecretRef
		s, err := objs.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && r.Optional != nil && *r.Optional {
				return nil
			}
			return configErrorf("%s", missing(err, "secret", r.Name))
		}
		for k, v := range s.Data {
			data[k] = string(v)
		}
	}
	for k, v := range data {
		name := from.Prefix + k
		if len(validation.IsRelaxedEnvVarName(name)) == 0 {
			env[name] = v
		}
	}
	return nil
}

// missing words an error of reading an object as users know it.
func missing(err error, kind, name string) string {
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("%s %q not found", kind, name)
	}
	return err.Error()
}

// valueFrom returns a variable's value; it is not set when ok is false.
func valueFrom(ctx context.Context, in *Input, from *corev1.EnvVarSource, objs Objects) (v string, ok bool, err error) {
	ns := in.Pod.Namespace
	switch {
	case from.FieldRef != nil:
		v, err = PodField(in.Pod, from.FieldRef.FieldPath, in.PodIPs, in.Node)
		if err != nil {
			return "", false, configErrorf("%v", err)
		}
		return v, true, nil
	case from.ResourceFieldRef != nil:
		if v, err = ResourceField(in.Pod, from.ResourceFieldRef, in.Container.Name, in.Node.Allocatable); err != nil {
			return "", false, configErrorf("%v", err)
		}
		return v, true, nil
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		optional := r.Optional != nil && *r.Optional
		cm, err := objs.ConfigMap(ctx, ns, r.Name)
		if err != nil {
			if optional && apierrors.IsNotFound(err) {
				return "", false, nil
			}
			return "", false, configErrorf("%s", missing(err, "configmap", r.Name))
		}
		if v, ok := cm.Data[r.Key]; ok {
			return v, true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, configErrorf("couldn't find key %v in ConfigMap %v/%v", r.Key, ns, r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		optional := r.Optional != nil && *r.Optional
		s, err := objs.Secret(ctx, ns, r.Name)
		if err != nil {
			if optional && apierrors.IsNotFound(err) {
				return "", false, nil
			}
			return "", false, configErrorf("%s", missing(err, "secret", r.Name))
		}
		if v, ok := s.Data[r.Key]; ok {
			return string(v), true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, configErrorf("couldn't find key %v in Secret %v/%v", r.Key, ns, r.Name)
	}
	return "", false, nil
}

// PodField returns the field of a pod that a downward API path names.
func PodField(pod *corev1.Pod, path string, podIPs []string, node *Node) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	first := func(s []string) string {
		if len(s) == 0 {
			return ""
		}
		return s[0]
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return node.Name, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(node.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(node.HostIPs, ","), nil
	case "status.podIP":
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

func formatMap(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// ResourceField returns the resource of a container that a downward API
// reference names, divided by its divisor and rounded up.
func ResourceField(pod *corev1.Pod, ref *corev1.ResourceFieldSelector, container string, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	var c *corev1.Container
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == container {
				c = &list[i]
			}
		}
	}
	if c == nil {
		return "", fmt.Errorf("container %s not found", container)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Requests
	if kind == "limits" {
		list = c.Resources.Limits
	}
	q, ok := list[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		switch corev1.ResourceName(name) { // no limit: all the node has
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			q = allocatable[corev1.ResourceName(name)]
		}
	}
	if kind != "limits" && kind != "requests" {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(ceil(q.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceil(q.Value(), divisor.Value()), 10), nil
}

func ceil(a, b int64) int64 {
	if b == 0 {
		return a
	}
	return (a + b - 1) / b
}

// Expand replaces $(NAME) by lookup's answer; $$ is one dollar sign.
func Expand(s string, lookup func(string) string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			b.WriteString(lookup(s[i+2 : i+2+end]))
			i += 2 + end
		default:
			b.WriteByte('$')
			b.WriteByte(s[i+1])
			i++
		}
	}
	return b.String()
}

// ServiceEnv returns the environment variables that tell of services, in the
// forms {NAME}_SERVICE_HOST and Docker links. Only the default namespace's
// kubernetes service is told of when links is false.
func ServiceEnv(services []*corev1.Service, namespace string, links bool) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		master := s.Namespace == "default" && s.Name == "kubernetes"
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		if !(s.Namespace == namespace && links) && !master {
			continue
		}
		if master && namespace != "default" && links && hasService(services, namespace, s.Name) {
			continue // the pod's own namespace wins
		}
		serviceEnv(s, out)
	}
	return out
}

func hasService(services []*corev1.Service, namespace, name string) bool {
	return slices.ContainsFunc(services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
}

func serviceEnv(s *corev1.Service, out map[string]string) {
	name := envName(s.Name)
	ip := s.Spec.ClusterIP
	out[name+"_SERVICE_HOST"] = ip
	out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	host := ip
	if strings.Contains(ip, ":") {
		host = "[" + ip + "]"
	}
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+envName(p.Name)] = port
		}
		proto := "TCP"
		if p.Protocol != "" {
			proto = string(p.Protocol)
		}
		url := strings.ToLower(proto) + "://" + host + ":" + port
		if i == 0 {
			out[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out[prefix], out[prefix+"_PROTO"], out[prefix+"_PORT"], out[prefix+"_ADDR"] = url, strings.ToLower(proto), port, ip
	}
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

package spec

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "EMPTY": ""}
	look := func(n string) string {
		if v, ok := env[n]; ok {
			return v
		}
		return "$(" + n + ")"
	}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$$(A)": "$(A)", "$$$(A)": "$1", "$(NO)": "$(NO)", "$(EMPTY)": "", "$A": "$A", "$(A": "$(A", "a$": "a$", "": "",
	} {
		if got := Expand(in, look); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

type objects map[string]map[string]string

func (o objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if d, ok := o[name]; ok {
		return &corev1.ConfigMap{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if d, ok := o[name]; ok {
		s := &corev1.Secret{Data: map[string][]byte{}}
		for k, v := range d {
			s.Data[k] = []byte(v)
		}
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func ptr[T any](v T) *T { return &v }

func TestEnviron(t *testing.T) {
	ref := func(name, key string, optional bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
	}
	objs := objects{"c": {"k": "v", "bad=name": "x"}}
	for _, tt := range []struct {
		name string
		c    corev1.Container
		want string
		err  string
	}{
		{"values refer to what is before", corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}, {Name: "C", Value: "2"}}}, "A=1 B=1$(C) C=2 S=svc", ""},
		{"services can be referred to and overridden", corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "$(S)"}, {Name: "S", Value: "mine"}}}, "A=svc S=mine", ""},
		{"a whole ConfigMap with a prefix", corev1.Container{EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}}, "P_k=v S=svc", ""},
		{"one key", corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: ref("c", "k", false)}}}, "A=v S=svc", ""},
		{"a key that is not there", corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: ref("c", "x", false)}}}, "", "couldn't find key x in ConfigMap ns/c"},
		{"an optional one", corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: ref("c", "x", true)}}}, "S=svc", ""},
		{"no ConfigMap", corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: ref("no", "x", false)}}}, "", `configmap "no" not found`},
		{"no secret", corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}}}}}, "", `secret "no" not found`},
		{"the pod's own fields", corev1.Container{Env: []corev1.EnvVar{
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "L", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['x']"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
		}}, "CPU=4 IP=10.0.0.9 L=y S=svc", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"x": "y"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{tt.c}}}
			in := &Input{Pod: pod, Container: &pod.Spec.Containers[0], PodIPs: []string{"10.0.0.9"}, Node: &Node{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("3500m")}}}
			got, err := Environ(t.Context(), in, objs, map[string]string{"S": "svc"})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, e := range got {
				words = append(words, e.Key+"="+string(e.Value))
			}
			if s := strings.Join(words, " "); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
		})
	}
}

func TestServiceVariables(t *testing.T) {
	svc := func(ns, name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}}
	}
	all := []*corev1.Service{svc("default", "kubernetes", "10.96.0.1"), svc("ns", "my-app", "10.96.0.5"), svc("other", "far", "10.96.0.6"), svc("ns", "headless", corev1.ClusterIPNone)}
	want := []string{"MY_APP_PORT", "MY_APP_PORT_80_TCP", "MY_APP_PORT_80_TCP_ADDR", "MY_APP_PORT_80_TCP_PORT", "MY_APP_PORT_80_TCP_PROTO", "MY_APP_SERVICE_HOST", "MY_APP_SERVICE_PORT", "MY_APP_SERVICE_PORT_HTTP"}
	got := ServiceEnv(all, "ns", true)
	if got["MY_APP_PORT_80_TCP"] != "tcp://10.96.0.5:80" || got["KUBERNETES_SERVICE_HOST"] != "10.96.0.1" {
		t.Errorf("got %v", got)
	}
	var mine []string
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if !strings.HasPrefix(k, "KUBERNETES_") {
			mine = append(mine, k)
		}
	}
	if !slices.Equal(mine, want) {
		t.Errorf("variables %v, want %v", mine, want)
	}
	if off := ServiceEnv(all, "ns", false); off["MY_APP_PORT"] != "" || off["KUBERNETES_PORT"] == "" {
		t.Errorf("without links: %v", off)
	}
}

func TestRunAsNonRoot(t *testing.T) {
	for _, tt := range []struct {
		name  string
		user  *int64
		image *runtimeapi.Image
		err   string
	}{
		{"root image", nil, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{}}, "container has runAsNonRoot and image will run as root"},
		{"unnamed user", nil, &runtimeapi.Image{}, "container has runAsNonRoot and image will run as root"},
		{"a name", nil, &runtimeapi.Image{Username: "www"}, "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root"},
		{"a number", nil, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 7}}, ""},
		{"root asked for", ptr(int64(0)), &runtimeapi.Image{}, "container's runAsUser breaks non-root policy"},
		{"another asked for", ptr(int64(7)), &runtimeapi.Image{}, ""},
	} {
		in := &Input{Pod: &corev1.Pod{}, Container: &corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: tt.user}}, ImageUser: tt.image, Node: &Node{}}
		_, err := ContainerConfig(in)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
	}
}

func TestDNS(t *testing.T) {
	node := &Node{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", ResolvConf: "nameserver 192.0.2.53\nsearch example.org\noptions edns0\n"}
	for _, tt := range []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"cluster first", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.org | ndots:5"},
		{"but not on the host's network", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, "192.0.2.53 | example.org | edns0"},
		{"unless asked for", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true}, "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.org | ndots:5"},
		{"the node's", corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, "192.0.2.53 | example.org | edns0"},
		{"the pod's own", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}}}}, "1.1.1.1 | a | ndots:2"},
		{"an option replaced", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, DNSConfig: &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}}}}, "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.org | ndots:2"},
	} {
		c, err := DNS(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: tt.spec}, node)
		got := strings.Join(c.GetServers(), " ") + " | " + strings.Join(c.GetSearches(), " ") + " | " + strings.Join(c.GetOptions(), " ")
		if err != nil || got != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestHosts(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Spec: corev1.PodSpec{Subdomain: "sub", HostAliases: []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"x", "y"}}}}}
	got := Hosts(pod, &Node{ClusterDomain: "cluster.local"}, []string{"10.0.0.1"}, "")
	for _, line := range []string{"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n", "10.0.0.1\tp.sub.ns.svc.cluster.local\tp\n", "\n# Entries added by HostAliases.\n192.0.2.9\tx\ty\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
}

func TestResources(t *testing.T) {
	in := &Input{Pod: &corev1.Pod{}, Node: &Node{CPUQuota: true, MaxOOMAdjust: true}, QOS: corev1.PodQOSBurstable, MemoryCapacity: 1 << 30, Container: &corev1.Container{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("256Mi")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("512Mi")},
	}}}
	r := Resources(in)
	if r.CpuShares != 256 || r.CpuQuota != 50000 || r.CpuPeriod != 100000 || r.MemoryLimitInBytes != 512<<20 || r.OomScoreAdj != 750 {
		t.Errorf("got %+v", r)
	}
	in.Node.MaxOOMAdjust = false
	if r := Resources(in); r.OomScoreAdj != 750 {
		t.Errorf("OOM score %d, want 750: scores may always be raised", r.OomScoreAdj)
	}
	in.QOS = corev1.PodQOSGuaranteed
	if r := Resources(in); r.OomScoreAdj != 0 {
		t.Errorf("OOM score %d on a node that may not lower it", r.OomScoreAdj)
	}
}

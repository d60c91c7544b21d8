package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// obj is a part of a document.
type obj = map[string]any

// step brings a document from one version to the next. One document may become
// several: kinds were split.
func (f *File) step(from string, m obj) ([]obj, error) {
	switch from {
	case "v1alpha1":
		return f.fromAlpha1(m)
	case "v1alpha2":
		return f.fromAlpha2(m)
	case "v1alpha3":
		return f.fromAlpha3(m)
	case "v1beta1":
		return f.fromBeta1(m)
	case "v1beta2":
		return f.fromBeta2(m)
	case "v1beta3":
		return f.fromBeta3(m)
	}
	return nil, fmt.Errorf("no step from %s", from)
}

// sub returns the part of m called key, made if it is missing.
func sub(m obj, keys ...string) obj {
	for _, k := range keys {
		next, ok := m[k].(obj)
		if !ok {
			next = obj{}
			m[k] = next
		}
		m = next
	}
	return m
}

// move takes a value from one place to another, if it is there.
func move(from obj, key string, to obj, name string) {
	if v, ok := from[key]; ok {
		delete(from, key)
		to[name] = v
	}
}

// drop forgets fields that mean nothing any more, and says so.
func (f *File) drop(m obj, keys ...string) {
	for _, k := range keys {
		if _, ok := m[k]; ok {
			delete(m, k)
			f.warn("the field %q has no effect any more and is left out", k)
		}
	}
}

// fromAlpha1 renames what v1alpha2 gathered: the API endpoint, the node, the
// tokens, and etcd's two ways.
func (f *File) fromAlpha1(m obj) ([]obj, error) {
	switch m["kind"] {
	case "MasterConfiguration":
		node := sub(m, "nodeRegistration")
		move(m, "nodeName", node, "name")
		move(m, "criSocket", node, "criSocket")
		if no, _ := m["noTaintMaster"].(bool); no {
			node["taints"] = []any{}
		}
		delete(m, "noTaintMaster")
		tokenOf(m)
		if etcd, ok := m["etcd"].(obj); ok {
			etcdOf(etcd)
		}
		if api, ok := m["api"].(obj); ok && api["controlPlaneEndpoint"] == "" {
			delete(api, "controlPlaneEndpoint")
		}
		f.drop(m, "cloudProvider", "privilegedPods", "authorizationModes", "selfHosted", "unifiedControlPlaneImage", "auditPolicy", "ciImageRepository")
		if kp, ok := m["kubeProxy"].(obj); ok {
			f.component(kp["config"], "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1")
		}
		if kc, ok := m["kubeletConfiguration"].(obj); ok {
			f.component(kc["baseConfig"], "KubeletConfiguration", "kubelet.config.k8s.io/v1beta1")
		}
		delete(m, "kubeProxy")
		delete(m, "kubeletConfiguration")
	case "NodeConfiguration":
		node := sub(m, "nodeRegistration")
		move(m, "nodeName", node, "name")
		move(m, "criSocket", node, "criSocket")
		delete(m, "nodeRegistration")
		m["nodeRegistration"] = node
	}
	return []obj{m}, nil
}

// component keeps another component's configuration that was part of this one.
func (f *File) component(config any, kind, apiVersion string) {
	if c, ok := config.(obj); ok && len(c) > 0 {
		c["kind"], c["apiVersion"] = kind, apiVersion
		f.Others[kind] = c
	}
}

func tokenOf(m obj) {
	t := obj{}
	move(m, "token", t, "token")
	move(m, "tokenTTL", t, "ttl")
	move(m, "tokenUsages", t, "usages")
	move(m, "tokenGroups", t, "groups")
	if len(t) > 0 {
		m["bootstrapTokens"] = []any{t}
	}
}

// etcdOf turns v1alpha1's one etcd into either a local or an external one.
func etcdOf(etcd obj) {
	if list, ok := etcd["endpoints"].([]any); ok && len(list) > 0 {
		ext := sub(etcd, "external")
		for _, k := range []string{"endpoints", "caFile", "certFile", "keyFile"} {
			move(etcd, k, ext, k)
		}
		// An external member's own settings are not kubeadm's.
		for _, k := range []string{"dataDir", "extraArgs", "serverCertSANs", "peerCertSANs", "image", "selfHosted"} {
			delete(etcd, k)
		}
		return
	}
	local := obj{}
	for _, k := range []string{"dataDir", "extraArgs", "serverCertSANs", "peerCertSANs", "image"} {
		move(etcd, k, local, k)
	}
	for _, k := range []string{"endpoints", "caFile", "certFile", "keyFile", "selfHosted"} {
		delete(etcd, k)
	}
	if len(local) > 0 {
		etcd["local"] = local
	}
}

// clusterFields are those of a MasterConfiguration that all control planes share.
var clusterFields = []string{
	"etcd", "networking", "kubernetesVersion", "apiServerCertSANs", "apiServerExtraArgs", "apiServerExtraVolumes", "controllerManagerExtraArgs",
	"controllerManagerExtraVolumes", "schedulerExtraArgs", "schedulerExtraVolumes", "certificatesDir", "imageRepository", "featureGates", "clusterName", "auditPolicy", "unifiedControlPlaneImage",
}

// fromAlpha2 splits MasterConfiguration into what concerns one machine and
// what concerns the cluster.
func (f *File) fromAlpha2(m obj) ([]obj, error) {
	switch m["kind"] {
	case "MasterConfiguration":
		cluster := obj{"kind": "ClusterConfiguration"}
		for _, k := range clusterFields {
			move(m, k, cluster, k)
		}
		m["kind"] = "InitConfiguration"
		api, _ := m["api"].(obj)
		delete(m, "api")
		if api != nil {
			move(api, "controlPlaneEndpoint", cluster, "controlPlaneEndpoint")
			m["apiEndpoint"] = api
		}
		if kp, ok := m["kubeProxy"].(obj); ok {
			f.component(kp["config"], "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1")
		}
		if kc, ok := m["kubeletConfiguration"].(obj); ok {
			f.component(kc["baseConfig"], "KubeletConfiguration", "kubelet.config.k8s.io/v1beta1")
		}
		delete(m, "kubeProxy")
		delete(m, "kubeletConfiguration")
		return []obj{m, cluster}, nil
	case "NodeConfiguration":
		m["kind"] = "JoinConfiguration"
	}
	return []obj{m}, nil
}

// fromAlpha3 gives each component a part of its own, and discovery its tree.
func (f *File) fromAlpha3(m obj) ([]obj, error) {
	switch m["kind"] {
	case "InitConfiguration":
		move(m, "apiEndpoint", m, "localAPIEndpoint")
	case "ClusterConfiguration":
		for old, component := range map[string]string{"apiServer": "apiServer", "controllerManager": "controllerManager", "scheduler": "scheduler"} {
			for _, part := range []string{"ExtraArgs", "ExtraVolumes", "CertSANs"} {
				if v, ok := m[old+part]; ok {
					delete(m, old+part)
					sub(m, component)[strings.ToLower(part[:1])+part[1:]] = v
				}
			}
		}
		if etcd, ok := m["etcd"].(obj); ok {
			if local, ok := etcd["local"].(obj); ok {
				f.drop(local, "image")
			}
		}
		f.drop(m, "auditPolicy", "unifiedControlPlaneImage")
		f.volumes(m)
	case "JoinConfiguration":
		joinOf(m)
	}
	return []obj{m}, nil
}

// volumes turns "writable" of old mounts into "readOnly".
func (f *File) volumes(m obj) {
	for _, c := range []string{"apiServer", "controllerManager", "scheduler"} {
		part, _ := m[c].(obj)
		list, _ := part["extraVolumes"].([]any)
		for _, v := range list {
			if mount, ok := v.(obj); ok {
				if w, ok := mount["writable"].(bool); ok {
					delete(mount, "writable")
					mount["readOnly"] = !w
				}
			}
		}
	}
}

// joinOf gathers a joining machine's flat fields.
func joinOf(m obj) {
	d := obj{}
	if file, ok := m["discoveryFile"].(string); ok && file != "" {
		d["file"] = obj{"kubeConfigPath": file}
	} else {
		t := obj{}
		move(m, "discoveryToken", t, "token")
		move(m, "discoveryTokenCACertHashes", t, "caCertHashes")
		move(m, "discoveryTokenUnsafeSkipCAVerification", t, "unsafeSkipCAVerification")
		if servers, ok := m["discoveryTokenAPIServers"].([]any); ok && len(servers) > 0 {
			t["apiServerEndpoint"] = servers[0]
		}
		if token, ok := m["token"].(string); ok && t["token"] == nil {
			t["token"] = token
		}
		d["bootstrapToken"] = t
	}
	move(m, "tlsBootstrapToken", d, "tlsBootstrapToken")
	if d["tlsBootstrapToken"] == nil && m["token"] != nil {
		d["tlsBootstrapToken"] = m["token"]
	}
	move(m, "discoveryTimeout", d, "timeout")
	for _, k := range []string{"discoveryFile", "discoveryTokenAPIServers", "token", "clusterName", "featureGates"} {
		delete(m, k)
	}
	m["discovery"] = d
	if cp, ok := m["controlPlane"].(bool); ok {
		delete(m, "controlPlane")
		if cp {
			m["controlPlane"] = obj{}
		}
	}
	if e, ok := m["apiEndpoint"].(obj); ok {
		delete(m, "apiEndpoint")
		if cp, ok := m["controlPlane"].(obj); ok {
			cp["localAPIEndpoint"] = e
		}
	}
}

// fromBeta1: v1beta2 only added fields.
func (f *File) fromBeta1(m obj) ([]obj, error) { return []obj{m}, nil }

// fromBeta2 leaves out what v1beta3 dropped.
func (f *File) fromBeta2(m obj) ([]obj, error) {
	if m["kind"] == "ClusterConfiguration" {
		f.drop(m, "useHyperKubeImage")
		if dns, ok := m["dns"].(obj); ok {
			if dns["type"] == "kube-dns" {
				return nil, fmt.Errorf("dns.type %q: only CoreDNS is deployed", dns["type"])
			}
			delete(dns, "type")
		}
	}
	return []obj{m}, nil
}

// fromBeta3 turns maps of flags into lists, and gathers the timeouts.
func (f *File) fromBeta3(m obj) ([]obj, error) {
	switch m["kind"] {
	case "ClusterConfiguration":
		for _, path := range [][]string{{"apiServer"}, {"controllerManager"}, {"scheduler"}, {"etcd", "local"}} {
			if part := at(m, path...); part != nil {
				argList(part, "extraArgs")
			}
		}
		if api, ok := m["apiServer"].(obj); ok {
			f.timeout(api, "timeoutForControlPlane")
		}
	case "InitConfiguration", "JoinConfiguration":
		if node, ok := m["nodeRegistration"].(obj); ok {
			argList(node, "kubeletExtraArgs")
		}
		if d, ok := m["discovery"].(obj); ok {
			if v, ok := d["timeout"]; ok {
				delete(d, "timeout")
				sub(m, "timeouts")["discovery"] = v
			}
		}
	}
	return []obj{m}, nil
}

func (f *File) timeout(m obj, key string) {
	if v, ok := m[key]; ok {
		delete(m, key)
		f.warn("%s %v: the wait for a control plane component is timeouts.controlPlaneComponentHealthCheck of the InitConfiguration now", key, v)
	}
}

func at(m obj, path ...string) obj {
	for _, k := range path {
		m, _ = m[k].(obj)
	}
	return m
}

// argList makes name-value pairs of a map, in the order of the names.
func argList(m obj, key string) {
	args, ok := m[key].(obj)
	if !ok {
		return
	}
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		list = append(list, obj{"name": name, "value": fmt.Sprint(args[name])})
	}
	m[key] = list
}

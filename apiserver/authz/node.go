package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

// Node lets a kubelet read what the pods on its node refer to, and write only
// what is its own.
type Node struct {
	back request.Backend

	mu   sync.RWMutex
	refs map[string]map[ref]int // node -> what its pods refer to -> by how many
	pods map[ref]podRefs        // what was counted for a pod
	// volumes holds, per bound claim, the volume and what the volume refers to.
	volumes map[ref][]ref
	claimOf map[string]ref // volume name -> its claim
	attach  map[string]string
}

// ref names an object a pod refers to.
type ref struct{ kind, namespace, name string }

type podRefs struct {
	node string
	refs []ref
}

// NewNode returns a node authorizer that knows no pods yet.
func NewNode(back request.Backend) *Node {
	return &Node{
		back: back, refs: map[string]map[ref]int{}, pods: map[ref]podRefs{}, volumes: map[ref][]ref{},
		claimOf: map[string]ref{}, attach: map[string]string{},
	}
}

func nodeFeeds() []schema.GroupResource {
	return []schema.GroupResource{
		{Resource: "pods"}, {Resource: "persistentvolumes"}, {Group: storagev1.GroupName, Resource: "volumeattachments"},
	}
}

// Run keeps the graph right until ctx ends. Kinds the server does not serve are left out.
func (n *Node) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, gr := range nodeFeeds() {
		if _, err := n.back.List(ctx, gr, ""); err != nil && gr.Resource != "pods" {
			continue
		}
		g.Go("node authorizer "+gr.Resource, func(ctx context.Context) error { return n.back.Changes(ctx, gr, n.observe) })
	}
	return g.Wait()
}

func (n *Node) observe(old, now api.Object) {
	n.mu.Lock()
	defer n.mu.Unlock()
	obj := now
	if obj == nil {
		obj = old
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		n.setPod(o, now != nil)
	case *corev1.PersistentVolume:
		n.setVolume(o, now != nil)
	case *storagev1.VolumeAttachment:
		if now == nil {
			delete(n.attach, o.Name)
		} else {
			n.attach[o.Name] = o.Spec.NodeName
		}
	}
}

func (n *Node) setPod(p *corev1.Pod, exists bool) {
	key := ref{"pods", p.Namespace, p.Name}
	was, known := n.pods[key]
	if known && exists && was.node == p.Spec.NodeName && len(p.Status.ResourceClaimStatuses) == 0 {
		return // what a placed pod refers to never changes
	}
	if known {
		for _, r := range was.refs {
			if n.refs[was.node][r]--; n.refs[was.node][r] <= 0 {
				delete(n.refs[was.node], r)
			}
		}
		if len(n.refs[was.node]) == 0 {
			delete(n.refs, was.node)
		}
		delete(n.pods, key)
	}
	if !exists || p.Spec.NodeName == "" {
		return
	}
	now := podRefs{p.Spec.NodeName, referenced(p)}
	n.pods[key] = now
	if n.refs[now.node] == nil {
		n.refs[now.node] = map[ref]int{}
	}
	for _, r := range now.refs {
		n.refs[now.node][r]++
	}
}

func (n *Node) setVolume(v *corev1.PersistentVolume, exists bool) {
	if c, ok := n.claimOf[v.Name]; ok {
		delete(n.volumes, c)
		delete(n.claimOf, v.Name)
	}
	if !exists || v.Spec.ClaimRef == nil {
		return
	}
	claim := ref{"persistentvolumeclaims", v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name}
	n.claimOf[v.Name] = claim
	n.volumes[claim] = append([]ref{{"persistentvolumes", "", v.Name}}, volumeSecrets(v)...)
}

// referenced lists what a pod refers to, each once.
func referenced(p *corev1.Pod) []ref {
	out := []ref{{"pods", p.Namespace, p.Name}}
	add := func(kind, name string) {
		if r := (ref{kind, p.Namespace, name}); name != "" && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	if p.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		return out // mirror pods lend their node no rights
	}
	add("serviceaccounts", p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		add("secrets", s.Name)
	}
	containers := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	for _, e := range p.Spec.EphemeralContainers {
		containers = append(containers, corev1.Container(e.EphemeralContainerCommon))
	}
	for _, c := range containers {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				add("configmaps", e.ConfigMapRef.Name)
			}
			if e.SecretRef != nil {
				add("secrets", e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			if s := e.ValueFrom.ConfigMapKeyRef; s != nil {
				add("configmaps", s.Name)
			}
			if s := e.ValueFrom.SecretKeyRef; s != nil {
				add("secrets", s.Name)
			}
		}
	}
	for i := range p.Spec.Volumes {
		volumeRefs(p, &p.Spec.Volumes[i], add)
	}
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			add("resourceclaims", *c.ResourceClaimName)
		}
	}
	for _, c := range p.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			add("resourceclaims", *c.ResourceClaimName)
		}
	}
	return out
}

func volumeRefs(p *corev1.Pod, v *corev1.Volume, add func(kind, name string)) {
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			add("secrets", r.Name)
		}
	}
	switch s := v.VolumeSource; {
	case s.Secret != nil:
		add("secrets", s.Secret.SecretName)
	case s.ConfigMap != nil:
		add("configmaps", s.ConfigMap.Name)
	case s.PersistentVolumeClaim != nil:
		add("persistentvolumeclaims", s.PersistentVolumeClaim.ClaimName)
	case s.Ephemeral != nil:
		add("persistentvolumeclaims", p.Name+"-"+v.Name)
	case s.AzureFile != nil:
		add("secrets", s.AzureFile.SecretName)
	case s.CephFS != nil:
		local(s.CephFS.SecretRef)
	case s.Cinder != nil:
		local(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		local(s.FlexVolume.SecretRef)
	case s.ISCSI != nil:
		local(s.ISCSI.SecretRef)
	case s.RBD != nil:
		local(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		local(s.ScaleIO.SecretRef)
	case s.StorageOS != nil:
		local(s.StorageOS.SecretRef)
	case s.CSI != nil:
		local(s.CSI.NodePublishSecretRef)
	case s.Projected != nil:
		for _, src := range s.Projected.Sources {
			if src.Secret != nil {
				add("secrets", src.Secret.Name)
			}
			if src.ConfigMap != nil {
				add("configmaps", src.ConfigMap.Name)
			}
		}
	}
}

func volumeSecrets(v *corev1.PersistentVolume) (out []ref) {
	add := func(r *corev1.SecretReference) {
		if r == nil || r.Name == "" {
			return
		}
		ns := r.Namespace
		if ns == "" {
			ns = v.Spec.ClaimRef.Namespace
		}
		out = append(out, ref{"secrets", ns, r.Name})
	}
	switch s := v.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		add(s.CSI.NodePublishSecretRef)
		add(s.CSI.NodeStageSecretRef)
		add(s.CSI.NodeExpandSecretRef)
	case s.CephFS != nil:
		add(s.CephFS.SecretRef)
	case s.Cinder != nil:
		add(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		add(s.FlexVolume.SecretRef)
	case s.ISCSI != nil:
		add(s.ISCSI.SecretRef)
	case s.RBD != nil:
		add(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		add(s.ScaleIO.SecretRef)
	case s.AzureFile != nil:
		if s.AzureFile.SecretNamespace != nil {
			add(&corev1.SecretReference{Name: s.AzureFile.SecretName, Namespace: *s.AzureFile.SecretNamespace})
		} else {
			add(&corev1.SecretReference{Name: s.AzureFile.SecretName})
		}
	}
	return out
}

// NodeName returns the node that u is the kubelet of.
func NodeName(u *request.User) (name string, isNode bool) {
	if !slices.Contains(u.Groups, request.Nodes) {
		return "", false
	}
	return strings.CutPrefix(u.Name, "system:node:")
}

// Authorize decides for kubelets alone.
func (n *Node) Authorize(_ context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	node, ok := NodeName(u)
	if !ok {
		return request.NoOpinion, "", nil
	}
	if node == "" {
		return request.NoOpinion, "unknown node for user " + fmt.Sprintf("%q", u.Name), nil
	}
	if no, decided := n.judge(node, i); decided {
		if no == "" {
			return request.Allow, "", nil
		}
		return request.NoOpinion, no, nil
	}
	if allowsAny(nodeRules(), i) {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "", nil
}

// judge decides requests for kinds with rules of their own; no is why not.
func (n *Node) judge(node string, i *request.Info) (no string, decided bool) {
	if !i.IsResource {
		return "", false
	}
	switch (schema.GroupResource{Group: i.Group, Resource: i.Resource}).String() {
	case "secrets", "configmaps":
		return n.readNamed(node, i, "get", "list", "watch"), true
	case "resourceclaims.resource.k8s.io":
		return n.readNamed(node, i, "get"), true
	case "persistentvolumeclaims":
		if i.Subresource == "status" {
			return n.related(node, i, "can only get, update, or patch this type", "get", "update", "patch"), true
		}
		return n.readNamed(node, i, "get"), true
	case "persistentvolumes":
		return n.readNamed(node, i, "get"), true
	case "volumeattachments.storage.k8s.io":
		if i.Verb != "get" || i.Subresource != "" {
			return "can only get individual resources of this type", true
		}
		n.mu.RLock()
		defer n.mu.RUnlock()
		if n.attach[i.Name] != node {
			return noPath(node), true
		}
		return "", true
	case "serviceaccounts":
		if i.Verb != "create" || i.Subresource != "token" || i.Name == "" || i.Namespace == "" {
			return "can only create tokens for individual service accounts", true
		}
		return n.path(node, i), true
	case "leases.coordination.k8s.io":
		return lease(node, i), true
	case "csinodes.storage.k8s.io":
		return csiNode(node, i), true
	case "nodes":
		return ownNode(node, i), true
	case "pods":
		return n.pod(node, i)
	case "resourceslices.resource.k8s.io":
		return slice(node, i), true
	}
	return "", false
}

func noPath(node string) string {
	return fmt.Sprintf("no relationship found between node '%s' and this object", node)
}

// path says whether a pod on node refers to what i names, perhaps by way of a volume.
func (n *Node) path(node string, i *request.Info) (no string) {
	want := ref{i.Resource, i.Namespace, i.Name}
	n.mu.RLock()
	defer n.mu.RUnlock()
	own := n.refs[node]
	if own[want] > 0 {
		return ""
	}
	if claim, ok := n.claimOf[i.Name]; i.Resource == "persistentvolumes" {
		if ok && own[claim] > 0 {
			return ""
		}
		return noPath(node)
	}
	if i.Resource == "secrets" {
		for r := range own {
			if r.kind == "persistentvolumeclaims" && slices.Contains(n.volumes[r], want) {
				return ""
			}
		}
	}
	return noPath(node)
}

func (n *Node) readNamed(node string, i *request.Info, verbs ...string) string {
	switch {
	case !slices.Contains(verbs, i.Verb):
		if len(verbs) == 1 {
			return "can only get individual resources of this type"
		}
		return "can only read resources of this type"
	case i.Subresource != "":
		return "cannot read subresource"
	case i.Namespace == "" && i.Resource != "persistentvolumes":
		return "can only read namespaced object of this type"
	case i.Name == "":
		return "No Object name found"
	}
	return n.path(node, i)
}

func (n *Node) related(node string, i *request.Info, otherwise string, verbs ...string) string {
	if !slices.Contains(verbs, i.Verb) || i.Name == "" {
		return otherwise
	}
	return n.path(node, i)
}

func lease(node string, i *request.Info) string {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, i.Verb):
		return "can only get, create, update, patch, or delete a node lease"
	case i.Namespace != corev1.NamespaceNodeLease:
		return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case i.Verb != "create" && i.Name != node: // a create's name is judged by NodeRestriction
		return "can only access node lease with the same name as the requesting node"
	}
	return ""
}

func csiNode(node string, i *request.Info) string {
	switch {
	case i.Subresource != "":
		return "cannot authorize CSINode subresources"
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, i.Verb):
		return "can only get, create, update, patch, or delete a CSINode"
	case i.Verb != "create" && i.Name != node:
		return "can only access CSINode with the same name as the requesting node"
	}
	return ""
}

func slice(node string, i *request.Info) string {
	switch i.Verb {
	case "get", "create", "update", "patch", "delete":
		return "" // the objects' node is judged by NodeRestriction
	case "list", "watch", "deletecollection":
		if exact(i.FieldSelector, "spec.nodeName") == node {
			return ""
		}
		return "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
	}
	return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func ownNode(node string, i *request.Info) string {
	if i.Subresource != "" && i.Subresource != "status" {
		return "" + fmt.Sprintf("node '%s' cannot access the subresource %q of nodes", node, i.Subresource)
	}
	switch i.Verb {
	case "create":
		return ""
	case "get", "update", "patch":
		if i.Name == node {
			return ""
		}
	case "list", "watch":
		if i.Name == node || exact(i.FieldSelector, "metadata.name") == node {
			return ""
		}
	default:
		return fmt.Sprintf("node '%s' cannot %s nodes", node, i.Verb)
	}
	if slices.Contains([]string{"get", "list", "watch"}, i.Verb) {
		return fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, i.Name)
	}
	return fmt.Sprintf("node '%s' cannot modify '%s', only its own Node object", node, i.Name)
}

func (n *Node) pod(node string, i *request.Info) (no string, decided bool) {
	switch i.Verb {
	case "get":
		if i.Subresource == "" {
			return n.path(node, i), true
		}
	case "list", "watch":
		if i.Subresource == "" {
			if exact(i.FieldSelector, "spec.nodeName") == node {
				return "", true
			}
			if i.Name != "" {
				return n.path(node, i), true
			}
			return "can only list/watch pods with spec.nodeName field selector", true
		}
	case "update", "patch":
		if i.Subresource == "status" {
			return "", true // whose pod it is, NodeRestriction judges
		}
	}
	return "", false // create, delete and evict: by the ordinary rules
}

// exact returns the value that a field selector requires of name.
func exact(selector, name string) string {
	if selector == "" {
		return ""
	}
	s, err := fields.ParseSelector(selector)
	if err != nil {
		return ""
	}
	v, _ := s.RequiresExactMatch(name)
	return v
}

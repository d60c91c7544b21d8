package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/clock"
)

func get(group, resource, namespace, name string) *request.Info {
	r, sub, _ := strings.Cut(resource, "/")
	return &request.Info{IsResource: true, Verb: "get", Group: group, Resource: r, Subresource: sub, Namespace: namespace, Name: name}
}

func verb(v string, i *request.Info) *request.Info { c := *i; c.Verb = v; return &c }

// booted is a cluster with its policy, aggregated.
func booted(t *testing.T) (*requesttest.Backend, *RBAC) {
	t.Helper()
	b := requesttest.New()
	if err := Bootstrap(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	a := NewRBAC(b)
	for range 4 { // view → edit → admin
		if err := a.Fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.aggregateOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b, a
}

func TestPolicy(t *testing.T) {
	b, a := booted(t)
	b.With(roleBindingsGR, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "devs"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}, {Kind: "ServiceAccount", Name: "robot"}},
	}, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "hollow"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "gone"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"}},
	})
	if err := a.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := NewNode(b)
	chain, err := NewLive(FromModes([]string{ModeNode, ModeRBAC}, nil), Parts{RBAC: a, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	jane := &request.User{Name: "jane", Groups: []string{request.Authenticated}}
	cases := []struct {
		user   *request.User
		info   *request.Info
		want   request.Decision
		reason string
	}{
		{jane, verb("list", get("", "pods", "dev", "")), request.Allow, `RBAC: allowed by RoleBinding "devs/dev" of ClusterRole "edit" to User "jane"`},
		{jane, verb("create", get("apps", "deployments/scale", "dev", "d")), request.Allow, ""},
		{jane, get("", "pods/log", "dev", "p"), request.Allow, ""},
		{jane, verb("list", get("", "pods", "prod", "")), request.NoOpinion, ""},
		{jane, verb("create", get(rbacv1.GroupName, "roles", "dev", "r")), request.NoOpinion, ""},
		{jane, verb("create", get("authorization.k8s.io", "selfsubjectaccessreviews", "", "")), request.Allow, `RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user" to Group "system:authenticated"`},
		{&request.User{Name: "system:serviceaccount:dev:robot"}, verb("list", get("", "secrets", "dev", "")), request.Allow, `RBAC: allowed by RoleBinding "devs/dev" of ClusterRole "edit" to ServiceAccount "robot/dev"`},
		{&request.User{Name: "joe"}, get("", "pods", "dev", "p"), request.NoOpinion, `RBAC: role.rbac.authorization.k8s.io "gone" not found`},
		{&request.User{Name: "root", Groups: []string{request.Masters}}, verb("delete", get("", "nodes", "", "n")), request.Allow, ""},
		{&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, &request.Info{Verb: "get", Path: "/version"}, request.Allow, ""},
		{&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, &request.Info{Verb: "get", Path: "/api"}, request.NoOpinion, ""},
		{&request.User{Name: "system:kube-scheduler"}, verb("create", get("", "pods/binding", "dev", "p")), request.Allow, ""},
		{&request.User{Name: "system:serviceaccount:kube-system:replicaset-controller"}, verb("create", get("", "pods", "dev", "")), request.Allow, ""},
		{&request.User{Name: "system:serviceaccount:kube-system:generic-garbage-collector"}, verb("delete", get("example.com", "widgets", "dev", "w")), request.Allow, ""},
	}
	for _, c := range cases {
		d, reason, err := chain.Authorize(t.Context(), c.user, c.info)
		if d != c.want || err != nil || c.reason != "" && reason != c.reason {
			t.Errorf("%s %s %s/%s: %v %q %v, want %v %q", c.user.Name, c.info.Verb, c.info.Namespace, c.info.Resource, d, reason, err, c.want, c.reason)
		}
	}
}

func TestForbiddenText(t *testing.T) {
	u := &request.User{Name: "x"}
	for want, i := range map[string]*request.Info{
		`pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y"`:                                 verb("list", get("", "pods", "y", "")),
		`nodes "n" is forbidden: User "x" cannot get resource "nodes" in API group "" at the cluster scope`:                            get("", "nodes", "", "n"),
		`deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" in the namespace "y"`: get("apps", "deployments/scale", "y", "d"),
		`forbidden: User "x" cannot get path "/metrics"`:                                                                               {Verb: "get", Path: "/metrics"},
	} {
		if got := request.Forbidden(u, i, "").Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := request.Forbidden(u, &request.Info{Verb: "get", Path: "/x"}, "why").Error(); !strings.HasSuffix(got, `path "/x": why`) {
		t.Error(got)
	}
}

// dumb evaluates by walking every binding, as the definition says.
func dumb(bindings []*rbacv1.ClusterRoleBinding, roles map[string][]rbacv1.PolicyRule, u *request.User, i *request.Info) bool {
	for _, b := range bindings {
		for _, s := range b.Subjects {
			if s.Kind == "User" && s.Name == u.Name || s.Kind == "Group" && slices.Contains(u.Groups, s.Name) {
				for _, r := range roles[b.RoleRef.Name] {
					if slices.Contains(r.Verbs, i.Verb) && slices.Contains(r.APIGroups, i.Group) && slices.Contains(r.Resources, i.Resource) &&
						(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, i.Name)) {
						return true
					}
				}
			}
		}
	}
	return false
}

func TestSafetyAgainstDumbEvaluator(t *testing.T) {
	r := clock.Rand(7)
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	for round := range 60 {
		b := requesttest.New()
		a := NewRBAC(b)
		roles := map[string][]rbacv1.PolicyRule{}
		for k := range 4 {
			name := fmt.Sprint("role", k)
			p := rbacv1.PolicyRule{Verbs: []string{pick("get", "list")}, APIGroups: []string{pick("", "apps")}, Resources: []string{pick("pods", "deployments")}}
			if r.IntN(3) == 0 {
				p.ResourceNames = []string{pick("a", "b")}
			}
			roles[name] = []rbacv1.PolicyRule{p}
			a.observe(nil, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: roles[name]})
		}
		var bindings []*rbacv1.ClusterRoleBinding
		for k := range 5 {
			x := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("b", k)}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: pick("role0", "role1", "role2", "role3")}}
			x.Subjects = append(x.Subjects, rbacv1.Subject{Kind: pick("User", "Group"), Name: pick("u", "v", "g", "h")})
			a.observe(nil, x)
			if r.IntN(4) == 0 { // gone again
				a.observe(x, nil)
				continue
			}
			bindings = append(bindings, x)
		}
		for range 50 {
			u := &request.User{Name: pick("u", "v", "g"), Groups: []string{pick("g", "h", "u")}}
			i := verb(pick("get", "list"), get(pick("", "apps"), pick("pods", "deployments"), pick("", "ns"), pick("a", "b", "c")))
			d, reason, _ := a.Authorize(t.Context(), u, i)
			if want := dumb(bindings, roles, u, i); (d == request.Allow) != want {
				t.Fatalf("round %d: %+v %+v: %v %q, want %v", round, u, i, d, reason, want)
			}
		}
	}
}

func TestGuard(t *testing.T) {
	_, a := booted(t)
	chain, _ := NewLive(FromModes([]string{ModeRBAC}, nil), Parts{RBAC: a})
	g := NewGuard(a, chain)
	jane := &request.User{Name: "jane", Groups: []string{"devs"}}
	a.observe(nil, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "j"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}},
	})
	attrs := func(resource string, obj api.Object) *request.Attributes {
		return &request.Attributes{Operation: request.Create, Resource: schema.GroupVersionResource{Group: rbacv1.GroupName, Version: "v1", Resource: resource}, Object: obj, User: jane}
	}
	err := g.Validate(t.Context(), attrs("roles", &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("get,delete", "core", "pods")}}))
	want := "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"devs\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := g.Validate(t.Context(), attrs("roles", &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("get,list", "core", "pods")}})); err != nil {
		t.Error(err)
	}
	if err := g.Validate(t.Context(), attrs("clusterrolebindings", clusterBinding("b", "cluster-admin", toUser("jane")))); err == nil {
		t.Error("jane made herself cluster-admin")
	}
	if err := g.Validate(t.Context(), attrs("clusterrolebindings", clusterBinding("b", "view", toUser("joe")))); err != nil {
		t.Error(err)
	}
	root := attrs("clusterrolebindings", clusterBinding("b", "cluster-admin", toUser("jane")))
	root.User = &request.User{Name: "root", Groups: []string{request.Masters}}
	if err := g.Validate(t.Context(), root); err != nil {
		t.Error(err)
	}
}

func TestBootstrapKeepsAndCompletes(t *testing.T) {
	b, _ := booted(t)
	_, err := b.Modify(t.Context(), clusterRolesGR, "", "system:node-bootstrapper", "", func(o api.Object) error {
		o.(*rbacv1.ClusterRole).Rules = []rbacv1.PolicyRule{rule("get", "core", "pods")}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = b.Modify(t.Context(), clusterRolesGR, "", "system:heapster", "", func(o api.Object) error {
		o.(*rbacv1.ClusterRole).Rules = nil
		o.SetAnnotations(map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"})
		return nil
	})
	if err := Bootstrap(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	o, _ := b.Get(t.Context(), clusterRolesGR, "", "system:node-bootstrapper")
	rules := o.(*rbacv1.ClusterRole).Rules
	if len(covers(rules, []rbacv1.PolicyRule{rule("create", certs, "certificatesigningrequests"), rule("get", "core", "pods")})) > 0 {
		t.Errorf("rules: %v", rules)
	}
	o, _ = b.Get(t.Context(), clusterRolesGR, "", "system:heapster")
	if len(o.(*rbacv1.ClusterRole).Rules) > 0 {
		t.Error("autoupdate=false was not respected")
	}
}

func TestNode(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "p"}, Spec: corev1.PodSpec{
		NodeName: "n1", ServiceAccountName: "sa",
		Volumes: []corev1.Volume{
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mine"}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		},
		Containers: []corev1.Container{{Name: "c", EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}},
	}}
	n := NewNode(requesttest.New())
	n.observe(nil, pod)
	n.observe(nil, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef:               &corev1.ObjectReference{Namespace: "y", Name: "data"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "stage"}}},
	}})
	noPath := "no relationship found between node 'n1' and this object"
	list := func(resource, selector string) *request.Info {
		i := verb("list", get("", resource, "", ""))
		i.FieldSelector = selector
		return i
	}
	cases := []struct {
		info   *request.Info
		reason string // "" is allowed
	}{
		{get("", "secrets", "y", "mine"), ""},
		{get("", "secrets", "y", "other"), noPath},
		{get("", "secrets", "z", "mine"), noPath},
		{get("", "secrets", "csi", "stage"), ""},
		{verb("list", get("", "secrets", "y", "")), "No Object name found"},
		{verb("delete", get("", "secrets", "y", "mine")), "can only read resources of this type"},
		{get("", "configmaps", "y", "env"), ""},
		{get("", "persistentvolumeclaims", "y", "data"), ""},
		{get("", "persistentvolumes", "", "pv"), ""},
		{get("", "persistentvolumes", "", "pv2"), noPath},
		{verb("create", get("", "serviceaccounts/token", "y", "sa")), ""},
		{verb("create", get("", "serviceaccounts/token", "y", "root")), noPath},
		{get("", "nodes", "", "n1"), ""},
		{get("", "nodes", "", "n2"), "node 'n1' cannot read 'n2', only its own Node object"},
		{verb("patch", get("", "nodes/status", "", "n1")), ""},
		{list("nodes", "metadata.name=n1"), ""},
		{list("pods", "spec.nodeName=n1"), ""},
		{list("pods", "spec.nodeName=n2"), "can only list/watch pods with spec.nodeName field selector"},
		{get("", "pods", "y", "p"), ""},
		{get("", "pods", "y", "q"), noPath},
		{verb("update", get("coordination.k8s.io", "leases", "kube-node-lease", "n1")), ""},
		{verb("update", get("coordination.k8s.io", "leases", "kube-node-lease", "n2")), "can only access node lease with the same name as the requesting node"},
		{verb("update", get("coordination.k8s.io", "leases", "kube-system", "n1")), `can only access leases in the "kube-node-lease" system namespace`},
		{verb("update", get("storage.k8s.io", "csinodes", "", "n2")), "can only access CSINode with the same name as the requesting node"},
		{list("services", ""), ""},
		{verb("create", get("", "events", "y", "")), ""},
	}
	u := &request.User{Name: "system:node:n1", Groups: []string{request.Nodes}}
	for _, c := range cases {
		d, reason, _ := n.Authorize(t.Context(), u, c.info)
		if (d == request.Allow) != (c.reason == "") || c.reason != "" && reason != c.reason {
			t.Errorf("%s %s %s/%s: %v %q, want %q", c.info.Verb, c.info.Resource, c.info.Namespace, c.info.Name, d, reason, c.reason)
		}
	}
	n.observe(pod, nil)
	if d, _, _ := n.Authorize(t.Context(), u, get("", "secrets", "y", "mine")); d == request.Allow {
		t.Error("the pod is gone and its secret still readable")
	}
	if d, _, _ := n.Authorize(t.Context(), &request.User{Name: "jane"}, get("", "nodes", "", "n1")); d != request.NoOpinion {
		t.Error("an opinion on someone who is no node")
	}
}

func TestLivenessAfterChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := requesttest.New()
		a := NewRBAC(b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		b.With(clusterRolesGR, clusterRole("reader", rule("get", "core", "pods")))
		b.With(clusterRoleBindingsGR, clusterBinding("j", "reader", toUser("jane")))
		synctest.Wait()
		jane := &request.User{Name: "jane"}
		if d, _, _ := a.Authorize(ctx, jane, get("", "pods", "y", "p")); d != request.Allow {
			t.Error("the new binding does not count")
		}
		if err := b.Delete(ctx, clusterRoleBindingsGR, "", "j", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d, _, _ := a.Authorize(ctx, jane, get("", "pods", "y", "p")); d == request.Allow {
			t.Error("the binding is gone and still counts")
		}
		cancel()
		<-done
	})
}

func TestModes(t *testing.T) {
	for _, bad := range [][]string{nil, {"ABACUS"}, {"RBAC", "RBAC"}} {
		if _, err := NewLive(FromModes(bad, nil), Parts{}); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	c, err := NewLive(FromModes([]string{ModeAlwaysAllow}, nil), Parts{})
	if err != nil {
		t.Fatal(err)
	}
	if d, _, _ := c.Authorize(t.Context(), &request.User{Name: "x"}, get("", "pods", "y", "")); d != request.Allow {
		t.Error(d)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	back := requesttest.New()
	if err := Bootstrap(b.Context(), back); err != nil {
		b.Fatal(err)
	}
	a := NewRBAC(back)
	if err := a.Fill(b.Context()); err != nil {
		b.Fatal(err)
	}
	u := &request.User{Name: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{request.ServiceAccounts, request.ServiceAccounts + ":kube-system", request.Authenticated}}
	i := verb("create", get("", "pods", "dev", ""))
	for b.Loop() {
		if d, _, _ := a.Authorize(b.Context(), u, i); d != request.Allow {
			b.Fatal(d)
		}
	}
}

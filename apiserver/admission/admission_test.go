package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func amounts2(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func newPod(change func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta("y", "x"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func create(res string, o api.Object) *request.Attributes {
	gvk, err := api.KindOf(o)
	if err != nil {
		panic(err)
	}
	return &request.Attributes{
		Operation: request.Create, Kind: gvk, Resource: schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: res},
		Namespace: o.GetNamespace(), Name: o.GetName(), Object: o, User: &request.User{Name: "jane"},
	}
}

// pass sends a request through the default row as rest does.
func pass(t *testing.T, b *requesttest.Backend, a *request.Attributes, extra ...string) error {
	t.Helper()
	plugins, _, err := Choose(Deps{Back: b, Authorizer: nobody{}}, extra, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if m, ok := p.(request.Mutator); ok && p.Handles(a.Operation) {
			if err := m.Mutate(t.Context(), a); err != nil {
				return err
			}
		}
	}
	for _, p := range plugins {
		if v, ok := p.(request.Validator); ok && p.Handles(a.Operation) {
			if err := v.Validate(t.Context(), a); err != nil {
				return err
			}
		}
	}
	return nil
}

type nobody struct{}

func (nobody) Authorize(context.Context, *request.User, *request.Info) (request.Decision, string, error) {
	return request.NoOpinion, "", nil
}

func world() *requesttest.Backend {
	return requesttest.New().
		With(core("namespaces"),
			&corev1.Namespace{ObjectMeta: meta("", "y")},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
			&corev1.Namespace{ObjectMeta: meta("", "going"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}).
		With(core("serviceaccounts"),
			&corev1.ServiceAccount{ObjectMeta: meta("y", "default"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
			&corev1.ServiceAccount{ObjectMeta: meta("strict", "default")}).
		With(classes(), &schedulingv1.PriorityClass{ObjectMeta: meta("", "high"), Value: 1000},
			&schedulingv1.PriorityClass{ObjectMeta: meta("", "usual"), Value: 7, GlobalDefault: true})
}

func TestRefusals(t *testing.T) {
	limited := world().With(core("limitranges"), &corev1.LimitRange{ObjectMeta: meta("y", "l"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: "Container", Max: amounts2("cpu", "1"), Min: amounts2("memory", "10Mi"), Default: amounts2("cpu", "500m"), DefaultRequest: amounts2("cpu", "100m", "memory", "20Mi")},
	}}})
	quota := func(hard, used corev1.ResourceList) *requesttest.Backend {
		return world().With(core("resourcequotas"), &corev1.ResourceQuota{ObjectMeta: meta("y", "q"), Spec: corev1.ResourceQuotaSpec{Hard: hard}, Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}})
	}
	node := func(a *request.Attributes) *request.Attributes {
		a.User = &request.User{Name: "system:node:n1", Groups: []string{request.Nodes}}
		return a
	}
	kube := create("namespaces", &corev1.Namespace{ObjectMeta: meta("", "kube-system")})
	kube.Operation, kube.Object = request.Delete, nil
	cases := map[string]struct {
		b *requesttest.Backend
		a *request.Attributes
	}{
		`namespaces "z" not found`: {nil, create("pods", newPod(func(p *corev1.Pod) { p.Namespace = "z" }))},
		`pods "x" is forbidden: unable to create new content in namespace going because it is being terminated`: {nil, create("pods", newPod(func(p *corev1.Pod) { p.Namespace = "going" }))},
		`namespaces "kube-system" is forbidden: this namespace may not be deleted`:                              {nil, kube},
		`pods "x" is forbidden: error looking up service account y/robot: serviceaccount "robot" not found`:     {nil, create("pods", newPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" }))},
		`pods "x" is forbidden: no PriorityClass with name none was found`:                                      {nil, create("pods", newPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "none" }))},
		`pods "x" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name`: {nil, create("pods", newPod(func(p *corev1.Pod) {
			five := int32(5)
			p.Spec.PriorityClassName, p.Spec.Priority = "high", &five
		}))},
		`priorityclasses.scheduling.k8s.io "two" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`: {nil, create("priorityclasses", &schedulingv1.PriorityClass{ObjectMeta: meta("", "two"), GlobalDefault: true})},
		`pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found`:                                                               {nil, create("pods", newPod(func(p *corev1.Pod) { n := "gvisor"; p.Spec.RuntimeClassName = &n }))},
		`pods "x" is forbidden: [minimum memory usage per Container is 10Mi, but request is 1Mi, maximum cpu usage per Container is 1, but limit is 2]`: {limited, create("pods", newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: amounts2("cpu", "2"), Requests: amounts2("memory", "1Mi")}
		}))},
		`pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2`:                                           {quota(amounts2("pods", "2"), amounts2("pods", "2")), create("pods", newPod(nil))},
		`configmaps "c" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3`: {quota(amounts2("count/configmaps", "3"), amounts2("count/configmaps", "3")), create("configmaps", &corev1.ConfigMap{ObjectMeta: meta("y", "c")})},
		`pods "x" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`:                                       {quota(amounts2("requests.cpu", "2", "limits.memory", "1Gi"), nil), create("pods", newPod(nil))},
		`pods "x" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`:             {nil, node(create("pods", newPod(nil)))},
		`nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`:                                                                {nil, node(create("nodes", &corev1.Node{ObjectMeta: meta("", "n2")}))},
		`nodes "n1" is forbidden: is not allowed to set the following labels: node-role.kubernetes.io/control-plane`:                           {nil, node(create("nodes", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": "n1"}}}))},
	}
	for want, c := range cases {
		if c.b == nil {
			c.b = world()
		}
		err := pass(t, c.b, c.a, "NodeRestriction")
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	err := pass(t, world(), create("pods", newPod(func(p *corev1.Pod) { p.Namespace = "strict" })))
	if err == nil || !strings.HasPrefix(err.Error(), `pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)`) {
		t.Errorf("pod security: %v", err)
	}
}

func TestPodIsCompleted(t *testing.T) {
	b := world().With(core("limitranges"), &corev1.LimitRange{ObjectMeta: meta("y", "l"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: "Container", Default: amounts2("cpu", "500m"), DefaultRequest: amounts2("cpu", "100m", "memory", "20Mi")},
	}}})
	a := create("pods", newPod(nil))
	if err := pass(t, b, a); err != nil {
		t.Fatal(err)
	}
	p := a.Object.(*corev1.Pod)
	if p.Spec.ServiceAccountName != "default" || p.Spec.DeprecatedServiceAccount != "default" || len(p.Spec.ImagePullSecrets) != 1 {
		t.Errorf("account: %+v", p.Spec)
	}
	v, m := p.Spec.Volumes, p.Spec.Containers[0].VolumeMounts
	if len(v) != 1 || len(m) != 1 || len(v[0].Name) != len("kube-api-access-xxxxx") || m[0].Name != v[0].Name || m[0].MountPath != tokenMount || !m[0].ReadOnly {
		t.Fatalf("token: %+v %+v", v, m)
	}
	src := v[0].Projected.Sources
	if len(src) != 3 || *src[0].ServiceAccountToken.ExpirationSeconds != 3607 || src[1].ConfigMap.Name != "kube-root-ca.crt" || src[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" || *v[0].Projected.DefaultMode != 0o644 {
		t.Errorf("projection: %+v", src)
	}
	if *p.Spec.Priority != 7 || p.Spec.PriorityClassName != "usual" || *p.Spec.PreemptionPolicy != corev1.PreemptLowerPriority {
		t.Errorf("priority: %+v", p.Spec)
	}
	if len(p.Spec.Tolerations) != 2 || *p.Spec.Tolerations[0].TolerationSeconds != 300 {
		t.Errorf("tolerations: %+v", p.Spec.Tolerations)
	}
	if got := p.Annotations[limitRangerAnnotation]; got != "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c" {
		t.Errorf("annotation: %q", got)
	}
	again := *a
	before := fmt.Sprint(p)
	if err := pass(t, b, &again); err != nil || fmt.Sprint(p) != before {
		t.Errorf("a second pass changes the pod: %v", err)
	}
}

// TestSafetyQuotaUnderConcurrency has many writers at the last places: exactly
// as many get in as there are, and who failed later gives the place back.
func TestSafetyQuotaUnderConcurrency(t *testing.T) {
	hard := amounts2("pods", "10")
	b := world().With(core("resourcequotas"), &corev1.ResourceQuota{ObjectMeta: meta("y", "q"), Spec: corev1.ResourceQuotaSpec{Hard: hard}, Status: corev1.ResourceQuotaStatus{Hard: hard, Used: amounts2("pods", "0")}})
	servers := []*resourceQuota{{back: b}, {back: b}} // two API servers
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		admitted []func(stored bool)
	)
	for n := range 64 {
		wg.Go(func() {
			q := servers[n%2]
			a := create("pods", newPod(func(p *corev1.Pod) { p.Name = fmt.Sprint("p", n) }))
			if q.Validate(t.Context(), a) == nil {
				mu.Lock()
				admitted = append(admitted, func(stored bool) { q.Settle(t.Context(), a, stored) })
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(admitted) != 10 {
		t.Errorf("%d admitted, 10 places", len(admitted))
	}
	for i, settle := range admitted {
		settle(i%2 == 0)
	}
	o, _ := b.Get(t.Context(), core("resourcequotas"), "y", "q")
	used := o.(*corev1.ResourceQuota).Status.Used[corev1.ResourcePods]
	if used.Value() != 5 {
		t.Errorf("used %s, want 5", used.String())
	}
}

// TestLimitedResources: what a configuration limits everywhere needs a quota that
// covers it.
func TestLimitedResources(t *testing.T) {
	config := Configuration{"ResourceQuota": []byte(`
apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- resource: pods
  matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]
- resource: persistentvolumeclaims
  matchContains: [gold.storageclass.storage.k8s.io/requests.storage]
- {apiGroup: apps, resource: deployments, matchContains: [count/]}
`)}
	high := newPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	claim := func(class string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: meta("y", "c"), Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: amounts2("storage", "1Gi")}}}
	}
	quotaOf := func(name string, scope *corev1.ScopedResourceSelectorRequirement, kv ...string) *corev1.ResourceQuota {
		q := &corev1.ResourceQuota{ObjectMeta: meta("y", name), Spec: corev1.ResourceQuotaSpec{Hard: amounts2(kv...)}, Status: corev1.ResourceQuotaStatus{Hard: amounts2(kv...), Used: corev1.ResourceList{}}}
		for n := range q.Status.Hard {
			q.Status.Used[n] = resource.MustParse("0")
		}
		if scope != nil {
			q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{*scope}}
		}
		return q
	}
	ofHigh := &corev1.ScopedResourceSelectorRequirement{ScopeName: "PriorityClass", Operator: "In", Values: []string{"high"}}
	unknown := quotaOf("raw", nil, "pods", "5")
	unknown.Status.Used = nil
	deployment := &appsv1.Deployment{ObjectMeta: meta("y", "d")}
	for name, c := range map[string]struct {
		quotas []api.Object
		ask    *request.Attributes
		want   string
	}{
		"a class that needs a quota":    {nil, create("pods", high), "insufficient quota to match these scopes: [{PriorityClass In [high]}]"},
		"one of another class":          {nil, create("pods", newPod(nil)), ""},
		"a quota without scope":         {[]api.Object{quotaOf("q", nil, "pods", "5")}, create("pods", high), "insufficient quota to match these scopes: [{PriorityClass In [high]}]"},
		"a quota of the class":          {[]api.Object{quotaOf("q", ofHigh, "pods", "5")}, create("pods", high), ""},
		"a full quota of the class":     {[]api.Object{quotaOf("q", ofHigh, "pods", "0")}, create("pods", high), `pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0`},
		"storage of gold":               {nil, create("persistentvolumeclaims", claim("gold")), `persistentvolumeclaims "c" is forbidden: insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage`},
		"storage of tin":                {nil, create("persistentvolumeclaims", claim("tin")), ""},
		"a quota of other amounts":      {[]api.Object{quotaOf("q", nil, "requests.storage", "5Gi")}, create("persistentvolumeclaims", claim("gold")), `persistentvolumeclaims "c" is forbidden: insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage`},
		"a quota of gold":               {[]api.Object{quotaOf("q", nil, "gold.storageclass.storage.k8s.io/requests.storage", "5Gi")}, create("persistentvolumeclaims", claim("gold")), ""},
		"numbers of another group":      {nil, create("deployments", deployment), `deployments.apps "d" is forbidden: insufficient quota to consume: count/deployments.apps`},
		"a quota of numbers":            {[]api.Object{quotaOf("q", nil, "count/deployments.apps", "1")}, create("deployments", deployment), ""},
		"a quota nobody counted so far": {[]api.Object{unknown}, create("pods", newPod(nil)), `pods "x" is forbidden: status unknown for quota: raw, resources: pods`},
	} {
		d := Deps{Back: world().With(core("resourcequotas"), c.quotas...), Config: config}
		if got := through(t, d, "ResourceQuota", c.ask); text(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
	if _, err := newResourceQuota(Deps{Config: Configuration{"ResourceQuota": []byte(`{"limitedResources":[{}]}`)}}); text(err) != `couldn't init admission plugin "ResourceQuota": limitedResources[0].resource: Required value` {
		t.Error(err)
	}
}

// TestRowIsUpstreams: all of v1.37's plugins that do anything, in its order.
func TestRowIsUpstreams(t *testing.T) {
	want := `AlwaysAdmit NamespaceAutoProvision NamespaceLifecycle NamespaceExists LimitPodHardAntiAffinityTopology LimitRanger ServiceAccount NodeRestriction
		TaintNodesByCondition AlwaysPullImages ImagePolicyWebhook PodSecurity PodNodeSelector Priority DefaultTolerationSeconds PodTolerationRestriction EventRateLimit
		ExtendedResourceToleration DefaultStorageClass StorageObjectInUseProtection OwnerReferencesPermissionEnforcement PersistentVolumeClaimResize RuntimeClass
		CertificateApproval CertificateSigning ClusterTrustBundleAttest CertificateSubjectRestriction DefaultIngressClass DenyServiceExternalIPs PodTopologyLabels
		NodeDeclaredFeatureValidator PodResizeValidator MutatingAdmissionPolicy MutatingAdmissionWebhook ValidatingAdmissionPolicy ValidatingAdmissionWebhook
		ResourceQuota AlwaysDeny`
	var got []string
	for _, e := range row() {
		got = append(got, e.name)
	}
	if !slices.Equal(got, strings.Fields(want)) {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"PodGroupProtection", "PodGroupWorkloadExists", "JobValidation"} { // behind features that are off
		if known, _ := elsewhere(name); !known {
			t.Errorf("%s is not known", name)
		}
	}
}

func TestChoose(t *testing.T) {
	d := Deps{Back: world(), Authorizer: nobody{}}
	names := func(enable, disable []string) string {
		plugins, _, err := Choose(d, enable, disable)
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, p := range plugins {
			out = append(out, p.Name())
		}
		return strings.Join(out, " ")
	}
	if got := names([]string{"NodeRestriction"}, []string{"PodSecurity", "ResourceQuota"}); !strings.HasPrefix(got, "NamespaceLifecycle LimitRanger ServiceAccount NodeRestriction TaintNodesByCondition Priority ") {
		t.Error(got)
	}
	if got := names([]string{"Foo"}, nil); got != `enable-admission-plugins plugin "Foo" is unknown` {
		t.Error(got)
	}
	_, warnings, err := Choose(d, []string{"SecurityContextDeny", "MutatingAdmissionWebhook"}, nil)
	if err != nil || len(warnings) != 1 {
		t.Errorf("%v %v", warnings, err)
	}
	for _, p := range Default(d) {
		_, m := p.(request.Mutator)
		_, v := p.(request.Validator)
		if !m && !v {
			t.Errorf("%s does nothing", p.Name())
		}
	}
}

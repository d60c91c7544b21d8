package authz

import (
	"strings"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The roles every cluster begins with, upstream's v1.37 policy.

const (
	readV      = "get,list,watch"
	writeV     = "create,update,patch,delete,deletecollection"
	rbacLabels = "rbac.authorization.k8s.io/aggregate-to-"
	saPrefix   = "system:controller:"
	certs      = "certificates.k8s.io"
	storageG   = "storage.k8s.io"
	network    = "networking.k8s.io"
	discovery  = "discovery.k8s.io"
	dra        = "resource.k8s.io"
	authnG     = "authentication.k8s.io"
	authzG     = "authorization.k8s.io"
	leasesG    = "coordination.k8s.io"
	appsBoth   = "apps,extensions"
)

// rule reads comma-separated lists; "core" is the group without a name.
func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	g := strings.Split(groups, ",")
	for i := range g {
		if g[i] == "core" {
			g[i] = ""
		}
	}
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: g, Resources: strings.Split(resources, ","), ResourceNames: names}
}

func urls(list string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: strings.Split(list, ",")}
}

func events() rbacv1.PolicyRule { return rule("create,update,patch", "core,events.k8s.io", "events") }

// reviews are what a component needs to ask the server about its own callers.
func reviews() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{rule("create", authnG, "tokenreviews"), rule("create", authzG, "subjectaccessreviews")}
}

func bootMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: bootMeta("", name), Rules: rules}
}

// aggregate makes a role out of those labelled for it; into names the bigger role.
func aggregate(name, into string) *rbacv1.ClusterRole {
	r := clusterRole(name)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{rbacLabels + name: "true"}}}}
	if into != "" {
		r.Labels[rbacLabels+into] = "true"
	}
	return r
}

func part(name, into string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	r := clusterRole(name, rules...)
	r.Labels[rbacLabels+into] = "true"
	return r
}

// clusterRoles are all cluster roles of the policy.
func clusterRoles() []*rbacv1.ClusterRole {
	approver := func(signer string) rbacv1.PolicyRule { return rule("approve", certs, "signers", signer) }
	out := []*rbacv1.ClusterRole{
		{ObjectMeta: bootMeta("", "cluster-admin"), Rules: everything()},
		aggregate("admin", ""), aggregate("edit", "admin"), aggregate("view", "edit"),
		part("system:aggregate-to-admin", "admin",
			rule("create", authzG, "localsubjectaccessreviews"),
			rule(readV+","+writeV, rbacv1.GroupName, "roles,rolebindings")),
		part("system:aggregate-to-edit", "edit", editRules()...),
		part("system:aggregate-to-view", "view", viewRules()...),
		clusterRole("system:discovery", urls("/healthz,/livez,/readyz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*")),
		clusterRole("system:monitoring", urls("/metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*,/statusz,/flagz"), rule("get", "core", "nodes/metrics")),
		clusterRole("system:basic-user",
			rule("create", authzG, "selfsubjectaccessreviews,selfsubjectrulesreviews"),
			rule("create", authnG, "selfsubjectreviews")),
		clusterRole("system:public-info-viewer", urls("/livez,/readyz,/healthz,/version,/version/")),
		clusterRole("system:heapster", rule(readV, "core", "events,pods,nodes,namespaces"), rule(readV, "extensions", "deployments")),
		clusterRole("system:node", nodeRules()...),
		clusterRole("system:node-problem-detector", rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), events()),
		clusterRole("system:node-proxier",
			rule("list,watch", "core", "services,endpoints"), rule(readV, "core", "nodes"), events(),
			rule("list,watch", discovery, "endpointslices"), rule("list,watch", network, "servicecidrs")),
		clusterRole("system:kubelet-api-admin",
			rule(readV, "core", "nodes"), rule("proxy", "core", "nodes"),
			rule("*", "core", "nodes/proxy,nodes/metrics,nodes/stats,nodes/log,nodes/configz,nodes/healthz,nodes/pods")),
		clusterRole("system:node-bootstrapper", rule("create,get,list,watch", certs, "certificatesigningrequests")),
		clusterRole("system:auth-delegator", reviews()...),
		clusterRole("system:kube-aggregator", rule(readV, "core", "services,endpoints")),
		clusterRole("system:kube-controller-manager", controllerManagerRules()...),
		clusterRole("system:kube-scheduler", schedulerRules()...),
		clusterRole("system:kube-dns", rule("list,watch", "core", "endpoints,services")),
		clusterRole("system:persistent-volume-provisioner",
			rule("get,list,watch,create,delete", "core", "persistentvolumes"), rule("get,list,watch,update", "core", "persistentvolumeclaims"),
			rule(readV, storageG, "storageclasses"), rule("watch", "core", "events"), events()),
		clusterRole("system:volume-scheduler",
			rule("get,list,watch,patch,update", "core", "persistentvolumes"), rule(readV, storageG, "storageclasses"),
			rule("get,list,watch,patch,update", "core", "persistentvolumeclaims")),
		clusterRole("system:service-account-issuer-discovery", urls("/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", rule("create", certs, "certificatesigningrequests/nodeclient")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rule("create", certs, "certificatesigningrequests/selfnodeclient")),
		clusterRole("system:certificates.k8s.io:legacy-unknown-approver", approver("kubernetes.io/legacy-unknown")),
		clusterRole("system:certificates.k8s.io:kubelet-serving-approver", approver(certificatesv1.KubeletServingSignerName)),
		clusterRole("system:certificates.k8s.io:kube-apiserver-client-approver", approver(certificatesv1.KubeAPIServerClientSignerName)),
		clusterRole("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", approver(certificatesv1.KubeAPIServerClientKubeletSignerName)),
	}
	for _, c := range controllers() {
		out = append(out, clusterRole(saPrefix+c.name, c.rules...))
	}
	return out
}

func viewRules() []rbacv1.PolicyRule {
	const workloads = "daemonsets,daemonsets/status,deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale"
	return []rbacv1.PolicyRule{
		rule(readV, "core", "pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps"),
		rule(readV, "core", "limitranges,resourcequotas,bindings,events,pods/status,resourcequotas/status,namespaces/status,replicationcontrollers/status,pods/log"),
		rule(readV, "core", "namespaces"),
		rule(readV, "events.k8s.io", "events"),
		rule(readV, discovery, "endpointslices"),
		rule(readV, "apps", "controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,"+workloads),
		rule(readV, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
		rule(readV, "batch", "jobs,cronjobs,cronjobs/status,jobs/status"),
		rule(readV, "extensions", workloads+",ingresses,ingresses/status,replicationcontrollers/scale,networkpolicies"),
		rule(readV, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
		rule(readV, network, "networkpolicies,ingresses,ingresses/status"),
		rule(readV, dra, "resourceclaims,resourceclaims/status,resourceclaimtemplates"),
	}
}

func editRules() []rbacv1.PolicyRule {
	const workloads = "daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale"
	return []rbacv1.PolicyRule{
		rule(readV, "core", "pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy"),
		rule("impersonate", "core", "serviceaccounts"),
		rule(writeV, "core", "pods,pods/attach,pods/proxy,pods/exec,pods/portforward"),
		rule("create", "core", "pods/eviction"),
		rule(writeV, "core", "replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,persistentvolumeclaims,configmaps,secrets,events"),
		rule(writeV, "events.k8s.io", "events"),
		rule("create", "core", "serviceaccounts/token"),
		rule(writeV, "apps", "statefulsets,statefulsets/scale,"+workloads),
		rule(writeV, "autoscaling", "horizontalpodautoscalers"),
		rule(writeV, "batch", "jobs,cronjobs"),
		rule(writeV, "extensions", workloads+",ingresses,replicationcontrollers/scale,networkpolicies"),
		rule(writeV, "policy", "poddisruptionbudgets"),
		rule(writeV, network, "networkpolicies,ingresses"),
		rule(readV+","+writeV, leasesG, "leases"),
		rule(writeV, dra, "resourceclaims,resourceclaimtemplates"),
	}
}

var nodeRules = sync.OnceValue(func() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule("create", authnG, "tokenreviews"),
		rule("create", authzG, "subjectaccessreviews,localsubjectaccessreviews"),
		rule(readV, "core", "services"),
		rule("create,get,list,watch", "core", "nodes"),
		rule("update,patch", "core", "nodes/status"),
		rule("update,patch", "core", "nodes"),
		rule("create,update,patch", "core,events.k8s.io", "events"),
		rule(readV, "core", "pods"),
		rule("create,delete", "core", "pods"),
		rule("update,patch", "core", "pods/status"),
		rule("create", "core", "pods/eviction"),
		rule(readV, "core", "secrets,configmaps"),
		rule("get", "core", "persistentvolumeclaims,persistentvolumes"),
		rule("get", "core", "endpoints,serviceaccounts"),
		rule("create,get,list,watch", certs, "certificatesigningrequests"),
		rule("get,create,update,patch,delete", leasesG, "leases"),
		rule("get", storageG, "volumeattachments"),
		rule("create", "core", "serviceaccounts/token"),
		rule("get,update,patch", "core", "persistentvolumeclaims/status"),
		rule(readV, storageG, "csidrivers"),
		rule("get,create,update,patch,delete", storageG, "csinodes"),
		rule(readV, "node.k8s.io", "runtimeclasses"),
		rule("get", dra, "resourceclaims"),
		rule("deletecollection", dra, "resourceslices"),
	}
})

func controllerManagerRules() []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		events(),
		rule("create", leasesG, "leases"),
		rule("get,update", leasesG, "leases", "kube-controller-manager"),
		rule("create", "core", "secrets,serviceaccounts"),
		rule("delete", "core", "secrets"),
		rule("get", "core", "namespaces,secrets,serviceaccounts,configmaps"),
		rule("update", "core", "secrets,serviceaccounts"),
		rule("list,watch", "*", "*"),
		rule("create", "core", "serviceaccounts/token"),
	}, reviews()...)
}

func schedulerRules() []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		events(),
		rule("create", leasesG, "leases"),
		rule("get,list,watch,update", leasesG, "leases", "kube-scheduler"),
		rule(readV+","+writeV, leasesG, "leasecandidates"),
		rule(readV, "core", "nodes"),
		rule("get,list,watch,delete", "core", "pods"),
		rule("create", "core", "pods/binding,bindings"),
		rule("patch,update", "core", "pods/status"),
		rule(readV, "core", "services,replicationcontrollers"),
		rule(readV, appsBoth, "replicasets"),
		rule(readV, "apps", "statefulsets"),
		rule(readV, "policy", "poddisruptionbudgets"),
		rule(readV, "core", "persistentvolumeclaims,persistentvolumes"),
		rule(readV, storageG, "csinodes"),
		rule(readV, "core", "namespaces"),
		rule(readV, storageG, "csidrivers"),
		rule(readV, storageG, "csistoragecapacities"),
		rule(readV, storageG, "volumeattachments"),
		rule(readV, dra, "deviceclasses"),
		rule("get,list,watch,create,update,patch,delete", dra, "resourceclaims"),
		rule("get,list,watch,update,patch", dra, "resourceclaims/status"),
		rule("update,patch", dra, "resourceclaims/binding"),
		rule("update", "core", "pods/finalizers"),
		rule(readV, dra, "resourceslices"),
	}, reviews()...)
}

package authz

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

func toUser(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
}

func toGroup(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
}

func toAccount(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: bootMeta("", name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}

// clusterBindings are all cluster role bindings of the policy.
func clusterBindings() []*rbacv1.ClusterRoleBinding {
	bind := func(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return clusterBinding(name, name, subjects...)
	}
	out := []*rbacv1.ClusterRoleBinding{
		bind("cluster-admin", toGroup(request.Masters)),
		bind("system:monitoring", toGroup("system:monitoring")),
		bind("system:discovery", toGroup(request.Authenticated)),
		bind("system:basic-user", toGroup(request.Authenticated)),
		bind("system:public-info-viewer", toGroup(request.Authenticated), toGroup(request.Unauthenticated)),
		bind("system:node-proxier", toUser("system:kube-proxy")),
		bind("system:kube-controller-manager", toUser("system:kube-controller-manager")),
		bind("system:kube-dns", toAccount("kube-dns")),
		bind("system:kube-scheduler", toUser("system:kube-scheduler")),
		bind("system:volume-scheduler", toUser("system:kube-scheduler")),
		bind("system:node"), // kept without subjects: the node authorizer does the work
		bind("system:service-account-issuer-discovery", toGroup(request.ServiceAccounts)),
	}
	for _, c := range controllers() {
		out = append(out, bind(saPrefix+c.name, toAccount(c.name)))
	}
	return out
}

func role(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: bootMeta(namespace, name), Rules: rules}
}

// roles are the namespaced roles of the policy.
func roles() []*rbacv1.Role {
	const system, public = metav1.NamespaceSystem, metav1.NamespacePublic
	return []*rbacv1.Role{
		role(system, "extension-apiserver-authentication-reader", rule(readV, "core", "configmaps", "extension-apiserver-authentication")),
		role(system, saPrefix+"bootstrap-signer", rule(readV, "core", "secrets")),
		role(system, saPrefix+"cloud-provider", rule("create,get,list,watch", "core", "configmaps")),
		role(system, saPrefix+"token-cleaner", rule("get,list,watch,delete", "core", "secrets"), events()),
		role(system, "system::leader-locking-kube-controller-manager", rule("get,watch,list,create,update", leasesG, "leases,leasecandidates")),
		role(system, "system::leader-locking-kube-scheduler", rule("get,watch,list,create,update", leasesG, "leases,leasecandidates")),
		role(public, saPrefix+"bootstrap-signer",
			rule(readV, "core", "configmaps"), rule("update", "core", "configmaps", "cluster-info"), events()),
	}
}

// roleBindings are the namespaced bindings of the policy.
func roleBindings() []*rbacv1.RoleBinding {
	const system, public = metav1.NamespaceSystem, metav1.NamespacePublic
	bind := func(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: bootMeta(namespace, name),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
			Subjects:   subjects,
		}
	}
	manager, scheduler := "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-scheduler"
	return []*rbacv1.RoleBinding{
		bind(system, "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
			toUser("system:kube-controller-manager"), toUser("system:kube-scheduler")),
		bind(system, manager, manager, toUser("system:kube-controller-manager"), toAccount("kube-controller-manager"), toAccount("leader-election-controller")),
		bind(system, scheduler, scheduler, toUser("system:kube-scheduler"), toAccount("kube-scheduler")),
		bind(system, saPrefix+"bootstrap-signer", saPrefix+"bootstrap-signer", toAccount("bootstrap-signer")),
		bind(system, saPrefix+"cloud-provider", saPrefix+"cloud-provider", toAccount("cloud-provider")),
		bind(system, saPrefix+"token-cleaner", saPrefix+"token-cleaner", toAccount("token-cleaner")),
		bind(public, saPrefix+"bootstrap-signer", saPrefix+"bootstrap-signer", toAccount("bootstrap-signer")),
	}
}

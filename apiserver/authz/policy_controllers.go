package authz

import rbacv1 "k8s.io/api/rbac/v1"

// controllerPolicy is what the service account NAME of kube-system may do.
type controllerPolicy struct {
	name  string
	rules []rbacv1.PolicyRule
}

const (
	listV  = "list,watch"
	ownV   = "get,list,watch,create,update,delete,patch"
	podsV  = "list,watch,create,delete,patch"
	updV   = "get,list,watch,update"
	patchV = "patch,update"
)

func controllers() []controllerPolicy {
	return append(workloadControllers(), append(volumeControllers(), clusterControllers()...)...)
}

func workloadControllers() []controllerPolicy {
	const g = appsBoth
	type rules = []rbacv1.PolicyRule
	return []controllerPolicy{
		{"cronjob-controller", rules{
			rule(updV, "batch", "cronjobs"), rule(ownV, "batch", "jobs"), rule("update", "batch", "cronjobs/status"),
			rule("update", "batch", "cronjobs/finalizers"), rule("list,watch,delete", "core", "pods"), events()}},
		{"daemon-set-controller", rules{
			rule(readV, g, "daemonsets"), rule("update", g, "daemonsets/status"), rule("update", g, "daemonsets/finalizers"),
			rule(listV, "core", "nodes"), rule(podsV, "core", "pods"), rule("create", "core", "pods/binding"),
			rule(ownV, "apps", "controllerrevisions"), events()}},
		{"deployment-controller", rules{
			rule(updV, g, "deployments"), rule("update", g, "deployments/status"), rule("update", g, "deployments/finalizers"),
			rule(ownV, g, "replicasets"), rule(updV, "core", "pods"), events()}},
		{"disruption-controller", rules{
			rule(readV, g, "deployments"), rule(readV, g, "replicasets"), rule(readV, "core", "replicationcontrollers"),
			rule(readV, "policy", "poddisruptionbudgets"), rule(readV, "apps", "statefulsets"), rule("update", "policy", "poddisruptionbudgets/status"),
			rule(patchV, "core", "pods/status"), rule("get", "*", "*/scale"), events()}},
		{"horizontal-pod-autoscaler", rules{
			rule(readV, "autoscaling", "horizontalpodautoscalers"), rule("update", "autoscaling", "horizontalpodautoscalers/status"),
			rule("get,update", "*", "*/scale"), rule(listV, "core", "pods"), rule(listV, "metrics.k8s.io", "pods"),
			rule(readV, "custom.metrics.k8s.io", "*"), rule(readV, "external.metrics.k8s.io", "*"), events()}},
		{"job-controller", rules{
			rule(updV+",patch", "batch", "jobs"), rule("update", "batch", "jobs/status"), rule("update", "batch", "jobs/finalizers"),
			rule(podsV, "core", "pods"), events()}},
		{"pod-garbage-collector", rules{
			rule("list,watch,delete", "core", "pods"), rule(readV, "core", "nodes"), rule("patch", "core", "pods/status")}},
		{"replicaset-controller", rules{
			rule(updV, g, "replicasets"), rule("update", g, "replicasets/status"), rule("update", g, "replicasets/finalizers"),
			rule(podsV, "core", "pods"), events()}},
		{"replication-controller", rules{
			rule(updV, "core", "replicationcontrollers"), rule("update", "core", "replicationcontrollers/status"),
			rule("update", "core", "replicationcontrollers/finalizers"), rule(podsV, "core", "pods"), events()}},
		{"statefulset-controller", rules{
			rule(listV, "core", "pods"), rule(readV, "apps", "statefulsets"), rule("update", "apps", "statefulsets/status"),
			rule("update", "apps", "statefulsets/finalizers"), rule("get,create,delete,update,patch", "core", "pods"),
			rule(ownV, "apps", "controllerrevisions"), rule("get,create,list,watch", "core", "persistentvolumeclaims"),
			rule("update,delete", "core", "persistentvolumeclaims"), rule("update", "core", "pods/finalizers"), events()}},
		{"ttl-after-finished-controller", rules{rule("get,list,watch,delete", "batch", "jobs"), events()}},
		{"resource-claim-controller", rules{
			rule(readV, "core", "pods"), rule("update", "core", "pods/finalizers"), rule("get,list,watch,create,delete", dra, "resourceclaims"),
			rule(patchV, dra, "resourceclaims,resourceclaims/status,resourceclaims/binding"), rule(patchV, "core", "pods/status"), events()}},
		{"device-taint-eviction-controller", rules{
			rule("get,list,watch,delete", "core", "pods"), rule(patchV, "core", "pods/status"), rule(readV, dra, "resourceclaims"),
			rule(readV, dra, "resourceslices"), rule(readV, dra, "deviceclasses"), rule(readV, dra, "devicetaintrules"), events()}},
	}
}

func volumeControllers() []controllerPolicy {
	type rules = []rbacv1.PolicyRule
	return []controllerPolicy{
		{"attachdetach-controller", rules{
			rule(listV, "core", "persistentvolumes,persistentvolumeclaims"), rule(readV, "core", "nodes"), rule(patchV, "core", "nodes/status"),
			rule(listV, "core", "pods"), events(), rule("get,create,delete,list,watch", storageG, "volumeattachments"),
			rule(readV, storageG, "csidrivers"), rule(readV, storageG, "csinodes")}},
		{"expand-controller", rules{
			rule(updV+",patch", "core", "persistentvolumes"), rule(patchV, "core", "persistentvolumeclaims/status"),
			rule(readV, "core", "persistentvolumeclaims"), events()}},
		{"ephemeral-volume-controller", rules{
			rule(readV, "core", "pods"), rule("update", "core", "pods/finalizers"), rule("get,list,watch,create", "core", "persistentvolumeclaims"), events()}},
		{"persistent-volume-binder", rules{
			rule("get,list,watch,update,create,delete", "core", "persistentvolumes"), rule("update", "core", "persistentvolumes/status"),
			rule(updV, "core", "persistentvolumeclaims"), rule("update", "core", "persistentvolumeclaims/status"),
			rule("list,watch,get,create,delete", "core", "pods"), rule(readV, storageG, "storageclasses"), rule(listV, "core", "nodes"),
			events(), rule("watch", "core", "events")}},
		{"pvc-protection-controller", rules{rule(updV, "core", "persistentvolumeclaims"), rule("update", "core", "persistentvolumeclaims/status"), rule(readV, "core", "pods"), events()}},
		{"pv-protection-controller", rules{rule(updV, "core", "persistentvolumes"), events()}},
		{"volumeattributesclass-protection-controller", rules{
			rule(readV, "core", "persistentvolumeclaims"), rule(readV, "core", "persistentvolumes"), rule(updV, storageG, "volumeattributesclasses"), events()}},
		{"selinux-warning-controller", rules{
			events(), rule(readV, "core", "persistentvolumes"), rule(readV, "core", "persistentvolumeclaims"), rule(readV, "core", "pods"), rule(readV, storageG, "csidrivers")}},
	}
}

func clusterControllers() []controllerPolicy {
	type rules = []rbacv1.PolicyRule
	slices := rule("get,list,watch,create,update,delete", discovery, "endpointslices")
	return []controllerPolicy{
		{"clusterrole-aggregation-controller", rules{rule("escalate,get,list,watch,update,patch", rbacv1.GroupName, "clusterroles")}},
		{"endpoint-controller", rules{
			rule(readV, "core", "services,pods"), rule("get,list,watch,create,update,delete", "core", "endpoints"), rule("create", "core", "endpoints/restricted"), events()}},
		{"endpointslice-controller", rules{
			rule(readV, "core", "services,pods,nodes"), rule("update", "core", "services/finalizers"), slices, events()}},
		{"endpointslicemirroring-controller", rules{
			rule(readV, "core", "services,endpoints"), rule("update", "core", "services/finalizers"), rule("update", "core", "endpoints/finalizers"), slices, events()}},
		{"generic-garbage-collector", rules{rule("get,list,watch,patch,update,delete", "*", "*"), events()}},
		{"namespace-controller", rules{
			rule("get,list,watch,delete", "core", "namespaces"), rule("update", "core", "namespaces/finalize,namespaces/status"),
			rule("get,list,watch,delete,deletecollection", "*", "*")}},
		{"node-controller", rules{
			rule("get,list,watch,update,delete,patch", "core", "nodes"), rule(patchV, "core", "nodes/status"), rule(patchV, "core", "pods/status"),
			rule("list,watch,get,delete", "core", "pods"), events()}},
		{"resourcequota-controller", rules{rule(listV, "*", "*"), rule("update", "core", "resourcequotas/status"), events()}},
		{"route-controller", rules{rule(listV, "core", "nodes"), rule("patch", "core", "nodes/status"), events()}},
		{"service-account-controller", rules{rule("create", "core", "serviceaccounts"), events()}},
		{"service-controller", rules{rule(readV, "core", "services"), rule(patchV, "core", "services/status"), rule(listV, "core", "nodes"), events()}},
		{"service-cidrs-controller", rules{
			rule("get,list,watch,patch,update", network, "servicecidrs"), rule(patchV, network, "servicecidrs/finalizers"),
			rule(patchV, network, "servicecidrs/status"), rule(readV, network, "ipaddresses"), events()}},
		{"ttl-controller", rules{rule("update,patch,list,watch", "core", "nodes"), events()}},
		{"certificate-controller", rules{
			rule("get,list,watch,delete", certs, "certificatesigningrequests"),
			rule("update", certs, "certificatesigningrequests/status,certificatesigningrequests/approval"),
			rule("approve", certs, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
			rule("sign", certs, "signers", "kubernetes.io/legacy-unknown", "kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"),
			rule("create", authzG, "subjectaccessreviews"), events()}},
		{"podcertificaterequestcleaner", rules{rule("get,list,watch,delete", certs, "podcertificaterequests")}},
		{"root-ca-cert-publisher", rules{rule("create,update", "core", "configmaps"), events()}},
		{"kube-apiserver-serving-clustertrustbundle-publisher", rules{
			rule("attest", certs, "signers", "kubernetes.io/kube-apiserver-serving"),
			rule("create,update,delete,list,watch", certs, "clustertrustbundles"), events()}},
		{"validatingadmissionpolicy-status-controller", rules{
			rule(readV, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
			rule("get,patch,update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"), events()}},
		{"legacy-service-account-token-cleaner", rules{
			rule("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"), rule("patch,delete", "core", "secrets")}},
		{"storage-version-migrator-controller", rules{
			rule("list,watch,create,patch", "*", "*"), rule("update", "storagemigration.k8s.io", "storageversionmigrations/status")}},
	}
}

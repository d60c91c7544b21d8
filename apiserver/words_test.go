package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
)

// TestRulesInUpstreamsWords asks, over many kinds, for what is not allowed: the
// field and the words are upstream's.
func TestRulesInUpstreamsWords(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	const spec = `"containers":[{"name":"c","image":"i"}]`
	const template = `"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{` + spec + `}}`
	ns := "namespaces/default/"
	dns := `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`
	for _, r := range []struct{ path, kind, spec, want string }{
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"C_","image":"i"}]}`, `spec.containers[0].name: Invalid value: "C_": ` + dns},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"c","image":" i"}]}`, `spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[]}`, `spec.containers: Required value`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"c","image":"i"},{"name":"c","image":"i"}]}`, `spec.containers[1].name: Duplicate value: "c"`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"restartPolicy":"Maybe",` + spec + `}`, `spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"c","image":"i","volumeMounts":[{"name":"v","mountPath":"/m"}]}]}`, `spec.containers[0].volumeMounts[0].name: Not found: "v"`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}}]}`, `spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":0}]}]}`, `spec.containers[0].ports[0].containerPort: Required value`},
		{"v1/" + ns + "pods", "Pod", `"spec":{"activeDeadlineSeconds":0,` + spec + `}`, `spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive`},
		{"v1/" + ns + "services", "Service", `"spec":{"ports":[{"port":80},{"port":81}]}`, `spec.ports[0].name: Required value, spec.ports[1].name: Required value`},
		{"v1/" + ns + "services", "Service", `"spec":{"type":"ClusterIP"}`, `spec.ports: Required value`},
		{"v1/" + ns + "services", "Service", `"spec":{"type":"ExternalName","externalName":"A_b"}`, `spec.externalName: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		{"v1/" + ns + "services", "Service", `"spec":{"ports":[{"port":70000}]}`, `spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive`},
		{"v1/" + ns + "secrets", "Secret", `"type":"kubernetes.io/tls"`, `data[tls.crt]: Required value, data[tls.key]: Required value`},
		{"v1/" + ns + "configmaps", "ConfigMap", `"data":{"a/b":"c"}`, `data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`},
		{"v1/" + ns + "persistentvolumeclaims", "PersistentVolumeClaim", `"spec":{"resources":{"requests":{"storage":"1Gi"}}}`, `spec.accessModes: Required value: at least 1 access mode is required`},
		{"v1/" + ns + "persistentvolumeclaims", "PersistentVolumeClaim", `"spec":{"accessModes":["ReadWriteOnce"]}`, `spec.resources[storage]: Required value`},
		{"v1/persistentvolumes", "PersistentVolume", `"spec":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"}}`, `spec: Required value: must specify a volume type`},
		{"v1/" + ns + "resourcequotas", "ResourceQuota", `"spec":{"hard":{"pods":"-1"}}`, `spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0`},
		{"v1/namespaces", "Namespace", `"spec":{"finalizers":["x"]}`, `spec.finalizers: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified`},
		{"apps/v1/" + ns + "deployments", "Deployment", `"spec":{` + strings.Replace(template, `"labels":{"a":"b"}`, `"labels":{"a":"c"}`, 1) + `}`, "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"},
		{"apps/v1/" + ns + "deployments", "Deployment", `"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":0,"maxSurge":0}},` + template + `}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"},
		{"apps/v1/" + ns + "statefulsets", "StatefulSet", `"spec":{"podManagementPolicy":"Some",` + template + `}`, `spec.podManagementPolicy: Invalid value: "Some": must be 'OrderedReady' or 'Parallel'`},
		{"apps/v1/" + ns + "daemonsets", "DaemonSet", `"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{` + spec + `}}}`, `spec.selector: Required value`},
		{"batch/v1/" + ns + "cronjobs", "CronJob", `"spec":{"schedule":"x","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never",` + spec + `}}}}}`, `spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]`},
		{"batch/v1/" + ns + "jobs", "Job", `"spec":{"template":{"spec":{` + spec + `}}}`, `spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`},
		{"autoscaling/v2/" + ns + "horizontalpodautoscalers", "HorizontalPodAutoscaler", `"spec":{"maxReplicas":0,"scaleTargetRef":{"kind":"Deployment","name":"d"}}`, `spec.maxReplicas: Invalid value: 0: must be greater than 0`},
		{"policy/v1/" + ns + "poddisruptionbudgets", "PodDisruptionBudget", `"spec":{"minAvailable":1,"maxUnavailable":1,"selector":{}}`, `spec: Invalid value: {"minAvailable":1,"selector":{},"maxUnavailable":1}: minAvailable and maxUnavailable cannot be both set`},
		{"networking.k8s.io/v1/" + ns + "ingresses", "Ingress", `"spec":{"rules":[{"host":"a","http":{"paths":[{"path":"x","pathType":"Exact","backend":{"service":{"name":"s","port":{"number":80}}}}]}}]}`, `spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path`},
		{"networking.k8s.io/v1/" + ns + "ingresses", "Ingress", `"spec":{}`, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"},
		{"networking.k8s.io/v1/" + ns + "networkpolicies", "NetworkPolicy", `"spec":{"podSelector":{},"ingress":[{"from":[{}]}]}`, `spec.ingress[0].from[0]: Required value: must specify a peer`},
		{"networking.k8s.io/v1/" + ns + "networkpolicies", "NetworkPolicy", `"spec":{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/16"]}}]}]}`, `spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of ` + "`cidr`"},
		{"rbac.authorization.k8s.io/v1/" + ns + "roles", "Role", `"rules":[{"apiGroups":[""],"resources":["pods"]}]`, `rules[0].verbs: Required value: verbs must contain at least one value`},
		{"rbac.authorization.k8s.io/v1/" + ns + "rolebindings", "RoleBinding", `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Thing","name":"x"}`, `roleRef.kind: Unsupported value: "Thing": supported values: "Role", "ClusterRole"`},
		{"certificates.k8s.io/v1/certificatesigningrequests", "CertificateSigningRequest", `"spec":{"request":"eA==","signerName":"a.b/c","usages":["client auth"]}`, `spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST`},
		{"coordination.k8s.io/v1/" + ns + "leases", "Lease", `"spec":{"leaseDurationSeconds":0}`, `spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0`},
		{"flowcontrol.apiserver.k8s.io/v1/flowschemas", "FlowSchema", `"spec":{"matchingPrecedence":10001,"priorityLevelConfiguration":{"name":"x"}}`, `spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000`},
		{"storage.k8s.io/v1/storageclasses", "StorageClass", `"provisioner":""`, `provisioner: Required value`},
		{"scheduling.k8s.io/v1/priorityclasses", "PriorityClass", `"value":1000000001`, `value: Forbidden: maximum allowed value of a user defined priority is 1000000000`},
		{"admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "ValidatingWebhookConfiguration", `"webhooks":[{"name":"a.b.c","sideEffects":"None","admissionReviewVersions":["v1"],"clientConfig":{"url":"http://x"}}]`, `webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]`},
		{"admissionregistration.k8s.io/v1/validatingadmissionpolicies", "ValidatingAdmissionPolicy", `"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]}}`, `spec.validations: Required value: validations or auditAnnotations must contain at least one item`},
		{"apiextensions.k8s.io/v1/customresourcedefinitions", "CustomResourceDefinition", `"spec":{"group":"g.io","scope":"Namespaced","names":{"plural":"xs","kind":"X"},"versions":[{"name":"v1","served":true,"storage":true}]}`, `spec.versions[0].schema.openAPIV3Schema: Required value`},
	} {
		root := "/apis/"
		if strings.HasPrefix(r.path, "v1/") {
			root = "/api/"
		}
		group := strings.Split(r.path, "/namespaces/")[0]
		if !strings.Contains(r.path, "/namespaces/") {
			group = r.path[:strings.LastIndex(r.path, "/")]
		}
		name := "x"
		if r.kind == "CustomResourceDefinition" {
			name = "xs.g.io"
		}
		body := `{"apiVersion":"` + group + `","kind":"` + r.kind + `","metadata":{"name":"` + name + `"},` + r.spec + `}`
		code, doc, _ := c.do("POST", root+r.path, jsonType, body)
		if message := fmt.Sprint(doc["message"]); code != 422 || !strings.Contains(message, r.want) {
			t.Errorf("%s %s\ngot  %d %s\nwant %s", r.kind, r.spec, code, message, r.want)
		}
	}
}

// TestWhatNeverChanges: updates of what is settled are refused in upstream's words.
func TestWhatNeverChanges(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	const template = `"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`
	ns := "namespaces/default/"
	for _, r := range []struct{ path, object, patch, want string }{
		{"/api/v1/" + ns + "pods", `"spec":{"containers":[{"name":"c","image":"i"}]}`, `{"spec":{"nodeSelector":{"a":"b"}}}`,
			"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"},
		{"/apis/apps/v1/" + ns + "deployments", `"spec":{` + template + `}`, `{"spec":{"selector":{"matchLabels":{"c":"d"}}}}`, `spec.selector: Invalid value: {"matchLabels":{"a":"b","c":"d"}}: field is immutable`},
		{"/apis/apps/v1/" + ns + "statefulsets", `"spec":{"serviceName":"s",` + template + `}`, `{"spec":{"serviceName":"t"}}`,
			"spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"},
		{"/apis/batch/v1/" + ns + "jobs", `"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}`, `{"spec":{"completions":3}}`, "spec.completions: Invalid value: 3: field is immutable"},
		{"/api/v1/" + ns + "secrets", `"immutable":true,"stringData":{"a":"b"}`, `{"data":{"a":"Yw=="}}`, "data: Forbidden: field is immutable when `immutable` is set"},
		{"/api/v1/" + ns + "configmaps", `"immutable":true`, `{"immutable":false}`, "immutable: Forbidden: field is immutable when `immutable` is set"},
		{"/api/v1/" + ns + "persistentvolumeclaims", `"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"2Gi"}}}`, `{"spec":{"accessModes":["ReadOnlyMany"]}}`,
			"spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"},
		{"/apis/rbac.authorization.k8s.io/v1/" + ns + "rolebindings", `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"a"}`, `{"roleRef":{"name":"b"}}`, `roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef`},
		{"/apis/storage.k8s.io/v1/storageclasses", `"provisioner":"a.b/c"`, `{"provisioner":"d.e/f"}`, "provisioner: Forbidden: updates to provisioner are forbidden."},
		{"/apis/scheduling.k8s.io/v1/priorityclasses", `"value":5`, `{"value":6}`, "value: Forbidden: may not be changed in an update."},
		{"/apis/node.k8s.io/v1/runtimeclasses", `"handler":"runc"`, `{"handler":"other"}`, `handler: Invalid value: "other": field is immutable`},
		{"/api/v1/" + ns + "services", `"spec":{"clusterIP":"None","ports":[{"port":80}]}`, `{"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]}}`, `spec.clusterIPs[0]: Invalid value: ["10.0.0.1"]: may not change once set`},
	} {
		version, kind, _ := strings.Cut(r.path, "/"+ns)
		if kind == "" {
			version, kind = r.path[:strings.LastIndex(r.path, "/")], r.path[strings.LastIndex(r.path, "/")+1:]
		}
		version = strings.TrimPrefix(strings.TrimPrefix(version, "/apis/"), "/api/")
		kinds := map[string]string{"pods": "Pod", "deployments": "Deployment", "statefulsets": "StatefulSet", "jobs": "Job", "secrets": "Secret", "configmaps": "ConfigMap", "persistentvolumeclaims": "PersistentVolumeClaim",
			"rolebindings": "RoleBinding", "storageclasses": "StorageClass", "priorityclasses": "PriorityClass", "runtimeclasses": "RuntimeClass", "services": "Service"}
		if code, doc, _ := c.do("POST", r.path, jsonType, `{"apiVersion":"`+version+`","kind":"`+kinds[kind]+`","metadata":{"name":"x"},`+r.object+`}`); code != 201 {
			t.Fatal(r.path, code, doc["message"])
		}
		code, doc, _ := c.do("PATCH", r.path+"/x", mergePatch, r.patch)
		if message := fmt.Sprint(doc["message"]); code != 422 || !strings.Contains(message, r.want) {
			t.Errorf("%s %s\ngot  %d %s\nwant %s", kind, r.patch, code, message, r.want)
		}
	}
}

package apiserver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	group          = "/apis/admissionregistration.k8s.io/v1/"
	policiesPath   = group + "validatingadmissionpolicies"
	bindingsPath   = group + "validatingadmissionpolicybindings"
	mutPolicyPath  = group + "mutatingadmissionpolicies"
	mutBindingPath = group + "mutatingadmissionpolicybindings"
	deployments    = "/apis/apps/v1/namespaces/default/deployments"
)

const deploymentRules = `"matchConstraints":{"resourceRules":[{"operations":["CREATE","UPDATE"],"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments"]}]}`

func policyJSON(kind, name, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":%q,"metadata":{"name":%q},"spec":{%s}}`, kind, name, spec)
}

func deploymentJSON(version, name string, replicas int) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":"Deployment","metadata":{"name":%q,"labels":{"app":"a"}},"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"a"}},
		"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, version, name, replicas)
}

func TestAPolicyDenies(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", configMaps, `{"metadata":{"name":"limits"},"data":{"max":"3"}}`)
	c.must(201, "POST", policiesPath, policyJSON("ValidatingAdmissionPolicy", "few", `"failurePolicy":"Fail","paramKind":{"apiVersion":"v1","kind":"ConfigMap"},`+deploymentRules+`,
		"variables":[{"name":"max","expression":"int(params.data.max)"}],
		"matchConditions":[{"name":"not-exempt","expression":"object.metadata.name != 'exempt'"}],
		"validations":[{"expression":"object.spec.replicas <= variables.max","messageExpression":"'at most ' + string(variables.max) + ' in ' + namespaceObject.metadata.labels.team","reason":"Forbidden"},
			{"expression":"!has(object.metadata.labels.bad)"}]`))
	c.must(201, "POST", bindingsPath, policyJSON("ValidatingAdmissionPolicyBinding", "few-here",
		`"policyName":"few","validationActions":["Deny"],"paramRef":{"name":"limits","parameterNotFoundAction":"Deny"},
		"matchResources":{"namespaceSelector":{"matchLabels":{"team":"a"}}}`))
	var out map[string]any
	code := 0
	eventually(t, "the policy denies", func() bool {
		code, out, _ = c.do("POST", deployments+"?dryRun=All", "application/json", deploymentJSON("apps/v1", "many", 5))
		return code != 201
	})
	want := `deployments.apps "many" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few-here' denied request: at most 3 in a`
	if code != 403 || out["message"] != want || out["reason"] != "Forbidden" {
		t.Errorf("%d %v %v, want %s", code, out["reason"], out["message"], want)
	}
	// Another version of the same thing is judged as well.
	code, out, _ = c.do("POST", "/apis/apps/v1beta1/namespaces/default/deployments", "application/json", deploymentJSON("apps/v1beta1", "many", 5))
	if code != 403 || out["message"] != want {
		t.Errorf("v1beta1: %d %v", code, out["message"])
	}
	c.must(201, "POST", deployments, deploymentJSON("apps/v1", "exempt", 5))
	c.must(201, "POST", deployments, deploymentJSON("apps/v1", "few", 3))
	code, out, _ = c.do("PATCH", deployments+"/few", "application/merge-patch+json", `{"metadata":{"labels":{"bad":"x"}}}`)
	if want := `deployments.apps "few" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few-here' denied request: failed expression: !has(object.metadata.labels.bad)`; code != 422 || out["message"] != want || out["reason"] != "Invalid" {
		t.Errorf("%d %v %v", code, out["reason"], out["message"])
	}
	// Without its parameter the binding denies.
	c.must(200, "DELETE", configMaps+"/limits", "")
	eventually(t, "the parameter is gone", func() bool {
		_, out, _ = c.do("POST", deployments+"?dryRun=All", "application/json", deploymentJSON("apps/v1", "one", 1))
		msg, _ := out["message"].(string)
		return strings.HasSuffix(msg, "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
	})
}

func TestAPolicyWarns(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", policiesPath, policyJSON("ValidatingAdmissionPolicy", "p", deploymentRules+`,"validations":[{"expression":"object.spec.replicas > 1","message":"alone"}]`))
	c.must(201, "POST", bindingsPath, policyJSON("ValidatingAdmissionPolicyBinding", "b", `"policyName":"p","validationActions":["Warn","Audit"]`))
	eventually(t, "the policy warns", func() bool {
		_, _, h := c.do("POST", deployments+"?dryRun=All", "application/json", deploymentJSON("apps/v1", "one", 1))
		return h.Get("Warning") == `299 - "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': alone"`
	})
}

func TestPoliciesAreTypeChecked(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", policiesPath, policyJSON("ValidatingAdmissionPolicy", "typo", deploymentRules+`,"validations":[{"expression":"object.spec.replicas > 1 && object.spec.relicas < 5"},{"expression":"object.spec.replicas == '1'"},{"expression":"object.spec.template.spec.containers.all(c, c.image != '')"}]`))
	var out map[string]any
	eventually(t, "the types are checked", func() bool {
		_, out, _ = c.do("GET", policiesPath+"/typo", "", "")
		return at(out, "status.observedGeneration") == float64(1)
	})
	warnings, _ := at(out, "status.typeChecking.expressionWarnings").([]any)
	if len(warnings) != 2 {
		t.Fatalf("warnings %v", out["status"])
	}
	for i, want := range []string{"apps/v1, Kind=Deployment: ERROR: <input>:1:40: undefined field 'relicas'", "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_==_' applied to '(int, string)'"} {
		if got, _ := at(warnings[i].(map[string]any), "warning").(string); !strings.HasPrefix(got, want) {
			t.Errorf("warning %q, want %q", got, want)
		}
	}
}

func TestExpressionsMustCompile(t *testing.T) {
	c := judged(t)
	code, out, _ := c.do("POST", policiesPath, "application/json", policyJSON("ValidatingAdmissionPolicy", "p", deploymentRules+`,"validations":[{"expression":"object.spec.replicas >"}]`))
	want := `ValidatingAdmissionPolicy.admissionregistration.k8s.io "p" is invalid: spec.validations[0].expression: Invalid value: "object.spec.replicas >": compilation failed: ERROR: <input>:1:23: Syntax error: mismatched input '<EOF>' expecting`
	if msg, _ := out["message"].(string); code != 422 || !strings.HasPrefix(msg, want) {
		t.Errorf("%d %v", code, out["message"])
	}
}

func TestAPolicyMutates(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", mutPolicyPath, policyJSON("MutatingAdmissionPolicy", "label", deploymentRules+`,"reinvocationPolicy":"IfNeeded","failurePolicy":"Fail",
		"mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{metadata: Object.metadata{labels: {'by': 'policy'}}, spec: Object.spec{minReadySeconds: 7}}"}},
			{"patchType":"JSONPatch","jsonPatch":{"expression":"[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: string(object.spec.minReadySeconds)}]"}}]`))
	c.must(201, "POST", mutBindingPath, policyJSON("MutatingAdmissionPolicyBinding", "b", `"policyName":"label"`))
	var out map[string]any
	eventually(t, "the policy mutates", func() bool {
		_, out, _ = c.do("POST", deployments+"?dryRun=All", "application/json", deploymentJSON("apps/v1", "one", 1))
		return at(out, "metadata.labels.by") == "policy"
	})
	labels, _ := at(out, "metadata.labels").(map[string]any)
	if labels["x/y"] != "7" || labels["app"] != "a" || at(out, "spec.minReadySeconds") != float64(7) {
		t.Errorf("got %v %v", labels, at(out, "spec.minReadySeconds"))
	}
	out = c.must(201, "POST", "/apis/apps/v1beta2/namespaces/default/deployments", deploymentJSON("apps/v1beta2", "old", 2))
	if at(out, "metadata.labels.by") != "policy" || at(out, "spec.replicas") != float64(2) {
		t.Errorf("v1beta2: %v", out)
	}
}

// TestTheDocumentedPolicy: what docs/admission.md shows works.
func TestTheDocumentedPolicy(t *testing.T) {
	page, err := os.ReadFile("../docs/admission.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	c := judged(t)
	for i, doc := range strings.Split(example, "---\n") {
		path := []string{policiesPath, bindingsPath}[i]
		if code, out, _ := c.do("POST", path, "application/yaml", doc); code != 201 {
			t.Fatalf("%d %v", code, out["message"])
		}
	}
	eventually(t, "the policy denies", func() bool {
		_, out, _ := c.do("POST", deployments+"?dryRun=All", "application/json", deploymentJSON("apps/v1", "many", 7))
		msg, _ := out["message"].(string)
		return strings.HasSuffix(msg, "denied request: at most 5, not 7")
	})
}

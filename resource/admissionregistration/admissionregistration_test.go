package admissionregistration

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

func kindOf(t *testing.T, name string) resource.Kind {
	t.Helper()
	for _, k := range Kinds() {
		if k.Info().Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

// judge defaults and validates a new object, or the change of prev to text.
func judge(t *testing.T, kind, text, prev, version string) string {
	t.Helper()
	k := kindOf(t, kind)
	read := func(text string) api.Object {
		if text == "" {
			return nil
		}
		obj := k.New()
		if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		k.Default(obj)
		return obj
	}
	next, old := read(text), read(prev)
	errs := append(k.Validate(next, old), k.ValidateAs(&resource.Request{Version: schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: version}}, next, old)...)
	if len(errs) == 0 {
		return ""
	}
	return errs.ToAggregate().Error()
}

const goodHook = `{name: a.example.com, clientConfig: {url: "https://h/p"}, sideEffects: None, admissionReviewVersions: [v1], rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}`

func TestWebhookRules(t *testing.T) {
	with := func(old, new string) string {
		if !strings.Contains(goodHook, old) {
			t.Fatalf("no %s", old)
		}
		return "webhooks: [" + strings.Replace(goodHook, old, new, 1) + "]"
	}
	for want, text := range map[string]string{
		"": "webhooks: [" + goodHook + "]",
		`webhooks[0].name: Invalid value: "short": should be a domain with at least three segments separated by dots`:                           with("a.example.com", "short"),
		`webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun`:                                                       with(", sideEffects: None", ""),
		`webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"`:                                          with("sideEffects: None", "sideEffects: Some"),
		`webhooks[0].clientConfig: Required value: exactly one of url or service is required`:                                                   with(`url: "https://h/p"`, ""),
		`webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]`:      with("https://h", "http://h"),
		`webhooks[0].clientConfig.url: Invalid value: "u": user information is not permitted in the URL`:                                        with("https://h", "https://u@h"),
		`webhooks[0].clientConfig.service.namespace: Required value`:                                                                            with(`url: "https://h/p"`, "service: {name: s}"),
		`webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive`:                    with(`url: "https://h/p"`, "service: {name: s, namespace: n, port: 0}"),
		`webhooks[0].clientConfig.service.path: Invalid value: "/a//b": segment[1] may not be empty`:                                            with(`url: "https://h/p"`, "service: {name: s, namespace: n, path: /a//b}"),
		`webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1`:                                                  with("[v1], rules", "[], rules"),
		`webhooks[0].admissionReviewVersions: Invalid value: ["v9"]: must include at least one of v1, v1beta1`:                                  with("[v1], rules", "[v9], rules"),
		`webhooks[0].rules[0].operations[0]: Unsupported value: "LIST": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"`:         with("CREATE", "LIST"),
		`webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations`:                  with("[CREATE]", `["*", CREATE]`),
		`webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status`:                 with("[pods]", `["pods/*", pods/status]`),
		`webhooks[0].rules[0].resources: Invalid value: ["*","pods"]: if '*' is present, must not specify other resources without subresources`: with("[pods]", `["*", pods]`),
		`webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds`:                                     with("sideEffects", "timeoutSeconds: 31, sideEffects"),
		`webhooks[0].matchConditions[0].expression: Invalid value: "1": must evaluate to bool but got int`:                                      with("sideEffects", `matchConditions: [{name: x, expression: "1"}], sideEffects`),
		`webhooks[0].failurePolicy: Unsupported value: "Retry": supported values: "Fail", "Ignore"`:                                             with("sideEffects", "failurePolicy: Retry, sideEffects"),
		`webhooks[1].name: Duplicate value: "a.example.com"`:                                                                                    "webhooks: [" + goodHook + "," + goodHook + "]",
	} {
		for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
			if got := judge(t, kind, text, "", "v1"); got != want {
				t.Errorf("%s: got %q\nwant %q", kind, got, want)
			}
		}
	}
}

// What was stored when rules were laxer may be stored again.
func TestWebhookRatchets(t *testing.T) {
	lax := strings.Replace(goodHook, "sideEffects: None", "sideEffects: Some", 1)
	two := "webhooks: [" + lax + "," + lax + "]"
	if got := judge(t, "ValidatingWebhookConfiguration", two, "", "v1beta1"); got != "" {
		t.Error(got)
	}
	if got := judge(t, "ValidatingWebhookConfiguration", two, two, "v1"); got != "" {
		t.Error(got)
	}
}

const goodPolicy = `{metadata: {name: p}, spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}, validations: [{expression: "object.x == 1"}]}}`

func TestPolicyRules(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(goodPolicy, old, new, 1) }
	for want, text := range map[string]string{
		"":                                      goodPolicy,
		`spec.matchConstraints: Required value`: "{spec: {validations: [{expression: \"true\"}]}}",
		`spec.matchConstraints.resourceRules: Required value`: "{spec: {matchConstraints: {}, validations: [{expression: \"true\"}]}}",
		`[spec.validations: Required value: validations or auditAnnotations must contain at least one item, spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item]`: with(`validations: [{expression: "object.x == 1"}]`, "failurePolicy: Fail"),
		`spec.validations[0].expression: Required value: expression is not specified`:                                             with(`"object.x == 1"`, `" "`),
		`spec.validations[0].expression: Invalid value: "1 + 1": must evaluate to bool but got int`:                               with(`"object.x == 1"`, `"1 + 1"`),
		`spec.validations[0].message: Invalid value: "a\nb": must not contain line breaks`:                                        with(`"object.x == 1"`, `"object.x == 1", message: "a\nb"`),
		`spec.validations[0].reason: Unsupported value: "Bad": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"`: with(`"object.x == 1"`, `"object.x == 1", reason: Bad`),
		`spec.paramKind.apiVersion: Required value`:                                                                               with("validations", "paramKind: {kind: K}, validations"),
		`spec.paramKind.kind: Invalid value: "_": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')`: with("validations", "paramKind: {kind: _, apiVersion: v1}, validations"),
		`spec.variables[0].name: Invalid value: "for": must be a valid CEL identifier`:                                         with("validations", "variables: [{name: for, expression: \"1\"}], validations"),
		`spec.auditAnnotations[1].key: Duplicate value: "k"`:                                                                   with("validations", `auditAnnotations: [{key: k, valueExpression: "'a'"}, {key: k, valueExpression: "'b'"}], validations`),
		`spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type] but got int`: with("validations", `auditAnnotations: [{key: k, valueExpression: "1"}], validations`),
	} {
		if got := judge(t, "ValidatingAdmissionPolicy", text, "", "v1"); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestBindingRules(t *testing.T) {
	for want, text := range map[string]string{
		"":                                "{spec: {policyName: p, validationActions: [Deny, Audit], paramRef: {name: x, parameterNotFoundAction: Deny}}}",
		`spec.policyName: Required value`: "{spec: {validationActions: [Deny]}}",
		`spec.validationActions: Required value: at least one validation action is required`: "{spec: {policyName: p}}",
		`spec.validationActions[1]: Duplicate value: "Deny"`:                                 "{spec: {policyName: p, validationActions: [Deny, Deny]}}",
		`spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)`: "{spec: {policyName: p, validationActions: [Deny, Warn]}}",
		`[spec.paramRef: Required value: one of name or selector must be specified, spec.paramRef.parameterNotFoundAction: Required value]`:                                                                 "{spec: {policyName: p, validationActions: [Deny], paramRef: {}}}",
		`[spec.paramRef.name: Forbidden: name and selector are mutually exclusive, spec.paramRef.selector: Forbidden: name and selector are mutually exclusive]`:                                            "{spec: {policyName: p, validationActions: [Deny], paramRef: {name: x, selector: {}, parameterNotFoundAction: Allow}}}",
	} {
		if got := judge(t, "ValidatingAdmissionPolicyBinding", text, "", "v1"); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestMutatingPolicyRules(t *testing.T) {
	spec := func(rest string) string {
		return `{spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}, ` + rest + `}}`
	}
	for want, text := range map[string]string{
		"": spec(`reinvocationPolicy: Never, mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'remove', path: '/spec'}]"}}, {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}}]`),
		`spec.mutations: Required value: mutations must contain at least one item`:                                              spec("reinvocationPolicy: Never"),
		`spec.reinvocationPolicy: Required value`:                                                                               spec(`mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}}]`),
		`spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch`:                            spec("reinvocationPolicy: Never, mutations: [{patchType: JSONPatch}]"),
		`spec.mutations[0].patchType: Unsupported value: "Merge": supported values: "ApplyConfiguration", "JSONPatch"`:          spec("reinvocationPolicy: Never, mutations: [{patchType: Merge}]"),
		`spec.mutations[0].applyConfiguration.expression: Invalid value: "'x'": must evaluate to Object but got string`:         spec(`reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "'x'"}}]`),
		`spec.mutations[0].jsonPatch: Invalid value: "{jsonPatch}": must not be specified when patchType is ApplyConfiguration`: spec(`reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}, jsonPatch: {expression: "[]"}}]`),
	} {
		if got := judge(t, "MutatingAdmissionPolicy", text, "", "v1"); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	deletes := strings.Replace(spec(`reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}}]`), "CREATE", "DELETE", 1)
	if got, want := judge(t, "MutatingAdmissionPolicy", deletes, "", "v1"), `spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"`; got != want {
		t.Errorf("got %q", got)
	}
}

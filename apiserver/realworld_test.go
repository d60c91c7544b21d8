package apiserver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func (c client) defineFile(name string) {
	c.t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.define(string(data))
}

// cells asks for one object's row.
func (c client) cells(path string) string {
	c.t.Helper()
	_, doc, _ := c.accepting("GET", path, "application/json;as=Table;v=v1;g=meta.k8s.io")
	rows, _ := doc["rows"].([]any)
	if len(rows) == 0 {
		c.t.Fatalf("no rows: %v", doc)
	}
	return fmt.Sprint(rows[0].(map[string]any)["cells"])
}

func TestGateways(t *testing.T) {
	c := newCustomServer(t)
	c.defineFile("gateway.yaml")
	const v1, v1beta1 = "/apis/net.example.com/v1/namespaces/default/gateways", "/apis/net.example.com/v1beta1/namespaces/default/gateways"
	gateway := func(name, listeners string) string {
		return `{"apiVersion":"net.example.com/v1","kind":"Gateway","metadata":{"name":"` + name + `"},"spec":{"gatewayClassName":"c","listeners":[` + listeners + `]}}`
	}
	code, doc, _ := c.do("POST", v1, jsonType, gateway("g", `{"name":"http","port":80,"protocol":"HTTP"},{"name":"https","port":443,"protocol":"HTTPS","tls":{"certificateRefs":[{"name":"s"}]}}`))
	if code != 201 {
		t.Fatal(code, doc["message"])
	}
	second := at(doc, "spec.listeners").([]any)[1].(map[string]any)
	if at(second, "tls.mode") != "Terminate" || at(second, "allowedRoutes.namespaces.from") != "Same" || at(doc, "status.conditions") == nil {
		t.Errorf("defaults: %v %v", second, doc["status"])
	}
	if row := c.cells(v1 + "/g"); !strings.HasPrefix(row, "[g c Unknown ") {
		t.Errorf("row %s", row)
	}
	for _, tc := range []struct{ listeners, want string }{
		{`{"name":"a","port":80,"protocol":"HTTP","tls":{}}`, "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"},
		{`{"name":"a","port":80,"protocol":"HTTP"},{"name":"b","port":80,"protocol":"HTTP"}`, "Combination of port, protocol and hostname must be unique for each listener"},
		{`{"name":"a","port":70000,"protocol":"HTTP"}`, "spec.listeners[0].port: Invalid value: 70000: spec.listeners[0].port in body should be less than or equal to 65535"},
		{``, "spec.listeners: Invalid value: 0: spec.listeners in body should have at least 1 items"},
	} {
		if code, doc, _ := c.do("POST", v1, jsonType, gateway("x", tc.listeners)); code != 422 || !strings.Contains(fmt.Sprint(doc["message"]), tc.want) {
			t.Errorf("%d %v\nwant %s", code, doc["message"], tc.want)
		}
	}
	_, doc, head := c.do("GET", v1beta1+"/g", "", "")
	if doc["apiVersion"] != "net.example.com/v1beta1" || !strings.Contains(head.Get("Warning"), "net.example.com/v1beta1 Gateway goes with the next release") {
		t.Errorf("old version: %v %v", doc["apiVersion"], head["Warning"])
	}
	patch := `{"apiVersion":"net.example.com/v1","kind":"Gateway","status":{"conditions":[{"type":"Programmed","status":"True","reason":"R","message":"m","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	code, doc, _ = c.do("PATCH", v1+"/g/status?fieldManager=controller", "application/apply-patch+yaml", patch)
	if list, _ := at(doc, "status.conditions").([]any); code != 200 || len(list) != 2 {
		t.Errorf("applied status: %d %v", code, doc)
	}
}

func TestCertificates(t *testing.T) {
	c := newCustomServer(t)
	c.defineFile("certificate.yaml")
	const certs = "/apis/pki.example.com/v1/namespaces/default/certificates"
	code, doc, _ := c.do("POST", certs, "application/yaml", `
apiVersion: pki.example.com/v1
kind: Certificate
metadata: {name: web}
spec:
  secretName: web-tls
  issuerRef: {name: ca, kind: Issuer}
  notAfter: null
  usages: [server auth]
  secretTemplate: {labels: {app: web}, unknown: 1}
`)
	if code != 201 || at(doc, "spec.secretTemplate.unknown") != nil {
		t.Fatal(code, doc)
	}
	if spec := doc["spec"].(map[string]any); spec["notAfter"] != nil {
		t.Errorf("a null that may be: %v", spec)
	}
	if code, doc, _ = c.do("PATCH", certs+"/web", "application/merge-patch+json", `{"spec":{"usages":["hacking"],"notAfter":"soon"}}`); code != 422 ||
		!strings.Contains(fmt.Sprint(doc["message"]), `spec.usages[0]: Unsupported value: "hacking": supported values: "signing", "digital signature", "server auth", "client auth"`) ||
		!strings.Contains(fmt.Sprint(doc["message"]), `spec.notAfter: Invalid value: "soon": spec.notAfter in body must be of type date-time: "soon"`) {
		t.Errorf("%d %v", code, doc["message"])
	}
	c.do("PATCH", certs+"/web/status", "application/merge-patch+json", `{"status":{"conditions":[{"type":"Issuing","status":"False"},{"type":"Ready","status":"True","message":"up to date"}]}}`)
	if row := c.cells(certs + "/web"); !strings.HasPrefix(row, "[web True web-tls up to date ") {
		t.Errorf("row %s", row)
	}
}

func TestPrometheuses(t *testing.T) {
	c := newCustomServer(t)
	c.defineFile("prometheus.yaml")
	const proms = "/apis/watch.example.com/v1/namespaces/default/prometheuses"
	prom := func(name, spec string) string {
		return `{"apiVersion":"watch.example.com/v1","kind":"Prometheus","metadata":{"name":"` + name + `"},"spec":` + spec + `}`
	}
	code, doc, _ := c.do("POST", proms, jsonType, prom("p", `{"shards":2,"retention":"10d","resources":{"limits":{"memory":"2Gi","cpu":2}},"tsdb":null,
		"containers":[{"name":"c","env":[{"name":"A"}]}],"volumeClaimTemplate":{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"x","creationTimestamp":null,"wrong":1},"spec":{"a":1}}}`))
	if code != 201 || at(doc, "spec.resources.limits.cpu") != float64(2) || at(doc, "spec.volumeClaimTemplate.metadata.wrong") != nil || at(doc, "spec.volumeClaimTemplate.spec.a") != float64(1) {
		t.Fatal(code, doc)
	}
	for _, tc := range []struct{ spec, want string }{
		{`{"resources":{"limits":{"cpu":"much"}}}`, `spec.resources.limits.cpu: Invalid value: "much"`},
		{`{"volumeClaimTemplate":{"metadata":{"name":"x"}}}`, `spec.volumeClaimTemplate.apiVersion: Required value`},
		{`{"shards":-1}`, `.spec.shards: Invalid value: -1: should be a non-negative integer`},
	} {
		if code, doc, _ := c.do("POST", proms, jsonType, prom("x", tc.spec)); code != 422 || !strings.Contains(fmt.Sprint(doc["message"]), tc.want) {
			t.Errorf("%d %v\nwant %s", code, doc["message"], tc.want)
		}
	}
	c.do("POST", proms, jsonType, prom("none", `{}`))
	if code, doc, _ = c.do("GET", proms+"/none/scale", "", ""); code != 500 || !strings.Contains(fmt.Sprint(doc["message"]), `the spec replicas field ".spec.shards" does not exist`) {
		t.Errorf("scale of nothing: %d %v", code, doc["message"])
	}
	// What is wrong already may stay while something else changes.
	stricter := strings.Replace(`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shards/maximum","value":1}]`, "\n", "", -1)
	if code, doc, _ = c.do("PATCH", crds+"/prometheuses.watch.example.com", "application/json-patch+json", stricter); code != 200 {
		t.Fatal(code, doc["message"])
	}
	within(t, "the new schema is served", func() bool {
		code, _, _ := c.do("POST", proms+"?dryRun=All", jsonType, prom("y", `{"shards":2}`))
		return code == 422
	})
	if code, doc, _ = c.do("PATCH", proms+"/p", "application/merge-patch+json", `{"spec":{"retention":"20d"}}`); code != 200 {
		t.Errorf("ratcheting: %d %v", code, doc["message"])
	}
	if code, _, _ = c.do("PATCH", proms+"/p", "application/merge-patch+json", `{"spec":{"shards":3}}`); code != 422 {
		t.Errorf("a new fault was let through: %d", code)
	}
}

package apiserver_test

import (
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
)

// Who applies a scale owns the replicas of the kind, and meets their owners.
func TestApplyOfAScale(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	url := "/apis/apps/v1/namespaces/default/deployments/d"
	apply := func(path, query, doc string) (int, map[string]any) {
		code, out, _ := c.do("PATCH", path+"?fieldManager="+query, "application/apply-patch+yaml", doc)
		return code, out
	}
	code, doc := apply(url, "one", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":1,
		"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`)
	if code != 201 {
		t.Fatalf("%d %v", code, doc)
	}
	scale := `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d","namespace":"default"},"spec":{"replicas":4}}`
	if code, doc = apply(url+"/scale", "two", scale); code != 409 || doc["message"] != `Apply failed with 1 conflict: conflict with "one": .spec.replicas` {
		t.Fatalf("conflict: %d %v", code, doc)
	}
	if code, doc = apply(url+"/scale", "two&force=true", scale); code != 200 || at(doc, "spec.replicas") != 4.0 || doc["kind"] != "Scale" {
		t.Fatalf("force: %d %v", code, doc)
	}
	_, doc, _ = c.do("GET", url, "", "")
	if at(doc, "spec.replicas") != 4.0 {
		t.Errorf("replicas %v", at(doc, "spec.replicas"))
	}
	version := at(doc, "metadata.resourceVersion")
	apply(url+"/scale", "two", scale)
	if _, doc, _ = c.do("GET", url, "", ""); at(doc, "metadata.resourceVersion") != version {
		t.Error("applying the same scale again wrote something")
	}
}

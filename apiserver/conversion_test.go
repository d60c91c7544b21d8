package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// boats are known as v1, with a length in feet, and as v2, in metres.
const boats = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Cluster
  names: {plural: boats, kind: Boat}
  conversion: CONVERSION
  versions:
  - name: v1
    served: true
    storage: true
    deprecated: true
    schema: {openAPIV3Schema: {type: object, properties: {feet: {type: integer}, flag: {type: string, default: none}}}}
  - name: v2
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {metres: {type: integer, minimum: 1}, flag: {type: string, default: white}}}}
`

const boatsV1, boatsV2 = "/apis/sea.example.com/v1/boats", "/apis/sea.example.com/v2/boats"

func boat(version, name, fields string) string {
	return `{"apiVersion":"sea.example.com/` + version + `","kind":"Boat","metadata":{"name":"` + name + `"},` + fields + `}`
}

// harbour is a conversion webhook: three feet are a metre.
func harbour(t *testing.T, change func(*apiextensionsv1.ConversionReview)) (conversion string, calls *atomic.Int64) {
	calls = &atomic.Int64{}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		review := &apiextensionsv1.ConversionReview{}
		if err := json.NewDecoder(r.Body).Decode(review); err != nil {
			t.Error(err)
		}
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: "Success"}}
		for _, raw := range review.Request.Objects {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(raw.Raw); err != nil {
				t.Error(err)
			}
			if n, ok := u.Object["feet"].(int64); ok {
				u.Object["metres"] = n / 3
			} else if n, ok := u.Object["metres"].(int64); ok {
				u.Object["feet"] = n * 3
			}
			if strings.HasSuffix(review.Request.DesiredAPIVersion, "v2") {
				delete(u.Object, "feet")
			} else {
				delete(u.Object, "metres")
			}
			u.SetAPIVersion(review.Request.DesiredAPIVersion)
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: u})
		}
		review.Request = nil
		if change != nil {
			change(review)
		}
		json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return fmt.Sprintf(`{strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}`, srv.URL+"/convert", base64.StdEncoding.EncodeToString(ca)), calls
}

func TestVersionsWithoutConversion(t *testing.T) {
	c := newCustomServer(t)
	c.define(strings.Replace(boats, "CONVERSION", "{strategy: None}", 1))
	_, _, head := c.do("POST", boatsV1, jsonType, boat("v1", "b", `"feet":9,"metres":3`))
	if w := head.Values("Warning"); len(w) != 2 || !strings.Contains(w[0], "sea.example.com/v1 Boat is deprecated; use sea.example.com/v2 Boat") || !strings.Contains(w[1], `unknown field \"metres\"`) {
		t.Errorf("warnings %v", w)
	}
	_, doc, _ := c.do("GET", boatsV2+"/b", "", "")
	if doc["apiVersion"] != "sea.example.com/v2" || doc["feet"] != nil || doc["flag"] != "none" {
		t.Errorf("as v2: %v", doc)
	}
	// A user of a version is judged by its schema.
	if code, doc, _ := c.do("POST", boatsV2, jsonType, boat("v2", "c", `"metres":0`)); code != 422 {
		t.Errorf("judged as v2: %d %v", code, doc)
	}
	c.do("POST", boatsV2, jsonType, boat("v2", "d", `"metres":4`))
	if _, doc, _ = c.do("GET", boatsV1+"/d", "", ""); doc["flag"] != "white" || doc["metres"] != nil {
		t.Errorf("as v1: %v", doc)
	}
}

func TestConversionWebhook(t *testing.T) {
	c := newCustomServer(t)
	conversion, calls := harbour(t, nil)
	c.define(strings.Replace(boats, "CONVERSION", conversion, 1))
	for i := range 3 {
		if code, doc, _ := c.do("POST", boatsV1, jsonType, boat("v1", fmt.Sprint("b", i), `"feet":9`)); code != 201 {
			t.Fatal(code, doc)
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d conversions for objects of the stored version", n)
	}
	_, doc, _ := c.do("GET", boatsV2, "", "")
	for _, item := range doc["items"].([]any) {
		if at(item.(map[string]any), "metres") != float64(3) {
			t.Errorf("item %v", item)
		}
	}
	c.do("GET", boatsV2, "", "")
	if n := calls.Load(); n != 1 {
		t.Errorf("two lists made %d calls, want one", n)
	}
	if code, doc, _ := c.do("POST", boatsV2, jsonType, boat("v2", "m", `"metres":5`)); code != 201 || doc["metres"] != float64(5) {
		t.Fatal(code, doc)
	}
	if _, doc, _ = c.do("GET", boatsV1+"/m", "", ""); doc["feet"] != float64(15) {
		t.Errorf("as v1: %v", doc)
	}
	// Another version is stored from now on; what is there stays readable, and
	// changes its form when it is next written.
	patch := `[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`
	code, doc, _ := c.do("PATCH", crds+"/boats.sea.example.com", "application/json-patch+json", patch)
	if code != 200 || fmt.Sprint(at(doc, "status.storedVersions")) != "[v1 v2]" {
		t.Fatalf("storage version: %d %v", code, doc)
	}
	if _, doc, _ = c.do("GET", boatsV2+"/b0", "", ""); doc["metres"] != float64(3) {
		t.Errorf("as v2: %v", doc)
	}
	if code, doc, _ = c.do("PATCH", boatsV1+"/b0", "application/merge-patch+json", `{"feet":12}`); code != 200 || doc["feet"] != float64(12) {
		t.Errorf("patched as v1: %d %v", code, doc)
	}
	if _, doc, _ = c.do("GET", boatsV2+"/b0", "", ""); doc["metres"] != float64(4) {
		t.Errorf("as v2: %v", doc)
	}
	if code, doc, _ = c.do("PATCH", boatsV1+"/b0?fieldManager=m", "application/apply-patch+yaml", boat("v1", "b0", `"flag":"red"`)); code != 409 && code != 200 {
		t.Errorf("applied as v1: %d %v", code, doc)
	}
}

func TestConversionWebhooksThatFail(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*apiextensionsv1.ConversionReview)
		want   string
	}{
		{"refuses", func(r *apiextensionsv1.ConversionReview) {
			r.Response.Result = metav1.Status{Status: "Failure", Message: "high tide"}
		}, `conversion webhook for sea.example.com/v1, Kind=Boat failed: high tide`},
		{"says nothing", func(r *apiextensionsv1.ConversionReview) { r.Response = nil }, `conversion webhook for sea.example.com/v1, Kind=Boat failed: no response provided`},
		{"loses objects", func(r *apiextensionsv1.ConversionReview) { r.Response.ConvertedObjects = nil }, `conversion webhook for sea.example.com/v1, Kind=Boat returned 0 objects, expected 1`},
		{"another's answer", func(r *apiextensionsv1.ConversionReview) { r.Response.UID = "u" }, `got "u"`},
		{"renames", func(r *apiextensionsv1.ConversionReview) {
			r.Response.ConvertedObjects[0].Object.(*unstructured.Unstructured).SetName("x")
		}, `conversion webhook for sea.example.com/v1, Kind=Boat returned invalid object: must have the same name: b != x`},
		{"another version", func(r *apiextensionsv1.ConversionReview) {
			r.Response.ConvertedObjects[0].Object.(*unstructured.Unstructured).SetAPIVersion("sea.example.com/v3")
		}, `returned invalid object at index 0: invalid groupVersion (expected sea.example.com/v2, received sea.example.com/v3)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCustomServer(t)
			conversion, _ := harbour(t, tc.change)
			c.define(strings.Replace(boats, "CONVERSION", conversion, 1))
			c.do("POST", boatsV1, jsonType, boat("v1", "b", `"feet":9`))
			code, doc, _ := c.do("GET", boatsV2+"/b", "", "")
			if text := fmt.Sprint(doc["message"]); code != 500 || !strings.Contains(text, tc.want) {
				t.Errorf("answer %d %s, want %s", code, text, tc.want)
			}
			if code, _, _ = c.do("GET", boatsV1+"/b", "", ""); code != 200 {
				t.Errorf("the stored version needs no conversion: %d", code)
			}
		})
	}
}

package apiserver_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/resource"
)

// thorough is a custom kind whose updates are all left to the library.
type thorough struct{ resource.Custom }

// claimsOf are an object's claims by owner, without their times, which are also
// what they are sorted by.
func claimsOf(t *testing.T, u *unstructured.Unstructured) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, e := range u.GetManagedFields() {
		e.Time = nil
		var set any
		if err := json.Unmarshal(e.FieldsV1.Raw, &set); err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprint(e.Manager, e.Operation, e.APIVersion, e.Subresource)] = set
	}
	return out
}

// TestQuickClaims holds the short way of settling who owns what against the
// library's: over many random updates by several managers both must agree.
func TestQuickClaims(t *testing.T) {
	var mu sync.Mutex
	var kind resource.Custom
	c := newCustomServerTelling(t, func(kinds []resource.Kind) {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range kinds {
			kind = k.(resource.Custom)
		}
	})
	c.define(crontabs)
	mu.Lock()
	k := kind
	mu.Unlock()
	fields := apply.New(openapi.NewMerger())
	rng := rand.New(rand.NewPCG(7, 7))
	doc, ok := api.ReadLoose([]byte(realTab("x")))
	if !ok {
		t.Fatal("no plain object")
	}
	live := &unstructured.Unstructured{Object: doc}
	unstructured.SetNestedStringMap(live.Object, map[string]string{"a": "1", "b": "2"}, "metadata", "labels")
	if err := fields.Update(k, nil, "", nil, live, "first"); err != nil {
		t.Fatal(err)
	}
	live.SetUID("u")
	short := 0
	for round := range 400 {
		next := live.DeepCopy()
		for range 1 + rng.IntN(3) {
			change(rng, next.Object)
		}
		if rng.IntN(3) == 0 {
			next.SetManagedFields(nil)
		}
		manager := []string{"first", "second"}[min(1, rng.IntN(4)/3)]
		sub := ""
		if rng.IntN(5) == 0 {
			sub = "status"
		}
		slow := next.DeepCopy()
		if err := fields.Update(k, nil, sub, live, next, manager); err != nil {
			t.Fatal(err)
		}
		if err := apply.New(openapi.NewMerger()).Update(thorough{k}, nil, sub, live, slow, manager); err != nil {
			t.Fatal(err)
		}
		if got, want := claimsOf(t, next), claimsOf(t, slow); !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d, %s %s:\n got %v\nwant %v", round, manager, sub, got, want)
		}
		if paths, ok := k.(interface {
			Changed(a, b api.Object) ([][]string, bool)
		}).Changed(live, next); ok && len(paths) > 0 {
			short++
		}
		live = next
	}
	if short < 50 {
		t.Errorf("only %d updates were simple: the test says little", short)
	}
}

// change changes something at random.
func change(rng *rand.Rand, obj map[string]any) {
	spec := obj["spec"].(map[string]any)
	rules := spec["rules"].([]any)
	text := fmt.Sprint("v", rng.IntN(1000))
	switch rng.IntN(12) {
	case 0:
		spec["replicas"] = int64(1 + rng.IntN(9))
	case 1:
		spec["image"] = text
	case 2, 3:
		rules[rng.IntN(len(rules))].(map[string]any)["value"] = text
	case 4:
		spec["hosts"] = []any{"a.example.com", text}
	case 5:
		spec["rules"] = append(rules, map[string]any{"name": "r" + text, "value": text})
	case 6:
		if len(rules) > 2 {
			spec["rules"] = rules[1:]
		}
	case 7:
		unstructured.SetNestedField(obj, text, "metadata", "labels", "a")
	case 8:
		unstructured.SetNestedField(obj, text, "metadata", "annotations", "note")
	case 9:
		unstructured.SetNestedField(obj, text, "status", "phase")
	case 10:
		spec["extra"] = map[string]any{"x": text}
	case 11:
		delete(spec, "minReplicas")
	}
}

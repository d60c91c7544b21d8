package apply

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/resource"
)

// differ is a kind that can name what changed between two objects, as paths in
// managedFields; false when the change is not of the simplest sort.
type differ interface {
	Changed(before, now api.Object) (paths [][]string, ok bool)
}

// maxUpdaters is how many managers may have updated an object before the library
// joins the oldest.
const maxUpdaters = 10

// quick settles the commonest update of an unstructured object: a manager gives
// new values to fields that are its own already, and nobody else's. Then all
// claims stay as they are but for the time of his. It reports whether the update
// was that.
func quick(k resource.Kind, gv schema.GroupVersion, sub string, before api.Object, obj *unstructured.Unstructured, manager string) bool {
	d, ok := k.(differ)
	live, isLoose := before.(*unstructured.Unstructured)
	if !ok || !isLoose || live.GetUID() == "" {
		return false
	}
	was, _ := live.Object["metadata"].(map[string]any)
	is, _ := obj.Object["metadata"].(map[string]any)
	claims, _ := was["managedFields"].([]any)
	if len(claims) == 0 || len(claims) > maxUpdaters || is == nil {
		return false
	}
	if asked, ok := is["managedFields"]; ok && !api.SameLoose(asked, was["managedFields"]) {
		return false
	}
	paths, ok := d.Changed(live, obj)
	if !ok || len(paths) == 0 || reset(k, gv, sub, paths) {
		return false
	}
	mine := -1
	for i, c := range claims {
		c, ok := c.(map[string]any)
		tree, isTree := c["fieldsV1"].(map[string]any)
		if !ok || !isTree || c["fieldsType"] != "FieldsV1" {
			return false
		}
		own := owned(tree, paths)
		if isMine(c, gv, sub, manager) {
			if mine = i; own != len(paths) {
				return false
			}
		} else if own != 0 {
			return false
		}
	}
	if mine < 0 {
		return false
	}
	is["managedFields"] = renewed(claims, mine)
	return true
}

// reset says whether a change concerns what updates of a subresource never own.
func reset(k resource.Kind, gv schema.GroupVersion, sub string, paths [][]string) bool {
	custom, ok := k.(resource.Custom)
	if !ok {
		return true
	}
	for _, field := range custom.ResetFields(sub)[gv.String()] {
		first, _, _ := strings.Cut(field, ".")
		if slices.ContainsFunc(paths, func(p []string) bool { return p[0] == "f:"+first }) {
			return true
		}
	}
	return false
}

func isMine(claim map[string]any, gv schema.GroupVersion, sub, manager string) bool {
	of, _ := claim["subresource"].(string)
	return claim["manager"] == manager && claim["operation"] == string(metav1.ManagedFieldsOperationUpdate) &&
		claim["apiVersion"] == gv.String() && of == sub
}

// owned counts the paths that a claim has.
func owned(tree map[string]any, paths [][]string) int {
	n := 0
	for _, path := range paths {
		at := tree
		for _, element := range path {
			if at, _ = at[element].(map[string]any); at == nil {
				break
			}
		}
		if at == nil {
			continue
		}
		if _, itself := at["."]; itself || len(at) == 0 {
			n++
		}
	}
	return n
}

// renewed are the claims with the time of one set to now, in the order in which
// the library has them.
func renewed(claims []any, mine int) []any {
	out := make([]any, len(claims))
	for i, c := range claims {
		c := c.(map[string]any)
		next := make(map[string]any, len(c))
		for key, v := range c {
			next[key] = v // what is owned is shared: nobody writes into it
		}
		if i == mine {
			next["time"] = clock.Now().UTC().Format(time.RFC3339)
		}
		out[i] = next
	}
	slices.SortStableFunc(out, func(a, b any) int {
		x, y := a.(map[string]any), b.(map[string]any)
		for _, key := range []string{"operation", "time", "manager", "apiVersion", "subresource"} {
			s, _ := x[key].(string)
			t, _ := y[key].(string)
			if c := strings.Compare(s, t); c != 0 {
				return c
			}
		}
		return 0
	})
	return out
}

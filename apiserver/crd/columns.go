package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"

	"github.com/sampan-dev/sampan/resource"
)

// path finds a value in an object by a JSON path. The ordinary ones, of names
// and dots alone, are walked without the library.
type path struct {
	steps []string
	mu    sync.Mutex // the library's paths keep state while they search
	lib   *jsonpath.JSONPath
}

var plainPath = regexp.MustCompile(`^(\.[A-Za-z_][A-Za-z0-9_-]*)+$`)

func newPath(text string) (*path, error) {
	if plainPath.MatchString(text) {
		return &path{steps: strings.Split(text[1:], ".")}, nil
	}
	p := jsonpath.New(text).AllowMissingKeys(true)
	if err := p.Parse("{" + text + "}"); err != nil {
		return nil, err
	}
	return &path{lib: p}, nil
}

// find returns the first value found.
func (p *path) find(obj map[string]any) (any, bool) {
	if p.lib == nil {
		var v any = obj
		for _, s := range p.steps {
			m, ok := v.(map[string]any)
			if !ok {
				return nil, false
			}
			if v, ok = m[s]; !ok {
				return nil, false
			}
		}
		return v, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	found, err := p.lib.FindResults(obj)
	if err != nil || len(found) == 0 || len(found[0]) == 0 || !found[0][0].IsValid() {
		return nil, false
	}
	return found[0][0].Interface(), true
}

// text is the value as a field selector compares it.
func (p *path) text(obj map[string]any) string {
	v, ok := p.find(obj)
	if !ok || v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

func fieldsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) map[string]*path {
	out := map[string]*path{}
	for _, f := range v.SelectableFields {
		if p, err := newPath(f.JSONPath); err == nil {
			out[strings.TrimPrefix(f.JSONPath, ".")] = p
		}
	}
	return out
}

// column is a column after the name.
type column struct {
	resource.ColumnInfo
	path *path
}

// columnsOf are the columns a definition asks for, or the age. From the first
// whose path cannot be read on there are none, as upstream has it.
func columnsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) []column {
	asked := v.AdditionalPrinterColumns
	if len(asked) == 0 {
		asked = []apiextensionsv1.CustomResourceColumnDefinition{{
			Name: "Age", Type: "date", Description: resource.Doc(metav1.ObjectMeta{}, "creationTimestamp"), JSONPath: ".metadata.creationTimestamp",
		}}
	}
	var out []column
	for _, c := range asked {
		p, err := newPath(c.JSONPath)
		if err != nil {
			break
		}
		i := resource.ColumnInfo{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority}
		if i.Description == "" {
			i.Description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		out = append(out, column{i, p})
	}
	return out
}

// cell is the column's value for an object; nil when it has none.
func (c *column) cell(obj map[string]any, now time.Time) any {
	v, ok := c.path.find(obj)
	if !ok {
		return nil
	}
	if c.Type == "string" {
		return printed(v)
	}
	return cellOf(c.Type, v, now)
}

// printed is a value as kubectl prints JSON paths.
func printed(v any) any {
	switch s := v.(type) {
	case nil:
		return nil
	case string:
		return s
	}
	var b bytes.Buffer
	if err := jsonpath.New("").PrintResults(&b, []reflect.Value{reflect.ValueOf(v)}); err != nil {
		return nil
	}
	return b.String()
}

func cellOf(kind string, v any, now time.Time) any {
	switch kind {
	case "integer":
		switch n := v.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case "number":
		switch n := v.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		case json.Number:
			if f, err := n.Float64(); err == nil {
				return f
			}
		}
	case "boolean":
		if b, ok := v.(bool); ok {
			return b
		}
	case "date":
		if s, ok := v.(string); ok {
			var t metav1.Time
			if t.UnmarshalQueryParameter(s) != nil {
				return "<invalid>"
			}
			return resource.Since(t, now)
		}
	}
	return nil
}

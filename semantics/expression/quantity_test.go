package expression

import (
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// A quantity is read as upstream's library reads it, but for one whose exponent
// has no end: that is none.
func TestQuantitiesAreBounded(t *testing.T) {
	env, err := Base().Env(environment.NewExpressions)
	if err != nil {
		t.Fatal(err)
	}
	if env, err = env.Extend(cel.Variable("text", cel.StringType)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		expression, text string
		want             any // or the words of an error
	}{
		{"quantity(text).isGreaterThan(quantity('1Gi'))", "2Gi", true},
		{"quantity(text).asInteger() == 3000", "3e3", true},
		{"isQuantity(text)", "3e-3", true},
		{"isQuantity(text)", "three", false},
		{"quantity(text).isInteger()", "three", "quantities must match the regular expression"},
		{"quantity(text).isInteger()", "1e-99999999999", "quantities must match the regular expression"},
		{"isQuantity(text)", "1E-99999999999", false},
		{"isQuantity(text + 'e-99999999999')", "1", false},
		{"quantity('1e-99999999999').isInteger()", "", "quantities must match the regular expression"},
	} {
		ast, issues := env.Compile(c.expression)
		if issues != nil {
			t.Fatal(issues.Err())
		}
		for _, options := range [][]cel.ProgramOption{nil, {cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost), cel.CostLimit(1000)}} {
			p, err := env.Program(ast, options...)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := p.Eval(map[string]any{"text": c.text})
			if words, bad := c.want.(string); bad {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("%s of %q: %v %v", c.expression, c.text, got, err)
				}
			} else if err != nil || got.Value() != c.want {
				t.Errorf("%s of %q: %v %v", c.expression, c.text, got, err)
			}
		}
	}
}

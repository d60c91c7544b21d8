package dynamic

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sampan-dev/sampan/kit/monster"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// FuzzConditions: an expression of CEL is true, false or an error, whatever it
// says, and costs what it may.
func FuzzConditions(f *testing.F) {
	many := "[" + strings.Repeat("'a',", 50) + "'a']"
	for _, text := range []string{
		"object.metadata.name == 'p'", "object.spec.nothing == 1", "authorizer.group('').resource('pods').check('get').allowed()", "not cel", "", "1/0 == 1", "9223372036854775807 + 1 > 0",
		many + ".all(a, " + many + ".all(b, " + many + ".all(c, " + many + ".all(d, a + b + c + d != ''))))", "'" + strings.Repeat("a", 10_000) + "'.matches('(a*)*b')", "object.metadata.name.matches('(')", strings.Repeat("(", 2000),
		strings.Repeat("!", 5000) + "true", "[" + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "] == []", "dyn(object).all(k, k != '')", "quantity('1e3').isInteger()", "quantity('1e-99999999999').isInteger()", "isQuantity('1' + 'E-9999999999')", "string(bytes('\xff')) == ''", "duration('1e9999h') > duration('0s')",
		"timestamp('99999-01-01T00:00:00Z') > timestamp('0001-01-01T00:00:00Z')", "ip('::1').isLoopback() && cidr('10.0.0.0/33').containsIP('1')", "url('%zz').getHost() == ''", "'a'.format(['%s%d%e'])", "'%1000000000d'.format([1]) == ''", "has(object.x.y.z)",
	} {
		f.Add(text)
	}
	d := deps()
	d.Authorizer = &allowed{}
	fail := admissionv1.Fail
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			return // no expression is longer
		}
		monster.Bounded(t, len(text), func() {
			r := d.Of(pod(nil))
			v, err := r.View(r.Spoken())
			if err != nil {
				t.Fatal(err)
			}
			c := NewConditions([]admissionv1.MatchCondition{{Name: "c", Expression: text}}, &fail, nil, expression.Scope{Authorizer: true})
			if ok, err := c.Match(t.Context(), v, Hit{r.Asked(), r.Spoken()}, nil); ok && err != nil {
				t.Errorf("true, and %v", err)
			}
		})
	})
}

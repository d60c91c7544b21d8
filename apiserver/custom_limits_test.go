package apiserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRulesThatCostTooMuch: a rule whose worst case is out of proportion is refused
// with the definition, in upstream's words.
func TestRulesThatCostTooMuch(t *testing.T) {
	c := newCustomServer(t)
	costly := strings.Replace(strings.ReplaceAll(crontabs, "crontabs", "dears"), "hosts:\n                type: array\n                items: {type: string}\n                x-kubernetes-list-type: set\n                maxItems: 10",
		"hosts:\n                type: array\n                items: {type: string}\n                x-kubernetes-validations:\n                - rule: self.all(a, self.all(b, self.all(c, a + b != c)))", 1)
	code, doc, _ := c.do("POST", crds, "application/yaml", costly)
	if text := fmt.Sprint(doc["message"]); code != 422 || !strings.Contains(text, "x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of") {
		t.Errorf("%d %s", code, text)
	}
}

// TestDefinitionsAreFoundSoon: how long discovery takes to show a new kind is
// printed; with processors to spare it is some milliseconds.
func TestDefinitionsAreFoundSoon(t *testing.T) {
	c := newCustomServer(t)
	began := time.Now()
	if code, doc, _ := c.do("POST", crds, "application/yaml", crontabs); code != 201 {
		t.Fatal(code, doc["message"])
	}
	within(t, "discovery shows the kind", func() bool { code, _, _ := c.do("GET", "/apis/stable.example.com/v1", "", ""); return code == 200 })
	within(t, "the kind is served", func() bool { code, _, _ := c.do("GET", tabs, "", ""); return code == 200 })
	t.Logf("discovered and served after %v", time.Since(began).Round(time.Millisecond))
}

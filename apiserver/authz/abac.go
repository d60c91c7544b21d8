package authz

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// ABAC allows what a policy file lists, one rule on each line.
type ABAC []abacRule

// abacRule is a line's spec: kind Policy of abac.authorization.kubernetes.io/v1beta1.
type abacRule struct {
	User            string `json:"user"`
	Group           string `json:"group"`
	ReadOnly        bool   `json:"readonly"`
	APIGroup        string `json:"apiGroup"`
	Resource        string `json:"resource"`
	Namespace       string `json:"namespace"`
	NonResourcePath string `json:"nonResourcePath"`
}

const (
	abacVersion = "abac.authorization.kubernetes.io/v1beta1"
	maxLine     = 1 << 20
)

// ReadABAC reads a policy file.
func ReadABAC(name string, r io.Reader) (ABAC, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	policy := ABAC{}
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		rule, err := readRule(text)
		if err != nil {
			return nil, fmt.Errorf("error reading policy file %s, line %d: %s: %w", name, n, text, err)
		}
		policy = append(policy, rule)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("error reading policy file %s: %w", name, err)
	}
	return policy, nil
}

func readRule(text string) (abacRule, error) {
	var line struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Spec       *abacRule `json:"spec"`
		abacRule             // the form without a version, from before v1.2
	}
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		return abacRule{}, err
	}
	switch {
	case line.APIVersion == abacVersion && line.Kind == "Policy":
		if line.Spec == nil {
			return abacRule{}, errors.New("spec is required")
		}
		return line.Spec.everybody(), nil
	case line.APIVersion != "" || line.Kind != "":
		return abacRule{}, fmt.Errorf("unrecognized object: %s %s", line.APIVersion, line.Kind)
	}
	r := line.abacRule
	if r.User == "" && r.Group == "" {
		r.Group = "*"
	}
	if r.Namespace == "" && r.Resource == "" {
		r.NonResourcePath = "*"
	}
	for _, f := range []*string{&r.Namespace, &r.Resource} {
		if *f == "" {
			*f = "*"
		}
	}
	r.APIGroup = "*"
	return r.everybody(), nil
}

// everybody makes a star stand for all who showed a credential.
func (r *abacRule) everybody() abacRule {
	out := *r
	if r.User == "*" || r.Group == "*" {
		out.User, out.Group = "", request.Authenticated
	}
	return out
}

// Authorize allows what any rule allows.
func (p ABAC) Authorize(_ context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	for k := range p {
		if p[k].is(u) && (!p[k].ReadOnly || readOnly(i.Verb)) && p[k].covers(i) {
			return request.Allow, "", nil
		}
	}
	return request.NoOpinion, "No policy matched.", nil
}

func readOnly(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

func (r *abacRule) is(u *request.User) bool {
	if r.User == "" && r.Group == "" {
		return false
	}
	return (r.User == "" || r.User == u.Name) && (r.Group == "" || slices.Contains(u.Groups, r.Group))
}

func (r *abacRule) covers(i *request.Info) bool {
	star := func(pattern, v string) bool { return pattern == "*" || pattern == v }
	if i.IsResource {
		return star(r.Namespace, i.Namespace) && star(r.Resource, i.Resource) && star(r.APIGroup, i.Group)
	}
	return r.NonResourcePath != "" && urlMatches(r.NonResourcePath, i.Path)
}

// Rules lists what the policy allows u in namespace.
func (p ABAC) Rules(_ context.Context, u *request.User, namespace string) (resource []request.ResourceRule, other []request.NonResourceRule, incomplete bool, err error) {
	for k := range p {
		r := &p[k]
		if !r.is(u) || r.Namespace != "*" && r.Namespace != namespace {
			continue
		}
		verbs := []string{"*"}
		if r.ReadOnly {
			verbs = []string{"get", "list", "watch"}
		}
		if r.Resource != "" {
			resource = append(resource, request.ResourceRule{Verbs: verbs, APIGroups: []string{r.APIGroup}, Resources: []string{r.Resource}})
		}
		if r.NonResourcePath != "" {
			other = append(other, request.NonResourceRule{Verbs: verbs, NonResourceURLs: []string{r.NonResourcePath}})
		}
	}
	return resource, other, false, nil
}

package flowschema

import (
	"strings"
	"testing"

	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/semantics/flow"
)

func good() *flowv1.FlowSchema {
	return &flowv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec: flowv1.FlowSchemaSpec{
			MatchingPrecedence: 50, PriorityLevelConfiguration: flowv1.PriorityLevelConfigurationReference{Name: "global-default"},
			Rules: []flowv1.PolicyRulesWithSubjects{{
				Subjects: []flowv1.Subject{{Kind: flowv1.SubjectKindUser, User: &flowv1.UserSubject{Name: "ann"}}},
				ResourceRules: []flowv1.ResourcePolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"*"}, Resources: []string{"*"},
					Namespaces: []string{"*"}, ClusterScope: true}},
			}},
		},
	}
}

func TestValidate(t *testing.T) {
	rule := func(s *flowv1.FlowSchema) *flowv1.PolicyRulesWithSubjects { return &s.Spec.Rules[0] }
	for name, c := range map[string]struct {
		change func(*flowv1.FlowSchema)
		want   string
	}{
		"good":       {func(*flowv1.FlowSchema) {}, ""},
		"precedence": {func(s *flowv1.FlowSchema) { s.Spec.MatchingPrecedence = -1 }, `spec.matchingPrecedence: Invalid value: -1: must be a positive value`},
		"too late":   {func(s *flowv1.FlowSchema) { s.Spec.MatchingPrecedence = 10001 }, `must not be greater than 10000`},
		"first":      {func(s *flowv1.FlowSchema) { s.Spec.MatchingPrecedence = 1 }, `only the schema named 'exempt' may have matchingPrecedence 1`},
		"no level":   {func(s *flowv1.FlowSchema) { s.Spec.PriorityLevelConfiguration.Name = "" }, `spec.priorityLevelConfiguration.name: Required value: must reference a priority level`},
		"no subject": {func(s *flowv1.FlowSchema) { rule(s).Subjects = nil }, `spec.rules[0].subjects: Required value: subjects must contain at least one value`},
		"no rules":   {func(s *flowv1.FlowSchema) { rule(s).ResourceRules = nil }, `spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty`},
		"two kinds": {func(s *flowv1.FlowSchema) { rule(s).Subjects[0].Group = &flowv1.GroupSubject{Name: "g"} },
			`spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'`},
		"no user":   {func(s *flowv1.FlowSchema) { rule(s).Subjects[0].User = nil }, `spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'`},
		"verb":      {func(s *flowv1.FlowSchema) { rule(s).ResourceRules[0].Verbs = []string{"feed"} }, `spec.rules[0].resourceRules[0].verbs: Unsupported value: ["feed"]`},
		"all verbs": {func(s *flowv1.FlowSchema) { rule(s).ResourceRules[0].Verbs = []string{"*", "get"} }, `if '*' is present, must not specify other verbs`},
		"namespace": {func(s *flowv1.FlowSchema) { rule(s).ResourceRules[0].Namespaces = []string{"A"} }, `each member of this list must be '*' or a DNS-1123 label; `},
		"url": {func(s *flowv1.FlowSchema) {
			rule(s).NonResourceRules = []flowv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"/a*"}}}
		}, `spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "/a*": wildcard can only do suffix matching`},
		"mandatory": {func(s *flowv1.FlowSchema) { s.Name = "catch-all" }, `spec of 'catch-all' must equal the fixed value`},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.change(s)
			errs := validate(s, nil)
			if c.want == "" && len(errs) > 0 || c.want != "" && !strings.Contains(errs.ToAggregate().Error(), c.want) {
				t.Errorf("got %v, want %q", errs, c.want)
			}
		})
	}
}

func TestWhatEveryClusterHasIsValid(t *testing.T) {
	for _, s := range append(flow.Mandatory().Schemas, flow.Suggested().Schemas...) {
		if errs := validate(s, nil); len(errs) > 0 {
			t.Errorf("%s: %v", s.Name, errs)
		}
	}
}

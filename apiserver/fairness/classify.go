package fairness

import (
	"cmp"
	"slices"
	"strings"

	flowv1 "k8s.io/api/flowcontrol/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// schema is a FlowSchema ready to be asked, with the level it leads to.
type schema struct {
	name       string
	precedence int32
	rules      []flowv1.PolicyRulesWithSubjects
	by         flowv1.FlowDistinguisherMethodType
	level      *level
	uid        []string // as a header's value; never changed
	levelUID   []string
	maxSeats   int
	flows      *flowStats
}

func compareSchemas(a, b *schema) int {
	return cmp.Or(cmp.Compare(a.precedence, b.precedence), strings.Compare(a.name, b.name))
}

// match says whether a request is of s.
func (s *schema) match(u *request.User, i *request.Info) bool {
	for k := range s.rules {
		r := &s.rules[k]
		if !slices.ContainsFunc(r.Subjects, func(sub flowv1.Subject) bool { return isSubject(u, &sub) }) {
			continue
		}
		if i.IsResource {
			for j := range r.ResourceRules {
				if matchResource(i, &r.ResourceRules[j]) {
					return true
				}
			}
			continue
		}
		for j := range r.NonResourceRules {
			if matchOther(i, &r.NonResourceRules[j]) {
				return true
			}
		}
	}
	return false
}

const accountPrefix = "system:serviceaccount:"

func isSubject(u *request.User, s *flowv1.Subject) bool {
	switch s.Kind {
	case flowv1.SubjectKindUser:
		return s.User != nil && (s.User.Name == flowv1.NameAll || s.User.Name == u.Name)
	case flowv1.SubjectKindGroup:
		return s.Group != nil && (s.Group.Name == flowv1.NameAll || slices.Contains(u.Groups, s.Group.Name))
	case flowv1.SubjectKindServiceAccount:
		if s.ServiceAccount == nil {
			return false
		}
		rest, ok := strings.CutPrefix(u.Name, accountPrefix)
		if !ok {
			return false
		}
		namespace, name, _ := strings.Cut(rest, ":")
		return namespace == s.ServiceAccount.Namespace && (s.ServiceAccount.Name == flowv1.NameAll || s.ServiceAccount.Name == name)
	}
	return false
}

// has says whether x is in list; a list of the wildcard alone has everything.
func has(list []string, x string) bool {
	if len(list) == 1 && list[0] == "*" {
		return true
	}
	return slices.Contains(list, x)
}

// hasSub says whether list has a resource or, with "resource/sub", its subresource.
func hasSub(list []string, resource, sub string) bool {
	if len(list) == 1 && list[0] == "*" {
		return true
	}
	for _, e := range list {
		if sub == "" {
			if e == resource {
				return true
			}
			continue
		}
		if rest, ok := strings.CutPrefix(e, resource); ok && len(rest) == len(sub)+1 && rest[0] == '/' && rest[1:] == sub {
			return true
		}
	}
	return false
}

func matchResource(i *request.Info, r *flowv1.ResourcePolicyRule) bool {
	if !has(r.Verbs, i.Verb) || !hasSub(r.Resources, i.Resource, i.Subresource) || !has(r.APIGroups, i.Group) {
		return false
	}
	if i.Namespace == "" {
		return r.ClusterScope
	}
	return has(r.Namespaces, i.Namespace)
}

func matchOther(i *request.Info, r *flowv1.NonResourcePolicyRule) bool {
	if !has(r.Verbs, i.Verb) {
		return false
	}
	for _, u := range r.NonResourceURLs {
		if u == "*" || u == i.Path {
			return true
		}
		// Upstream lets a path stand for all below it, with or without a wildcard.
		u = strings.TrimSuffix(strings.TrimSuffix(u, "*"), "/")
		if rest, ok := strings.CutPrefix(i.Path, u); ok && strings.HasPrefix(rest, "/") {
			return true
		}
	}
	return false
}

// distinguisher is what tells the flows of a schema apart.
func (s *schema) distinguisher(u *request.User, i *request.Info) string {
	switch s.by {
	case flowv1.FlowDistinguisherMethodByUserType:
		return u.Name
	case flowv1.FlowDistinguisherMethodByNamespaceType:
		return i.Namespace
	}
	return ""
}

// hash numbers a flow. The seed keeps strangers from choosing names that meet
// others in their queues.
func hash(seed uint64, schema, flow string) uint64 {
	const prime = 1099511628211
	h := seed ^ 14695981039346656037
	for i := range len(schema) {
		h = (h ^ uint64(schema[i])) * prime
	}
	h *= prime
	for i := range len(flow) {
		h = (h ^ uint64(flow[i])) * prime
	}
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// deal chooses hand different numbers below n, by what h says, into cards.
func deal(h uint64, n int, cards []int) {
	for i := range cards {
		left := uint64(n - i)
		c := int(h % left)
		h /= left
		// c counts among those left: step over the ones dealt, which are kept sorted.
		at := 0
		for at < i && c >= cards[at] {
			c++
			at++
		}
		copy(cards[at+1:i+1], cards[at:i])
		cards[at] = c
	}
}

package authn

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// The headers by which a user asks to act as another.
const (
	asUser  = "Impersonate-User"
	asUID   = "Impersonate-Uid"
	asGroup = "Impersonate-Group"
	asExtra = "Impersonate-Extra-"
)

// Impersonate returns whom the request acts as: u itself, or the one its headers
// name, when u may in any of the ways there are. The headers are removed. Errors
// are for the user.
func Impersonate(r *http.Request, u *request.User, authz request.Authorizer) (*request.User, error) {
	w := &request.User{Name: r.Header.Get(asUser), UID: r.Header.Get(asUID), Groups: slices.Clone(r.Header.Values(asGroup)), Extra: map[string][]string{}}
	readExtra(r.Header, asExtra, w.Extra)
	if w.Name == "" {
		if w.UID != "" || len(w.Groups) > 0 || len(w.Extra) > 0 {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %s without impersonating a user name", without(w.UID, w.Groups, w.Extra)))
		}
		return u, nil
	}
	i := request.InfoFrom(r.Context())
	var first error
	for _, m := range modes() {
		if !m.fits(u, w) {
			continue
		}
		err := m.check(r, u, w, i, authz)
		if err == nil {
			for k := range r.Header {
				if k == asUser || k == asUID || k == asGroup || hasPrefixFold(k, asExtra) {
					delete(r.Header, k)
				}
			}
			return m.become(w), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// become is the identity taken: with the groups that follow from its name.
func (m mode) become(w *request.User) *request.User {
	out := *w
	if _, ok := nodeOf(w.Name); ok && m.name != "" {
		out.Groups = []string{request.Nodes}
	}
	if rest, ok := strings.CutPrefix(w.Name, accountPrefix); ok && len(w.Groups) == 0 {
		ns, _, _ := strings.Cut(rest, ":")
		out.Groups = []string{request.ServiceAccounts, request.ServiceAccounts + ":" + ns}
	}
	add := request.Authenticated
	if w.Name == request.Anonymous {
		add = request.Unauthenticated
	}
	if !slices.Contains(out.Groups, request.Unauthenticated) && !slices.Contains(out.Groups, add) {
		out.Groups = append(out.Groups, add)
	}
	return &out
}

// mode is a way to act as another. All but the last are constrained: they ask
// also whether the request at hand may be made in that way.
type mode struct {
	name string // "" is the way of old: it allows all that the other may
	fits func(u, w *request.User) bool
}

// modes are the ways, in the order in which they are tried.
func modes() []mode {
	return []mode{
		{"associated-node", func(u, w *request.User) bool {
			node, ok := nodeOf(w.Name)
			_, _, account := accountOf(u.Name)
			on := u.Extra[extraPrefix+"node-name"]
			return ok && account && nameOnly(w) && len(on) == 1 && on[0] == node
		}},
		{"arbitrary-node", func(_, w *request.User) bool { _, ok := nodeOf(w.Name); return ok && nameOnly(w) }},
		{"serviceaccount", func(_, w *request.User) bool { _, _, ok := accountOf(w.Name); return ok && nameOnly(w) }},
		{"user-info", func(_, w *request.User) bool {
			_, node := nodeOf(w.Name)
			_, _, account := accountOf(w.Name)
			return !node && !account
		}},
		{"", func(_, _ *request.User) bool { return true }},
	}
}

func nameOnly(w *request.User) bool { return w.UID == "" && len(w.Groups) == 0 && len(w.Extra) == 0 }

func nodeOf(name string) (string, bool) {
	node, ok := strings.CutPrefix(name, "system:node:")
	return node, ok && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0
}

func accountOf(name string) (namespace, account string, ok bool) {
	rest, ok := strings.CutPrefix(name, accountPrefix)
	namespace, account, two := strings.Cut(rest, ":")
	return namespace, account, ok && two && len(apivalidation.ValidateNamespaceName(namespace, false)) == 0 && len(apivalidation.ValidateServiceAccountName(account, false)) == 0
}

// check asks for every right that the way takes.
func (m mode) check(r *http.Request, u, w *request.User, i *request.Info, authz request.Authorizer) error {
	ask := func(i *request.Info) error {
		d, reason, err := authz.Authorize(r.Context(), u, i)
		if d == request.Allow {
			return nil
		}
		if err != nil {
			reason = strings.TrimSuffix(err.Error()+": "+reason, ": ")
		}
		return request.Forbidden(u, i, reason)
	}
	if m.name == "associated-node" { // the pod's own node: which it is has been checked, and is nobody's to judge
		plain := *u
		plain.Extra = map[string][]string{extraPrefix + "associated-node-keys": slices.Sorted(maps.Keys(u.Extra))}
		u = &plain
	}
	if m.name != "" {
		on := *i
		on.Verb = "impersonate-on:" + m.name + ":" + i.Verb
		if err := ask(&on); err != nil {
			return err
		}
	}
	asks, err := m.asked(u, w)
	if err != nil {
		return err
	}
	for _, i := range asks {
		if err := ask(i); err != nil {
			return err
		}
	}
	return nil
}

// asked lists the rights that being w takes, in upstream's order.
func (m mode) asked(u, w *request.User) (out []*request.Info, err error) {
	verb, group := "impersonate", ""
	if m.name != "" {
		verb, group = "impersonate:"+m.name, authenticationGroup
	}
	right := func(group, resource, sub, namespace, name string) *request.Info {
		return &request.Info{IsResource: true, Verb: verb, Group: group, Version: "v1", Resource: resource, Subresource: sub, Namespace: namespace, Name: name}
	}
	node, isNode := nodeOf(w.Name)
	ns, account, isAccount := accountOf(w.Name)
	switch {
	case isAccount:
		out = append(out, right(group, "serviceaccounts", "", ns, account))
	case isNode && m.name == "associated-node":
		out = append(out, right(group, "nodes", "", "", "*"))
	case isNode && m.name != "":
		out = append(out, right(group, "nodes", "", "", node))
	default:
		out = append(out, right(group, "users", "", "", w.Name))
	}
	if w.UID != "" {
		out = append(out, right(authenticationGroup, "uids", "", "", w.UID))
	}
	for _, g := range w.Groups {
		i := right(group, "groups", "", "", g)
		switch {
		case m.name != "" && g == "":
			return nil, request.Forbidden(u, i, "impersonating the empty string group is not allowed")
		case m.name != "" && g == request.Masters:
			return nil, request.Forbidden(u, i, "impersonating the system:masters group is not allowed")
		}
		out = append(out, i)
	}
	for _, k := range slices.Sorted(maps.Keys(w.Extra)) {
		if err := checkExtra(k, w.Extra[k]); m.name != "" && err != nil {
			return nil, request.Forbidden(u, right(authenticationGroup, "userextras", "", "", ""), err.Error())
		}
		for _, v := range w.Extra[k] {
			out = append(out, right(authenticationGroup, "userextras", k, "", v))
		}
	}
	return out, nil
}

const authenticationGroup = "authentication.k8s.io"

// checkExtra is stricter than the way of old can be.
func checkExtra(key string, values []string) error {
	if key == "" {
		return errors.New("impersonating the empty string key in extra is not allowed")
	}
	if err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); err != nil {
		return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", err)
	}
	if len(values) == 0 || slices.Contains(values, "") {
		return errors.New("impersonating the empty string value in extra is not allowed")
	}
	return nil
}

func without(uid string, groups []string, extra map[string][]string) string {
	var parts []string
	for _, g := range groups {
		parts = append(parts, "{Group "+g+"}")
	}
	for k, vs := range extra {
		for _, v := range vs {
			parts = append(parts, "{UserExtra "+k+"="+v+"}")
		}
	}
	if uid != "" {
		parts = append(parts, "{UID "+uid+"}")
	}
	return "[" + strings.Join(parts, " ") + "]"
}

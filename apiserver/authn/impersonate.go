package authn

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// The headers by which a user asks to act as another.
const (
	asUser  = "Impersonate-User"
	asUID   = "Impersonate-Uid"
	asGroup = "Impersonate-Group"
	asExtra = "Impersonate-Extra-"
)

// Impersonate returns whom the request acts as: u itself, or the one its
// headers name, when u may. The headers are removed. Errors are for the user.
func Impersonate(r *http.Request, u *request.User, authz request.Authorizer) (*request.User, error) {
	name, uid := r.Header.Get(asUser), r.Header.Get(asUID)
	groups := r.Header.Values(asGroup)
	extra := map[string][]string{}
	readExtra(r.Header, asExtra, extra)
	if name == "" {
		if uid != "" || len(groups) > 0 || len(extra) > 0 {
			return nil, apierrors.NewInternalError(fmt.Errorf("requested %s without impersonating a user", without(uid, groups, extra)))
		}
		return u, nil
	}
	asks := asked(name, uid, groups, extra)
	for _, i := range asks {
		d, reason, err := authz.Authorize(r.Context(), u, i)
		if err != nil || d != request.Allow {
			return nil, request.Forbidden(u, i, reason)
		}
	}
	out := &request.User{Name: name, UID: uid, Groups: slices.Clone(groups), Extra: extra}
	if rest, ok := strings.CutPrefix(name, accountPrefix); ok && len(groups) == 0 {
		ns, _, _ := strings.Cut(rest, ":")
		out.Groups = []string{request.ServiceAccounts, request.ServiceAccounts + ":" + ns}
	}
	switch {
	case name != request.Anonymous && !slices.Contains(out.Groups, request.Unauthenticated) && !slices.Contains(out.Groups, request.Authenticated):
		out.Groups = append(out.Groups, request.Authenticated)
	case name == request.Anonymous && !slices.Contains(out.Groups, request.Unauthenticated) && !slices.Contains(out.Groups, request.Authenticated):
		out.Groups = append(out.Groups, request.Unauthenticated)
	}
	for k := range r.Header {
		if k == asUser || k == asUID || k == asGroup || hasPrefixFold(k, asExtra) {
			delete(r.Header, k)
		}
	}
	return out, nil
}

// asked lists the rights an impersonation takes, in upstream's order.
func asked(name, uid string, groups []string, extra map[string][]string) (out []*request.Info) {
	ask := func(group, version, resource, sub, namespace, name string) {
		out = append(out, &request.Info{
			IsResource: true, Verb: "impersonate", Group: group, Version: version,
			Resource: resource, Subresource: sub, Namespace: namespace, Name: name,
		})
	}
	if rest, ok := strings.CutPrefix(name, accountPrefix); ok && strings.Count(rest, ":") == 1 {
		ns, sa, _ := strings.Cut(rest, ":")
		ask("", "v1", "serviceaccounts", "", ns, sa)
	} else {
		ask("", "v1", "users", "", "", name)
	}
	for _, g := range groups {
		ask("", "v1", "groups", "", "", g)
	}
	keys := make([]string, 0, len(extra))
	for k := range extra {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		for _, v := range extra[k] {
			ask("authentication.k8s.io", "v1", "userextras", k, "", v)
		}
	}
	if uid != "" {
		ask("authentication.k8s.io", "v1", "uids", "", "", uid)
	}
	return out
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

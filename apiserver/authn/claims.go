package authn

import (
	"context"
	"errors"
	"fmt"
	"io"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	authncel "k8s.io/apiserver/pkg/authentication/cel"
	apicel "k8s.io/apiserver/pkg/cel"

	"github.com/sampan-dev/sampan/apiserver/request"
)

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("answer is longer than %d bytes", limit)
	}
	return b, err
}

// user maps claims to a user, by names of claims or by expressions, and checks
// the rules for both.
func (a *JWT) user(ctx context.Context, c claimSet) (*request.User, error) {
	var values traits.Mapper
	if m := a.cel; m.Username != nil || m.Groups != nil || m.UID != nil || m.Extra != nil || m.ClaimValidationRules != nil {
		plain := map[string]any{}
		for name, raw := range c {
			var v any
			if err := utiljson.Unmarshal(raw, &v); err != nil {
				return nil, fmt.Errorf("claim %q failed to unmarshal: %w", name, err)
			}
			plain[name] = v
		}
		values = asMapper(plain)
	}
	u := &request.User{Extra: map[string][]string{}}
	var err error
	if u.Name, err = a.username(ctx, c, values); err != nil {
		return nil, err
	}
	if u.Groups, err = a.groups(ctx, c, values); err != nil {
		return nil, err
	}
	if u.UID, err = a.uid(ctx, c, values); err != nil {
		return nil, err
	}
	if err := a.extra(ctx, c, values, u.Extra); err != nil {
		return nil, err
	}
	if err := a.rules(ctx, c, values); err != nil {
		return nil, err
	}
	return u, a.userRules(ctx, u)
}

func (a *JWT) username(ctx context.Context, c claimSet, values traits.Mapper) (string, error) {
	if a.cel.Username != nil {
		r, err := a.cel.Username.EvalClaimMapping(ctx, values)
		if err != nil {
			return "", fmt.Errorf("error evaluating username claim expression: %w", err)
		}
		name, ok := r.EvalResult.Value().(string)
		if !ok {
			return "", errors.New("error evaluating username claim expression: username claim expression must return a string")
		}
		if name == "" {
			return "", errors.New("empty username via CEL expression is not allowed")
		}
		return name, nil
	}
	m := a.c.ClaimMappings.Username
	var name string
	if err := c.read(m.Claim, &name); err != nil {
		return "", fmt.Errorf("parse username claims %q: %w", m.Claim, err)
	}
	if _, has := c["email_verified"]; m.Claim == "email" && has {
		var verified bool
		if err := c.read("email_verified", &verified); err != nil {
			return "", fmt.Errorf("parse 'email_verified' claim: %w", err)
		}
		if !verified {
			return "", errors.New("email not verified")
		}
	}
	if m.Prefix != nil {
		name = *m.Prefix + name
	}
	return name, nil
}

func (a *JWT) groups(ctx context.Context, c claimSet, values traits.Mapper) ([]string, error) {
	m := a.c.ClaimMappings.Groups
	if _, has := c[m.Claim]; has && m.Claim != "" {
		list, err := c.texts(m.Claim)
		if err != nil {
			return nil, fmt.Errorf("parse groups claim %q: %w", m.Claim, err)
		}
		for i := range list {
			if m.Prefix != nil {
				list[i] = *m.Prefix + list[i]
			}
		}
		return list, nil
	}
	if a.cel.Groups == nil {
		return nil, nil
	}
	r, err := a.cel.Groups.EvalClaimMapping(ctx, values)
	if err != nil {
		return nil, fmt.Errorf("error evaluating group claim expression: %w", err)
	}
	list, err := texts(r.EvalResult)
	if err != nil {
		return nil, fmt.Errorf("error evaluating group claim expression: %w", err)
	}
	return list, nil
}

func (a *JWT) uid(ctx context.Context, c claimSet, values traits.Mapper) (string, error) {
	if name := a.c.ClaimMappings.UID.Claim; name != "" {
		var uid string
		if err := c.read(name, &uid); err != nil {
			return "", fmt.Errorf("parse uid claim %q: %w", name, err)
		}
		return uid, nil
	}
	if a.cel.UID == nil {
		return "", nil
	}
	r, err := a.cel.UID.EvalClaimMapping(ctx, values)
	if err != nil {
		return "", fmt.Errorf("error evaluating uid claim expression: %w", err)
	}
	uid, ok := r.EvalResult.Value().(string)
	if !ok {
		return "", errors.New("error evaluating uid claim expression: uid claim expression must return a string")
	}
	return uid, nil
}

func (a *JWT) extra(ctx context.Context, c claimSet, values traits.Mapper, into map[string][]string) error {
	var id string
	if c.read("jti", &id) == nil && id != "" {
		into[CredentialID] = []string{"JTI=" + id}
	}
	if a.cel.Extra == nil {
		return nil
	}
	results, err := a.cel.Extra.EvalClaimMappings(ctx, values)
	if err != nil {
		return err
	}
	for _, r := range results {
		m, ok := r.ExpressionAccessor.(*authncel.ExtraMappingExpression)
		if !ok {
			continue
		}
		list, err := texts(r.EvalResult)
		if err != nil {
			return fmt.Errorf("error evaluating extra claim expression: %s: %w", m.Expression, err)
		}
		if len(list) > 0 {
			into[m.Key] = list
		}
	}
	return nil
}

// rules checks what claims must be.
func (a *JWT) rules(ctx context.Context, c claimSet, values traits.Mapper) error {
	for claim, want := range a.need {
		if _, ok := c[claim]; !ok {
			return fmt.Errorf("required claim %s not present in ID token", claim)
		}
		var got string
		if err := c.read(claim, &got); err != nil {
			return fmt.Errorf("parse claim %s: %w", claim, err)
		}
		if got != want {
			return fmt.Errorf("required claim %s value does not match. Got = %s, want = %s", claim, got, want)
		}
	}
	if a.cel.ClaimValidationRules == nil {
		return nil
	}
	results, err := a.cel.ClaimValidationRules.EvalClaimMappings(ctx, values)
	if err == nil {
		err = passed(results)
	}
	if err != nil {
		return fmt.Errorf("error evaluating claim validation expression: %w", err)
	}
	return nil
}

func (a *JWT) userRules(ctx context.Context, u *request.User) error {
	if a.cel.UserValidationRules == nil {
		return nil
	}
	results, err := a.cel.UserValidationRules.EvalUser(ctx, asMapper(map[string]any{"username": u.Name, "uid": u.UID, "groups": u.Groups, "extra": u.Extra}))
	if err == nil {
		err = passed(results)
	}
	if err != nil {
		return fmt.Errorf("error evaluating user info validation rule: %w", err)
	}
	return nil
}

func passed(results []authncel.EvaluationResult) error {
	for _, r := range results {
		ok, is := r.EvalResult.Value().(bool)
		if !is {
			return errors.New("validation expression must return a boolean")
		}
		if ok {
			continue
		}
		message := ""
		switch e := r.ExpressionAccessor.(type) {
		case *authncel.ClaimValidationCondition:
			message = e.Message
		case *authncel.UserValidationCondition:
			message = e.Message
		}
		return fmt.Errorf("validation expression '%s' failed: %s", r.ExpressionAccessor.GetExpression(), message)
	}
	return nil
}

var errNoTexts = errors.New("expression must return a string or a list of strings")

// texts reads what an expression gave: one text, several, or none. Empty ones do
// not count.
func texts(v ref.Val) (out []string, err error) {
	switch v.Type().TypeName() {
	case celgo.NullType.TypeName():
		return nil, nil
	case celgo.StringType.TypeName():
		if s, _ := v.Value().(string); s != "" {
			out = append(out, s)
		}
		return out, nil
	}
	list, ok := v.(traits.Lister)
	if !ok {
		return nil, errNoTexts
	}
	for it := list.Iterator(); it.HasNext() == types.True; {
		s, ok := it.Next().Value().(string)
		if !ok {
			return nil, errNoTexts
		}
		if s != "" {
			out = append(out, s)
		}
	}
	return out, nil
}

// asMapper shows a map to expressions, which reach names that are no identifiers
// by escaping them: claims.example__dot__com.
func asMapper(m map[string]any) traits.Mapper {
	return &unescaping{types.DefaultTypeAdapter.NativeToValue(m).(traits.Mapper)}
}

type unescaping struct{ traits.Mapper }

// Find looks for the escaped name's meaning.
func (m *unescaping) Find(key ref.Val) (ref.Val, bool) {
	if s, ok := key.(types.String); ok {
		if plain, ok := apicel.Unescape(string(s)); ok && plain != string(s) {
			key = types.String(plain)
		}
	}
	v, ok := m.Mapper.Find(key)
	return unescape(v), ok
}

type unescapingList struct{ traits.Lister }

// Get returns an element with what is in it.
func (l *unescapingList) Get(i ref.Val) ref.Val { return unescape(l.Lister.Get(i)) }

func unescape(v ref.Val) ref.Val {
	switch v := v.(type) {
	case traits.Mapper:
		return &unescaping{v}
	case traits.Lister:
		return &unescapingList{v}
	}
	return v
}

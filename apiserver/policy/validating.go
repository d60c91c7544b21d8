package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Validating is the plugin ValidatingAdmissionPolicy.
type Validating struct{ *Policies }

// Name implements request.Plugin.
func (Validating) Name() string { return ValidatingName }

// Handles implements request.Plugin.
func (Validating) Handles(request.Operation) bool { return true }

const (
	// maxFailures bounds the audit annotation that lists failures.
	maxFailures = 50
	// maxNote bounds one value of an audit annotation.
	maxNote = 10 << 10
)

// denial is a policy's refusal; binding is empty when the policy itself is broken.
type denial struct {
	policy, binding, message string
	reason                   metav1.StatusReason
}

// failure is one entry of the audit annotation about failed validations.
type failure struct {
	Message           string                         `json:"message"`
	Policy            string                         `json:"policy"`
	Binding           string                         `json:"binding"`
	ExpressionIndex   int                            `json:"expressionIndex"`
	ValidationActions []admissionv1.ValidationAction `json:"validationActions"`
}

// judging is one request before the validating policies.
type judging struct {
	p        *Policies
	r        *dynamic.Request
	denials  []denial
	failures []failure
	notes    map[string][]string
}

// Validate asks all policies and refuses for the first that denies.
func (v Validating) Validate(ctx context.Context, a *request.Attributes) error {
	if err := v.guard(ctx, a); err != nil {
		return err
	}
	rules := v.source.of(validatingSort)
	if len(rules) == 0 || dynamic.Exempt(a.Resource.GroupResource()) {
		return nil
	}
	j := &judging{p: v.Policies, r: v.deps.Of(a)}
	for _, r := range rules {
		if err := j.rule(ctx, r); err != nil {
			return err
		}
	}
	if len(j.failures) > 0 && request.Audited(ctx) {
		if text, err := json.Marshal(j.failures[:min(len(j.failures), maxFailures)]); err == nil {
			request.Annotate(ctx, "validation.policy.admission.k8s.io/validation_failure", string(text))
		}
	}
	if len(j.denials) == 0 {
		return nil
	}
	return j.refusal(&j.denials[0])
}

// rule asks one policy.
func (j *judging) rule(ctx context.Context, r *rule) error {
	hit, ok, err := j.r.Match(ctx, r.match)
	if err != nil {
		j.broken(r, nil, err)
		return nil
	}
	if !ok {
		return nil
	}
	j.notes = map[string][]string{}
	for _, b := range r.bindings {
		if _, ok, err := j.r.Match(ctx, b.match); err != nil {
			j.broken(r, b, err)
			continue
		} else if !ok {
			continue
		}
		if err := j.binding(ctx, r, b, hit); err != nil {
			return err
		}
	}
	for key, values := range j.notes {
		request.Annotate(ctx, r.name+"/"+key, strings.Join(values, ", "))
	}
	return nil
}

func (j *judging) binding(ctx context.Context, r *rule, b *bound, hit dynamic.Hit) error {
	params, err := j.p.params(ctx, r.param, b.ref, j.r.Space)
	if err != nil {
		j.broken(r, b, err)
		return nil
	}
	if len(params) == 0 {
		return nil
	}
	view, err := j.r.View(hit.Kind)
	if err != nil {
		j.broken(r, b, fmt.Errorf("failed to convert object version: %w", err))
		return nil
	}
	ns, err := j.r.Namespace(ctx)
	if err != nil {
		return err
	}
	for _, param := range params {
		findings, notes := r.validation().evaluate(ctx, &question{view, hit, param, ns}, j.r, r.closed())
		for i := range findings {
			j.take(ctx, r, b, &findings[i])
		}
		for _, n := range notes {
			if n.err != "" {
				j.p.metrics.check(r.name, b.name, invalid, "deny", 0)
				j.denials = append(j.denials, denial{r.name, b.name, n.err, ""})
				continue
			}
			if value := n.value[:min(len(n.value), maxNote)]; !slices.Contains(j.notes[n.key], value) {
				j.notes[n.key] = append(j.notes[n.key], value)
			}
		}
	}
	return nil
}

// take does about a finding what the binding wants done.
func (j *judging) take(ctx context.Context, r *rule, b *bound, f *finding) {
	if f.admit {
		if f.failed {
			j.p.metrics.check(r.name, b.name, f.errorType(), "allow", f.took)
		}
		return
	}
	for _, action := range b.actions {
		switch action {
		case admissionv1.Deny:
			j.denials = append(j.denials, denial{r.name, b.name, f.message, f.reason})
			j.p.metrics.check(r.name, b.name, f.errorType(), "deny", f.took)
		case admissionv1.Audit:
			j.failures = append(j.failures, failure{f.message, r.name, b.name, f.index, b.actions})
			j.p.metrics.check(r.name, b.name, f.errorType(), "audit", f.took)
		case admissionv1.Warn:
			request.Warn(ctx, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", r.name, b.name, f.message))
			j.p.metrics.check(r.name, b.name, f.errorType(), "warn", f.took)
		}
	}
}

// broken notes that a policy, or a binding of it, cannot be evaluated.
func (j *judging) broken(r *rule, b *bound, err error) {
	if !r.closed() {
		return
	}
	d := denial{policy: r.name, message: "failed to configure policy: " + err.Error()}
	if b != nil {
		d.binding, d.message = b.name, "failed to configure binding: "+err.Error()
	}
	j.denials = append(j.denials, d)
}

func (j *judging) refusal(d *denial) error {
	text := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", d.policy, d.message)
	if d.binding != "" {
		text = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", d.policy, d.binding, d.message)
	}
	err := apierrors.NewForbidden(j.r.Asked().GroupResource(), called(j.r), errors.New(text))
	err.ErrStatus.Reason = d.reason
	if d.reason == "" {
		err.ErrStatus.Reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Code = codeOf(err.ErrStatus.Reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	return err
}

// called is the object's name as refusals show it.
func called(r *dynamic.Request) string {
	if r.Name != "" {
		return r.Name
	}
	if r.Object != nil && r.Object.GetGenerateName() != "" {
		return r.Object.GetGenerateName()
	}
	return "Unknown"
}

func codeOf(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

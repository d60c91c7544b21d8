package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/cel-go/common/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	celerrors "k8s.io/apiserver/pkg/cel"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/semantics/expression"
)

// validation is what a validating policy's expressions compiled to.
type validation struct {
	err                           error // nothing could be compiled at all
	spec                          *admissionv1.ValidatingAdmissionPolicySpec
	conditions                    *dynamic.Conditions
	checks, messages, annotations plugincel.ConditionEvaluator
}

func newValidation(s *admissionv1.ValidatingAdmissionPolicySpec) *validation {
	c, err := expression.Composed()
	if err != nil {
		return &validation{err: err}
	}
	full := expression.Scope{Params: s.ParamKind != nil, Authorizer: true, Stored: true}
	bare := full
	bare.Authorizer = false
	declare(c, s.Variables, full)
	checks := make([]plugincel.ExpressionAccessor, len(s.Validations))
	messages := make([]plugincel.ExpressionAccessor, len(s.Validations))
	for i := range s.Validations {
		checks[i] = expression.Condition("", s.Validations[i].Expression)
		if text := s.Validations[i].MessageExpression; text != "" {
			messages[i] = expression.Message(text)
		}
	}
	annotations := make([]plugincel.ExpressionAccessor, len(s.AuditAnnotations))
	for i, a := range s.AuditAnnotations {
		annotations[i] = expression.Annotation(a.Key, a.ValueExpression)
	}
	return &validation{
		spec:        s,
		conditions:  dynamic.NewConditions(s.MatchConditions, s.FailurePolicy, c, full),
		checks:      c.CompileCondition(checks, full.Declarations(), full.Mode()),
		messages:    c.CompileCondition(messages, bare.Declarations(), bare.Mode()),
		annotations: c.CompileCondition(annotations, full.Declarations(), full.Mode()),
	}
}

// declare compiles a policy's variables.
func declare(c *plugincel.CompositedCompiler, list []admissionv1.Variable, s expression.Scope) {
	for _, v := range list {
		c.CompileAndStoreVariable(expression.Variable(v.Name, v.Expression), s.Declarations(), s.Mode())
	}
}

// finding is what one validation found.
type finding struct {
	index   int
	admit   bool
	failed  bool // it could not be evaluated
	message string
	reason  metav1.StatusReason
	took    time.Duration
}

// note is one audit annotation.
type note struct{ key, value, err string }

// question is what a policy is evaluated with.
type question struct {
	view      *dynamic.View
	hit       dynamic.Hit
	param     runtime.Object
	namespace *corev1.Namespace
}

// evaluate asks all validations. closed says what an error means.
func (v *validation) evaluate(ctx context.Context, q *question, r *dynamic.Request, closed bool) ([]finding, []note) {
	broken := func(err error) []finding { return []finding{{admit: !closed, failed: true, message: err.Error()}} }
	if v.err != nil {
		return broken(v.err), nil
	}
	ok, err := v.conditions.Match(ctx, q.view, q.hit, q.param)
	if err != nil {
		return broken(err), nil
	}
	if !ok {
		return nil, nil
	}
	attrs, rq, ns := q.view.Versioned(), q.view.Review(q.hit), plugincel.CreateNamespaceObject(q.namespace)
	bare := plugincel.OptionalVariableBindings{VersionedParams: q.param}
	full := plugincel.OptionalVariableBindings{VersionedParams: q.param, Authorizer: r.Authorizer()}
	results, left, err := v.checks.ForInput(ctx, attrs, rq, full, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return broken(err), nil
	}
	texts, _, textErr := v.messages.ForInput(ctx, attrs, rq, bare, ns, left)
	out := make([]finding, len(results))
	for i := range results {
		out[i] = v.finding(i, &results[i], texts, textErr, closed)
	}
	values, _, err := v.annotations.ForInput(ctx, attrs, rq, full, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return broken(err), nil
	}
	return out, v.notes(values, closed)
}

func (v *validation) finding(i int, r *plugincel.EvaluationResult, texts []plugincel.EvaluationResult, textErr error, closed bool) finding {
	f := finding{index: i, took: r.Elapsed}
	switch {
	case r.Error != nil:
		f.failed, f.admit, f.message = true, !closed, r.Error.Error()
	case errors.Is(textErr, celerrors.ErrInternal) || errors.Is(textErr, celerrors.ErrOutOfBudget):
		f.failed, f.admit, f.message = true, !closed, fmt.Sprintf("failed messageExpression: %s", textErr)
	case r.EvalResult == types.True:
		f.admit = true
	default:
		f.reason = metav1.StatusReasonInvalid
		if why := v.spec.Validations[i].Reason; why != nil {
			f.reason = *why
		}
		f.message = v.message(i, texts)
	}
	return f
}

// message words a refusal: by the expression for it, the fixed text, or the
// validation itself.
func (v *validation) message(i int, texts []plugincel.EvaluationResult) string {
	one := &v.spec.Validations[i]
	if i < len(texts) && texts[i].Error == nil && texts[i].EvalResult != nil {
		if s, ok := texts[i].EvalResult.Value().(string); ok {
			s = strings.TrimSpace(s)
			if s != "" && len(s) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(s, "\n") {
				return s
			}
		}
	}
	if s := strings.TrimSpace(one.Message); s != "" {
		return s
	}
	return "failed expression: " + strings.TrimSpace(one.Expression)
}

func (v *validation) notes(values []plugincel.EvaluationResult, closed bool) []note {
	var out []note
	for i := range values {
		a, r := &v.spec.AuditAnnotations[i], &values[i]
		switch {
		case r.Error != nil && closed:
			out = append(out, note{key: a.Key, err: r.Error.Error()})
		case r.Error != nil, r.EvalResult == nil:
		case r.EvalResult.Type() == types.StringType:
			if s := strings.TrimSpace(r.EvalResult.Value().(string)); s != "" {
				out = append(out, note{key: a.Key, value: s})
			}
		case r.EvalResult.Type() == types.NullType:
		default:
			out = append(out, note{key: a.Key, err: fmt.Sprintf("valueExpression '%v' resulted in unsupported return type: %v. "+
				"Return type must be either string or null.", a.ValueExpression, r.EvalResult.Type())})
		}
	}
	return out
}

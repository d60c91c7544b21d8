package dynamic

import (
	"context"

	"github.com/google/cel-go/common/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/sampan-dev/sampan/semantics/expression"
)

// Conditions are match conditions, ready to be asked.
type Conditions struct {
	evaluator plugincel.ConditionEvaluator
	open      bool // an error means no match
}

// NewConditions compiles conditions; nil when there are none. compiler knows
// the policy's variables, nil for those who have none.
func NewConditions(list []admissionv1.MatchCondition, failure *admissionv1.FailurePolicyType, compiler plugincel.ConditionCompiler, scope expression.Scope) *Conditions {
	if len(list) == 0 {
		return nil
	}
	if compiler == nil {
		compiler = expression.Conditions()
	}
	texts := make([]plugincel.ExpressionAccessor, len(list))
	for i, c := range list {
		texts[i] = expression.Condition(c.Name, c.Expression)
	}
	scope.Stored = true
	return &Conditions{
		evaluator: compiler.CompileCondition(texts, scope.Declarations(), scope.Mode()),
		open:      failure != nil && *failure == admissionv1.Ignore,
	}
}

// Match asks the conditions: one that is false ends it, else errors count.
func (c *Conditions) Match(ctx context.Context, v *View, hit Hit, params runtime.Object) (bool, error) {
	if c == nil {
		return true, nil
	}
	results, _, err := c.evaluator.ForInput(ctx, v.Versioned(), v.Review(hit), plugincel.OptionalVariableBindings{
		VersionedParams: params, Authorizer: v.request.Authorizer(),
	}, nil, celconfig.RuntimeCELCostBudgetMatchConditions)
	if err != nil {
		return false, c.failed(err)
	}
	var errs []error
	for _, r := range results {
		if r.Error != nil {
			errs = append(errs, r.Error)
		} else if r.EvalResult == types.False {
			return false, nil
		}
	}
	if len(errs) > 0 {
		return false, c.failed(utilerrors.NewAggregate(errs))
	}
	return true, nil
}

func (c *Conditions) failed(err error) error {
	if c.open {
		return nil
	}
	return err
}

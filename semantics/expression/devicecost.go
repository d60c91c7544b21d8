package expression

import (
	"errors"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apicel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

// CheckSelector judges an expression about a device that is to be stored.
func CheckSelector(path *field.Path, text string) field.ErrorList {
	if len(text) > devicev1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(path, "", devicev1.CELSelectorExpressionMaxLength)}
	}
	env, err := devicesOf(environment.NewExpressions)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	ast, issues := env.Compile(text)
	if issues != nil {
		return field.ErrorList{field.Invalid(path, text, "compilation failed: "+issues.String())}
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.AnyType {
		return field.ErrorList{field.Invalid(path, text, "must evaluate to bool or the unknown type, not "+t.String())}
	}
	cost, err := env.EstimateCost(ast, &library.CostEstimator{SizeEstimator: deviceSizes{}})
	if err != nil {
		return field.ErrorList{field.InternalError(path, errors.New("cost estimation failed: "+err.Error()))}
	}
	if cost.Max > devicev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(path, "too complex, exceeds cost limit")}
	}
	return nil
}

// deviceSizes knows how large what a device has can be.
type deviceSizes struct{}

func (deviceSizes) EstimateSize(e checker.AstNode) *checker.SizeEstimate {
	path := e.Path()
	if len(path) == 0 || path[0] != "device" {
		return nil
	}
	at := deviceType
	for _, name := range path[1:] {
		var next *apicel.DeclType
		switch name {
		case "@items", "@values":
			next = at.ElemType
		case "@keys":
			next = at.KeyType
		default:
			if f, ok := at.Fields[name]; ok {
				next = f.Type
			} else if at.ElemType == attributeValue { // whatever the attribute's name
				next = attributeValue
			}
		}
		if next == nil {
			return nil
		}
		at = next
	}
	return &checker.SizeEstimate{Min: 0, Max: uint64(at.MaxElements)}
}

func (deviceSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

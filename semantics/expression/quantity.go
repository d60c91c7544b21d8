package expression

import (
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/version"
	apicel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sampan-dev/sampan/api"
)

// The library's functions that read a quantity out of a text.
var quantities = map[string]func(resource.Quantity, error) ref.Val{
	"quantity": func(q resource.Quantity, err error) ref.Val {
		if err != nil {
			return types.WrapErr(err)
		}
		return apicel.Quantity{Quantity: &q}
	},
	"isQuantity": func(_ resource.Quantity, err error) ref.Val { return types.Bool(err == nil) },
}

// bounded replaces, in every program of an environment, the functions that read a
// quantity: the library's are busy without bound with an immense exponent, and
// nothing can interrupt them.
func bounded(set *environment.EnvSet) (*environment.EnvSet, error) {
	return set.Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		ProgramOptions:    []cel.ProgramOption{cel.CustomDecoratorV2(boundQuantities)},
	})
}

func boundQuantities(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	result := quantities[call.Function()]
	if result == nil {
		return i, nil
	}
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		text, ok := args[0].Value().(string)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		if api.Immense([]byte(text)) {
			return result(resource.Quantity{}, resource.ErrFormatWrong)
		}
		q, err := resource.ParseQuantity(text)
		return result(q, err)
	}), nil
}

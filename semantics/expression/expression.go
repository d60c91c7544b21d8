// Package expression compiles the CEL expressions that users write about
// admission: conditions of webhooks, validations and mutations of policies.
//
// Job: the environments, made when the first expression is met and not before;
// compiling with upstream's words about what is wrong.
//
// Not its job: evaluating against a request (apiserver/dynamic), the schemas
// of custom resources.
//
// Invariants: what was accepted once stays accepted: expressions that are
// already stored compile in the wider environment.
package expression

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celerrors "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Accessor is one expression and the types it may have.
type Accessor struct {
	Name, Text string
	Types      []*cel.Type
	// Of is what the expression belongs to, for those who evaluate it.
	Of any
}

// GetExpression returns the text.
func (a *Accessor) GetExpression() string { return a.Text }

// ReturnTypes are those the expression may have.
func (a *Accessor) ReturnTypes() []*cel.Type { return a.Types }

// GetName names a variable.
func (a *Accessor) GetName() string { return a.Name }

// Condition is an expression that is true or false: a match condition, a validation.
func Condition(name, text string) *Accessor {
	return &Accessor{Name: name, Text: text, Types: []*cel.Type{cel.BoolType}}
}

// Message is an expression that words a refusal.
func Message(text string) *Accessor {
	return &Accessor{Text: text, Types: []*cel.Type{cel.StringType}}
}

// Annotation is an expression that gives the value of an audit annotation, or null.
func Annotation(key, text string) *Accessor {
	return &Accessor{Name: key, Text: text, Types: []*cel.Type{cel.StringType, cel.NullType}}
}

// Variable is an expression of any type, usable in others as variables.NAME.
func Variable(name, text string) *Accessor {
	return &Accessor{Name: name, Text: text, Types: []*cel.Type{cel.AnyType, cel.DynType}}
}

// Patch is an expression that gives a JSON patch.
func Patch(text string) *Accessor {
	return &Accessor{Text: text, Types: []*cel.Type{cel.ListType(types.NewObjectType("JSONPatch"))}}
}

// Configuration is an expression that gives an apply configuration.
func Configuration(text string) *Accessor {
	return &Accessor{Text: text, Types: []*cel.Type{types.NewObjectType("Object")}}
}

// Scope says which variables an expression sees.
type Scope struct {
	Params, Authorizer, Patches bool
	// Stored is set for expressions that are in a stored object already.
	Stored bool
}

// Declarations are the scope as the compiler wants it.
func (s Scope) Declarations() plugincel.OptionalVariableDeclarations {
	return plugincel.OptionalVariableDeclarations{HasParams: s.Params, HasAuthorizer: s.Authorizer, HasPatchTypes: s.Patches}
}

// Mode is the environment that the scope calls for.
func (s Scope) Mode() environment.Type {
	if s.Stored {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

// Base is the environment that all expressions share.
var Base = sync.OnceValue(func() *environment.EnvSet {
	set, err := bounded(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		panic(err) // as Must does: there is no input
	}
	return set
})

// plain compiles expressions that know no variables of their policy.
var plain = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(Base()) })

// Conditions compiles expressions that know no variables of their policy.
var Conditions = sync.OnceValue(func() plugincel.ConditionCompiler { return plugincel.NewConditionCompiler(Base()) })

// Composed returns a fresh compiler for one policy, which remembers its variables.
func Composed() (*plugincel.CompositedCompiler, error) {
	return plugincel.NewCompositedCompiler(Base())
}

// Checker judges the expressions of one object, which may have variables.
type Checker struct {
	composed *plugincel.CompositedCompiler
	compiler plugincel.Compiler
}

// NewChecker returns a checker; composed when the object has variables.
func NewChecker(composed bool) *Checker {
	if composed {
		if c, err := Composed(); err == nil {
			return &Checker{composed: c, compiler: c}
		}
	}
	return &Checker{compiler: plain()}
}

// Check compiles an expression and words what is wrong with it. shown is the
// text as the user wrote it.
func (c *Checker) Check(path *field.Path, a *Accessor, s Scope, shown string) field.ErrorList {
	return wrong(path, shown, c.compiler.CompileCELExpression(a, s.Declarations(), s.Mode()).Error)
}

// Declare compiles a variable for those that come after it.
func (c *Checker) Declare(path *field.Path, a *Accessor, s Scope) field.ErrorList {
	if c.composed == nil {
		return field.ErrorList{field.InternalError(path, errors.New("variable composition is not allowed"))}
	}
	return wrong(path, a.Text, c.composed.CompileAndStoreVariable(a, s.Declarations(), s.Mode()).Error)
}

func wrong(path *field.Path, text string, err *celerrors.Error) field.ErrorList {
	if err == nil {
		return nil
	}
	switch err.Type {
	case celerrors.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, err.Detail)}
	case celerrors.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(path, text, err.Detail)}
	case celerrors.ErrorTypeInternal:
		return field.ErrorList{field.InternalError(path, err)}
	}
	return field.ErrorList{field.InternalError(path, fmt.Errorf("unsupported error type: %w", err))}
}

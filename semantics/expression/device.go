package expression

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/version"
	apicel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/utils/ptr"
)

// Selector is a compiled expression about a device.
type Selector struct {
	program cel.Program
	env     *cel.Env
}

// attributeValue and deviceType are what expressions about devices are of.
var attributeValue, deviceType = describeDevice()

func describeDevice() (attribute, device *apicel.DeclType) {
	short := func(t *apicel.DeclType, most uint64) *apicel.DeclType {
		c := *t
		c.MaxElements = int64(most)
		return &c
	}
	const most = devicev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice
	domain, id := short(apicel.StringType, devicev1.DeviceMaxDomainLength), short(apicel.StringType, devicev1.DeviceMaxIDLength)
	nested := func(t *apicel.DeclType) *apicel.DeclType {
		return apicel.NewMapType(domain, apicel.NewMapType(id, t, most), most)
	}
	attribute = short(apicel.AnyType, devicev1.DeviceAttributeMaxValueLength)
	fields := map[string]*apicel.DeclField{}
	for name, t := range map[string]*apicel.DeclType{
		"driver": short(apicel.StringType, devicev1.DriverNameMaxLength), "allowMultipleAllocations": short(apicel.BoolType, 1),
		"attributes": nested(attribute), "capacity": nested(apicel.QuantityDeclType),
	} {
		fields[name] = apicel.NewDeclField(name, t, true, nil, nil)
	}
	return attribute, apicel.NewObjectType("kubernetes.DRADevice", fields)
}

// deviceSet has the environments of expressions about devices.
var deviceSet = sync.OnceValues(func() (*environment.EnvSet, error) {
	return Base().Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 31),
		EnvOptions:        []cel.EnvOption{ext.Bindings(ext.BindingsVersion(0)), cel.Variable("device", deviceType.CelType())},
		DeclTypes:         []*apicel.DeclType{deviceType},
	})
})

// devices is the environment of those that are stored.
var devices = sync.OnceValues(func() (*cel.Env, error) { return devicesOf(environment.StoredExpressions) })

func devicesOf(kind environment.Type) (*cel.Env, error) {
	set, err := deviceSet()
	if err != nil {
		return nil, err
	}
	return set.Env(kind)
}

// versions makes a version of its text.
var versions = sync.OnceValues(func() (cel.Program, error) {
	env, err := devices()
	if err != nil {
		return nil, err
	}
	env, err = env.Extend(cel.Variable("text", cel.StringType))
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile("semver(text)")
	if issues != nil {
		return nil, issues.Err()
	}
	return env.Program(ast)
})

// CompileSelector compiles an expression about a device.
func CompileSelector(text string) (*Selector, error) {
	env, err := devices()
	if err != nil {
		return nil, fmt.Errorf("unexpected error loading CEL environment: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues != nil {
		return nil, fmt.Errorf("compilation failed: %s", issues.String())
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.AnyType {
		return nil, fmt.Errorf("must evaluate to bool or the unknown type, not %v", t)
	}
	p, err := env.Program(ast, cel.CostLimit(devicev1.CELSelectorExpressionMaxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("program instantiation failed: %w", err)
	}
	return &Selector{p, env}, nil
}

// Matches evaluates the expression on a driver's device.
func (s *Selector) Matches(ctx context.Context, driver string, d *devicev1.Device) (bool, error) {
	attributes, capacity := map[string]map[string]any{}, map[string]map[string]any{}
	put := func(m map[string]map[string]any, name devicev1.QualifiedName, v any) {
		domain, id := driver, string(name)
		if before, after, ok := strings.Cut(id, "/"); ok {
			domain, id = before, after
		}
		if m[domain] == nil {
			m[domain] = map[string]any{}
		}
		m[domain][id] = v
	}
	for name, a := range d.Attributes {
		v, err := attribute(&a)
		if err != nil {
			return false, fmt.Errorf("attribute %s: %w", name, err)
		}
		put(attributes, name, v)
	}
	for name, c := range d.Capacity {
		put(capacity, name, apicel.Quantity{Quantity: &c.Value})
	}
	out, _, err := s.program.ContextEval(ctx, map[string]any{"device": map[string]any{
		"driver": driver, "allowMultipleAllocations": ptr.Deref(d.AllowMultipleAllocations, false),
		"attributes": s.lenient(attributes), "capacity": s.lenient(capacity),
	}})
	if err != nil {
		return false, fmt.Errorf("CEL runtime error: %w", err)
	}
	v, err := out.ConvertToNative(reflect.TypeFor[bool]())
	if err != nil {
		return false, fmt.Errorf("CEL result of type %s could not be converted to bool: %w", out.Type().TypeName(), err)
	}
	return v.(bool), nil
}

func attribute(a *devicev1.DeviceAttribute) (any, error) {
	switch {
	case a.IntValue != nil:
		return *a.IntValue, nil
	case a.BoolValue != nil:
		return *a.BoolValue, nil
	case a.StringValue != nil:
		return *a.StringValue, nil
	case a.VersionValue != nil:
		p, err := versions()
		if err != nil {
			return nil, err
		}
		v, _, err := p.Eval(map[string]any{"text": *a.VersionValue})
		if err != nil {
			return nil, fmt.Errorf("parse semantic version: %w", err)
		}
		return v, nil
	}
	return nil, fmt.Errorf("unsupported attribute value")
}

// lenient is a map in which a domain that is not there has nothing, instead of
// being an error.
func (s *Selector) lenient(m map[string]map[string]any) traits.Mapper {
	plain := map[string]any{}
	for k, v := range maps.All(m) {
		plain[k] = v
	}
	a := s.env.CELTypeAdapter()
	return lenientMap{types.NewStringInterfaceMap(a, plain), a.NativeToValue(map[string]any{})}
}

type lenientMap struct {
	traits.Mapper
	none ref.Val
}

// Find and Get are the map's, with the default.
func (m lenientMap) Find(key ref.Val) (ref.Val, bool) {
	if v, ok := m.Mapper.Find(key); ok {
		return v, true
	}
	return m.none, true
}

func (m lenientMap) Get(key ref.Val) ref.Val {
	v, _ := m.Find(key)
	return v
}

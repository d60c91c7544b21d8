package all

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"
	rbacv1alpha1 "k8s.io/api/rbac/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/api"
	def "github.com/sampan-dev/sampan/resource"
)

// fill sets every field of v to something that is not its zero value.
func fill(v reflect.Value, name string, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		*p = metav1.Unix(1700000000, 0)
		return
	case *metav1.MicroTime:
		*p = metav1.MicroTime{Time: time.Unix(1700000000, 5000).Local()}
		return
	case *resource.Quantity:
		*p = resource.MustParse("12500m")
		return
	case *intstr.IntOrString:
		*p = intstr.FromString("12%")
		return
	case *runtime.RawExtension:
		p.Raw = []byte(`{"spec":{"replicas":3}}`)
		return
	case *apiextensionsv1.JSONSchemaProps: // recursive in many ways
		*p = apiextensionsv1.JSONSchemaProps{Type: "object", Description: name}
		return
	case *apiextensionsv1beta1.JSONSchemaProps:
		*p = apiextensionsv1beta1.JSONSchemaProps{Type: "object", Description: name}
		return
	case *metav1.FieldsV1:
		p.Raw = []byte(`{"f:spec":{}}`)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), name, depth-1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), v.Type().Field(i).Name, depth)
			}
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), name, depth-1)
		}
	case reflect.Map:
		if depth > 0 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, name+"Key", depth-1)
			fill(value, name, depth-1)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		switch {
		case strings.Contains(name, "CIDR"), strings.HasSuffix(name, "Ranges"):
			name = "10.0.0.0/24"
		case strings.Contains(name, "IP"), name == "Nameservers", name == "Addresses":
			name = "10.0.0.1"
		}
		v.SetString(name)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(7 + len(name)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	}
}

func filled(obj api.Object) api.Object {
	fill(reflect.ValueOf(obj).Elem(), "Value", 8)
	obj.SetManagedFields(nil)
	// The two places of a host's name always agree.
	if slice, ok := obj.(*discoveryv1beta1.EndpointSlice); ok {
		slice.Endpoints[0].Topology["kubernetes.io/hostname"] = *slice.Endpoints[0].NodeName
	}
	// What all versions have in common is said once.
	if crd, ok := obj.(*apiextensionsv1beta1.CustomResourceDefinition); ok {
		v := &crd.Spec.Versions[0]
		crd.Spec.Version, v.Schema, v.Subresources, v.AdditionalPrinterColumns, v.SelectableFields = v.Name, nil, nil, nil, nil
	}
	// The kind of a subject says its group.
	switch b := obj.(type) {
	case *rbacv1alpha1.RoleBinding:
		b.Subjects[0].Kind, b.Subjects[0].APIVersion = "User", rbacv1alpha1.SchemeGroupVersion.String()
	case *rbacv1alpha1.ClusterRoleBinding:
		b.Subjects[0].Kind, b.Subjects[0].APIVersion = "ServiceAccount", "v1"
	}
	return obj
}

func TestListedOnce(t *testing.T) {
	seen := map[string]bool{}
	prefixes := map[string]string{}
	for _, k := range Kinds() {
		i := k.Info()
		name := i.GroupResource().String()
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
		if other, ok := prefixes[i.Prefix]; ok && !i.Virtual {
			t.Errorf("%s and %s are stored below one prefix %q", name, other, i.Prefix)
		}
		if !i.Virtual {
			prefixes[i.Prefix] = name
		}
	}
}

// Empty and full objects alike must pass through every rule without a panic,
// and what defaults filled in they must leave alone the next time.
func TestEveryRuleBearsAnything(t *testing.T) {
	now := time.Unix(1700000100, 0)
	for _, k := range Kinds() {
		t.Run(k.Info().GroupResource().String(), func(t *testing.T) {
			for _, obj := range []api.Object{k.New(), filled(k.New())} {
				k.Default(obj)
				once := obj.DeepCopyObject().(api.Object)
				k.Default(obj)
				if !equality.Semantic.DeepEqual(once, obj) {
					t.Errorf("defaults are not idempotent")
				}
				prev := obj.DeepCopyObject().(api.Object)
				r := &def.Request{Now: now}
				k.Prepare(r, obj, nil)
				k.Prepare(r, obj, prev)
				k.Validate(obj, nil)
				k.Validate(obj, prev)
				k.Warnings(obj, nil)
				k.Warnings(obj, prev)
				k.ValidateName("a", false)
				k.SpecChanged(obj, prev)
				k.Grace(obj, nil)
				if cells := k.Cells(obj, now); len(cells) != len(k.Info().Columns) {
					t.Errorf("%d cells for %d columns", len(cells), len(k.Info().Columns))
				}
				for _, f := range k.Info().Fields {
					if _, ok := k.Field(obj, f); !ok {
						t.Errorf("field %s cannot be selected", f)
					}
				}
				for _, s := range k.Info().Subs {
					sub, _ := k.Sub(s.Name)
					next := obj.DeepCopyObject().(api.Object)
					sub.Prepare(r, next, prev)
					sub.Validate(next, prev)
					sub.Warnings(next, prev)
				}
				if k.Info().HasScale {
					k.SetScale(obj, 5)
					if spec, status := k.Scale(obj); spec.Replicas != 5 || status == nil {
						t.Errorf("scale reads %v after 5 was set", spec)
					}
				}
			}
		})
	}
}

// An object of another version must come back as it was written.
func TestVersionsRoundTrip(t *testing.T) {
	for _, k := range Kinds() {
		for _, v := range k.Info().Also {
			t.Run(fmt.Sprintf("%s.%s.%s", k.Info().Plural, v.Version, v.Group), func(t *testing.T) {
				src := filled(v.New())
				want := src.DeepCopyObject().(api.Object)
				stored, err := v.Store(src)
				if err != nil {
					t.Fatal(err)
				}
				if reflect.TypeOf(stored) != reflect.TypeOf(k.New()) {
					t.Fatalf("stored as %T", stored)
				}
				if !equality.Semantic.DeepEqual(src, want) {
					t.Error("storing modified its source")
				}
				back, err := v.Show(stored)
				if err != nil {
					t.Fatal(err)
				}
				// The kind is the server's to set.
				want.GetObjectKind().SetGroupVersionKind(back.GetObjectKind().GroupVersionKind())
				if !equality.Semantic.DeepEqual(back, want) {
					t.Errorf("%s", differences("", reflect.ValueOf(want), reflect.ValueOf(back)))
				}
				if v.Default != nil {
					v.Default(v.New())
				}
			})
		}
	}
}

// differences names the fields in which two values of one type differ.
func differences(path string, a, b reflect.Value) string {
	if equality.Semantic.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	switch {
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		return differences(path, a.Elem(), b.Elem())
	case a.Kind() == reflect.Struct && path != "":
		out := ""
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() {
				out += differences(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		}
		return out
	case a.Kind() == reflect.Struct:
		return differences(a.Type().Name(), a, b)
	case a.Kind() == reflect.Slice && a.Len() == b.Len():
		out := ""
		for i := range a.Len() {
			out += differences(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
		}
		return out
	}
	return fmt.Sprintf("%s: %v, want %v\n", path, b, a)
}

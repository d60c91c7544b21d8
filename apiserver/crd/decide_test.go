package crd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func crdOf(plural, kind string, short ...string) *definition {
	d := &definition{ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.com", Generation: 3}}
	d.Spec.Group = "example.com"
	d.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List", ShortNames: short}
	d.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true}}
	return d
}

func accepted(d *definition) *definition {
	d.Status.AcceptedNames = d.Spec.Names
	return d
}

func told(d *definition, kind apiextensionsv1.CustomResourceDefinitionConditionType) string {
	c := apihelpers.FindCRDCondition(d, kind)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
}

func judge(d *definition, t taken, now metav1.Time) *definition {
	return decide(d, facts{taken: func() taken { return t }, structure: decideStructure(d), now: now})
}

func TestNames(t *testing.T) {
	now := metav1.NewTime(time.Unix(1700000000, 0))
	for _, tc := range []struct {
		name        string
		one, other  *definition
		names, made string
	}{
		{"alone", crdOf("foos", "Foo"), accepted(crdOf("bars", "Bar")), "True NoConflicts: no conflicts found", "True InitialNamesAccepted: the initial names have been accepted"},
		{"plural", crdOf("foos", "Foo"), accepted(crdOf("foos", "Bar")), `False PluralConflict: "foos" is already in use`, "False NotAccepted: not all names are accepted"},
		{"singular is another's short name", crdOf("foos", "Foo"), accepted(crdOf("bars", "Bar", "foo")), `False SingularConflict: "foo" is already in use`, "False NotAccepted: not all names are accepted"},
		{"short name", crdOf("foos", "Foo", "b", "f"), accepted(crdOf("bars", "Bar", "b")), `False ShortNamesConflict: "b" is already in use`, "False NotAccepted: not all names are accepted"},
		{"kind is another's list", crdOf("foos", "BarList"), accepted(crdOf("bars", "Bar")), `False KindConflict: "BarList" is already in use`, "False NotAccepted: not all names are accepted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := map[string]*definition{"one": tc.one, "other": tc.other}
			got := judge(tc.one, takenIn("example.com", "one", all), now)
			if s := told(got, apiextensionsv1.NamesAccepted); s != tc.names {
				t.Errorf("names: %s, want %s", s, tc.names)
			}
			if s := told(got, apiextensionsv1.Established); s != tc.made {
				t.Errorf("established: %s, want %s", s, tc.made)
			}
			if again := judge(got, takenIn("example.com", "one", all), metav1.NewTime(now.Add(time.Hour))); told(again, apiextensionsv1.NamesAccepted) != tc.names ||
				!apihelpers.FindCRDCondition(again, apiextensionsv1.NamesAccepted).LastTransitionTime.Equal(&now) {
				t.Errorf("deciding again changed something: %v", again.Status.Conditions)
			}
			if served(got) != strings.HasPrefix(tc.names, "True") {
				t.Errorf("served: %v", served(got))
			}
		})
	}
}

func TestWhatIsEstablishedStays(t *testing.T) {
	now := metav1.NewTime(time.Unix(1700000000, 0))
	one := judge(crdOf("foos", "Foo"), taken{}, now)
	one.Spec.Names.ShortNames = []string{"f"}
	got := judge(one, taken{resources: map[string]bool{"f": true}}, now)
	if told(got, apiextensionsv1.NamesAccepted) != `False ShortNamesConflict: "f" is already in use` || !strings.HasPrefix(told(got, apiextensionsv1.Established), "True") || !served(got) {
		t.Errorf("conditions %v", got.Status.Conditions)
	}
	if len(got.Status.AcceptedNames.ShortNames) != 0 {
		t.Errorf("names %v", got.Status.AcceptedNames)
	}
}

func TestOldSchemasAndForeignGroups(t *testing.T) {
	now := metav1.NewTime(time.Unix(1700000000, 0))
	d := crdOf("foos", "Foo")
	d.Spec.PreserveUnknownFields = true
	if s := told(judge(d, taken{}, now), apiextensionsv1.NonStructuralSchema); s != "True Violations: spec.preserveUnknownFields: Invalid value: true: must be false" {
		t.Error(s)
	}
	d = crdOf("foos", "Foo")
	d.Spec.Group = "foo.k8s.io"
	if s := told(judge(d, taken{}, now), apiextensionsv1.KubernetesAPIApprovalPolicyConformant); !strings.HasPrefix(s, "False MissingAnnotation: protected groups must have approval annotation") {
		t.Error(s)
	}
	d.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "https://example.com/approved"}
	if s := told(judge(d, taken{}, now), apiextensionsv1.KubernetesAPIApprovalPolicyConformant); !strings.HasPrefix(s, "True ApprovedAnnotation") {
		t.Error(s)
	}
	d = crdOf("foos", "Foo")
	d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: "Webhook", Webhook: &apiextensionsv1.WebhookConversion{ClientConfig: &apiextensionsv1.WebhookClientConfig{CABundle: []byte("no certificate")}}}
	if s := told(judge(d, taken{}, now), apiextensionsv1.Established); s != "False InvalidCABundle: The conversion webhook CABundle is invalid" {
		t.Error(s)
	}
}

func TestColumns(t *testing.T) {
	now := time.Unix(1700003600, 0)
	obj := map[string]any{
		"metadata": map[string]any{"creationTimestamp": "2023-11-14T22:13:20Z"},
		"spec":     map[string]any{"n": int64(3), "f": 1.5, "b": true, "s": "text", "list": []any{map[string]any{"name": "a"}, map[string]any{"name": "b"}}, "m": map[string]any{"k": "v"}},
	}
	for _, tc := range []struct {
		path, kind string
		want       any
	}{
		{".spec.n", "integer", int64(3)}, {".spec.f", "integer", int64(1)}, {".spec.n", "number", float64(3)}, {".spec.b", "boolean", true},
		{".spec.s", "string", "text"}, {".spec.n", "string", "3"}, {".spec.m", "string", `{"k":"v"}`}, {".spec.none", "string", nil},
		{".spec.list[0].name", "string", "a"}, {`.spec.list[?(@.name=="b")].name`, "string", "b"}, {".spec.s", "integer", nil},
		{".metadata.creationTimestamp", "date", "60m"}, {".spec.s", "date", "<invalid>"},
	} {
		cols := columnsOf(&apiextensionsv1.CustomResourceDefinitionVersion{AdditionalPrinterColumns: []apiextensionsv1.CustomResourceColumnDefinition{{Name: "c", Type: tc.kind, JSONPath: tc.path}}})
		if got := cols[0].cell(obj, now); got != tc.want {
			t.Errorf("%s as %s: %v (%T), want %v", tc.path, tc.kind, got, got, tc.want)
		}
	}
	if cols := columnsOf(&apiextensionsv1.CustomResourceDefinitionVersion{}); len(cols) != 1 || cols[0].Name != "Age" {
		t.Errorf("columns by default %v", cols)
	}
}

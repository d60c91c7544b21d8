package crd

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type (
	definition = apiextensionsv1.CustomResourceDefinition
	condition  = apiextensionsv1.CustomResourceDefinitionCondition
)

// taken are the names that a group's other definitions were given.
type taken struct{ resources, kinds map[string]bool }

func takenIn(group, except string, all map[string]*definition) taken {
	t := taken{map[string]bool{}, map[string]bool{}}
	for name, c := range all {
		if name == except || c.Spec.Group != group {
			continue
		}
		n := &c.Status.AcceptedNames
		for _, r := range append([]string{n.Plural, n.Singular}, n.ShortNames...) {
			t.resources[r] = r != ""
		}
		t.kinds[n.Kind], t.kinds[n.ListKind] = n.Kind != "", n.ListKind != ""
	}
	return t
}

// name gives a definition the name it asks for, unless another has it.
func (c *names) name(got *string, want string, used map[string]bool, reason string) {
	if want != *got && used[want] {
		c.refuse(reason, fmt.Errorf("%q is already in use", want))
		return
	}
	*got = want
}

// names are what a definition is called, and whether that is what it asked for.
type names struct {
	apiextensionsv1.CustomResourceDefinitionNames
	condition
}

func (c *names) refuse(reason string, err error) {
	c.condition = condition{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionFalse, Reason: reason, Message: err.Error()}
}

// decideNames accepts what names it can.
func decideNames(crd *definition, t taken) names {
	out := names{*crd.Status.AcceptedNames.DeepCopy(), condition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}}
	want := &crd.Spec.Names
	out.name(&out.Plural, want.Plural, t.resources, "PluralConflict")
	out.name(&out.Singular, want.Singular, t.resources, "SingularConflict")
	var errs []error
	for _, s := range want.ShortNames {
		if !slices.Contains(out.ShortNames, s) && t.resources[s] {
			errs = append(errs, fmt.Errorf("%q is already in use", s))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		out.refuse("ShortNamesConflict", err)
	} else {
		out.ShortNames = want.ShortNames
	}
	out.name(&out.Kind, want.Kind, t.kinds, "KindConflict")
	out.name(&out.ListKind, want.ListKind, t.kinds, "ListKindConflict")
	out.Categories = want.Categories
	return out
}

// facts are what deciding about a definition needs of the world.
type facts struct {
	taken     func() taken // asked for only when names are open
	structure *condition   // what decideStructure says
	now       metav1.Time
}

// decide returns the status a definition should have. Others' names are as they
// were last decided.
func decide(crd *definition, f facts) *definition {
	now := f.now
	next := *crd
	crd.Status.DeepCopyInto(&next.Status)
	old := apihelpers.FindCRDCondition(crd, apiextensionsv1.NamesAccepted)
	n := names{crd.Status.AcceptedNames, condition{}}
	if old != nil {
		n.condition = *old
	}
	open := old == nil || !sameNames(&crd.Spec.Names, &crd.Status.AcceptedNames)
	if open {
		n = decideNames(crd, f.taken())
		next.Status.AcceptedNames = n.CustomResourceDefinitionNames
	}
	set := func(c condition) {
		old := apihelpers.FindCRDCondition(&next, c.Type)
		if old != nil && old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message && c.Type != apiextensionsv1.NonStructuralSchema {
			return
		}
		c.LastTransitionTime, c.ObservedGeneration = now, crd.Generation
		if old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		setCondition(&next, c)
	}
	if open {
		set(n.condition)
	}
	set(decideEstablished(crd, n.Status == apiextensionsv1.ConditionTrue))
	if c := f.structure; c != nil {
		if old := apihelpers.FindCRDCondition(&next, c.Type); old == nil || old.Message != c.Message || old.Reason != c.Reason {
			set(*c)
		}
	} else {
		apihelpers.RemoveCRDCondition(&next, apiextensionsv1.NonStructuralSchema)
	}
	if c := decideApproval(crd); c != nil {
		set(*c)
	}
	return &next
}

// setCondition puts a condition in its place, with its own time.
func setCondition(crd *definition, c condition) {
	list := crd.Status.Conditions
	if i := slices.IndexFunc(list, func(o condition) bool { return o.Type == c.Type }); i >= 0 {
		list[i] = c
		return
	}
	crd.Status.Conditions = append(list, c)
}

// decideEstablished says whether the kind is served; once it was, it stays.
func decideEstablished(crd *definition, accepted bool) condition {
	c := condition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse}
	old := apihelpers.FindCRDCondition(crd, apiextensionsv1.Established)
	switch {
	case old != nil && old.Status == apiextensionsv1.ConditionTrue:
		return *old
	case !accepted && old != nil:
		return *old
	case !accepted:
		c.Reason, c.Message = "NotAccepted", "not all names are accepted"
	case badAuthorities(crd):
		c.Reason, c.Message = "InvalidCABundle", "The conversion webhook CABundle is invalid"
	default:
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted"
	}
	return c
}

// badAuthorities says that a conversion webhook's CA bundle is none.
func badAuthorities(crd *definition) bool {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil || len(bytes.TrimSpace(c.Webhook.ClientConfig.CABundle)) == 0 {
		return false
	}
	rest, found := c.Webhook.ClientConfig.CABundle, false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return !found
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return true
		}
		found = true
	}
}

// decideStructure complains of schemas that predate the rules of today.
func decideStructure(crd *definition) *condition {
	c := &condition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionUnknown}
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		in, err := internalSchema(v)
		if err != nil || in == nil {
			continue
		}
		s, err := structuralschema.NewStructural(in)
		if err != nil {
			c.Reason, c.Message = "StructuralError", fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return c
		}
		errs = append(errs, structuralschema.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "Violations", errs.ToAggregate().Error()
	return c
}

// decideApproval says of a definition in the project's own groups whether it
// was approved.
func decideApproval(crd *definition) *condition {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return nil
	}
	c := &condition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse}
	state, reason := apihelpers.GetAPIApprovalState(crd.Annotations)
	c.Message = reason
	switch state {
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return c
}

// served says whether a definition's kinds are to be asked for.
func served(crd *definition) bool {
	n := &crd.Status.AcceptedNames
	return n.Plural != "" && n.Singular != "" && n.Kind != "" && n.ListKind != "" && !strings.Contains(n.Plural, "/") &&
		(apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.NamesAccepted) || apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established))
}

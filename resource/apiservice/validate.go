package apiservice

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation/path"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func segment(name string, prefix bool) []string { return path.ValidatePathSegmentName(name, prefix) }

func validate(next, _ *service) (errs field.ErrorList) {
	s, at := &next.Spec, field.NewPath("spec")
	if want := s.Version + "." + s.Group; next.Name != want && len(path.IsValidPathSegmentName(next.Name)) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), next.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)))
	}
	if s.Group == "" && s.Version != "v1" {
		errs = append(errs, field.Required(at.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if s.Group != "" {
		for _, msg := range utilvalidation.IsDNS1123Subdomain(s.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), s.Group, msg))
		}
	}
	for _, msg := range utilvalidation.IsDNS1035Label(s.Version) {
		errs = append(errs, field.Invalid(at.Child("version"), s.Version, msg))
	}
	if s.GroupPriorityMinimum <= 0 || s.GroupPriorityMinimum > 20000 {
		errs = append(errs, field.Invalid(at.Child("groupPriorityMinimum"), s.GroupPriorityMinimum, "must be positive and less than 20000"))
	}
	if s.VersionPriority <= 0 || s.VersionPriority > 1000 {
		errs = append(errs, field.Invalid(at.Child("versionPriority"), s.VersionPriority, "must be positive and less than 1000"))
	}
	return append(errs, validateServer(s, at)...)
}

// validateServer judges where the API is served.
func validateServer(s *apiregistrationv1.APIServiceSpec, at *field.Path) (errs field.ErrorList) {
	if s.Service == nil {
		if len(s.CABundle) != 0 {
			errs = append(errs, field.Invalid(at.Child("caBundle"), fmt.Sprintf("%d bytes", len(s.CABundle)), "local APIServices may not have a caBundle"))
		}
		if s.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), s.InsecureSkipTLSVerify, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	if s.Service.Namespace == "" {
		errs = append(errs, field.Required(at.Child("service", "namespace"), ""))
	}
	if s.Service.Name == "" {
		errs = append(errs, field.Required(at.Child("service", "name"), ""))
	}
	var port int32
	if s.Service.Port != nil {
		port = *s.Service.Port
	}
	if msgs := utilvalidation.IsValidPortNum(int(port)); msgs != nil {
		errs = append(errs, field.Invalid(at.Child("service", "port"), port, "port is not valid: "+strings.Join(msgs, ", ")))
	}
	if s.InsecureSkipTLSVerify && len(s.CABundle) > 0 {
		errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), s.InsecureSkipTLSVerify, "may not be true if caBundle is present"))
	}
	return errs
}

func validateStatus(next, _ *service) (errs field.ErrorList) {
	at := field.NewPath("status", "conditions")
	for i, c := range next.Status.Conditions {
		switch c.Status {
		case apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown:
		default:
			errs = append(errs, field.NotSupported(at.Index(i).Child("status"), c.Status, []apiregistrationv1.ConditionStatus{
				apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown}))
		}
	}
	return errs
}

// Package apiservice defines the APIService.
//
// Job: rules, defaults and columns of apiregistration.k8s.io/v1 APIService and
// its retired v1beta1.
//
// Not its job: reaching the servers it names (apiserver/aggregate).
//
// Invariants: the name is the version and the group; an APIService without a
// service is served here, and so available from the moment it is made.
package apiservice

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

type service = apiregistrationv1.APIService

// Group is that of the kind.
const Group = "apiregistration.k8s.io"

// defaultPort is where aggregated servers listen unless they say otherwise.
const defaultPort = 443

// Kind is the APIService.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[service]{
		Group: Group, Version: "v1", Kind: "APIService", Plural: "apiservices", Prefix: Group + "/apiservices",
		Categories: []string{"api-extensions"}, ClusterScoped: true,
		Default: func(s *service) {
			if s.Spec.Service != nil && s.Spec.Service.Port == nil {
				s.Spec.Service.Port = new(int32(defaultPort))
			}
		},
		Prepare: prepare, Name: segment, Validate: validate,
		Subs: []resource.Sub[service]{resource.StatusSub(keepAllButStatus, validateStatus, "metadata")},
		Columns: []resource.Column[service]{
			resource.NameColumn[service](),
			{Name: "Service", Description: "The reference to the service that hosts this API endpoint.", Cell: resource.Cell(hostedBy)},
			{Name: "Available", Description: "Whether this service is available.", Cell: resource.Cell(available)},
			resource.AgeColumn[service](),
		},
		ResetFields: []string{"status"},
		Also:        []resource.Version{beta()},
	})
}

func beta() resource.Version {
	v := resource.SameShape[apiregistrationv1beta1.APIService, service](
		apiregistrationv1beta1.SchemeGroupVersion.WithKind("APIService"), apiregistrationv1.SchemeGroupVersion.WithKind("APIService"))
	v.Default = func(obj api.Object) {
		if s, ok := obj.(*apiregistrationv1beta1.APIService); ok && s.Spec.Service != nil && s.Spec.Service.Port == nil {
			s.Spec.Service.Port = new(int32(defaultPort))
		}
	}
	return v
}

func prepare(r *resource.Request, next, prev *service) {
	if prev != nil {
		next.Status = *prev.Status.DeepCopy()
		return
	}
	next.Status = apiregistrationv1.APIServiceStatus{}
	if next.Spec.Service == nil {
		SetCondition(next, Local(r.Now))
	}
}

func keepAllButStatus(next, prev *service) {
	next.Spec = *prev.Spec.DeepCopy()
	next.Labels, next.Annotations = prev.Labels, prev.Annotations
	next.Finalizers, next.OwnerReferences = prev.Finalizers, prev.OwnerReferences
}

// Local is the condition of what is served here.
func Local(now time.Time) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: "Local", Message: "Local APIServices are always available",
	}
}

// Condition returns the condition of a type, or nil.
func Condition(s *service, t apiregistrationv1.APIServiceConditionType) *apiregistrationv1.APIServiceCondition {
	if i := slices.IndexFunc(s.Status.Conditions, func(c apiregistrationv1.APIServiceCondition) bool { return c.Type == t }); i >= 0 {
		return &s.Status.Conditions[i]
	}
	return nil
}

// Available says whether the API behind s answers.
func Available(s *service) bool {
	c := Condition(s, apiregistrationv1.Available)
	return c != nil && c.Status == apiregistrationv1.ConditionTrue
}

// SetCondition puts c in its place. The time of transition is kept while the
// status is.
func SetCondition(s *service, c apiregistrationv1.APIServiceCondition) {
	if old := Condition(s, c.Type); old != nil {
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	s.Status.Conditions = append(s.Status.Conditions, c)
}

func hostedBy(s *service) any {
	if s.Spec.Service == nil {
		return "Local"
	}
	return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
}

func available(s *service) any {
	c := Condition(s, apiregistrationv1.Available)
	switch {
	case c == nil:
		return string(apiregistrationv1.ConditionUnknown)
	case c.Status != apiregistrationv1.ConditionTrue && c.Reason != "":
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	}
	return string(c.Status)
}

package event

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

const (
	maxWord = 128
	maxNote = 1024
)

// validate asks little of users of the older versions, whose rules came first,
// and more of those who speak events.k8s.io/v1.
func validate(r *resource.Request, next, prev *corev1.Event) field.ErrorList {
	errs := validateOld(next, r.Version)
	if r.Version != (schema.GroupVersion{Group: "events.k8s.io", Version: "v1"}) {
		return errs
	}
	if prev == nil {
		return append(errs, validateCreate(next)...)
	}
	return append(errs, validateUpdate(next, prev)...)
}

func validateOld(e *corev1.Event, spoken schema.GroupVersion) (errs field.ErrorList) {
	path, about := field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace
	mismatch := field.Invalid(path, about, "does not match event.namespace")
	if e.EventTime.IsZero() {
		// Events about things without a namespace live in the default one.
		if about != e.Namespace && (about != "" || e.Namespace != metav1.NamespaceDefault) {
			errs = append(errs, mismatch)
		}
	} else {
		if about == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
			errs = append(errs, mismatch)
		}
		errs = append(errs, validateWords(e, spoken)...)
	}
	for _, msg := range validation.IsDNS1123Subdomain(e.Namespace) {
		errs = append(errs, field.Invalid(field.NewPath("namespace"), e.Namespace, msg))
	}
	return errs
}

func validateWords(e *corev1.Event, spoken schema.GroupVersion) (errs field.ErrorList) {
	controller := field.NewPath("reportingController")
	if spoken == corev1.SchemeGroupVersion {
		controller = field.NewPath("reportingComponent")
	}
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	for _, msg := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(controller, e.ReportingController, msg))
	}
	word := func(name, value string) {
		if value == "" {
			errs = append(errs, field.Required(field.NewPath(name), ""))
		}
		if len(value) > maxWord {
			errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", maxWord)))
		}
	}
	word("reportingInstance", e.ReportingInstance)
	word("action", e.Action)
	word("reason", e.Reason)
	if len(e.Message) > maxNote {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %v characters", maxNote)))
	}
	return errs
}

func validateCreate(e *corev1.Event) field.ErrorList {
	errs := validateSeries(e)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"firstTimestamp", !e.FirstTimestamp.IsZero()},
		{"lastTimestamp", !e.LastTimestamp.IsZero()},
		{"count", e.Count != 0},
		{"source", e.Source != corev1.EventSource{}},
	} {
		if f.set {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", "needs to be unset"))
		}
	}
	return errs
}

// validateUpdate lets an event of the new kind change its series alone.
func validateUpdate(next, prev *corev1.Event) (errs field.ErrorList) {
	if !equality.Semantic.DeepEqual(next.Series, prev.Series) {
		errs = validateSeries(next)
	}
	same := func(name string, now, before any) {
		errs = append(errs, apivalidation.ValidateImmutableField(now, before, field.NewPath(name))...)
	}
	same("involvedObject", next.InvolvedObject, prev.InvolvedObject)
	same("reason", next.Reason, prev.Reason)
	same("message", next.Message, prev.Message)
	same("source", next.Source, prev.Source)
	same("firstTimestamp", next.FirstTimestamp, prev.FirstTimestamp)
	same("lastTimestamp", next.LastTimestamp, prev.LastTimestamp)
	same("count", next.Count, prev.Count)
	same("reason", next.Reason, prev.Reason)
	same("type", next.Type, prev.Type)
	// Times are stored to the microsecond.
	if !next.EventTime.Truncate(time.Microsecond).Equal(prev.EventTime.Truncate(time.Microsecond)) {
		same("eventTime", next.EventTime, prev.EventTime)
	}
	same("action", next.Action, prev.Action)
	same("related", next.Related, prev.Related)
	same("reportingController", next.ReportingController, prev.ReportingController)
	same("reportingInstance", next.ReportingInstance, prev.ReportingInstance)
	return errs
}

func validateSeries(e *corev1.Event) (errs field.ErrorList) {
	if e.Series == nil {
		return nil
	}
	if e.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if e.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

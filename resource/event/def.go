// Package event defines the Event kind.
//
// Job: rules, columns and conversions of events: stored as core/v1, also spoken
// as events.k8s.io/v1 and its retired v1beta1.
//
// Not its job: recording and counting events (clients'), limiting their rate
// (admission's).
//
// Invariants: an event lives an hour after its last write.
package event

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	eventsv1beta1 "k8s.io/api/events/v1beta1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// lifetime is an hour, in seconds.
const lifetime = 3600

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Event]{
		Version: "v1", Kind: "Event", Plural: "events",
		Short:      []string{"ev"},
		ValidateAs: validate,
		Columns:    columns(),
		Selectable: selectable(),
		TTL:        func(*corev1.Event) int64 { return lifetime },

		Unconditional: true, CreateOnUpdate: true,
		Also: []resource.Version{
			{
				Group: "events.k8s.io", Version: "v1",
				New:   func() api.Object { return new(eventsv1.Event) },
				Store: func(src api.Object) (api.Object, error) { return toCore(src.(*eventsv1.Event)), nil },
				Show:  func(src api.Object) (api.Object, error) { return fromCore(src.(*corev1.Event)), nil },
			},
			beta(),
		},
	})
}

// beta has the shape of events.k8s.io/v1.
func beta() resource.Version {
	v1, core := eventsv1.SchemeGroupVersion.WithKind("Event"), corev1.SchemeGroupVersion.WithKind("Event")
	v := resource.SameShape[eventsv1beta1.Event, eventsv1.Event](eventsv1beta1.SchemeGroupVersion.WithKind("Event"), v1)
	store, show := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		mid, err := store(src)
		if err != nil {
			return nil, err
		}
		out := toCore(mid.(*eventsv1.Event))
		out.SetGroupVersionKind(core)
		return out, nil
	}
	v.Show = func(src api.Object) (api.Object, error) { return show(fromCore(src.(*corev1.Event))) }
	return v
}

func selectable() map[string]func(*corev1.Event) string {
	fields := map[string]func(*corev1.Event) string{
		"reason":              func(e *corev1.Event) string { return e.Reason },
		"reportingComponent":  func(e *corev1.Event) string { return e.ReportingController },
		"reportingController": func(e *corev1.Event) string { return e.ReportingController },
		"type":                func(e *corev1.Event) string { return e.Type },
		"source": func(e *corev1.Event) string {
			if e.Source.Component == "" {
				return e.ReportingController
			}
			return e.Source.Component
		},
	}
	// One object, called differently by the two groups.
	for _, name := range []string{"involvedObject", "regarding"} {
		for part, get := range map[string]func(*corev1.ObjectReference) string{
			"kind":            func(o *corev1.ObjectReference) string { return o.Kind },
			"namespace":       func(o *corev1.ObjectReference) string { return o.Namespace },
			"name":            func(o *corev1.ObjectReference) string { return o.Name },
			"uid":             func(o *corev1.ObjectReference) string { return string(o.UID) },
			"apiVersion":      func(o *corev1.ObjectReference) string { return o.APIVersion },
			"resourceVersion": func(o *corev1.ObjectReference) string { return o.ResourceVersion },
			"fieldPath":       func(o *corev1.ObjectReference) string { return o.FieldPath },
		} {
			fields[name+"."+part] = func(e *corev1.Event) string { return get(&e.InvolvedObject) }
		}
	}
	return fields
}

package event

import (
	"cmp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

func columns() []resource.Column[corev1.Event] {
	doc := func(name string) string { return resource.Doc(corev1.Event{}, name) }
	about := func(name string) string { return resource.Doc(corev1.ObjectReference{}, name) }
	name := resource.NameColumn[corev1.Event]()
	name.Wide = true
	return []resource.Column[corev1.Event]{
		{Name: "Last Seen", Description: doc("lastTimestamp"), Cell: func(e *corev1.Event, now time.Time) any { return lastSeen(e, now) }},
		{Name: "Type", Description: doc("type"), Cell: func(e *corev1.Event, _ time.Time) any { return e.Type }},
		{Name: "Reason", Description: doc("reason"), Cell: func(e *corev1.Event, _ time.Time) any { return e.Reason }},
		{Name: "Object", Description: doc("involvedObject"), Cell: func(e *corev1.Event, _ time.Time) any { return object(e) }},
		{Name: "Subobject", Wide: true, Description: about("fieldPath"), Cell: func(e *corev1.Event, _ time.Time) any { return e.InvolvedObject.FieldPath }},
		{Name: "Source", Wide: true, Description: doc("source"), Cell: func(e *corev1.Event, _ time.Time) any { return source(e) }},
		{Name: "Message", Description: doc("message"), Cell: func(e *corev1.Event, _ time.Time) any { return strings.TrimSpace(e.Message) }},
		{Name: "First Seen", Wide: true, Description: doc("firstTimestamp"), Cell: func(e *corev1.Event, now time.Time) any { return firstSeen(e, now) }},
		{Name: "Count", Wide: true, Description: doc("count"), Cell: func(e *corev1.Event, _ time.Time) any { return count(e) }},
		name,
	}
}

func firstSeen(e *corev1.Event, now time.Time) string {
	if e.FirstTimestamp.IsZero() {
		return resource.SinceMicro(e.EventTime, now)
	}
	return resource.Since(e.FirstTimestamp, now)
}

func lastSeen(e *corev1.Event, now time.Time) string {
	switch {
	case e.Series != nil:
		return resource.SinceMicro(e.Series.LastObservedTime, now)
	case e.LastTimestamp.IsZero():
		return firstSeen(e, now)
	}
	return resource.Since(e.LastTimestamp, now)
}

func count(e *corev1.Event) int64 {
	if e.Series != nil {
		return int64(e.Series.Count)
	}
	// Single events of the new kind are not counted.
	return int64(max(e.Count, 1))
}

func object(e *corev1.Event) string {
	kind := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name == "" {
		return kind
	}
	return kind + "/" + e.InvolvedObject.Name
}

func source(e *corev1.Event) string {
	component, instance := cmp.Or(e.Source.Component, e.ReportingController), cmp.Or(e.Source.Host, e.ReportingInstance)
	if instance == "" {
		return component
	}
	return component + ", " + instance
}

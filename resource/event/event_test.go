package event

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

var when = metav1.NewMicroTime(time.Unix(1700000000, 0))

func modern(change func(*eventsv1.Event)) *corev1.Event {
	e := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "default"}, EventTime: when, Type: "Normal",
		ReportingController: "example.com/c", ReportingInstance: "i", Action: "Do", Reason: "Done",
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"},
	}
	change(e)
	return toCore(e)
}

func TestModernRules(t *testing.T) {
	r := &resource.Request{Version: schema.GroupVersion{Group: "events.k8s.io", Version: "v1"}}
	for want, change := range map[string]func(*eventsv1.Event){
		"":                                    func(*eventsv1.Event) {},
		"reportingController: Required value": func(e *eventsv1.Event) { e.ReportingController = "" },
		"action: Required value":              func(e *eventsv1.Event) { e.Action = "" },
		`reason: Invalid value: "": can have at most 128 characters`:   func(e *eventsv1.Event) { e.Reason = strings.Repeat("x", 129) },
		`message: Invalid value: "": can have at most 1024 characters`: func(e *eventsv1.Event) { e.Note = strings.Repeat("x", 1025) },
		"eventTime: Required value":                                    func(e *eventsv1.Event) { e.EventTime = metav1.MicroTime{} },
		`type: Invalid value: "": has invalid value: Odd`:              func(e *eventsv1.Event) { e.Type = "Odd" },
		`count: Invalid value: "": needs to be unset`:                  func(e *eventsv1.Event) { e.DeprecatedCount = 1 },
		`series.count: Invalid value: "": should be at least 2`:        func(e *eventsv1.Event) { e.Series = &eventsv1.EventSeries{Count: 1, LastObservedTime: when} },
	} {
		err := Kind().ValidateAs(r, modern(change), nil).ToAggregate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	prev := modern(func(*eventsv1.Event) {})
	next := modern(func(e *eventsv1.Event) { e.Note = "other" })
	if got := Kind().ValidateAs(r, next, prev).ToAggregate().Error(); got != `message: Invalid value: "other": field is immutable` {
		t.Errorf("got %s", got)
	}
}

func TestOldRules(t *testing.T) {
	r := &resource.Request{Version: corev1.SchemeGroupVersion}
	for _, c := range []struct{ about, in, want string }{
		{"a", "a", ""},
		{"", "default", ""},
		{"", "a", `involvedObject.namespace: Invalid value: "": does not match event.namespace`},
		{"b", "a", `involvedObject.namespace: Invalid value: "b": does not match event.namespace`},
	} {
		e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: c.in}, InvolvedObject: corev1.ObjectReference{Namespace: c.about}, Count: 4}
		got := ""
		if err := Kind().ValidateAs(r, e, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	e := modern(func(e *eventsv1.Event) { e.ReportingController = "" })
	if got := Kind().ValidateAs(r, e, nil).ToAggregate().Error(); !strings.Contains(got, "reportingComponent: Required value") {
		t.Errorf("got %s", got)
	}
}

func TestColumns(t *testing.T) {
	now := time.Unix(1700000060, 0)
	cells := func(e *corev1.Event) string {
		var out []string
		for _, c := range Kind().Cells(e, now) {
			out = append(out, fmt.Sprint(c))
		}
		return strings.Join(out, "|")
	}
	if got, want := cells(modern(func(e *eventsv1.Event) { e.Note = "hello\n" })), "60s|Normal|Done|pod/p||example.com/c, i|hello|60s|1|e"; got != want {
		t.Errorf("got %s", got)
	}
	old := &corev1.Event{
		Count: 3, FirstTimestamp: metav1.Unix(1700000000, 0), LastTimestamp: metav1.Unix(1700000050, 0),
		Source: corev1.EventSource{Component: "kubelet", Host: "n"}, InvolvedObject: corev1.ObjectReference{Kind: "Node"},
	}
	if got, want := cells(old), "10s|||node||kubelet, n||60s|3|"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestFields(t *testing.T) {
	e := modern(func(*eventsv1.Event) {})
	for name, want := range map[string]string{"involvedObject.kind": "Pod", "regarding.name": "p", "source": "example.com/c", "reportingComponent": "example.com/c", "type": "Normal", "reason": "Done"} {
		if got, ok := Kind().Field(e, name); !ok || got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if got := Kind().TTL(e); got != 3600 {
		t.Errorf("lives %d s", got)
	}
}

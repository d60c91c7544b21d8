package componentstatus

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestColumns(t *testing.T) {
	for want, conditions := range map[string][]corev1.ComponentCondition{
		"[c Healthy ok ]":       {{Type: "Healthy", Status: "True", Message: "ok"}},
		"[c Unhealthy  broken]": {{Type: "Healthy", Status: "False", Error: "broken"}},
		"[c Unknown  ]":         nil,
	} {
		s := &corev1.ComponentStatus{Conditions: conditions}
		s.Name = "c"
		if got := fmt.Sprint(Kind().Cells(s, time.Unix(0, 0))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

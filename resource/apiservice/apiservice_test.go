package apiservice

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/resource"
)

func good(change func(*service)) *service {
	s := &service{ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"}}
	s.Spec = apiregistrationv1.APIServiceSpec{
		Group: "wardle.example.com", Version: "v1alpha1", GroupPriorityMinimum: 2000, VersionPriority: 200,
		Service: &apiregistrationv1.ServiceReference{Namespace: "ns", Name: "sample-api"},
	}
	change(s)
	Kind().Default(s)
	return s
}

func TestRules(t *testing.T) {
	for want, change := range map[string]func(*service){
		"": func(*service) {},
		"metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1alpha1.wardle.example.com\"": func(s *service) { s.Name = "other" },
		"spec.group: Required value: only v1 may have an empty group and it better be legacy kube": func(s *service) {
			s.Name, s.Spec.Group = "v1alpha1.", ""
		},
		"spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000": func(s *service) { s.Spec.GroupPriorityMinimum = 20001 },
		"spec.versionPriority: Invalid value: 0: must be positive and less than 1000":           func(s *service) { s.Spec.VersionPriority = 0 },
		"spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle": func(s *service) {
			s.Spec.Service, s.Spec.CABundle = nil, []byte("ca")
		},
		"spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify": func(s *service) {
			s.Spec.Service, s.Spec.InsecureSkipTLSVerify = nil, true
		},
		"spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present": func(s *service) {
			s.Spec.InsecureSkipTLSVerify, s.Spec.CABundle = true, []byte("ca")
		},
		"spec.service.namespace: Required value": func(s *service) { s.Spec.Service.Namespace = "" },
		"spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive": func(s *service) {
			s.Spec.Service.Port = new(int32(70000))
		},
	} {
		got := ""
		if err := Kind().Validate(good(change), nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLocalIsAvailableAtOnce(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	here := good(func(s *service) { s.Spec.Service = nil })
	Kind().Prepare(&resource.Request{Now: now}, here, nil)
	if !Available(here) || here.Status.Conditions[0].Reason != "Local" {
		t.Errorf("status %+v", here.Status)
	}
	away := good(func(s *service) { SetCondition(s, Local(now)) })
	Kind().Prepare(&resource.Request{Now: now}, away, nil)
	if Available(away) {
		t.Error("a user made a remote one available by saying so")
	}
}

func TestColumns(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := good(func(s *service) { s.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute)) })
	check := func(want ...any) {
		t.Helper()
		for i, c := range Kind().Cells(s, now) {
			if c != want[i] {
				t.Errorf("cell %d is %v, want %v", i, c, want[i])
			}
		}
	}
	check(s.Name, "ns/sample-api", "Unknown", "60s")
	SetCondition(s, apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse, Reason: "MissingEndpoints"})
	check(s.Name, "ns/sample-api", "False (MissingEndpoints)", "60s")
	SetCondition(s, apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, Reason: "Passed"})
	check(s.Name, "ns/sample-api", "True", "60s")
	s.Spec.Service = nil
	check(s.Name, "Local", "True", "60s")
}

// TestRetired: the old version has the same shape, its own default, and warns.
func TestRetired(t *testing.T) {
	v := Kind().Info().Also[0]
	if want := "apiregistration.k8s.io/v1beta1 APIService is deprecated in v1.19+, unavailable in v1.22+; use apiregistration.k8s.io/v1 APIService"; v.Warning != want {
		t.Errorf("warning %q", v.Warning)
	}
	shown, err := v.Show(good(func(*service) {}))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := v.Store(shown)
	if err != nil {
		t.Fatal(err)
	}
	if got := stored.(*service); *got.Spec.Service.Port != defaultPort || got.Spec.VersionPriority != 200 {
		t.Errorf("came back as %+v", got.Spec)
	}
}

package prioritylevelconfiguration

import (
	"strings"
	"testing"

	flowv1 "k8s.io/api/flowcontrol/v1"
	flowv1beta1 "k8s.io/api/flowcontrol/v1beta1"
	flowv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/flow"
)

// A share of zero is told from none in every version, there and back.
func TestSharesOfZero(t *testing.T) {
	v3 := v1beta3()
	none := &flowv1beta3.PriorityLevelConfiguration{Spec: flowv1beta3.PriorityLevelConfigurationSpec{Limited: &flowv1beta3.LimitedPriorityLevelConfiguration{}}}
	v3.Default(none)
	stored, err := v3.Store(none)
	if err != nil || *stored.(*level).Spec.Limited.NominalConcurrencyShares != defaultShares {
		t.Fatalf("none: %v %v", stored, err)
	}
	zero := &level{Spec: flowv1.PriorityLevelConfigurationSpec{Limited: &flowv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: ptr.To(int32(0))}}}
	shown, err := v3.Show(zero)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := shown.GetAnnotations()[zeroKey]; !ok || len(zero.Annotations) > 0 {
		t.Errorf("zero is not marked, or the stored object was changed: %v %v", shown.GetAnnotations(), zero.Annotations)
	}
	v3.Default(shown)
	back, err := v3.Store(shown)
	if err != nil || *back.(*level).Spec.Limited.NominalConcurrencyShares != 0 || len(back.GetAnnotations()) > 0 {
		t.Errorf("zero came back as %v %v", back, err)
	}
}

func TestOldName(t *testing.T) {
	var v1 = v1beta1()
	l := &level{Spec: flowv1.PriorityLevelConfigurationSpec{Limited: &flowv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: ptr.To(int32(7))}}}
	shown, err := v1.Show(l)
	if err != nil || shown.(*flowv1beta1.PriorityLevelConfiguration).Spec.Limited.AssuredConcurrencyShares != 7 {
		t.Fatalf("%v %v", shown, err)
	}
	back, err := v1.Store(shown)
	if err != nil || *back.(*level).Spec.Limited.NominalConcurrencyShares != 7 {
		t.Errorf("%v %v", back, err)
	}
	want := "flowcontrol.apiserver.k8s.io/v1beta1 PriorityLevelConfiguration is deprecated in v1.23+, unavailable in v1.26+; use flowcontrol.apiserver.k8s.io/v1beta3 PriorityLevelConfiguration"
	if v1.Warning != want {
		t.Errorf("warning %q", v1.Warning)
	}
}

func TestValidate(t *testing.T) {
	limited := func(change func(*flowv1.LimitedPriorityLevelConfiguration)) *level {
		l := &level{Spec: flowv1.PriorityLevelConfigurationSpec{Type: flowv1.PriorityLevelEnablementLimited, Limited: &flowv1.LimitedPriorityLevelConfiguration{
			LimitResponse: flowv1.LimitResponse{Type: flowv1.LimitResponseTypeQueue, Queuing: &flowv1.QueuingConfiguration{}}}}}
		l.Name = "mine"
		setDefaults(l)
		change(l.Spec.Limited)
		return l
	}
	for name, c := range map[string]struct {
		obj     *level
		version string
		want    string
	}{
		"good": {limited(func(*flowv1.LimitedPriorityLevelConfiguration) {}), "v1", ""},
		"shares": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.NominalConcurrencyShares = ptr.To(int32(-1)) }), "v1",
			`spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer`},
		"shares, by their old name": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.NominalConcurrencyShares = ptr.To(int32(-1)) }), "v1beta2",
			`spec.limited.assuredConcurrencyShares: Invalid value: -1`},
		"lendable": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.LendablePercent = ptr.To(int32(101)) }), "v1",
			`spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive`},
		"hand": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.LimitResponse.Queuing.HandSize = 65 }), "v1",
			`should not be greater than queues (64)`},
		"entropy": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.LimitResponse.Queuing.HandSize = 16 }), "v1",
			`required entropy bits of deckSize 64 and handSize 16 should not be greater than 60`},
		"reject with queues": {limited(func(l *flowv1.LimitedPriorityLevelConfiguration) { l.LimitResponse.Type = "Reject" }), "v1",
			`spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited`},
	} {
		t.Run(name, func(t *testing.T) {
			errs := validate(&resource.Request{Version: schema.GroupVersion{Group: flowv1.GroupName, Version: c.version}}, c.obj, nil)
			if c.want == "" && len(errs) > 0 || c.want != "" && !strings.Contains(errs.ToAggregate().Error(), c.want) {
				t.Errorf("got %v, want %q", errs, c.want)
			}
		})
	}
	for _, l := range append(flow.Mandatory().Levels, flow.Suggested().Levels...) {
		if errs := validate(nil, l, nil); len(errs) > 0 {
			t.Errorf("%s: %v", l.Name, errs)
		}
		var obj api.Object = l
		before := l.DeepCopy()
		setDefaults(l)
		if before.Spec.String() != l.Spec.String() {
			t.Errorf("%s: defaults change it", obj.GetName())
		}
	}
}

package device

import (
	"slices"
	"strings"
	"testing"

	devicev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func claim(edit func(*devicev1.ResourceClaim)) *devicev1.ResourceClaim {
	c := &devicev1.ResourceClaim{Spec: devicev1.ResourceClaimSpec{Devices: devicev1.DeviceClaim{Requests: []devicev1.DeviceRequest{
		{Name: "gpu", Exactly: &devicev1.ExactDeviceRequest{DeviceClassName: "gpu.example.com"}},
		{Name: "any", FirstAvailable: []devicev1.DeviceSubRequest{{Name: "big", DeviceClassName: "gpu.example.com"}}},
	}}}}
	if edit != nil {
		edit(c)
	}
	defaultClaim(&c.Spec)
	return c
}

func expect(t *testing.T, name string, errs field.ErrorList, want ...string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestClaims(t *testing.T) {
	c := claim(nil)
	if r := c.Spec.Devices.Requests; r[0].Exactly.AllocationMode != devicev1.DeviceAllocationModeExactCount || r[0].Exactly.Count != 1 || r[1].FirstAvailable[0].Count != 1 {
		t.Errorf("defaults: %+v", r)
	}
	for name, k := range map[string]struct {
		edit func(*devicev1.ResourceClaim)
		want []string
	}{
		"good": {nil, nil},
		"neither": {func(c *devicev1.ResourceClaim) { c.Spec.Devices.Requests[0].Exactly = nil },
			[]string{"spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"}},
		"twice": {func(c *devicev1.ResourceClaim) { c.Spec.Devices.Requests[1].Name = "gpu" },
			[]string{`spec.devices.requests[1]: Duplicate value: "gpu"`}},
		"all of a number": {func(c *devicev1.ResourceClaim) {
			c.Spec.Devices.Requests[0].Exactly.AllocationMode, c.Spec.Devices.Requests[0].Exactly.Count = devicev1.DeviceAllocationModeAll, 2
		}, []string{"spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"}},
		"no class": {func(c *devicev1.ResourceClaim) { c.Spec.Devices.Requests[0].Exactly.DeviceClassName = "" },
			[]string{"spec.devices.requests[0].exactly.deviceClassName: Required value"}},
		"sub request": {func(c *devicev1.ResourceClaim) {
			c.Spec.Devices.Constraints = []devicev1.DeviceConstraint{{Requests: []string{"gpu", "any/big", "any/small"}, MatchAttribute: ptr.To[devicev1.FullyQualifiedName]("numa")}}
		}, []string{
			`spec.devices.constraints[0].requests[2]: Invalid value: "any/small": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`,
			`spec.devices.constraints[0].matchAttribute: Invalid value: "numa": a fully qualified name must be a domain and a name separated by a slash`}},
	} {
		expect(t, name, validateClaim(&claim(k.edit).Spec, field.NewPath("spec")), k.want...)
	}
}

func TestStatus(t *testing.T) {
	was := claim(nil)
	next := claim(nil)
	next.Status.ReservedFor = []devicev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	expect(t, "reserved only", validateStatus(next, was), "status.reservedFor: Forbidden: may not be specified when `allocated` is not set")
	next.Status.Allocation = &devicev1.AllocationResult{Devices: devicev1.DeviceAllocationResult{Results: []devicev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "gpu.example.com", Pool: "node/a", Device: "gpu-0"}}}}
	next.Status.Devices = []devicev1.AllocatedDeviceStatus{{Driver: "gpu.example.com", Pool: "node/a", Device: "gpu-0"}}
	expect(t, "allocated", validateStatus(next, was))
	if got := state(next); got != "allocated,reserved" {
		t.Error(got)
	}
	moved := next.DeepCopy()
	moved.Status.Allocation.Devices.Results[0].Device = "gpu-1"
	moved.Status.Devices = nil
	if errs := validateStatus(moved, next); len(errs) != 1 || !strings.HasSuffix(errs[0].Error(), "field is immutable") {
		t.Errorf("moved: %v", errs)
	}
	ending := next.DeepCopy()
	ending.DeletionTimestamp = &metav1.Time{}
	ending.Status.ReservedFor[0].UID = "v"
	expect(t, "reserved at the end", validateStatus(ending, next), "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
}

func TestSlices(t *testing.T) {
	slice := func(edit func(*devicev1.ResourceSliceSpec)) *devicev1.ResourceSlice {
		s := &devicev1.ResourceSlice{Spec: devicev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: ptr.To("n"), Pool: devicev1.ResourcePool{Name: "n", ResourceSliceCount: 1},
			Devices: []devicev1.Device{{Name: "gpu-0", Attributes: map[devicev1.QualifiedName]devicev1.DeviceAttribute{"model": {StringValue: ptr.To("a")}},
				Capacity: map[devicev1.QualifiedName]devicev1.DeviceCapacity{"memory": {Value: apiresource.MustParse("8Gi")}}}}}}
		if edit != nil {
			edit(&s.Spec)
		}
		return s
	}
	for name, k := range map[string]struct {
		edit func(*devicev1.ResourceSliceSpec)
		want []string
	}{
		"good": {nil, nil},
		"nowhere": {func(s *devicev1.ResourceSliceSpec) { s.NodeName = nil },
			[]string{"spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"}},
		"twice": {func(s *devicev1.ResourceSliceSpec) { s.AllNodes = ptr.To(true) },
			[]string{"spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"}},
		"no value": {func(s *devicev1.ResourceSliceSpec) {
			s.Devices[0].Attributes["model"] = devicev1.DeviceAttribute{}
		}, []string{`spec.devices[0].attributes[model]: Invalid value: "": exactly one value must be specified`}},
		"version": {func(s *devicev1.ResourceSliceSpec) {
			s.Devices[0].Attributes["model"] = devicev1.DeviceAttribute{VersionValue: ptr.To("1.0")}
		}, []string{`spec.devices[0].attributes[model].version: Invalid value: "1.0": must be a string compatible with semver.org spec 2.0.0`}},
		"policy": {func(s *devicev1.ResourceSliceSpec) {
			s.Devices[0].AllowMultipleAllocations = ptr.To(true)
			s.Devices[0].Capacity["memory"] = devicev1.DeviceCapacity{Value: apiresource.MustParse("8Gi"), RequestPolicy: &devicev1.CapacityRequestPolicy{
				Default: ptr.To(apiresource.MustParse("3Gi")), ValidRange: &devicev1.CapacityRequestPolicyRange{Min: ptr.To(apiresource.MustParse("1Gi")), Step: ptr.To(apiresource.MustParse("4Gi"))}}}
		}, []string{`spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: "3Gi": value is not a multiple of a given step (4Gi) from (1Gi)`}},
	} {
		expect(t, name, validateSlice(slice(k.edit), nil), k.want...)
	}
	other := slice(func(s *devicev1.ResourceSliceSpec) { s.NodeName = ptr.To("m") })
	expect(t, "moved", validateSlice(other, slice(nil)), `spec.nodeName: Invalid value: "m": field is immutable`)
}

func TestRules(t *testing.T) {
	expect(t, "bad effect", validateRule(&devicev1.DeviceTaintRuleSpec{Taint: devicev1.DeviceTaint{Key: "k", Effect: "Soon"}}, field.NewPath("spec")),
		`spec.taint.effect: Unsupported value: "Soon": supported values: "NoExecute", "NoSchedule", "None"`)
	for name, want := range map[string]bool{"example.com/gpu": true, "gpu": false, "kubernetes.io/gpu": false, "requests.example.com/gpu": false} {
		if extended(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

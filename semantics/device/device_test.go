package device

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const driver = "gpu.example.com"

// gpu is a device of a model, on a board.
func gpu(name, model string, board int64, edit ...func(*devicev1.Device)) devicev1.Device {
	d := devicev1.Device{Name: name, Attributes: map[devicev1.QualifiedName]devicev1.DeviceAttribute{"model": {StringValue: &model}, driver + "/board": {IntValue: &board}}}
	for _, f := range edit {
		f(&d)
	}
	return d
}

func broken(d *devicev1.Device) {
	d.Taints = []devicev1.DeviceTaint{{Key: "broken", Effect: devicev1.DeviceTaintEffectNoSchedule}}
}

// part takes so much of the memory that the pool's devices share.
func part(q string) func(*devicev1.Device) {
	return func(d *devicev1.Device) {
		d.ConsumesCounters = []devicev1.DeviceCounterConsumption{{CounterSet: "card", Counters: map[string]devicev1.Counter{"memory": {Value: resource.MustParse(q)}}}}
	}
}

func slice(name, node string, devices ...devicev1.Device) *devicev1.ResourceSlice {
	s := &devicev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: devicev1.ResourceSliceSpec{Driver: driver, Pool: devicev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}, Devices: devices}}
	if node == "" {
		s.Spec.AllNodes, s.Spec.Pool.Name = ptr.To(true), "everywhere"
	} else {
		s.Spec.NodeName = &node
	}
	return s
}

type edit func(*devicev1.DeviceSubRequest)

func count(n int64) edit { return func(r *devicev1.DeviceSubRequest) { r.Count = n } }

func all(r *devicev1.DeviceSubRequest) {
	r.AllocationMode, r.Count = devicev1.DeviceAllocationModeAll, 0
}

func model(m string) edit {
	return func(r *devicev1.DeviceSubRequest) {
		r.Selectors = append(r.Selectors, devicev1.DeviceSelector{CEL: &devicev1.CELDeviceSelector{Expression: m}})
	}
}

func patient(r *devicev1.DeviceSubRequest) {
	r.Tolerations = []devicev1.DeviceToleration{{Key: "broken", Operator: devicev1.DeviceTolerationOpExists}}
}

func sub(name string, edits ...edit) devicev1.DeviceSubRequest {
	r := devicev1.DeviceSubRequest{Name: name, DeviceClassName: "gpu", AllocationMode: devicev1.DeviceAllocationModeExactCount, Count: 1}
	for _, e := range edits {
		e(&r)
	}
	return r
}

func exactly(name string, edits ...edit) devicev1.DeviceRequest {
	r := sub(name, edits...)
	return devicev1.DeviceRequest{Name: name, Exactly: &devicev1.ExactDeviceRequest{DeviceClassName: r.DeviceClassName, Selectors: r.Selectors, AllocationMode: r.AllocationMode, Count: r.Count, Tolerations: r.Tolerations}}
}

func claim(requests ...devicev1.DeviceRequest) *devicev1.ResourceClaim {
	return &devicev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c"}, Spec: devicev1.ResourceClaimSpec{Devices: devicev1.DeviceClaim{Requests: requests}}}
}

func bound(c *devicev1.ResourceClaim, same bool, requests ...string) *devicev1.ResourceClaim {
	name := devicev1.FullyQualifiedName(driver + "/board")
	k := devicev1.DeviceConstraint{Requests: requests, MatchAttribute: &name}
	if !same {
		k.MatchAttribute, k.DistinctAttribute = nil, &name
	}
	c.Spec.Devices.Constraints = append(c.Spec.Devices.Constraints, k)
	return c
}

func allocator(taken []string, slices ...*devicev1.ResourceSlice) *Allocator {
	a := &Allocator{Inventory: Take(slices), Taken: map[ID]bool{}, Class: func(name string) *devicev1.DeviceClass {
		if name != "gpu" {
			return nil
		}
		return &devicev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}, Match: func(m string, d *Device) (bool, error) {
		if m == "error" {
			return false, fmt.Errorf("no such key")
		}
		return *d.Attributes["model"].StringValue == m, nil
	}}
	for _, name := range taken {
		pool, device, _ := strings.Cut(name, "/")
		a.Taken[ID{driver, pool, device}] = true
	}
	return a
}

func show(list []*devicev1.AllocationResult) string {
	var out []string
	for _, r := range list {
		for _, d := range r.Devices.Results {
			out = append(out, d.Request+"="+d.Pool+"/"+d.Device)
		}
	}
	return strings.Join(out, " ")
}

func TestAllocate(t *testing.T) {
	four := slice("s", "n", gpu("g0", "a", 0), gpu("g1", "b", 0), gpu("g2", "a", 1), gpu("g3", "b", 1))
	card := slice("s", "n", gpu("whole", "a", 0, part("40Gi")), gpu("left", "b", 0, part("20Gi")), gpu("right", "b", 0, part("20Gi")))
	card.Spec.SharedCounters = []devicev1.CounterSet{{Name: "card", Counters: map[string]devicev1.Counter{"memory": {Value: resource.MustParse("40Gi")}}}}
	old := slice("old", "n", gpu("gone", "a", 0))
	renewed := slice("s", "n", gpu("new", "a", 0))
	renewed.Spec.Pool.Generation = 2
	half := slice("s", "n", gpu("g0", "a", 0))
	half.Spec.Pool.ResourceSliceCount = 2
	twice := slice("s", "n", gpu("g0", "a", 0), gpu("g0", "a", 0))
	admin := claim(exactly("r", all))
	admin.Spec.Devices.Requests[0].Exactly.AdminAccess = ptr.To(true)
	for name, c := range map[string]struct {
		slices []*devicev1.ResourceSlice
		taken  string
		claims []*devicev1.ResourceClaim
		want   string // "" is nothing; an error begins with "!"
	}{
		"the first":              {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=n/g0"},
		"the first free":         {[]*devicev1.ResourceSlice{four}, "n/g0", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=n/g1"},
		"by selector":            {[]*devicev1.ResourceSlice{four}, "n/g1", []*devicev1.ResourceClaim{claim(exactly("r", model("b")))}, "r=n/g3"},
		"too few":                {[]*devicev1.ResourceSlice{four}, "n/g1", []*devicev1.ResourceClaim{claim(exactly("r", model("b"), count(2)))}, ""},
		"two claims":             {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r", count(3))), claim(exactly("q"))}, "r=n/g0 r=n/g1 r=n/g2 q=n/g3"},
		"greed does not pay":     {[]*devicev1.ResourceSlice{slice("s", "n", gpu("x", "a", 0), gpu("y", "b", 0))}, "", []*devicev1.ResourceClaim{claim(exactly("any"), exactly("r", model("a")))}, "any=n/y r=n/x"},
		"another node's":         {[]*devicev1.ResourceSlice{slice("s", "m", gpu("g0", "a", 0))}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, ""},
		"everybody's":            {[]*devicev1.ResourceSlice{slice("s", "", gpu("g0", "a", 0))}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=everywhere/g0"},
		"all":                    {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r", all, model("a")))}, "r=n/g0 r=n/g2"},
		"all but one is taken":   {[]*devicev1.ResourceSlice{four}, "n/g2", []*devicev1.ResourceClaim{claim(exactly("r", all, model("a")))}, ""},
		"all of none":            {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r", all, model("z")))}, ""},
		"all of half a pool":     {[]*devicev1.ResourceSlice{half}, "", []*devicev1.ResourceClaim{claim(exactly("r", all))}, "!claim a/c, request r: asks for all devices, but resource pool gpu.example.com/n is currently being updated"},
		"one of half a pool":     {[]*devicev1.ResourceSlice{half}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=n/g0"},
		"a pool at odds":         {[]*devicev1.ResourceSlice{twice}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, ""},
		"all of a pool at odds":  {[]*devicev1.ResourceSlice{twice}, "", []*devicev1.ResourceClaim{claim(exactly("r", all))}, "!claim a/c, request r: asks for all devices, but resource pool gpu.example.com/n is currently invalid"},
		"an administrator":       {[]*devicev1.ResourceSlice{slice("s", "n", gpu("g0", "a", 0))}, "n/g0", []*devicev1.ResourceClaim{admin}, "r=n/g0"},
		"the newest generation":  {[]*devicev1.ResourceSlice{old, renewed}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=n/new"},
		"on one board":           {[]*devicev1.ResourceSlice{four}, "n/g0", []*devicev1.ResourceClaim{bound(claim(exactly("r", count(2))), true)}, "r=n/g2 r=n/g3"},
		"on two boards":          {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{bound(claim(exactly("r", count(2))), false)}, "r=n/g0 r=n/g2"},
		"bound by request":       {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{bound(claim(exactly("r", model("b")), exactly("q"), exactly("s")), true, "r", "s")}, "r=n/g1 q=n/g2 s=n/g0"},
		"never on one board":     {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{bound(claim(exactly("r", count(3))), true)}, ""},
		"a better one":           {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(devicev1.DeviceRequest{Name: "r", FirstAvailable: []devicev1.DeviceSubRequest{sub("best", model("b")), sub("good")}})}, "r/best=n/g1"},
		"a good one":             {[]*devicev1.ResourceSlice{four}, "n/g1 n/g3", []*devicev1.ResourceClaim{claim(devicev1.DeviceRequest{Name: "r", FirstAvailable: []devicev1.DeviceSubRequest{sub("best", model("b")), sub("good")}})}, "r/good=n/g0"},
		"broken":                 {[]*devicev1.ResourceSlice{slice("s", "n", gpu("g0", "a", 0, broken))}, "", []*devicev1.ResourceClaim{claim(exactly("r"))}, ""},
		"broken and tolerated":   {[]*devicev1.ResourceSlice{slice("s", "n", gpu("g0", "a", 0, broken))}, "", []*devicev1.ResourceClaim{claim(exactly("r", patient))}, "r=n/g0"},
		"parts of a card":        {[]*devicev1.ResourceSlice{card}, "", []*devicev1.ResourceClaim{claim(exactly("r", count(2)))}, "r=n/left r=n/right"},
		"no whole card any more": {[]*devicev1.ResourceSlice{card}, "n/left", []*devicev1.ResourceClaim{claim(exactly("r", model("a")))}, ""},
		"the rest of a card":     {[]*devicev1.ResourceSlice{card}, "n/left", []*devicev1.ResourceClaim{claim(exactly("r"))}, "r=n/right"},
		"a selector that fails":  {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r", model("error")))}, "!claim a/c: selector #0: no such key"},
		"more than fit a claim":  {[]*devicev1.ResourceSlice{four}, "", []*devicev1.ResourceClaim{claim(exactly("r", count(33)))}, ""},
	} {
		a := allocator(strings.Fields(c.taken), c.slices...)
		got, err := a.Allocate(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, c.claims)
		text := show(got)
		if err != nil {
			text = "!" + err.Error()
		}
		if text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}

func TestResult(t *testing.T) {
	a := allocator(nil, slice("s", "n", gpu("g0", "a", 0)))
	c := claim(devicev1.DeviceRequest{Name: "r", FirstAvailable: []devicev1.DeviceSubRequest{sub("x", model("z")), sub("y")}})
	for _, of := range []string{"r", "r/x", "r/y", ""} {
		k := devicev1.DeviceClaimConfiguration{DeviceConfiguration: devicev1.DeviceConfiguration{Opaque: &devicev1.OpaqueDeviceConfiguration{Driver: of}}}
		if of != "" {
			k.Requests = []string{of}
		}
		c.Spec.Devices.Config = append(c.Spec.Devices.Config, k)
	}
	got, err := a.Allocate(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, []*devicev1.ResourceClaim{c})
	if err != nil {
		t.Fatal(err)
	}
	var configs []string
	for _, k := range got[0].Devices.Config {
		configs = append(configs, k.Opaque.Driver)
	}
	if s := strings.Join(configs, ","); s != "r,r/y," {
		t.Errorf("configurations of %q, want those of r, r/y and of all", s)
	}
	if m := got[0].NodeSelector.NodeSelectorTerms[0].MatchFields[0]; m.Key != "metadata.name" || m.Values[0] != "n" {
		t.Errorf("a device of one node: %+v", m)
	}
	missing := claim(exactly("r"))
	missing.Spec.Devices.Requests[0].Exactly.DeviceClassName = "none"
	if err := a.Classes(missing); err == nil || err.Error() != "request r: device class none does not exist" {
		t.Errorf("%v", err)
	}
}

// TestALongSearchEnds asks for what a search of all ways would not end with.
func TestALongSearchEnds(t *testing.T) {
	var devices []devicev1.Device
	for i := range 60 {
		devices = append(devices, gpu(fmt.Sprint("g", i), "a", int64(i/2)))
	}
	devices = append(devices, gpu("x", "b", 0))
	a := allocator([]string{"n/x"}, slice("s", "n", devices...))
	c := claim(exactly("p", count(16)), exactly("r", count(2)))
	c = bound(c, true, "r")
	c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, exactly("none", model("b")))
	for range 3 {
		if got, err := a.Allocate(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, []*devicev1.ResourceClaim{c}); got != nil || err != nil {
			if err == nil || err.Error() != "timed out trying to allocate devices" {
				t.Fatalf("%v, %v", got, err)
			}
		}
	}
}

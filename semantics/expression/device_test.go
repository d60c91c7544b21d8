package expression

import (
	"strings"
	"testing"

	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

func TestDeviceSelectors(t *testing.T) {
	d := &devicev1.Device{Name: "g0", Attributes: map[devicev1.QualifiedName]devicev1.DeviceAttribute{
		"model": {StringValue: ptr.To("a100")}, "fast": {BoolValue: ptr.To(true)}, "cores": {IntValue: ptr.To[int64](7)}, "other.example.com/v": {VersionValue: ptr.To("1.10.0")},
	}, Capacity: map[devicev1.QualifiedName]devicev1.DeviceCapacity{"memory": {Value: resource.MustParse("40Gi")}}}
	for text, want := range map[string]string{
		`device.driver == "gpu.example.com"`:                                         "true",
		`device.attributes["gpu.example.com"].model == "a100"`:                       "true",
		`device.attributes["gpu.example.com"].model.startsWith("h")`:                 "false",
		`device.attributes["gpu.example.com"].fast`:                                  "true",
		`device.attributes["gpu.example.com"].cores > 6`:                             "true",
		`device.attributes["other.example.com"].v.isGreaterThan(semver("1.9.0"))`:    "true",
		`device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0`: "true",
		`device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("1Ti"))`:   "false",
		`"model" in device.attributes["nobody.example.com"]`:                         "false",
		`device.attributes["nobody.example.com"].model == "x"`:                       "no such key: model",
		`cel.bind(g, device.attributes["gpu.example.com"], g.fast && g.cores == 7)`:  "true",
		`device.allowMultipleAllocations`:                                            "false",
		`device.attributes["gpu.example.com"].model`:                                 "could not be converted to bool",
		`device.driver`:  "must evaluate to bool or the unknown type, not string",
		`device.nothing`: "compilation failed",
		`[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f > 0))))))`: "cost limit exceeded",
	} {
		s, err := CompileSelector(text)
		got := ""
		if err == nil {
			var ok bool
			if ok, err = s.Matches(t.Context(), "gpu.example.com", d); ok {
				got = "true"
			} else {
				got = "false"
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

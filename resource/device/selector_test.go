package device

import (
	"strings"
	"testing"

	devicev1 "k8s.io/api/resource/v1"
)

// TestSelectors: expressions about devices are compiled and their cost is
// estimated before they are stored.
func TestSelectors(t *testing.T) {
	class := func(text string) *devicev1.DeviceClass {
		return &devicev1.DeviceClass{Spec: devicev1.DeviceClassSpec{Selectors: []devicev1.DeviceSelector{{CEL: &devicev1.CELDeviceSelector{Expression: text}}}}}
	}
	const at = "spec.selectors[0].cel.expression: "
	for text, want := range map[string]string{
		`device.driver == "gpu.example.com" && device.attributes["gpu.example.com"].size > 3`:                "",
		`device.capacity["gpu.example.com"].memory.compareTo(quantity("1Gi")) >= 0`:                          "",
		`cel.bind(a, device.attributes["x.example.com"], a.one && a.version.isGreaterThan(semver("1.0.0")))`: "",
		"":                     at + `Invalid value: "": compilation failed: ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>'`,
		`device.attributes[0]`: at + `Invalid value: "device.attributes[0]": compilation failed: ERROR: <input>:1:18: found no matching overload for '_[_]'`,
		`1 + 1`:                at + `Invalid value: "1 + 1": must evaluate to bool or the unknown type, not int`,
		`device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a + b + c + d != "x"))))`: at + "Forbidden: too complex, exceeds cost limit",
		strings.Repeat("a", devicev1.CELSelectorExpressionMaxLength+1):                                                                 at + "Too long: may not be more than 10240 bytes",
	} {
		err := validateClass(class(text), nil).ToAggregate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%.80q:\ngot  %v\nwant %s", text, err, want)
		}
	}
	broken := class("no sense")
	if errs := validateClass(broken, broken); len(errs) > 0 {
		t.Errorf("what was stored before is judged again: %v", errs)
	}
	c := claim(func(c *devicev1.ResourceClaim) {
		c.Spec.Devices.Requests[1].FirstAvailable[0].Selectors = class("nonsense").Spec.Selectors
	})
	got := claims().Validate(c, nil).ToAggregate()
	if want := `spec.devices.requests[1].firstAvailable[0].selectors[0].cel.expression: Invalid value: "nonsense": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nonsense'`; got == nil || !strings.HasPrefix(got.Error(), want) {
		t.Errorf("got %v", got)
	}
}

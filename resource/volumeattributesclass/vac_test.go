package volumeattributesclass

import (
	"testing"

	storagev1 "k8s.io/api/storage/v1"
)

func TestRules(t *testing.T) {
	class := func(driver string, p map[string]string) *class {
		return &storagev1.VolumeAttributesClass{DriverName: driver, Parameters: p}
	}
	good := class("csi.example.com", map[string]string{"iops": "1"})
	for name, c := range map[string]struct {
		next, prev *storagev1.VolumeAttributesClass
		want       string
	}{
		"good":          {good, nil, ""},
		"kept":          {good, good, ""},
		"no parameters": {class("csi.example.com", nil), nil, "parameters: Required value: must contain at least one key/value pair"},
		"no driver":     {class("", good.Parameters), nil, "driverName: Required value"},
		"changed":       {class("csi.example.com", map[string]string{"iops": "2"}), good, "parameters: Forbidden: updates to parameters are forbidden."},
		"other driver":  {class("other.example.com", good.Parameters), good, "driverName: Forbidden: updates to driverName are forbidden."},
	} {
		got := ""
		if errs := validate(c.next, c.prev); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

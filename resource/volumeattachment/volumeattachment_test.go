package volumeattachment

import (
	"testing"

	storagev1 "k8s.io/api/storage/v1"
)

func TestRules(t *testing.T) {
	source := storagev1.VolumeAttachmentSource{PersistentVolumeName: new("pv")}
	for want, spec := range map[string]storagev1.VolumeAttachmentSpec{
		"": {Attacher: "example.com", NodeName: "n", Source: source},
		"spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName": {Attacher: "example.com", NodeName: "n"},
	} {
		got := ""
		if err := Kind().Validate(&attachment{Spec: spec}, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	prev := &attachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "a", NodeName: "n", Source: source}}
	next := prev.DeepCopy()
	next.Spec.NodeName = "m"
	if errs := Kind().Validate(next, prev); len(errs) != 1 || errs[0].Field != "spec" || errs[0].Detail != "field is immutable" {
		t.Errorf("got %v", errs)
	}
}

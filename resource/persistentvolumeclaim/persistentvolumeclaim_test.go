package persistentvolumeclaim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/resource"
)

func good(change func(*claim)) *claim {
	c := &claim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": quantity.MustParse("2Gi")}},
	}}
	c.Name = "c"
	change(c)
	Kind().Default(c)
	return c
}

func bound(change func(*claim)) *claim {
	return good(func(c *claim) {
		c.Spec.VolumeName, c.Spec.StorageClassName = "v", new("s")
		c.Status = corev1.PersistentVolumeClaimStatus{
			Phase: "Bound", Capacity: corev1.ResourceList{"storage": quantity.MustParse("2Gi")}, AccessModes: c.Spec.AccessModes,
		}
		change(c)
	})
}

func TestUpdateRules(t *testing.T) {
	const frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"
	nothing := func(*claim) {}
	size := func(s string) func(*claim) {
		return func(c *claim) { c.Spec.Resources.Requests["storage"] = quantity.MustParse(s) }
	}
	for name, c := range map[string]struct {
		next, prev *claim
		want       string
	}{
		"bind":         {good(func(c *claim) { c.Spec.VolumeName = "v" }), good(nothing), ""},
		"grow":         {bound(size("3Gi")), bound(nothing), ""},
		"shrink":       {bound(size("1Gi")), bound(nothing), "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"},
		"grow unbound": {good(size("3Gi")), good(nothing), frozen},
		"modes":        {bound(func(c *claim) { c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"ReadWriteMany"} }), bound(nothing), frozen},
		"attributes":   {bound(func(c *claim) { c.Spec.VolumeAttributesClassName = new("gold") }), bound(nothing), ""},
	} {
		err := Kind().Validate(c.next, c.prev).ToAggregate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestDataSourcesAgree(t *testing.T) {
	c := good(func(c *claim) {
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "other"}
	})
	Kind().Prepare(&resource.Request{}, c, nil)
	if c.Spec.DataSource == nil || c.Spec.DataSource.Name != "other" {
		t.Errorf("got %+v", c.Spec)
	}
	c = good(func(c *claim) { c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "Pod", Name: "p"} })
	Kind().Prepare(&resource.Request{}, c, nil)
	if c.Spec.DataSource != nil || c.Spec.DataSourceRef != nil {
		t.Errorf("a pod is no data source: %+v", c.Spec)
	}
}

func TestColumns(t *testing.T) {
	if got := strings.Trim(fmt.Sprint(Kind().Cells(bound(func(*claim) {}), time.Unix(0, 0))), "[]"); got != "c Bound v 2Gi RWO s <unset> <unknown> Filesystem" {
		t.Errorf("got %q", got)
	}
}

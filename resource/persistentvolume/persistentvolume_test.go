package persistentvolume

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/resource"
)

func good(change func(*corev1.PersistentVolumeSpec)) *volume {
	v := &volume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
		Capacity:               corev1.ResourceList{"storage": quantity.MustParse("1Gi")},
		AccessModes:            []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
	}}
	change(&v.Spec)
	Kind().Default(v)
	return v
}

func TestRules(t *testing.T) {
	type spec = corev1.PersistentVolumeSpec
	for want, change := range map[string]func(*spec){
		"":                                 func(*spec) {},
		"spec.accessModes: Required value": func(s *spec) { s.AccessModes = nil },
		"spec: Required value: must specify a volume type":                       func(s *spec) { s.HostPath = nil },
		"spec.nfs: Forbidden: may not specify more than 1 volume type":           func(s *spec) { s.NFS = &corev1.NFSVolumeSource{Server: "a", Path: "/"} },
		"spec.nodeAffinity: Required value: Local volume requires node affinity": func(s *spec) { s.HostPath, s.Local = nil, &corev1.LocalVolumeSource{Path: "/x"} },
		`spec.capacity[storage]: Invalid value: "0": must be greater than zero`:  func(s *spec) { s.Capacity["storage"] = quantity.MustParse("0") },
		"spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'": func(s *spec) {
			s.HostPath.Path, s.PersistentVolumeReclaimPolicy = "/", "Recycle"
		},
		`spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'`: func(s *spec) { s.HostPath.Path = "/a/../b" },
		"spec.csi.volumeHandle: Required value":                               func(s *spec) { s.HostPath, s.CSI = nil, &corev1.CSIPersistentVolumeSource{Driver: "d"} },
	} {
		got := ""
		if err := Kind().Validate(good(change), nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	next := good(func(s *spec) { s.HostPath.Path = "/other" })
	if err := Kind().Validate(next, good(func(*spec) {})).ToAggregate(); err == nil || !strings.HasPrefix(err.Error(), "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n") {
		t.Errorf("got %v", err)
	}
}

func TestPhaseTimes(t *testing.T) {
	v := good(func(*corev1.PersistentVolumeSpec) {})
	Kind().Prepare(&resource.Request{Now: time.Unix(1, 0)}, v, nil)
	if v.Status.Phase != "Pending" || v.Status.LastPhaseTransitionTime.Unix() != 1 {
		t.Errorf("created as %+v", v.Status)
	}
	next := v.DeepCopy()
	next.Status.Phase = "Bound"
	status, _ := Kind().Sub("status")
	status.Prepare(&resource.Request{Now: time.Unix(2, 0)}, next, v)
	if next.Status.LastPhaseTransitionTime.Unix() != 2 {
		t.Errorf("bound as %+v", next.Status)
	}
	next.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "n", Name: "c"}
	if got := strings.Trim(fmt.Sprint(Kind().Cells(next, time.Unix(0, 0))), "[]"); got != "v 1Gi RWO Retain Bound n/c  <unset>  <unknown> Filesystem" {
		t.Errorf("got %q", got)
	}
}

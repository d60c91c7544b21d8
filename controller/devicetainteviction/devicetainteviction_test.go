package devicetainteviction

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func user(name, claim string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "c", ResourceClaimName: &claim}}}}
}

// has is a claim with a device, used by pods, with what it tolerates.
func has(name, device string, tolerations []devicev1.DeviceToleration, pods ...string) *devicev1.ResourceClaim {
	c := &devicev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	c.Status.Allocation = &devicev1.AllocationResult{}
	c.Status.Allocation.Devices.Results = []devicev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: device, Tolerations: tolerations}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, devicev1.ResourceClaimConsumerReference{Resource: "pods", Name: p, UID: types.UID(p)})
	}
	return c
}

func slice(taint *devicev1.DeviceTaint) *devicev1.ResourceSlice {
	s := &devicev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: devicev1.ResourceSliceSpec{Driver: "d", Pool: devicev1.ResourcePool{Name: "p"}, Devices: []devicev1.Device{{Name: "x"}, {Name: "y"}}}}
	if taint != nil {
		s.Spec.Devices[0].Taints = []devicev1.DeviceTaint{*taint}
	}
	return s
}

func broken(effect devicev1.DeviceTaintEffect) *devicev1.DeviceTaint {
	return &devicev1.DeviceTaint{Key: "broken", Effect: effect, TimeAdded: ptr.To(metav1.Now())}
}

func TestEviction(t *testing.T) {
	bear := func(seconds *int64) []devicev1.DeviceToleration {
		return []devicev1.DeviceToleration{{Key: "broken", Operator: devicev1.DeviceTolerationOpExists, Effect: devicev1.DeviceTaintEffectNoExecute, TolerationSeconds: seconds}}
	}
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(slice(nil), user("tainted", "c1"), user("patient", "c2"), user("stoic", "c3"), user("other", "c4"), user("stranger", "c5"),
			has("c1", "x", nil, "tainted"), has("c2", "x", bear(ptr.To[int64](60)), "patient"), has("c3", "x", bear(nil), "stoic"), has("c4", "y", nil, "other"), has("c5", "x", nil))
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		there := func(after time.Duration, want ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			for _, name := range []string{"tainted", "patient", "stoic", "other", "stranger"} {
				_, err := client.Of[corev1.Pod](srv, "a").Get(t.Context(), name)
				if err != nil && !apierrors.IsNotFound(err) {
					t.Fatal(err)
				}
				wanted := false
				for _, w := range want {
					wanted = wanted || w == name
				}
				if (err == nil) != wanted {
					t.Errorf("pod %s is there: %v, want %v", name, err == nil, wanted)
				}
			}
		}
		everybody := []string{"tainted", "patient", "stoic", "other", "stranger"}
		there(time.Second, everybody...)
		srv.Put(slice(broken(devicev1.DeviceTaintEffectNoSchedule)))
		there(time.Second, everybody...)
		srv.Put(slice(broken(devicev1.DeviceTaintEffectNoExecute)))
		there(time.Second, "patient", "stoic", "other", "stranger")
		there(30*time.Second, "patient", "stoic", "other", "stranger")
		srv.Put(slice(nil)) // mended in time
		there(time.Hour, "patient", "stoic", "other", "stranger")
		srv.Put(slice(broken(devicev1.DeviceTaintEffectNoExecute)))
		there(50*time.Second, "patient", "stoic", "other", "stranger")
		there(20*time.Second, "stoic", "other", "stranger")
		srv.Put(&devicev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: devicev1.DeviceTaintRuleSpec{DeviceSelector: &devicev1.DeviceTaintSelector{Driver: ptr.To("d"), Device: ptr.To("y")}, Taint: *broken(devicev1.DeviceTaintEffectNoExecute)}})
		there(time.Second, "stoic", "stranger")

		events, err := client.Of[corev1.Event](srv, "a").List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		told := map[string]int{}
		for _, e := range events {
			told[e.InvolvedObject.Name+": "+e.Reason+": "+e.Message] += int(e.Count)
		}
		for text, n := range map[string]int{"tainted: DeviceTaintManagerEviction: Marking for deletion": 1, "patient: DeviceTaintManagerEviction: Cancelling deletion": 1, "patient: DeviceTaintManagerEviction: Marking for deletion": 1} {
			if told[text] != n {
				t.Errorf("%q was told %d times, want %d: %v", text, told[text], n, told)
			}
		}
	})
}

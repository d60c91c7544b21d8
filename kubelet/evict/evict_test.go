package evict

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestParse(t *testing.T) {
	all, err := Parse(Config{
		Hard: map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "imagefs.available": "0%"},
		Soft: map[string]string{"memory.available": "1Gi"}, SoftGrace: map[string]string{"memory.available": "90s"},
		MinReclaim: map[string]string{"memory.available": "50Mi"},
	})
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v; want three thresholds", all, err)
	}
	if all[1].Min.Share != 0.1 || all[0].Min.Value != 100<<20 || all[0].MinReclaim.Value != 50<<20 || all[2].Grace != 90*time.Second {
		t.Errorf("got %+v", all)
	}
	for _, bad := range []Config{
		{Hard: map[string]string{"moon.available": "1"}}, {Hard: map[string]string{"memory.available": "x"}},
		{Hard: map[string]string{"memory.available": "-5%"}}, {Soft: map[string]string{"memory.available": "1Gi"}},
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestStep(t *testing.T) {
	hard := Threshold{Signal: Memory, Min: Amount{Value: 100}, MinReclaim: Amount{Value: 20}}
	soft := Threshold{Signal: Memory, Min: Amount{Value: 200}, Soft: true, Grace: time.Minute}
	disk := Threshold{Signal: NodeDisk, Min: Amount{Share: 0.1}}
	var s State
	now := time.Unix(0, 0)
	step := func(after time.Duration, memory, free int64) string {
		now = now.Add(after)
		c, act := s.Step([]Threshold{hard, soft, disk}, map[Signal]Observation{Memory: {memory, 1000}, NodeDisk: {free, 1000}}, now, 5*time.Minute)
		out := fmt.Sprint(c)
		for _, m := range act {
			out += fmt.Sprintf(" %s<%d", m.Signal, m.Quantity)
		}
		return out
	}
	for _, tt := range []struct {
		name         string
		after        time.Duration
		memory, free int64
		want         string
	}{
		{"enough of all", 0, 500, 500, "[]"},
		{"a soft threshold waits", time.Second, 150, 500, "[MemoryPressure]"},
		{"but not for ever", time.Minute, 150, 500, "[MemoryPressure] memory.available<200"},
		{"a hard one does not", time.Second, 90, 500, "[MemoryPressure] memory.available<100 memory.available<200"},
		{"until its least reclaim is won", time.Second, 110, 500, "[MemoryPressure] memory.available<100 memory.available<200"},
		{"relieved, the condition stays for a while", time.Second, 500, 500, "[MemoryPressure]"},
		{"and then goes", 5 * time.Minute, 500, 500, "[]"},
		{"a share of the disk", time.Second, 500, 99, "[DiskPressure] nodefs.available<100"},
	} {
		if got := step(tt.after, tt.memory, tt.free); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func pod(name string, priority int32, memory string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}}}}
	if memory != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"memory": resource.MustParse(memory)}
	}
	return p
}

func TestRank(t *testing.T) {
	pods := []*corev1.Pod{pod("modest", 0, "1Gi"), pod("important", 100, ""), pod("greedy", 0, "100Mi"), pod("small", 0, "")}
	usage := map[string]Usage{"modest": {Memory: 500 << 20}, "important": {Memory: 900 << 20}, "greedy": {Memory: 800 << 20}, "small": {Memory: 10 << 20}}
	var got []string
	for _, p := range Rank(corev1.ResourceMemory, pods, usage) {
		got = append(got, p.Name)
	}
	if want := []string{"greedy", "small", "important", "modest"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestWords(t *testing.T) {
	p := pod("p", 0, "100Mi")
	u := Usage{Memory: 200 << 20, Containers: map[string]ContainerUsage{"c": {Memory: 200 << 20}}}
	m := Met{Threshold{Signal: Memory}, 100 << 20, 50 << 20}
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 200Mi, request is 100Mi, has larger consumption of memory. "
	if got := Message(m, p, u); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	limit := resource.MustParse("1Mi")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	if got := OverLimit(p, Usage{Volumes: map[string]int64{"v": 2 << 20}}); got != `Usage of EmptyDir volume "v" exceeds the limit "1Mi". ` {
		t.Errorf("got %q", got)
	}
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	if got := OverLimit(p, Usage{Disk: 2 << 20}); got != "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. " {
		t.Errorf("got %q", got)
	}
	if !Limited(p) || strings.Contains(OverLimit(p, Usage{}), "exceed") {
		t.Error("a pod within its limits is said to exceed them")
	}
}

package kubelet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
)

// words tells a plan in a line.
func words(p Plan) string {
	var out []string
	for _, a := range p.Actions {
		switch {
		case a.Sandbox != nil:
			out = append(out, fmt.Sprintf("sandbox#%d", a.Sandbox.Attempt))
		case a.Start != nil:
			out = append(out, fmt.Sprintf("start %s#%d", a.Start.Container.Name, a.Start.Restarts))
		case a.Stop != nil:
			out = append(out, "stop "+a.Stop.Name)
		case a.End != nil:
			out = append(out, "end")
		case a.Resize != nil:
			for _, c := range a.Resize.Containers {
				out = append(out, "resize "+c.Container.Name)
			}
		}
	}
	for n, w := range p.Waiting {
		out = append(out, n+" waits "+w.Reason)
	}
	if p.Over {
		out = append(out, "over")
	}
	return strings.Join(out, ", ")
}

// world builds a state: "sb" a ready sandbox, "sb!" a dead one, "a" a running
// container, "a=3" one that exited with 3. Later words are newer.
func world(script string) *cri.State {
	s := &cri.State{}
	at := time.Unix(1000, 0)
	box := ""
	for i, w := range strings.Fields(script) {
		at = at.Add(time.Second)
		if strings.HasPrefix(w, "sb") {
			box = fmt.Sprint("sb", i)
			s.Sandboxes = append([]cri.Sandbox{{ID: box, Attempt: uint32(len(s.Sandboxes)), Ready: w == "sb", Created: at, IPs: []string{"10.0.0.1"}}}, s.Sandboxes...)
			continue
		}
		c := cri.Container{ID: fmt.Sprint(w, i), SandboxID: box, Created: at, Status: runtimeapi.ContainerState_CONTAINER_RUNNING}
		name, code, exited := strings.Cut(w, "=")
		if c.Name = name; exited {
			fmt.Sscan(code, &c.ExitCode)
			c.Status, c.Finish = runtimeapi.ContainerState_CONTAINER_EXITED, at
		}
		if old := s.Container(name); old != nil {
			c.Restarts = old.Restarts + 1
		}
		s.Containers = append([]cri.Container{c}, s.Containers...)
	}
	return s
}

func testPod(policy corev1.RestartPolicy, containers string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy}}
	for _, n := range strings.Fields(containers) {
		switch {
		case strings.HasPrefix(n, "i"):
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n})
		case strings.HasPrefix(n, "s"):
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n, RestartPolicy: &always})
		case strings.HasPrefix(n, "e"):
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: n}})
		default:
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n})
		}
	}
	return p
}

func TestDecide(t *testing.T) {
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tt := range []struct {
		name   string
		policy corev1.RestartPolicy
		pod    string
		state  string
		change func(*View)
		want   string
	}{
		{"a new pod gets a sandbox", always, "a", "", nil, "sandbox#0"},
		{"containers start in it together", always, "a b", "sb", nil, "start a#0, start b#0"},
		{"a running pod is left alone", always, "a b", "sb a b", nil, ""},
		{"a dead sandbox is replaced", always, "a", "sb! a=0", nil, "sandbox#1"},
		{"what lives outside a good sandbox ends first", always, "a", "sb! a", nil, "end"},
		{"after a new sandbox all runs again", always, "a", "sb! a=0 sb", nil, "start a#1"},
		{"a finished job gets no new sandbox", never, "a", "sb! a=1", nil, "over"},
		{"a successful one neither", onFailure, "a", "sb! a=0", nil, "over"},
		{"a container that ends is started again", always, "a", "sb a=0", nil, "start a#1"},
		{"success is not repeated on failure", onFailure, "a b", "sb a=0 b=1", nil, "start b#1"},
		{"nothing is repeated never", never, "a b", "sb a=0 b", nil, ""},
		{"when all have ended the pod ends", never, "a b", "sb a=0 b=1", nil, "end"},
		{"init containers go one by one", always, "i1 i2 a", "sb", nil, "start i1#0"},
		{"and wait for each other", always, "i1 i2 a", "sb i1", nil, ""},
		{"the second after the first", always, "i1 i2 a", "sb i1=0", nil, "start i2#0"},
		{"then the others", always, "i1 i2 a", "sb i1=0 i2=0", nil, "start a#0"},
		{"a failed init container is repeated", onFailure, "i1 a", "sb i1=1", nil, "start i1#1"},
		{"or fails the pod", never, "i1 a", "sb i1=1", nil, "end"},
		{"init containers of a running pod do not run again", always, "i1 a", "sb a", nil, ""},
		{"a sidecar starts first", always, "s1 i1 a", "sb", nil, "start s1#0"},
		{"the next waits until it has started", always, "s1 i1 a", "sb s1", nil, ""},
		{"and then goes on", always, "s1 i1 a", "sb s1", started("s11"), "start i1#0"},
		{"a dead sidecar comes back", never, "s1 a", "sb s1=1 a", nil, "start s1#1"},
		{"but not when the work is done", never, "s1 a", "sb s1 a=0", nil, "end"},
		{"debugging containers run once", always, "a e", "sb a", nil, "start e#0"},
		{"and not again", always, "a e", "sb a e=1", nil, ""},
		{"a failed liveness probe ends the container", always, "a", "sb a", func(v *View) { v.Verdicts["a1"] = Verdict{Dead: true} }, "stop a"},
		{"a failed startup probe too", always, "a", "sb a", func(v *View) { v.Verdicts["a1"] = Verdict{StartFailed: true} }, "stop a"},
		{"a changed image too", always, "a", "sb a", func(v *View) { v.State.Containers[0].Hash = 7 }, "stop a"},
		{"crashing waits", always, "a", "sb a=1", func(v *View) { v.Crash["a"] = Crash{10 * time.Second, v.State.Containers[0].Created} }, "a waits CrashLoopBackOff"},
		{"our own ending of it does not", always, "a", "sb a=1", func(v *View) {
			v.Crash["a"], v.Killed = Crash{10 * time.Second, v.State.Containers[0].Created}, map[string]bool{v.State.Containers[0].ID: true}
		}, "start a#1"},
		{"but the crash before it does", always, "a", "sb a=1 a=1", func(v *View) {
			v.Crash["a"], v.Killed = Crash{10 * time.Second, v.State.Containers[1].Created}, map[string]bool{v.State.Containers[0].ID: true}
		}, "a waits CrashLoopBackOff"},
		{"what runs is resized in place", always, "a b", "sb a b", had("a", nil), "resize a"},
		{"or begins anew if its policy says so", always, "a b", "sb a b", had("a", restartOn(corev1.ResourceMemory)), "stop a"},
		{"a policy for another resource does not matter", always, "a b", "sb a b", had("a", restartOn(corev1.ResourceCPU)), "resize a"},
		{"what was ended for a resize starts whatever its exit", onFailure, "a b", "sb a=0 b", func(v *View) {
			had("a", restartOn(corev1.ResourceMemory))(v)
			v.Killed = map[string]bool{v.State.Container("a").ID: true}
		}, "start a#1"},
		{"an ending pod ends", always, "a", "sb a", func(v *View) { v.Ending = true }, "end"},
		{"and is over when nothing lives", always, "a", "sb! a=137", func(v *View) { v.Ending = true }, "over"},
		{"two sandboxes are one too many", always, "a", "sb a sb", nil, "end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := View{Pod: testPod(tt.policy, tt.pod), State: world(tt.state), Now: time.Unix(1003, 0), Verdicts: map[string]Verdict{}, Crash: map[string]Crash{}}
			if tt.change != nil {
				tt.change(&v)
			}
			if got := words(Decide(v)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// had says that a container has less memory than its pod now grants it.
func had(name string, policy []corev1.ContainerResizePolicy) func(*View) {
	return func(v *View) {
		v.Actual = grantOf(v.Pod)
		c := containerOf(v.Pod, name)
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
		c.ResizePolicy = policy
	}
}

func restartOn(name corev1.ResourceName) []corev1.ContainerResizePolicy {
	return []corev1.ContainerResizePolicy{{ResourceName: name, RestartPolicy: corev1.RestartContainer}}
}

func started(id string) func(*View) {
	return func(v *View) { v.Verdicts[id] = Verdict{Started: true} }
}

func TestCrashBackOffGrowsAndResets(t *testing.T) {
	now := time.Unix(1000, 0)
	var c Crash
	var waits []time.Duration
	for range 8 {
		finish := now // it dies at once
		wait, next := c.After(finish, now, 0)
		waits = append(waits, wait)
		if wait > 0 {
			now = now.Add(wait)
			if wait, next = c.After(finish, now, 0); wait != 0 {
				t.Fatalf("still %s to wait after waiting", wait)
			}
		}
		c = next
	}
	want := "[0s 10s 20s 40s 1m20s 2m40s 5m0s 5m0s]"
	if got := fmt.Sprint(waits); got != want {
		t.Errorf("waits %s, want %s", got, want)
	}
	if wait, next := c.After(now.Add(11*time.Minute), now.Add(11*time.Minute), 0); wait != 0 || next.Delay != crashFirst {
		t.Errorf("after a good run: wait %s, next %s; want 0s and a fresh start", wait, next.Delay)
	}
}

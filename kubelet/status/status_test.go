package status

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// build makes a pod and its state of "name:state" words: run, unready, exit
// codes, none; names that begin with i are init containers.
func build(policy corev1.RestartPolicy, script string) Input {
	in := Input{
		Pod: &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: policy}}, State: &cri.State{Sandboxes: []cri.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}}},
		Now: time.Unix(5000, 0), Started: map[string]bool{}, Ready: map[string]bool{}, Runtime: "containerd", Waiting: map[string]corev1.ContainerStateWaiting{},
	}
	for _, w := range strings.Fields(script) {
		name, state, _ := strings.Cut(w, ":")
		c := corev1.Container{Name: name}
		if strings.HasPrefix(name, "i") {
			in.Pod.Spec.InitContainers = append(in.Pod.Spec.InitContainers, c)
		} else {
			in.Pod.Spec.Containers = append(in.Pod.Spec.Containers, c)
		}
		cs := cri.Container{ID: "id-" + name, Name: name, Status: runtimeapi.ContainerState_CONTAINER_RUNNING}
		switch state {
		case "none":
			continue
		case "run", "unready":
			in.Started[cs.ID], in.Ready[cs.ID] = true, state == "run"
		case "loop":
			cs.Status, cs.ExitCode = runtimeapi.ContainerState_CONTAINER_EXITED, 1
			in.Waiting[name] = corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
		default:
			cs.Status = runtimeapi.ContainerState_CONTAINER_EXITED
			fmt.Sscan(state, &cs.ExitCode)
		}
		in.State.Containers = append(in.State.Containers, cs)
	}
	return in
}

func TestMake(t *testing.T) {
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tt := range []struct {
		name   string
		policy corev1.RestartPolicy
		script string
		over   bool
		want   string // phase, initialized, ready and why not
	}{
		{"new", always, "a:none", false, "Pending True False ContainersNotReady containers with unready status: [a]"},
		{"running", always, "a:run b:run", false, "Running True True  "},
		{"one not ready", always, "a:run b:unready", false, "Running True False ContainersNotReady containers with unready status: [b]"},
		{"one not started", always, "a:run b:none", false, "Pending True False ContainersNotReady containers with unready status: [b]"},
		{"crashing", always, "a:loop", false, "Running True False ContainersNotReady containers with unready status: [a]"},
		{"initializing", always, "i:run a:none", false, "Pending False False ContainersNotReady containers with unready status: [a]"},
		{"initialized", always, "i:0 a:run", false, "Running True True  "},
		{"init failed for good", never, "i:1 a:none", true, "Failed False False PodFailed "},
		{"succeeded", never, "a:0 b:0", true, "Succeeded True False PodCompleted "},
		{"failed", never, "a:0 b:1", true, "Failed True False PodFailed "},
		{"over before it began", always, "a:none", true, "Failed True False PodFailed "},
		{"over while it was initialized", always, "i:none a:none", true, "Failed False False PodFailed "},
		{"over when one had ended well", always, "a:0 b:none", true, "Failed True False PodFailed "},
		{"one done, one runs", never, "a:0 b:run", false, "Running True False ContainersNotReady containers with unready status: [a]"},
		{"a failure to be repeated", onFailure, "a:1", false, "Running True False ContainersNotReady containers with unready status: [a]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := build(tt.policy, tt.script)
			in.Over = tt.over
			st := Make(in)
			init, ready := semantics.Condition(&st, corev1.PodInitialized), semantics.Condition(&st, corev1.PodReady)
			got := fmt.Sprint(st.Phase, " ", init.Status, " ", ready.Status, " ", ready.Reason, " ", ready.Message)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWaitingKeepsTheLastEnd(t *testing.T) {
	st := Make(build(corev1.RestartPolicyAlways, "a:loop")).ContainerStatuses[0]
	if st.State.Waiting == nil || st.State.Waiting.Reason != "CrashLoopBackOff" || st.LastTerminationState.Terminated == nil || st.LastTerminationState.Terminated.ExitCode != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestPatchLeavesOthersConditionsAlone(t *testing.T) {
	in := build(corev1.RestartPolicyAlways, "a:run")
	pod := in.Pod
	pod.Name, pod.Namespace, pod.UID = "p", "ns", "u"
	pod.Status = Make(in)
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
	if p, err := Patch(pod, Make(in)); err != nil || p != nil {
		t.Errorf("without a change: %s, %v", p, err)
	}
	in.Ready["id-a"] = false
	in.Now = in.Now.Add(time.Minute)
	in.Old = &pod.Status
	p, err := Patch(pod, Make(in))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata metav1.ObjectMeta
		Status   corev1.PodStatus
	}
	if err := json.Unmarshal(p, &got); err != nil || got.Metadata.UID != "u" {
		t.Errorf("patch %s, %v", p, err)
	}
	for _, c := range got.Status.Conditions {
		if c.Type == "example.com/gate" {
			t.Errorf("the patch speaks of another's condition: %s", p)
		}
	}
	if strings.Contains(string(p), "$patch\":\"delete") {
		t.Errorf("the patch deletes: %s", p)
	}
}

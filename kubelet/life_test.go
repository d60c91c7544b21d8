package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	fakeclient "github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/run"
	fakecri "github.com/sampan-dev/sampan/kubelet/cri/fake"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// bench is a node with nothing real below it.
type bench struct {
	t    *testing.T
	api  *fakeclient.Server
	rt   *fakecri.Runtime
	dir  string
	k    *Kubelet
	stop func()
}

func newBench(t *testing.T, objs ...*corev1.Pod) *bench {
	b := &bench{t: t, api: fakeclient.New(), rt: fakecri.New(), dir: t.TempDir()}
	for _, o := range objs {
		b.api.Put(o)
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// start runs an agent; with the same directories and runtime as one before.
func (b *bench) start() {
	cfg := Default()
	cfg.NodeName, cfg.NodeIPs = "n1", []string{"192.0.2.1"}
	cfg.Root, cfg.PodLogs, cfg.ContainerLogs = b.dir+"/kubelet", b.dir+"/logs", b.dir+"/containers"
	cfg.ResolvConf = ""
	cfg.Plugins = false // reading from the kernel stops a bubble's clock
	cfg.Capacity = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi")}
	mirrors := client.NewMirrors(b.api)
	k, err := New(cfg, Deps{
		Client: b.api, Mirrors: mirrors, Runtime: b.rt, Images: b.rt, Events: client.Recorder(b.api, "kubelet", "n1"),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.k = k
	g := run.New(context.Background())
	g.Go("mirrors", mirrors.Run)
	g.Go("kubelet", k.Run)
	b.stop = func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			b.t.Error(err)
		}
		b.stop = func() {}
	}
}

func apiPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "uid-1"},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "example.com/app:1"}}},
	}
	for _, c := range change {
		c(p)
	}
	podspec.DefaultPod(p)
	return p
}

func (b *bench) pod(name string) *corev1.Pod {
	p, err := client.Of[corev1.Pod](b.api, "default").Get(b.t.Context(), name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// delete marks a pod for deletion, as the API server does when it is asked to.
func (b *bench) delete(name string, grace int64) {
	p := b.pod(name).DeepCopy()
	at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	b.api.Put(p)
}

// after lets d of the bubble's time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestAPodRunsAndIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p"))
		after(3 * time.Second)
		p := b.pod("p")
		if p.Status.Phase != corev1.PodRunning || !semantics.Ready(p) || p.Status.PodIP == "" {
			t.Fatalf("phase %s, ready %v, IP %q; want a running ready pod with an address\n%v", p.Status.Phase, semantics.Ready(p), p.Status.PodIP, b.rt.Calls())
		}
		if got := p.Status.ContainerStatuses[0]; got.State.Running == nil || !strings.HasPrefix(got.ContainerID, "containerd://") {
			t.Errorf("container status %+v", got)
		}
		b.delete("p", 30)
		after(5 * time.Second)
		if b.pod("p") != nil {
			t.Errorf("the pod is still in the API: %+v", b.pod("p"))
		}
		if left, _ := b.rt.ListPodSandbox(t.Context(), nil); len(left) != 0 {
			t.Errorf("%d sandboxes left", len(left))
		}
		if left, _ := filepath.Glob(b.dir + "/kubelet/pods/*"); len(left) != 0 {
			t.Errorf("directories left: %v", left)
		}
		b.stop()
	})
}

func TestARestartOfTheAgentRestartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p"))
		after(3 * time.Second)
		before := b.rt.Find("main").Status.Id
		b.stop()
		b.start()
		after(10 * time.Second)
		if now := b.rt.Find("main"); now.Status.Id != before || now.Status.FinishedAt != 0 {
			t.Errorf("container %s became %s", before, now.Status.Id)
		}
		if p := b.pod("p"); !semantics.Ready(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("status after the restart: %+v", p.Status)
		}
		b.stop()
	})
}

func TestCrashingBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p"))
		after(3 * time.Second)
		b.rt.Exit(b.rt.Find("main").Status.Id, 1, "")
		after(time.Second)
		if n := b.rt.Find("main").Config.Metadata.Attempt; n != 1 {
			t.Fatalf("after the first crash: attempt %d, want 1 at once", n)
		}
		b.rt.Exit(b.rt.Find("main").Status.Id, 1, "")
		after(time.Second)
		st := b.pod("p").Status.ContainerStatuses[0]
		if w := st.State.Waiting; w == nil || w.Reason != "CrashLoopBackOff" || !strings.HasPrefix(w.Message, "back-off 10s restarting failed container=main pod=p_default(") {
			t.Errorf("after the second crash: %+v", st.State)
		}
		if st.LastTerminationState.Terminated == nil || st.LastTerminationState.Terminated.ExitCode != 1 {
			t.Errorf("last state %+v, want exit code 1", st.LastTerminationState)
		}
		after(10 * time.Second)
		if st := b.pod("p").Status.ContainerStatuses[0]; st.State.Running == nil || st.RestartCount != 2 {
			t.Errorf("after the back-off: %+v", st)
		}
		b.stop()
	})
}

func TestGraceIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", func(p *corev1.Pod) { g := int64(40); p.Spec.TerminationGracePeriodSeconds = &g }))
		after(3 * time.Second)
		b.rt.IgnoreTerm(true)
		b.delete("p", 40)
		after(39 * time.Second)
		if b.pod("p") == nil {
			t.Fatal("the pod is gone before its grace has passed")
		}
		after(5 * time.Second)
		if b.pod("p") != nil {
			t.Error("the pod is still there after its grace")
		}
		b.stop()
	})
}

func ptr[T any](v T) *T { return &v }

func TestPullFailuresAreToldAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rt.OnPull(func(string) error { return errors.New("no such image") })
		b.api.Put(apiPod("p"))
		after(3 * time.Second)
		reason := func() string {
			if w := b.pod("p").Status.ContainerStatuses[0].State.Waiting; w != nil {
				return w.Reason
			}
			return ""
		}
		if got := reason(); got != "ErrImagePull" && got != "ImagePullBackOff" {
			t.Errorf("waits for %q", got)
		}
		b.rt.OnPull(nil)
		after(25 * time.Second)
		if got := b.pod("p").Status.Phase; got != corev1.PodRunning {
			t.Errorf("phase %s (%s) after the image appeared", got, reason())
		}
		b.stop()
	})
}

func TestJobsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		after(3 * time.Second)
		b.rt.Exit(b.rt.Find("main").Status.Id, 0, "")
		after(3 * time.Second)
		p := b.pod("p")
		if p.Status.Phase != corev1.PodSucceeded {
			t.Errorf("phase %s", p.Status.Phase)
		}
		if c := semantics.Condition(&p.Status, corev1.PodReady); c == nil || c.Reason != "PodCompleted" {
			t.Errorf("ready condition %+v", c)
		}
		b.stop()
	})
}

func TestDeadlineFailsThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(20)) }))
		after(30 * time.Second)
		if p := b.pod("p"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "DeadlineExceeded" {
			t.Errorf("phase %s, reason %s", p.Status.Phase, p.Status.Reason)
		}
		b.stop()
	})
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("5")}
		}))
		after(3 * time.Second)
		p := b.pod("p")
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "OutOfcpu" {
			t.Errorf("phase %s, reason %q", p.Status.Phase, p.Status.Reason)
		}
		if want := "Pod was rejected: Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 4000"; p.Status.Message != want {
			t.Errorf("message %q, want %q", p.Status.Message, want)
		}
		b.stop()
	})
}

func TestMissingConfigMapIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}
		}))
		after(3 * time.Second)
		w := b.pod("p").Status.ContainerStatuses[0].State.Waiting
		if w == nil || w.Reason != "CreateContainerConfigError" || w.Message != `configmap "c" not found` {
			t.Errorf("waits %+v", w)
		}
		b.api.Put(&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"A": "b"}})
		after(15 * time.Second)
		c := b.rt.Find("main")
		if c == nil {
			t.Fatal("no container after the ConfigMap appeared")
		}
		var env []string
		for _, e := range c.Config.Envs {
			env = append(env, e.Key+"="+string(e.Value))
		}
		if !slices.Contains(env, "A=b") {
			t.Errorf("environment %v", env)
		}
		b.stop()
	})
}

func TestNodeIsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rt.NetworkBroken("Network plugin returns error: cni plugin not initialized")
		after(12 * time.Second)
		ready := func() corev1.NodeCondition {
			n, err := client.Of[corev1.Node](b.api, "").Get(t.Context(), "n1")
			if err != nil {
				t.Fatal(err)
			}
			return n.Status.Conditions[len(n.Status.Conditions)-1]
		}
		want := "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
		if c := ready(); c.Status != corev1.ConditionFalse || c.Message != want {
			t.Errorf("condition %+v", c)
		}
		b.rt.NetworkBroken("")
		after(12 * time.Second)
		if c := ready(); c.Status != corev1.ConditionTrue || c.Reason != "KubeletReady" {
			t.Errorf("condition %+v", c)
		}
		b.stop()
	})
}

// A static pod whose mirror somebody deleted, at once and without grace, is
// shown again soon; the pod itself is the file's and runs on.
func TestADeletedMirrorComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		after(time.Second)
		b.k.update(apiPod("anchor-n1", func(p *corev1.Pod) { p.UID, p.Annotations = "hash", map[string]string{hashAnnotation: "hash"} }), true)
		after(3 * time.Second)
		mirror, id := b.pod("anchor-n1"), b.rt.Find("main").Status.Id
		if mirror == nil || !semantics.IsMirror(mirror) || !semantics.Ready(mirror) {
			t.Fatalf("the static pod is shown as %+v", mirror)
		}
		if err := client.Of[corev1.Pod](b.api, "default").Delete(t.Context(), "anchor-n1", nil); err != nil {
			t.Fatal(err)
		}
		after(3 * time.Second)
		if again := b.pod("anchor-n1"); again == nil || again.UID == mirror.UID && again.ResourceVersion == mirror.ResourceVersion || !semantics.Ready(again) {
			t.Errorf("a deleted mirror came back as %+v", again)
		}
		if now := b.rt.Find("main"); now.Status.Id != id || now.Status.FinishedAt != 0 {
			t.Errorf("container %s became %s", id, now.Status.Id)
		}
		b.stop()
	})
}

// A manifest that is moved away and back before its pod has ended brings the pod
// back: what its file says is so in the end.
func TestAManifestThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		after(time.Second)
		manifests := map[types.UID]*corev1.Pod{"hash": apiPod("anchor-n1", func(p *corev1.Pod) { p.UID, p.Annotations = "hash", map[string]string{hashAnnotation: "hash"} })}
		known := map[types.UID]bool{}
		b.k.heed(manifests, known)
		after(3 * time.Second)
		id := b.rt.Find("main").Status.Id
		b.k.heed(nil, known)
		b.k.heed(manifests, known)
		for range 10 { // as the reader of manifests does, now and then and when a static pod is gone
			after(20 * time.Second)
			select {
			case <-b.k.reread:
			default:
			}
			b.k.heed(manifests, known)
		}
		if now := b.rt.Find("main"); now == nil || now.Status.Id == id || now.Status.FinishedAt != 0 {
			t.Errorf("container %s became %+v", id, now)
		}
		if mirror := b.pod("anchor-n1"); mirror == nil || !semantics.Ready(mirror) {
			t.Errorf("the static pod is shown as %+v", mirror)
		}
		b.stop()
	})
}

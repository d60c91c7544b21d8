package kubelet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	kapi "github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	fakeclient "github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/evict"
	"github.com/sampan-dev/sampan/runtime"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// sceneResize changes what a running pod may use, and looks at its control groups.
func sceneResize(ctx context.Context, api *fakeclient.Server) error {
	api.Put(pod("r", "wait"))
	if err := until(ctx, api, "r", func(p *corev1.Pod) bool { return p != nil && semantics.Ready(p) }); err != nil {
		return err
	}
	before := get(ctx, api, "r").Status.ContainerStatuses[0]
	p := get(ctx, api, "r").DeepCopy()
	p.Generation++
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("200m")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("300m"), "memory": resource.MustParse("300Mi")},
	}
	api.Put(p)
	err := until(ctx, api, "r", func(p *corev1.Pod) bool {
		return p.Status.ObservedGeneration == p.Generation && p.Status.ContainerStatuses[0].Resources.Limits.Memory().String() == "300Mi" &&
			semantics.Condition(&p.Status, corev1.PodResizeInProgress) == nil
	})
	if err != nil {
		return err
	}
	if now := get(ctx, api, "r").Status.ContainerStatuses[0]; now.ContainerID != before.ContainerID {
		return fmt.Errorf("container %s became %s", before.ContainerID, now.ContainerID)
	}
	_, id, _ := strings.Cut(before.ContainerID, "://")
	group := "kubepods/burstable/poduid-r/"
	for file, want := range map[string]string{
		"memory/" + group + "memory.limit_in_bytes": "314572800", "memory/" + group + id + "/memory.limit_in_bytes": "314572800",
		"cpu/" + group + "cpu.cfs_quota_us": "30000", "cpu/" + group + id + "/cpu.shares": "204",
	} {
		b, err := os.ReadFile("/sys/fs/cgroup/" + file)
		if err != nil || strings.TrimSpace(string(b)) != want {
			return fmt.Errorf("%s is %q, want %s (%v)", file, b, want, err)
		}
	}
	return nil
}

// sceneRuntimeKilled kills the runtime outright: no container may notice.
func sceneRuntimeKilled(ctx context.Context, api *fakeclient.Server, address string) error {
	before := get(ctx, api, "r").Status.ContainerStatuses[0]
	pid, err := processOf("containerd")
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for {
		next, err := processOf("containerd")
		if err == nil && next != pid {
			break
		}
		if err := clock.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	if err := untilRunning(ctx, address, "uid-r"); err != nil {
		return err
	}
	api.Put(pod("after", "wait")) // it works as before
	if err := until(ctx, api, "after", func(p *corev1.Pod) bool { return p != nil && semantics.Ready(p) }); err != nil {
		return err
	}
	if now := get(ctx, api, "r").Status.ContainerStatuses[0]; now.ContainerID != before.ContainerID || now.RestartCount != 0 || now.State.Running == nil {
		return fmt.Errorf("the container was disturbed: %+v", now)
	}
	for _, name := range []string{"r", "after"} {
		p := get(ctx, api, name).DeepCopy()
		grace, at := int64(1), metav1.Now()
		p.DeletionGracePeriodSeconds, p.DeletionTimestamp = &grace, &at
		api.Put(p)
		if err := until(ctx, api, name, func(p *corev1.Pod) bool { return p == nil }); err != nil {
			return err
		}
	}
	return nil
}

// processOf finds the process whose first argument is word.
func processOf(word string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if args := bytes.Split(b, []byte{0}); len(args) > 1 && (string(args[1]) == word || strings.HasSuffix(string(args[0]), word)) {
			return strconv.Atoi(strings.Split(f, "/")[2])
		}
	}
	return 0, errors.New("no process " + word)
}

// untilRunning waits until the runtime says that a pod's container runs.
func untilRunning(ctx context.Context, address string, uid types.UID) error {
	for {
		r, _, err := cri.Connect(ctx, address) // it may not be back yet
		if err == nil {
			var state *cri.State
			state, err = cri.Observe(ctx, r, uid)
			_ = r.Close(ctx)
			if err == nil && len(state.Running()) > 0 {
				return nil
			}
		}
		if serr := clock.Sleep(ctx, 20*time.Millisecond); serr != nil {
			return errors.Join(serr, err)
		}
	}
}

// gate is an API server that cannot be reached until it is opened.
type gate struct {
	client.Interface
	open atomic.Bool
}

var errClosed = errors.New("dial tcp: connection refused")

func (g *gate) Get(ctx context.Context, r schema.GroupVersionResource, ns, name, sub string, o *metav1.GetOptions) (kapi.Object, error) {
	if !g.open.Load() {
		return nil, errClosed
	}
	return g.Interface.Get(ctx, r, ns, name, sub, o)
}

func (g *gate) List(ctx context.Context, r schema.GroupVersionResource, ns string, o *metav1.ListOptions) (*kapi.Listed, error) {
	if !g.open.Load() {
		return nil, errClosed
	}
	return g.Interface.List(ctx, r, ns, o)
}

func (g *gate) Watch(ctx context.Context, r schema.GroupVersionResource, ns string, o *metav1.ListOptions) (kapi.Events, error) {
	if !g.open.Load() {
		return nil, errClosed
	}
	return g.Interface.Watch(ctx, r, ns, o)
}

func (g *gate) Create(ctx context.Context, r schema.GroupVersionResource, ns, name, sub string, obj kapi.Object, o *metav1.CreateOptions) (kapi.Object, error) {
	if !g.open.Load() {
		return nil, errClosed
	}
	return g.Interface.Create(ctx, r, ns, name, sub, obj, o)
}

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: ` + programImage + `
    imagePullPolicy: IfNotPresent
    command: [/sampan, container, WORD]
    volumeMounts: [{name: config, mountPath: /config}]
  volumes: [{name: config, hostPath: {path: /etc/web, type: DirectoryOrCreate}}]
`

// sceneStatic runs a pod of the node's own manifests before any API server
// answers, and shows it there as soon as one does.
func sceneStatic(ctx context.Context, address string) error {
	dir := "/etc/kubernetes/manifests"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	put := func(word string) error {
		return os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(strings.Replace(manifest, "WORD", word, 1)), 0o600)
	}
	if err := put("first"); err != nil {
		return err
	}
	api := fakeclient.New()
	g := &gate{Interface: api}
	a, err := startAgent(ctx, g, address, func(c *kubelet.Config) { c.StaticPods = dir })
	if err != nil {
		return err
	}
	defer func() { a.Stop(); _ = a.Wait() }()
	id, err := runningStatic(ctx, address, "")
	if err != nil {
		return fmt.Errorf("without an API server: %w", err)
	}
	g.open.Store(true)
	shown := func(p *corev1.Pod) bool {
		return p != nil && p.Annotations[corev1.MirrorPodAnnotationKey] != "" && p.Status.Phase == corev1.PodRunning && semantics.Ready(p)
	}
	if err := until(ctx, api, "web-n1", shown); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	first := get(ctx, api, "web-n1")
	if err := client.Of[corev1.Pod](api, "default").Delete(ctx, "web-n1", nil); err != nil {
		return err
	}
	if err := until(ctx, api, "web-n1", func(p *corev1.Pod) bool { return shown(p) && p.UID != first.UID }); err != nil {
		return fmt.Errorf("deleted mirror: %w", err)
	}
	if now, err := runningStatic(ctx, address, ""); err != nil || now != id {
		return fmt.Errorf("container %s became %s when its mirror was deleted (%v)", id, now, err)
	}
	if err := put("second"); err != nil {
		return err
	}
	if _, err := runningStatic(ctx, address, id); err != nil {
		return fmt.Errorf("changed manifest: %w", err)
	}
	if err := until(ctx, api, "web-n1", func(p *corev1.Pod) bool {
		return shown(p) && p.Spec.Containers[0].Command[2] == "second"
	}); err != nil {
		return fmt.Errorf("changed mirror: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		return err
	}
	if err := until(ctx, api, "web-n1", func(p *corev1.Pod) bool { return p == nil }); err != nil {
		return fmt.Errorf("removed manifest: %w", err)
	}
	return nil
}

// runningStatic waits for the container of the static pod, other than not, to run.
func runningStatic(ctx context.Context, address, not string) (string, error) {
	r, _, err := cri.Connect(ctx, address)
	if err != nil {
		return "", err
	}
	defer r.Close(ctx)
	for {
		list, err := r.ListContainers(ctx, &runtimeapi.ContainerFilter{
			State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
			LabelSelector: map[string]string{cri.PodNameLabel: "web-n1"},
		})
		if err == nil && len(list) == 1 && list[0].Id != not {
			return list[0].Id, nil
		}
		if serr := clock.Sleep(ctx, 20*time.Millisecond); serr != nil {
			return "", errors.Join(serr, err)
		}
	}
}

// sceneEviction makes the node short of memory by asking for more to be free
// than there can be.
func sceneEviction(ctx context.Context, address string) error {
	api := fakeclient.New()
	api.Put(&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"key": "value"}})
	api.Put(pod("e", "wait"))
	a, err := startAgent(ctx, api, address, func(c *kubelet.Config) {
		c.Evict = []evict.Threshold{{Signal: evict.Memory, Min: evict.Amount{Value: 1 << 60}}}
	})
	if err != nil {
		return err
	}
	defer func() { a.Stop(); _ = a.Wait() }()
	err = until(ctx, api, "e", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if err != nil {
		return err
	}
	p := get(ctx, api, "e")
	if p.Status.Reason != "Evicted" || !strings.HasPrefix(p.Status.Message, "The node was low on resource: memory. Threshold quantity: 1Ei, available: ") {
		return fmt.Errorf("the pod failed for %s: %s", p.Status.Reason, p.Status.Message)
	}
	if c := semantics.Condition(&p.Status, corev1.DisruptionTarget); c == nil || c.Reason != corev1.PodReasonTerminationByKubelet {
		return fmt.Errorf("no disruption is told: %+v", p.Status.Conditions)
	}
	api.Put(pod("late", "wait"))
	if err := until(ctx, api, "late", func(p *corev1.Pod) bool { return p.Status.Reason == "Evicted" }); err != nil {
		return fmt.Errorf("a pod came to a node under pressure: %w", err)
	}
	n, err := client.Of[corev1.Node](api, "").Get(ctx, "n1")
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeMemoryPressure && c.Status != corev1.ConditionTrue {
			return fmt.Errorf("the node says %+v", c)
		}
	}
	return nil
}

// sceneForeign runs a pod on another containerd than the built-in one, through
// its CRI endpoint, where the computer has one.
func sceneForeign(ctx context.Context, binary string) error {
	if err := os.MkdirAll("/run/foreign", 0o755); err != nil {
		return err
	}
	conf := `version = 2
root = "/var/lib/containerd/foreign"
state = "/run/foreign/state"
[grpc]
address = "/run/foreign/containerd.sock"
[ttrpc]
address = "/run/foreign/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + runtime.Defaults().SandboxImage + `"
restrict_oom_score_adj = true
disable_apparmor = true
`
	if err := os.WriteFile("/run/foreign/config.toml", []byte(conf), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, "--config", "/run/foreign/config.toml")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	const address = "unix:///run/foreign/containerd.sock"
	for {
		if err := seed(ctx, address); err == nil {
			break
		} else if serr := clock.Sleep(ctx, 100*time.Millisecond); serr != nil {
			return errors.Join(serr, err)
		}
	}
	api := fakeclient.New()
	api.Put(&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"key": "value"}})
	a, err := startAgent(ctx, api, address)
	if err != nil {
		return err
	}
	defer func() { a.Stop(); _ = a.Wait() }()
	api.Put(pod("far", "wait"))
	if err := until(ctx, api, "far", func(p *corev1.Pod) bool { return p != nil && semantics.Ready(p) }); err != nil {
		return err
	}
	api.Put(pod("end", "fail")) // its end is noticed though this runtime may tell of no events
	if err := until(ctx, api, "end", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }); err != nil {
		return err
	}
	p := get(ctx, api, "far").DeepCopy()
	grace, at := int64(5), metav1.Now()
	p.DeletionGracePeriodSeconds, p.DeletionTimestamp = &grace, &at
	api.Put(p)
	return until(ctx, api, "far", func(p *corev1.Pod) bool { return p == nil })
}

// foreignContainerd finds a containerd of the distribution's, such as Debian's.
func foreignContainerd() string {
	if path := os.Getenv("SAMPAN_TEST_CONTAINERD"); path != "" {
		return path
	}
	path, err := exec.LookPath("containerd")
	if err != nil {
		return ""
	}
	return path
}

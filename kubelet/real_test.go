package kubelet_test

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	fakeclient "github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/machine"
	"github.com/sampan-dev/sampan/runtime"
	"github.com/sampan-dev/sampan/runtime/daemon"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// TestMain makes the test binary what the real one is: a machine's init,
// containerd, the story that is played on the machine, and a container's program.
func TestMain(m *testing.M) {
	word := ""
	if len(os.Args) > 1 {
		word = os.Args[1]
	}
	switch word {
	case machine.Applet:
		os.Exit(machine.Main(os.Args[1:]))
	case "containerd":
		os.Exit(daemon.Main(os.Args[1:]))
	case "story":
		if err := story(); err != nil {
			fmt.Println("STORY FAILED:", err)
			os.Exit(0)
		}
		fmt.Println("STORY TOLD")
		os.Exit(0)
	case "container":
		program()
	}
	os.Exit(m.Run())
}

// program shows what its pod gave it and waits to be told to end.
func program() {
	file, err := os.ReadFile("/config/key")
	fmt.Println("key", string(file), err, "env", os.Getenv("FROM"), "arg", os.Args[2])
	hosts, err := os.ReadFile("/etc/hosts")
	fmt.Println(strings.Contains(string(hosts), "Kubernetes-managed hosts file"), err)
	if os.Args[2] == "fail" {
		_ = os.WriteFile("/dev/termination-log", []byte("last words"), 0o600)
		os.Exit(3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	fmt.Println("told to end")
	os.Exit(0)
}

const programImage = "example.org/program:1"

func TestWithARealRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces, mounts and cgroups")
	}
	if len(embedded.Files()) == 0 {
		t.Skip("needs the embedded programs: run make build")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc, a Debian package")
	}
	if !static(t) {
		t.Skip("needs a static test binary, to run as a container: CGO_ENABLED=0")
	}
	m := machine.New(t.TempDir(), machine.Spec{
		Name: "n1", Cluster: "kubelet" + strconv.Itoa(os.Getpid()), Address: netip.MustParsePrefix("100.64.0.10/24"),
		Argv: []string{machine.Binary, "story", foreignContainerd()},
	})
	t.Cleanup(func() {
		if err := m.Delete(context.Background()); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := clock.Now().Add(2 * time.Minute)
	for {
		console, _ := os.ReadFile(filepath.Join(m.Dir, "console.log"))
		switch {
		case bytes.Contains(console, []byte("STORY TOLD")):
			t.Logf("console:\n%s", console)
			return
		case bytes.Contains(console, []byte("STORY FAILED")), clock.Now().After(deadline):
			t.Fatalf("console:\n%s", console)
		}
		_ = clock.Sleep(t.Context(), 100*time.Millisecond)
	}
}

func static(t *testing.T) bool {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// story is played inside the machine: a real runtime, the agent, and an API
// server of paper.
func story() error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	g := run.New(ctx)
	defer func() { g.Stop(); _ = g.Wait() }()
	rt, err := runtime.New(runtime.Defaults(), runtime.Deps{Log: slog.Default()})
	if err != nil {
		return err
	}
	g.Go("runtime", rt.Run)
	if err := rt.Ready(ctx); err != nil {
		return err
	}
	if err := seed(ctx, rt.Address()); err != nil {
		return err
	}
	api := fakeclient.New()
	api.Put(&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"key": "value"}})
	agent := func() (*run.Group, error) { return startAgent(ctx, api, rt.Address()) }
	a, err := agent()
	if err != nil {
		return err
	}
	defer func() { a.Stop(); _ = a.Wait() }()
	began := clock.Now()
	api.Put(pod("p", "wait"))
	if err := until(ctx, api, "p", func(p *corev1.Pod) bool { return p != nil && semantics.Ready(p) }); err != nil {
		return err
	}
	fmt.Println("ready after", clock.Since(began))
	first := get(ctx, api, "p").Status.ContainerStatuses[0]

	// The agent goes and comes back; the container does not notice.
	a.Stop()
	if err := a.Wait(); err != nil {
		return err
	}
	if a, err = agent(); err != nil {
		return err
	}
	_ = clock.Sleep(ctx, 2*time.Second)
	if now := get(ctx, api, "p").Status.ContainerStatuses[0]; now.ContainerID != first.ContainerID || !now.Ready {
		return fmt.Errorf("after the agent's restart: %+v", now)
	}

	api.Put(pod("f", "fail"))
	err = until(ctx, api, "f", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodFailed })
	if err != nil {
		return err
	}
	if st := get(ctx, api, "f").Status.ContainerStatuses[0].State.Terminated; st == nil || st.ExitCode != 3 || st.Message != "last words" {
		return fmt.Errorf("the failed container: %+v", st)
	}
	logs, err := filepath.Glob("/var/log/containers/p_default_main-*.log")
	if err != nil || len(logs) != 1 {
		return fmt.Errorf("log links: %v, %v", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil || !strings.Contains(string(text), "key value <nil> env value arg wait") || !strings.Contains(string(text), "true <nil>") {
		return fmt.Errorf("the log says %q, %v", text, err)
	}

	p := get(ctx, api, "p").DeepCopy()
	grace, at := int64(10), metav1.Now()
	p.DeletionGracePeriodSeconds, p.DeletionTimestamp = &grace, &at
	began = clock.Now()
	api.Put(p)
	if err := until(ctx, api, "p", func(p *corev1.Pod) bool { return p == nil }); err != nil {
		return err
	}
	fmt.Println("gone after", clock.Since(began))
	for _, dir := range []string{"/var/lib/kubelet/pods/uid-p", "/var/log/pods/default_p_uid-p", "/sys/fs/cgroup/memory/kubepods/burstable/poduid-p"} {
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("%s is left", dir)
		}
	}
	if err := sceneResize(ctx, api); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if err := sceneRuntimeKilled(ctx, api, rt.Address()); err != nil {
		return fmt.Errorf("runtime killed: %w", err)
	}
	a.Stop()
	if err := a.Wait(); err != nil {
		return err
	}
	if err := sceneStatic(ctx, rt.Address()); err != nil {
		return fmt.Errorf("static pods: %w", err)
	}
	if err := sceneEviction(ctx, rt.Address()); err != nil {
		return fmt.Errorf("eviction: %w", err)
	}
	binary := os.Args[2]
	if binary == "" {
		fmt.Println("no containerd of the distribution's: its endpoint is not tried")
		return nil
	}
	if err := sceneForeign(ctx, binary); err != nil {
		return fmt.Errorf("another containerd: %w", err)
	}
	return nil
}

func seed(ctx context.Context, address string) error {
	s, err := store.Open(address)
	if err != nil {
		return err
	}
	defer s.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := image.FromBinary(self, programImage)
	if err != nil {
		return err
	}
	pause, err := image.Pause(runtime.Defaults().SandboxImage)
	if err != nil {
		return err
	}
	return s.Seed(ctx, program, pause)
}

func startAgent(ctx context.Context, api client.Interface, address string, change ...func(*kubelet.Config)) (*run.Group, error) {
	r, images, err := cri.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	cfg := kubelet.Default()
	cfg.NodeName, cfg.NodeIPs, cfg.Cgroups = "n1", []string{"100.64.0.10"}, true
	for _, c := range change {
		c(&cfg)
	}
	mirrors := client.NewMirrors(api)
	k, err := kubelet.New(cfg, kubelet.Deps{
		Client: api, Mirrors: mirrors, Runtime: r, Images: images, Events: client.Recorder(api, "kubelet", "n1"), Log: slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	g := run.New(ctx)
	g.Go("mirrors", mirrors.Run)
	g.Go("kubelet", k.Run)
	return g, nil
}

func pod(name, arg string) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			NodeName: "n1", HostNetwork: true, RestartPolicy: corev1.RestartPolicyNever,
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}},
			Containers: []corev1.Container{{
				Name: "main", Image: programImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"/sampan", "container"}, Args: []string{arg},
				Env: []corev1.EnvVar{{Name: "FROM", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Key: "key",
				}}}},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/config", ReadOnly: true}},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}, Limits: corev1.ResourceList{"memory": resource.MustParse("256Mi")},
				},
			}},
		},
	}
	podspec.DefaultPod(p)
	return p
}

func get(ctx context.Context, api *fakeclient.Server, name string) *corev1.Pod {
	p, err := client.Of[corev1.Pod](api, "default").Get(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return p
}

func until(ctx context.Context, api *fakeclient.Server, name string, ok func(*corev1.Pod) bool) error {
	for {
		p := get(ctx, api, name)
		if ok(p) {
			return nil
		}
		if err := clock.Sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("pod %s: %w\n%+v", name, err, p)
		}
	}
}

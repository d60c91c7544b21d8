package store_test

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/machine"
	"github.com/sampan-dev/sampan/runtime"
	"github.com/sampan-dev/sampan/runtime/daemon"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
)

// TestMain makes the test binary what the real one is: a machine's init,
// containerd, the program that looks after it, and a container's program.
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
	case "node":
		os.Exit(node())
	case "container":
		fmt.Println("hello from", os.Getenv("WHO"))
		fmt.Fprintln(os.Stderr, "and a complaint")
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		<-ctx.Done()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func node() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := runtime.New(config(), runtime.Deps{Output: os.Stderr, Log: slog.Default()})
	if err == nil {
		err = r.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	return 0
}

func config() runtime.Config {
	c := runtime.Defaults()
	c.TestHandler = true
	return c
}

// cluster is one machine with a containerd, seen from outside.
type cluster struct {
	m       *machine.Machine
	address string // of the CRI socket
	ready   *runtime.Runtime
	rt      cri.RuntimeServiceClient
	img     cri.ImageServiceClient
	store   *store.Store
}

func start(t *testing.T) *cluster {
	t.Helper()
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
	c := &cluster{m: machine.New(t.TempDir(), machine.Spec{
		Name: "n10", Cluster: "store" + strconv.Itoa(os.Getpid()), Address: netip.MustParsePrefix("100.64.0.10/24"),
		Argv: []string{machine.Binary, "node"}, Restart: true,
	})}
	t.Cleanup(func() {
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(c.m.Dir, "console.log"))
			t.Logf("console:\n%s", console)
		}
		if err := c.m.Delete(context.Background()); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	began := clock.Now()
	if err := c.m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	booted := clock.Since(began)
	c.connect(t)
	t.Logf("machine started in %v, CRI ready %v after that", booted, clock.Since(began)-booted)
	return c
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

func (c *cluster) connect(t *testing.T) {
	t.Helper()
	st, err := c.m.State()
	if err != nil || !st.Running {
		t.Fatalf("state = %+v, %v", st, err)
	}
	cfg := config()
	cfg.Address = fmt.Sprintf("/proc/%d/root%s", st.PID, cfg.Address)
	c.address = cfg.Address
	if c.ready, err = runtime.New(cfg, runtime.Deps{}); err != nil {
		t.Fatal(err)
	}
	c.await(t)
	conn, err := grpc.NewClient("unix://"+c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c.rt, c.img = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	if c.store, err = store.Open(c.address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); c.store.Close() })
}

func (c *cluster) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.ready.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) sh(t *testing.T, command string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := c.m.Exec(t.Context(), []string{"sh", "-c", command}, machine.Stdio{Out: &out, Err: &errs}); err != nil {
		t.Fatalf("%s: %v: %s", command, err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

// eventually waits for a condition, and fails with its last word.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := clock.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if clock.Now().After(deadline) {
			t.Fatal(err)
		}
		_ = clock.Sleep(t.Context(), 10*time.Millisecond)
	}
}

const programImage = "example.org/program:1"

// run starts a pod on the machine's network with one container that greets.
func (c *cluster) run(t *testing.T, name, handler string) (pod, container string) {
	t.Helper()
	return c.runContainer(t, name, handler, &cri.ContainerConfig{
		Image: &cri.ImageSpec{Image: programImage}, Command: []string{"/sampan", "container"},
		Envs: []*cri.KeyValue{{Key: "WHO", Value: []byte(name)}},
	})
}

func (c *cluster) runContainer(t *testing.T, name, handler string, cfg *cri.ContainerConfig) (pod, container string) {
	t.Helper()
	podCfg := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name + "-uid"},
		LogDirectory: "/var/log/pods/" + name,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    "/kubepods/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}},
		},
	}
	began := clock.Now()
	p, err := c.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podCfg, RuntimeHandler: handler})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Metadata, cfg.LogPath = &cri.ContainerMetadata{Name: "main"}, "main.log"
	cfg.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
		NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
	}}
	k, err := c.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.PodSandboxId, SandboxConfig: podCfg, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.rt.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: k.ContainerId}); err != nil {
		t.Fatal(err)
	}
	t.Logf("pod %s runs after %v", name, clock.Since(began))
	return p.PodSandboxId, k.ContainerId
}

func (c *cluster) seed(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := image.FromBinary(self, programImage)
	if err != nil {
		t.Fatal(err)
	}
	pause, err := image.Pause(config().SandboxImage)
	if err != nil {
		t.Fatal(err)
	}
	began := clock.Now()
	if err := c.store.Seed(t.Context(), program, pause); err != nil {
		t.Fatal(err)
	}
	first := clock.Since(began)
	began = clock.Now()
	if err := c.store.Seed(t.Context(), program, pause); err != nil {
		t.Fatal(err)
	}
	t.Logf("seeded in %v, the second time in %v", first, clock.Since(began))
}

func TestContainersOutliveContainerd(t *testing.T) {
	c := start(t)
	c.seed(t)
	_, id := c.run(t, "steady", "")
	c.logs(t, "steady")
	before := c.status(t, id)
	// The brackets keep a pattern from matching the shell that holds it.
	const daemonPID = "pgrep -f '[c]ontainerd --config'"
	t.Logf("memory of containerd with one pod: %s; of its shim: %s",
		c.sh(t, memory(daemonPID)), c.sh(t, memory("pgrep -f 'sampan-shi[m] -namespace'")))
	for _, kill := range []struct{ what, victim string }{
		{"containerd", daemonPID},
		{"the program that looks after containerd", "pgrep -P 1 -fx '/run/sampan/sampan node'"},
	} {
		old := c.sh(t, daemonPID)
		c.sh(t, "kill -9 $("+kill.victim+")")
		eventually(t, func() error {
			if now := c.sh(t, daemonPID+" || true"); now == "" || slices.Contains(strings.Fields(now), old) {
				return fmt.Errorf("killed %s: containerd was %q and is %q", kill.what, old, now)
			}
			return nil
		})
		began := clock.Now()
		c.await(t)
		t.Logf("killed %s: CRI answered %v after its return", kill.what, clock.Since(began))
		after := c.status(t, id)
		if after.State != cri.ContainerState_CONTAINER_RUNNING || after.StartedAt != before.StartedAt {
			t.Errorf("killed %s: the container is %v, started %d; it was %v, %d", kill.what, after.State, after.StartedAt, before.State, before.StartedAt)
		}
		out, err := c.rt.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"/sampan", "-test.run=^$"}, Timeout: 20})
		if err != nil || out.ExitCode != 0 {
			t.Errorf("killed %s: exec in the container: %v, %v", kill.what, out, err)
		}
	}
}

func (c *cluster) status(t *testing.T, id string) *cri.ContainerStatus {
	t.Helper()
	s, err := c.rt.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}

// memory prints the resident and the proportional size of a process.
func memory(pid string) string {
	return "awk '/^(Rss|Pss|Anonymous):/ {printf \"%s %d kB \", $1, $2}' /proc/$(" + pid + ")/smaps_rollup"
}

// logs checks that both streams arrive, in the form the kubelet reads.
func (c *cluster) logs(t *testing.T, pod string) {
	t.Helper()
	file := filepath.Join(c.m.Dir, "root/var/log/pods", pod, "main.log")
	eventually(t, func() error {
		got, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, want := range []string{" stdout F hello from " + pod + "\n", " stderr F and a complaint\n"} {
			if !strings.Contains(string(got), want) {
				return fmt.Errorf("log %q lacks %q", got, want)
			}
		}
		return nil
	})
}

func TestImagesOfANode(t *testing.T) {
	c := start(t)
	c.seed(t)
	got, err := c.img.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: programImage}})
	if err != nil || got.Image == nil || !got.Image.Pinned {
		t.Fatalf("the kubelet sees %+v, %v", got, err)
	}
	names := func() (out []string) {
		list, err := c.store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			out = append(out, i.Name)
		}
		return out
	}
	pause := config().SandboxImage
	if got, want := names(), []string{programImage, pause}; !slices.Equal(got, want) {
		t.Errorf("list = %q, want %q", got, want)
	}
	var saved bytes.Buffer
	if err := c.store.Save(t.Context(), &saved, pause); err != nil {
		t.Fatal(err)
	}
	if err := c.store.Remove(t.Context(), pause); err != nil {
		t.Fatal(err)
	}
	if got := names(); slices.Contains(got, pause) {
		t.Errorf("after removal: %q", got)
	}
	back, err := c.store.Import(t.Context(), &saved, false)
	if err != nil || !slices.Equal(back, []string{pause}) {
		t.Errorf("import = %q, %v", back, err)
	}
	_, id := c.run(t, "handled", "test-handler")
	c.logs(t, "handled")
	if s := c.status(t, id); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("a pod of the test handler is %v", s.State)
	}
	if _, err := c.store.Import(t.Context(), strings.NewReader("no archive"), false); err == nil {
		t.Error("noise was imported")
	}
}

func TestDebianImagesRun(t *testing.T) {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: the images are made of Debian's packages", tool)
		}
	}
	cache := t.TempDir()
	var images []image.Image
	for _, name := range image.Recipes() {
		o, err := image.Recipe(name)
		if err != nil {
			t.Fatal(err)
		}
		o.Cache = cache
		began := clock.Now()
		img, err := image.FromDeb(t.Context(), o)
		if err != nil {
			if strings.Contains(err.Error(), "apt-get") {
				t.Skipf("needs Debian's package archive: %v", err)
			}
			t.Fatal(err)
		}
		layers, _ := img.Layers()
		size, _ := layers[0].Size()
		t.Logf("%s made in %v, %d MB", name, clock.Since(began), size>>20)
		images = append(images, img)
	}
	c := start(t)
	c.seed(t)
	if err := c.store.Seed(t.Context(), images...); err != nil {
		t.Fatal(err)
	}
	_, web := c.runContainer(t, "web", "", &cri.ContainerConfig{Image: &cri.ImageSpec{Image: "nginx"}})
	var page string
	eventually(t, func() error {
		conn, err := c.m.Dial(t.Context(), "127.0.0.1:80")
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(clock.Now().Add(10 * time.Second))
		fmt.Fprint(conn, "GET / HTTP/1.0\r\nHost: web\r\n\r\n")
		data, err := io.ReadAll(conn)
		page = string(data)
		return err
	})
	if !strings.Contains(page, "Welcome to nginx!") {
		t.Errorf("nginx answered %q", page)
	}
	eventually(t, func() error {
		log, err := os.ReadFile(filepath.Join(c.m.Dir, "root/var/log/pods/web/main.log"))
		if err == nil && !strings.Contains(string(log), "GET / HTTP/1.0") {
			err = fmt.Errorf("no request in the log %q", log)
		}
		return err
	})
	_, box := c.runContainer(t, "box", "", &cri.ContainerConfig{
		Image: &cri.ImageSpec{Image: "busybox"}, Command: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"},
	})
	for _, e := range []struct {
		in   string
		argv []string
		want string
	}{
		{box, []string{"wget", "-qO-", "http://127.0.0.1/"}, "Welcome to nginx!"},
		{box, []string{"sh", "-c", "echo $((6*7)); id -un"}, "42\nroot"},
		{web, []string{"curl", "-s", "http://127.0.0.1/"}, "Welcome to nginx!"},
		{web, []string{"bash", "-c", "ls /usr/share/nginx/html | head -1"}, "index.html"},
	} {
		out, err := c.rt.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: e.in, Cmd: e.argv, Timeout: 20})
		if err != nil || out.ExitCode != 0 || !strings.Contains(string(out.Stdout), e.want) {
			t.Errorf("%q: %v, %v", e.argv, out, err)
		}
	}
	// nginx ends by the signal its image names, at once.
	began := clock.Now()
	if _, err := c.rt.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: web, Timeout: 20}); err != nil || clock.Since(began) > 10*time.Second {
		t.Errorf("stop took %v: %v", clock.Since(began), err)
	}
}

package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/embedded"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
	"github.com/sampan-dev/sampan/network"
)

// upOptions are the flags of sampan up.
type upOptions struct {
	nodes  int
	planes int // 0: as many as there are, or one
	wait   time.Duration
	cpus   int
	memory string
	// backend is flannel's name of how pods of several nodes reach each other;
	// empty for what the cluster has.
	backend string
}

func upCommand() *cobra.Command {
	o := upOptions{}
	cmd := &cobra.Command{
		Use: "up [NAME]", Short: "Make or start a cluster on this computer", Args: cobra.MaximumNArgs(1),
		Long: `Make a cluster on this computer, or start the one that is there.

Each node is a machine of its own made of Linux namespaces: its own network,
processes, mounts and cgroups. No packet of it leaves this computer. The API
server is reached at a port of 127.0.0.1; kubectl's configuration gets a context
"sampan-NAME" and uses it from now on.`,
		Example: "  sampan up\n  sampan up ci --nodes 3 --wait 2m\n  sampan up ha --nodes 5 --control-planes 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			return up(cmd.Context(), newProgress(cmd.ErrOrStderr()), nameArg(args), o)
		},
	}
	cmd.Flags().IntVar(&o.nodes, "nodes", 1, "how many nodes; the first ones also run the control planes")
	cmd.Flags().IntVar(&o.planes, "control-planes", 0, "how many control planes, chosen when the cluster is made: 1, 3, 5 or 7; one if not given")
	cmd.Flags().DurationVar(&o.wait, "wait", 60*time.Second, "how long to wait until all nodes are Ready; 0 does not wait")
	cmd.Flags().IntVar(&o.cpus, "cpus", 0, "processors each node claims to have; 0 for all of this computer's")
	cmd.Flags().StringVar(&o.memory, "memory", "", "memory each node claims to have, such as 4Gi; empty for all of this computer's")
	cmd.Flags().StringVar(&o.backend, "flannel-backend", "", "how pods of several nodes reach each other, chosen when the cluster is made: vxlan (if not given), host-gw, udp, or none for a network of your own (CNI), until whose configuration is there nodes are NotReady")
	return cmd
}

func up(ctx context.Context, p *progress, name string, o upOptions) error {
	if err := needRoot("sampan up"); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	if o.nodes < 1 || o.nodes > 100 {
		return fmt.Errorf("--nodes %d: want 1 to 100", o.nodes)
	}
	if err := claimedElsewhere(name); err != nil {
		return err
	}
	if err := preflight(); err != nil {
		return err
	}
	start := clock.Now()
	ms, door, err := describe(name, o)
	if err != nil {
		return err
	}
	if err := claim(name); err != nil {
		return err
	}
	if err := startPlanes(ctx, p, ms, door); err != nil {
		return err
	}
	var c client.Interface
	err = p.step(ctx, "wait for the API server", func(ctx context.Context) (err error) {
		c, err = connect(ctx, ms[0], max(o.wait, 30*time.Second))
		return err
	})
	if err != nil {
		return explain(ms[0], err)
	}
	for _, m := range ms[1:] { // they need the authority that the first one made
		err := p.step(ctx, "start node "+m.Spec.Name, func(ctx context.Context) error {
			if isPlane(m) {
				if err := handOver(ms[0], m); err != nil {
					return err
				}
			}
			return ensureRunning(ctx, m, ms[0])
		})
		if err != nil {
			return err
		}
	}
	if o.wait > 0 && backendOf(ms[0]) != network.None {
		err := p.step(ctx, fmt.Sprintf("wait for %d node(s) to be Ready", len(ms)), func(ctx context.Context) error {
			return waitReady(ctx, c, len(ms), o.wait)
		})
		if err != nil {
			return explain(ms[0], err)
		}
	}
	fmt.Fprintf(p.w, "cluster %s is up (%s); kubectl context %s\n", name, seconds(clock.Since(start)), contextName(name))
	return nil
}

// describe returns the machines of a cluster: those there are, and as many new
// ones as are missing; and its door, nil with one control plane.
func describe(name string, o upOptions) (ms []*machine.Machine, door *machine.Machine, err error) {
	if ms, err = clusterMachines(name); err != nil {
		return nil, nil, err
	}
	if door, err = openDoor(name); err != nil {
		return nil, nil, err
	}
	planes, err := o.controlPlanes(name, ms)
	if err != nil {
		return nil, nil, err
	}
	backend, err := o.networkBackend(name, ms)
	if err != nil {
		return nil, nil, err
	}
	capacity, err := o.capacity()
	if err != nil {
		return nil, nil, err
	}
	token, err := clusterToken(name)
	if err != nil {
		return nil, nil, err
	}
	programs := filepath.Join(stateDir(), "bin")
	if err := embedded.Install(programs, embedded.Init); err != nil {
		return nil, nil, err
	}
	plain := machine.Spec{Cluster: name, Init: filepath.Join(programs, embedded.Init), Restart: true,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}}
	for i := len(ms) + 1; i <= o.nodes; i++ {
		spec := plain
		spec.Name, spec.Address, spec.Capacity = nodeName(name, i), nodeAddress(i), capacity
		spec.Argv = append([]string{machine.Binary, "server"}, serverArgs(spec, i, planes, token)...)
		if backend != "" {
			spec.Argv = append(spec.Argv, backendFlag+backend)
		}
		if i == 1 && planes == 1 {
			listen, err := freePort()
			if err != nil {
				return nil, nil, err
			}
			spec.Forwards = []machine.Forward{{Listen: listen, Target: apiAddress(nodeAddress(1))}}
		}
		ms = append(ms, machine.New(machinesDir(), spec))
	}
	if planes > 1 && door == nil {
		door, err = newDoor(plain, planes)
	}
	return ms, door, err
}

// controlPlanes is how many control planes a cluster has, which is chosen once.
func (o upOptions) controlPlanes(name string, ms []*machine.Machine) (int, error) {
	if len(ms) == 0 {
		planes := max(o.planes, 1)
		return planes, checkPlanes(planes, o.nodes)
	}
	have := 0
	for _, m := range ms {
		if isPlane(m) {
			have++
		}
	}
	if o.planes != 0 && o.planes != have {
		return 0, fmt.Errorf("--control-planes %d: cluster %s was made with %d, which cannot be changed; `sampan down %s --delete` removes it", o.planes, name, have, name)
	}
	return have, nil
}

const backendFlag = "--flannel-backend="

// backendOf is what a machine was made with; empty for the default.
func backendOf(m *machine.Machine) string {
	for _, a := range m.Spec.Argv {
		if b, ok := strings.CutPrefix(a, backendFlag); ok {
			return b
		}
	}
	return ""
}

// networkBackend is that of a cluster, which is chosen once.
func (o upOptions) networkBackend(name string, ms []*machine.Machine) (string, error) {
	switch o.backend {
	case "", network.VXLAN, network.HostGW, network.UDP, network.None:
	default:
		return "", fmt.Errorf("--flannel-backend %q: supported values: %q, %q, %q, %q", o.backend, network.VXLAN, network.HostGW, network.UDP, network.None)
	}
	if len(ms) == 0 {
		return o.backend, nil
	}
	have := backendOf(ms[0])
	if o.backend != "" && o.backend != cmp.Or(have, network.VXLAN) {
		return "", fmt.Errorf("--flannel-backend %s: cluster %s was made with %s, which cannot be changed; `sampan down %s --delete` removes it", o.backend, name, cmp.Or(have, network.VXLAN), name)
	}
	return have, nil
}

// serverArgs are the flags of the server on the i-th node.
func serverArgs(spec machine.Spec, i, planes int, token string) []string {
	addr := spec.Address.Addr().String()
	// The disk is this computer's, and its fullness nothing that evicting pods would mend.
	args := []string{"--node-name=" + spec.Name, "--node-ip=" + addr, "--token=" + token, "--import-images=" + imagesMount,
		"--eviction-hard=memory.available<100Mi", "--image-gc-high-threshold=100"}
	if spec.Capacity.CPUs > 0 {
		args = append(args, "--capacity-cpu="+strconv.Itoa(spec.Capacity.CPUs))
	}
	if spec.Capacity.Memory > 0 {
		args = append(args, "--capacity-memory="+strconv.FormatInt(spec.Capacity.Memory, 10))
	}
	if planes > 1 {
		return append(args, planesArgs(i, planes)...)
	}
	if i > 1 {
		return append(args, "--join=https://"+nodeAddress(1).Addr().String()+":"+strconv.Itoa(apiPort), "--certificate-authority="+caMount)
	}
	return append(args, "--tls-san=127.0.0.1", "--tls-san=localhost")
}

// caMount is where a joining machine sees the cluster's authority.
const caMount = "/run/sampan/ca.crt"

// imagesMount is where a machine sees the image archives of this computer.
const imagesMount = "/run/sampan/images"

func (o upOptions) capacity() (machine.Capacity, error) {
	c := machine.Capacity{CPUs: o.cpus}
	if o.memory == "" {
		return c, nil
	}
	q, err := parseQuantity(o.memory)
	if err != nil {
		return c, fmt.Errorf("--memory %q: %w", o.memory, err)
	}
	c.Memory = q
	return c, nil
}

// clusterToken returns the secret by which a cluster's nodes join, made once.
func clusterToken(name string) (string, error) {
	path := filepath.Join(machinesDir(), name, "token")
	if b, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	raw := make([]byte, 11)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	h := hex.EncodeToString(raw)
	token := h[:6] + "." + h[6:22]
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return token, os.WriteFile(path, []byte(token), 0o600)
}

// ensureRunning starts a machine unless it runs. first is the control plane that
// it joins, nil for that one itself.
func ensureRunning(ctx context.Context, m, first *machine.Machine) error {
	st, err := m.State()
	if err != nil || st.Running {
		return err
	}
	if err := os.MkdirAll(imagesDir(), 0o755); err != nil {
		return err
	}
	m.Spec.Binds = []machine.Bind{{Source: imagesDir(), Target: imagesMount, ReadOnly: true}}
	if first != nil {
		m.Spec.Binds = append(m.Spec.Binds, machine.Bind{Source: inside(first, "/var/lib/sampan/pki/ca.crt"), Target: caMount, ReadOnly: true})
	}
	err = m.Start(ctx)
	if !errors.Is(err, syscall.EADDRINUSE) || len(m.Spec.Forwards) == 0 {
		return err
	}
	// Another program took the port while the node was off: any other will do,
	// and kubectl's configuration is written anew anyway.
	if m.Spec.Forwards[0].Listen, err = freePort(); err != nil {
		return err
	}
	return m.Start(ctx)
}

// connect waits until the server has written its kubeconfig and says it is
// ready, and adds the cluster to the user's own configuration.
func connect(ctx context.Context, m *machine.Machine, limit time.Duration) (client.Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		c, err := tryConnect(ctx, m)
		if err == nil {
			return c, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if st, err := m.State(); err == nil && !st.Running {
			return nil, errors.New("the node ended")
		}
		if clock.Sleep(ctx, 25*time.Millisecond) != nil {
			return nil, fmt.Errorf("not ready after %s: %w", limit, last)
		}
	}
}

func tryConnect(ctx context.Context, m *machine.Machine) (client.Interface, error) {
	kc, err := readKubeconfig(m)
	if err != nil {
		return nil, err
	}
	c, err := clientFor(kc)
	if err != nil {
		return nil, err
	}
	if _, err := c.Raw(ctx, "GET", "/readyz", nil); err != nil {
		return nil, err
	}
	return c, mergeKubeconfig(kc)
}

// waitReady watches Nodes until n of them are Ready.
func waitReady(ctx context.Context, c client.Interface, n int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	mirrors := client.NewMirrors(c)
	nodes := client.MirrorOf[corev1.Node](mirrors, client.MirrorOptions{})
	ready, done := map[string]bool{}, make(chan struct{})
	nodes.OnChange(func(_, now *corev1.Node) {
		if now == nil {
			return
		}
		was := len(ready) >= n
		if ready[now.Name] = nodeReady(now); !ready[now.Name] {
			delete(ready, now.Name)
		}
		if len(ready) >= n && !was {
			close(done)
		}
	})
	g := run.New(ctx)
	g.Go("nodes", mirrors.Run)
	select {
	case <-done:
		g.Stop()
		return g.Wait()
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("not all nodes Ready after %s", limit), g.Wait())
	}
}

// clientFor returns a client of the cluster that kc names.
func clientFor(kc *clientcmdapi.Config) (client.Interface, error) {
	c := kc.Contexts[kc.CurrentContext]
	if c == nil || kc.Clusters[c.Cluster] == nil || kc.AuthInfos[c.AuthInfo] == nil {
		return nil, errors.New("the administrator's kubeconfig is not whole")
	}
	cluster, user := kc.Clusters[c.Cluster], kc.AuthInfos[c.AuthInfo]
	return client.New(client.Config{
		Servers: []string{cluster.Server}, CAData: cluster.CertificateAuthorityData,
		CertData: user.ClientCertificateData, KeyData: user.ClientKeyData, UserAgent: "sampan", Timeout: 10 * time.Second,
	})
}

// consoleOf is the file that a node's output goes to.
func consoleOf(m *machine.Machine) string { return filepath.Join(m.Dir, "console.log") }

// parseQuantity reads a number of bytes such as 512Mi.
func parseQuantity(s string) (int64, error) {
	q, err := resource.ParseQuantity(s)
	return q.Value(), err
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// explain adds where to look to an error.
func explain(m *machine.Machine, err error) error {
	return fmt.Errorf("%w\nwhat the node said is in %s; its last words:\n%s", err, consoleOf(m), tail(consoleOf(m), 12))
}

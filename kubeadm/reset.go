package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
	kubecri "github.com/sampan-dev/sampan/kubelet/cri"
)

// resetRun is one reset.
type resetRun struct {
	printer
	paths
	cfg    *config.Reset
	ignore []string
	node   string
	// kubeconfig leads to the cluster.
	kubeconfig string
	// etcdDir is this machine's member's data; empty without a member.
	etcdDir string
	// leaves says that others remain, who go on without this machine.
	leaves bool
}

func (r *resetRun) dry() bool { return r.cfg.DryRun }

// resetPhases are reset's, in order. Each does what it can: a machine that is
// half broken is what reset is for.
func resetPhases() []phase[*resetRun] {
	return []phase[*resetRun]{
		{name: "preflight", about: "Run reset pre-flight checks", run: func(ctx context.Context, r *resetRun) error {
			r.say("[preflight] Running pre-flight checks")
			return preflight(ctx, r.printer, []check{privileged()}, append(r.ignore, r.cfg.IgnorePreflightErrors...))
		}},
		{name: "remove-etcd-member", about: "Remove a local etcd member.", run: removeMember},
		{name: "cleanup-node", about: "Run cleanup node.", run: cleanNode},
	}
}

// removeMember takes this machine out of a stacked etcd, so that the others do
// not go on counting it.
func removeMember(ctx context.Context, r *resetRun) error {
	dir, address, err := ownMember(r.manifests())
	if errors.Is(err, fs.ErrNotExist) {
		r.say("[reset] No etcd config found. Assuming external etcd")
		r.say("[reset] Please, manually reset etcd to prevent further issues")
		return nil
	}
	if err != nil {
		r.say("[reset] WARNING: the manifest of etcd does not say where its data is: %v", err)
		return nil
	}
	r.etcdDir = dir
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := client.FromKubeconfig(r.kubeconfig, "")
	if err != nil {
		r.say("[reset] WARNING: no connection to the cluster: %v", err)
		return nil
	}
	r.say("[reset] Reading configuration from the %q ConfigMap in namespace %q...", configMapName, "kube-system")
	cluster, err := fetchCluster(ctx, c)
	if err != nil {
		r.say("[reset] WARNING: %v", err)
		return nil
	}
	r.leaves, err = leaveEtcd(ctx, c, cluster, address)
	switch {
	case err != nil:
		r.say("[reset] WARNING: the member was not removed: %v; if other control planes remain, run there: etcdctl member list, and etcdctl member remove with the member's ID", err)
	case !r.leaves:
		r.say("[reset] This is the last etcd member: there is nobody to leave to")
	default:
		r.say("[reset] Removed the etcd member of this machine")
	}
	return nil
}

// ownMember reads from its manifest where this machine's member keeps its data
// and where it is reached.
func ownMember(manifests string) (dir, address string, err error) {
	pod, err := readManifest(manifests, "etcd")
	if err != nil {
		return "", "", err
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == "etcd-data" && v.HostPath != nil {
			dir = v.HostPath.Path
		}
	}
	u, err := url.Parse(pod.Annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"])
	if err != nil || dir == "" || u.Hostname() == "" {
		return "", "", errors.New("it has no volume etcd-data or no annotation kubeadm.kubernetes.io/etcd.advertise-client-urls")
	}
	return dir, u.Hostname(), nil
}

// readManifest reads a static pod of this machine.
func readManifest(dir, name string) (*corev1.Pod, error) {
	text, err := os.ReadFile(filepath.Join(dir, name+".yaml"))
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := yaml.Unmarshal(text, pod); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name+".yaml"), err)
	}
	return pod, nil
}

// cleanNode stops what runs and removes what was written.
func cleanNode(ctx context.Context, r *resetRun) error {
	r.say("[reset] Stopping the kubelet service")
	if err := service(ctx, "stop", r.say); err != nil {
		r.say("[reset] WARNING: %v", err)
	}
	if r.leaves { // a control plane has the right to, and others keep the cluster
		r.leaveNode(ctx)
	}
	// The kubelet, wherever it still runs, stops the static pods without their manifests.
	empty(r.manifests(), r.say)
	if err := removePods(ctx, r.cfg.CRISocket); err != nil {
		r.say("[reset] WARNING: pods were not all removed: %v", err)
	}
	r.say("[reset] Unmounting mounted directories in %q", r.kubelet)
	unmountBelow(r.kubelet, unmountFlags(r.cfg.UnmountFlags), r.say)
	dirs := []string{r.manifests(), r.cfg.CertificatesDir, r.kubelet}
	if r.etcdDir != "" {
		dirs = append(dirs, r.etcdDir)
	}
	if r.cfg.CleanupTmpDir {
		dirs = append(dirs, r.tmp())
	}
	r.say("[reset] Deleting contents of directories: %v", dirs)
	for _, dir := range dirs {
		empty(dir, r.say)
	}
	var files []string
	for _, f := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "bootstrap-kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
		files = append(files, r.file(f))
	}
	r.say("[reset] Deleting files: %v", files)
	for _, f := range append(files, r.marked()) {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.say("[reset] WARNING: %v", err)
		}
	}
	cleanNetwork(r.say)
	r.say("\nThe reset process does not perform cleanup of CNI plugin configuration,\nnetwork filtering rules of other programs and kubeconfig files.\n\n" +
		"For information on how to perform this cleanup manually, please see:\n    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/\n\n" +
		"The configuration of the network add-on: rm -rf /etc/cni/net.d\nA kubeconfig that leads to this cluster: rm $HOME/.kube/config\n")
	return nil
}

func (p paths) tmp() string { return p.file("tmp") }

// leaveNode deletes this machine's Node: nobody else would, and another machine
// of its name could not join while it is called ready.
func (r *resetRun) leaveNode(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := client.FromKubeconfig(r.kubeconfig, "")
	if err == nil {
		err = patiently(ctx, 15*time.Second, func(ctx context.Context) error {
			if err := client.Of[corev1.Node](c, "").Delete(ctx, r.node, nil); !apierrors.IsNotFound(err) {
				return err
			}
			return nil
		})
	}
	if err != nil {
		r.say("[reset] WARNING: the Node was not deleted: %v; on another control plane run: kubectl delete node %s", err, r.node)
		return
	}
	r.say("[reset] Deleted the Node %q", r.node)
}

// removePods ends every pod of this machine.
func removePods(ctx context.Context, socket string) error {
	r, _, err := kubecri.Connect(ctx, socket)
	if err != nil {
		return err
	}
	list, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list {
		errs = append(errs, r.StopPodSandbox(ctx, s.Id), r.RemovePodSandbox(ctx, s.Id))
	}
	return errors.Join(errs...)
}

// empty removes what is in a directory and keeps the directory, which may be a mount.
func empty(dir string, say func(string, ...any)) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			say("[reset] WARNING: %v", err)
		}
	}
}

// unmountBelow takes away volumes' mounts, the deepest first.
func unmountBelow(dir string, how int, say func(string, ...any)) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	var at []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			at = append(at, f[1])
		}
	}
	slices.Sort(at)
	slices.Reverse(at)
	for _, m := range at {
		if err := unix.Unmount(m, how); err != nil {
			say("[reset] WARNING: unmount %s: %v", m, err)
		}
	}
}

// unmountFlags are umount2's, by the names of a ResetConfiguration.
func unmountFlags(names []string) int {
	if len(names) == 0 {
		return unix.MNT_DETACH
	}
	flags := 0
	for _, n := range names {
		flags |= config.UnmountFlags[n]
	}
	return flags
}

package kubeadm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
	kubecri "github.com/sampan-dev/sampan/kubelet/cri"
)

// resetRun is one reset.
type resetRun struct {
	printer
	paths
	cfg  *config.Reset
	node string
}

// resetPhases are reset's, in order. Each does what it can: a machine that is
// half broken is what reset is for.
func resetPhases() []phase[*resetRun] {
	return []phase[*resetRun]{
		{name: "preflight", about: "Run reset pre-flight checks", run: func(_ context.Context, r *resetRun) error {
			r.say("[preflight] Running pre-flight checks")
			if os.Geteuid() != 0 {
				return errors.New("user is not running as root: run it with sudo")
			}
			return nil
		}},
		{name: "remove-etcd-member", about: "Remove a local etcd member.", run: removeMember},
		{name: "cleanup-node", about: "Run cleanup node.", run: cleanNode},
	}
}

// removeMember takes this machine out of a stacked etcd, so that the others do
// not go on counting it.
func removeMember(ctx context.Context, r *resetRun) error {
	manifest := filepath.Join(r.manifests(), "etcd.yaml")
	if _, err := os.Stat(manifest); errors.Is(err, fs.ErrNotExist) {
		r.say("[reset] No etcd manifest here: no member to remove")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := client.FromKubeconfig(r.file("admin.conf"), "")
	if err != nil {
		r.say("[reset] WARNING: no connection to the cluster: %v", err)
		return nil
	}
	cluster, err := fetchCluster(ctx, c)
	if err != nil {
		r.say("[reset] WARNING: %v", err)
		return nil
	}
	pod, err := client.Of[corev1.Pod](c, metav1.NamespaceSystem).Get(ctx, "etcd-"+r.node)
	if err != nil {
		r.say("[reset] WARNING: cannot tell which member is this machine's: %v", err)
		return nil
	}
	address := strings.TrimPrefix(pod.Annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"], "https://")
	address, _, _ = strings.Cut(address, ":")
	if err := leaveEtcd(ctx, c, cluster, address); err != nil {
		// The last member has nobody to leave to.
		r.say("[reset] The member was not removed: %v", err)
		return nil
	}
	r.say("[reset] Removed the etcd member of this machine")
	return nil
}

// cleanNode stops what runs and removes what was written.
func cleanNode(ctx context.Context, r *resetRun) error {
	r.say("[reset] Stopping the kubelet service")
	if err := service(ctx, "stop", r.say); err != nil {
		r.say("[reset] WARNING: %v", err)
	}
	// The kubelet, wherever it still runs, stops the static pods without their manifests.
	for _, dir := range []string{r.manifests()} {
		empty(dir, r.say)
	}
	if err := removePods(ctx, r.cfg.CRISocket); err != nil {
		r.say("[reset] WARNING: pods were not all removed: %v", err)
	}
	r.say("[reset] Unmounting mounted directories in %q", r.kubelet)
	unmountBelow(r.kubelet, r.say)
	r.say("[reset] Deleting contents of directories: [%s %s]", r.manifests(), r.cfg.CertificatesDir)
	for _, dir := range []string{r.cfg.CertificatesDir, r.kubelet, config.DefaultEtcdDir} {
		empty(dir, r.say)
	}
	r.say("[reset] Deleting files in %s", r.conf)
	for _, f := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "bootstrap-kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
		if err := os.Remove(r.file(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.say("[reset] WARNING: %v", err)
		}
	}
	r.say("\nThe reset process does not reset or clean up iptables rules or IPVS tables of other programs.\n" +
		"kube-proxy's own are removed by: kube-proxy --cleanup\n\nThe reset process does not clean your kubeconfig files and you must remove them manually.\n" +
		"Please, check the contents of the $HOME/.kube/config file.")
	return nil
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
func unmountBelow(dir string, say func(string, ...any)) {
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
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			say("[reset] WARNING: unmount %s: %v", m, err)
		}
	}
}

package kubeadm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubeadm/config"
	kubecri "github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
)

// programs is where a node keeps the programs that the binary carries.
const programs = "/var/lib/sampan/bin"

// requiredImages are those a control plane runs.
func requiredImages(cluster *config.Cluster) []string {
	o := image.DefaultSystem()
	var out []string
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		out = append(out, imageName(cluster, name, cluster.KubernetesVersion))
	}
	out = append(out, dnsImage(cluster), imageName(cluster, "pause", o.Pause[strings.LastIndex(o.Pause, ":")+1:]))
	if cluster.Etcd.Local != nil {
		out = append(out, imageName(cluster, "etcd", EtcdTag))
	}
	return out
}

func dnsImage(cluster *config.Cluster) string {
	repository, tag := cluster.ImageRepository, image.DefaultSystem().CoreDNS
	if r := cluster.DNS.ImageRepository; r != "" {
		repository = r
	} else if repository == config.DefaultImageRepository {
		repository += "/coredns"
	}
	if cluster.DNS.ImageTag != "" {
		tag = cluster.DNS.ImageTag
	}
	return strings.TrimSuffix(repository, "/") + "/coredns:" + tag
}

// bringImages brings what the control plane needs into the runtime. What this
// binary is, it puts there itself, under the names that the cluster's repository
// makes of them; only what is left is pulled.
func bringImages(ctx context.Context, cluster *config.Cluster, node config.NodeRegistration, say func(string, ...any)) error {
	socket := node.CRISocket
	_, images, err := kubecri.Connect(ctx, socket)
	if err != nil {
		return fmt.Errorf("container runtime %s: %w", socket, err)
	}
	missing := func() ([]string, error) {
		have, err := images.ListImages(ctx, nil)
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(requiredImages(cluster), func(name string) bool {
			return slices.ContainsFunc(have, func(i *cri.Image) bool { return slices.Contains(i.RepoTags, name) })
		}), nil
	}
	need, err := missing()
	if err != nil || len(need) == 0 {
		return err
	}
	if err := seed(ctx, cluster, socket); err != nil {
		say("[preflight] The images built in cannot be put into %s (%v); pulling them", socket, err)
	}
	if need, err = missing(); err != nil {
		return err
	}
	for _, name := range need {
		if node.ImagePullPolicy == corev1.PullNever {
			say("[preflight] Skipping pull of image: %s", name)
			continue
		}
		pull, cancel := context.WithTimeout(ctx, 5*time.Minute)
		_, err := images.PullImage(pull, &cri.ImageSpec{Image: name}, nil, nil)
		cancel()
		if err != nil {
			return fmt.Errorf("[ERROR ImagePull]: failed to pull image %s: %w; put it into the runtime by hand, or name a registry that has it with --image-repository", name, err)
		}
	}
	return nil
}

// seed puts the images that the binary is into containerd.
func seed(ctx context.Context, cluster *config.Cluster, socket string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	imgs, err := image.System(self, programs, image.DefaultSystem())
	if err != nil {
		return err
	}
	if cluster.ImageRepository != config.DefaultImageRepository {
		for i := range imgs {
			for _, n := range slices.Clone(imgs[i].Names) {
				base := n[strings.LastIndex(n, "/")+1:]
				imgs[i].Names = append(imgs[i].Names, strings.TrimSuffix(cluster.ImageRepository, "/")+"/"+base)
			}
		}
	}
	s, err := store.Open(socket)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Seed(ctx, imgs...)
}

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

// nodeImages are those that any node runs.
func nodeImages(cluster *config.Cluster) []string {
	all := requiredImages(cluster)
	return slices.DeleteFunc(all, func(name string) bool {
		base, _, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
		return !slices.Contains([]string{"kube-proxy", "pause", "coredns"}, base)
	})
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

// bringImages brings images of a cluster into the runtime. What this binary is, it
// puts there itself, under the names that the cluster's repository makes of them;
// only what is left is pulled.
func bringImages(ctx context.Context, cluster *config.Cluster, node config.NodeRegistration, names []string, say func(string, ...any)) error {
	images, missing, err := putImages(ctx, cluster, node.CRISocket, names, say)
	if err != nil {
		return err
	}
	for _, name := range missing {
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

// putImages puts the images that the binary is into the runtime, unless all of
// names are there, and returns those that are missing still.
func putImages(ctx context.Context, cluster *config.Cluster, socket string, names []string, say func(string, ...any)) (kubecri.Images, []string, error) {
	_, images, err := kubecri.Connect(ctx, socket)
	if err != nil {
		return nil, nil, fmt.Errorf("container runtime %s: %w", socket, err)
	}
	missing, err := without(ctx, images, names)
	if err != nil || len(missing) == 0 {
		return images, nil, err
	}
	if err := seed(ctx, cluster, socket); err != nil {
		say("[preflight] The images built in cannot be put into %s: %v", socket, err)
	}
	missing, err = without(ctx, images, names)
	return images, missing, err
}

// nodeHas puts the images that any node runs, and this binary is, into the
// runtime. What it is not, the kubelet pulls when it is wanted.
func nodeHas(ctx context.Context, cluster *config.Cluster, socket string, say func(string, ...any)) {
	_, missing, err := putImages(ctx, cluster, socket, nodeImages(cluster), say)
	switch {
	case err != nil:
		say("[kubelet-start] The images built in are not put into the container runtime: %v", err)
	case len(missing) > 0:
		say("[kubelet-start] Not built in, and left to the kubelet to pull: %s", strings.Join(missing, ", "))
	}
}

// without returns the names that the runtime has no image of.
func without(ctx context.Context, images kubecri.Images, names []string) ([]string, error) {
	have, err := images.ListImages(ctx, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(have, func(i *cri.Image) bool { return slices.Contains(i.RepoTags, name) })
	}), nil
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
	for i := range imgs {
		imgs[i].Names = namesIn(cluster, imgs[i].Names)
	}
	s, err := store.Open(socket)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Seed(ctx, imgs...)
}

// namesIn adds to the names of an image those that a cluster has for it.
func namesIn(cluster *config.Cluster, names []string) []string {
	out := slices.Clone(names)
	for _, n := range names {
		base := n[strings.LastIndex(n, "/")+1:]
		repository := cluster.ImageRepository
		if strings.HasPrefix(base, "coredns:") {
			repository = orElse(cluster.DNS.ImageRepository, repository)
		}
		name := strings.TrimSuffix(repository, "/") + "/" + base
		if repository != config.DefaultImageRepository && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

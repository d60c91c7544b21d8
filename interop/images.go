package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// image is one that the scenes' pods ask for: a recipe of Debian's packages, or
// one program and nothing else, as the programs' own images are.
type image struct {
	names   []string
	recipe  string
	program string
	user    string
}

var images = []image{
	{names: []string{"nginx:latest", "nginx:1.25", "nginx:1.26"}, recipe: "nginx"},
	{names: []string{"busybox:latest"}, recipe: "busybox"},
	{names: []string{"registry.k8s.io/metrics-server/metrics-server:v0.9.0"}, program: "metrics-server", user: "65534"},
	{names: []string{"quay.io/jetstack/cert-manager-controller:" + certVersion}, program: "cert-manager-controller", user: "1000"},
	{names: []string{"quay.io/jetstack/cert-manager-webhook:" + certVersion}, program: "cert-manager-webhook", user: "1000"},
	{names: []string{"quay.io/jetstack/cert-manager-cainjector:" + certVersion}, program: "cert-manager-cainjector", user: "1000"},
	{names: []string{"quay.io/jetstack/cert-manager-ctl:" + certVersion}, program: "cert-manager-ctl", user: "1000"},
	{names: []string{"quay.io/prometheus-operator/prometheus-operator:v0.85.0"}, program: "prometheus-operator", user: "65534"},
}

// images makes what is missing or whose program was built anew; the cluster's
// node imports it when it starts.
func (c *config) images(ctx context.Context) error {
	stamps := filepath.Join(c.home, "stamps")
	if err := os.MkdirAll(stamps, 0o755); err != nil {
		return err
	}
	for _, i := range images {
		stamp := filepath.Join(stamps, strings.NewReplacer("/", "_", ":", "_").Replace(i.names[0]))
		if i.program != "" && !c.needs(i.program) {
			continue
		}
		if _, err := os.Stat(stamp); err == nil && (i.program == "" || newer(stamp, c.program(i.program))) {
			continue
		}
		if err := c.image(ctx, i); err != nil {
			return err
		}
		if err := os.WriteFile(stamp, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) image(ctx context.Context, i image) error {
	args := []string{"image", "build", "--cluster", c.cluster, "--cache", filepath.Join(c.home, "cache"), "-t", strings.Join(i.names, ",")}
	if i.recipe != "" {
		return step("image "+i.names[0], c.command(ctx, append(args, "--from-deb", i.recipe)...))
	}
	root, err := os.MkdirTemp(c.home, "root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	data, err := os.ReadFile(c.program(i.program))
	if err != nil {
		return err
	}
	// The directory itself becomes the image's root, which every user may enter.
	if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(filepath.Join(root, i.program), data, 0o755)); err != nil {
		return err
	}
	return step("image "+i.names[0], c.command(ctx, append(args, "--from-dir", root, "--entrypoint", "/"+i.program, "--user", i.user)...))
}

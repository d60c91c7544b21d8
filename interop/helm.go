package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// helmUser is one Helm and the release it works on.
type helmUser struct {
	*stage
	tool  string // of programs
	space string // the namespace
	chart string // what helm create makes
}

// helm is a life of a chart's releases. The two Helms differ where they say so:
// v4 applies on the server's side, v3 merges three ways by itself.
func helm(s *stage, tool string) *scene {
	h := &helmUser{stage: s, tool: tool, space: tool, chart: filepath.Join(s.dir, tool, "demo")}
	sc := &scene{name: tool, program: "helm", version: programs[tool].version, clean: h.clean}
	rollback := map[string]string{"helm3": "--atomic", "helm4": "--rollback-on-failure"}[tool]
	sc.acts = []act{
		{"`helm create`, `install --wait`", h.install},
		{"`list`, `status`, `get manifest`, which `kubectl diff` finds no difference to", h.read},
		{"`test`: the chart's own pod reaches the service by its name", h.test},
		{"`upgrade --set replicaCount=3 --wait`", h.upgrade},
		{"`history`, `rollback --wait`", h.rollback},
		{"`upgrade --install " + rollback + "` of an image that is nowhere rolls back", func(ctx context.Context) error { return h.hopeless(ctx, rollback) }},
		{"managed fields, and a Deployment scaled by hand meanwhile", map[string]func(context.Context) error{"helm3": h.merges, "helm4": h.conflicts}[tool]},
		{"a chart with `crds/` and an object of them, `.Capabilities`, `lookup`, install hooks", h.orchard},
		{"`upgrade`: a password kept by `lookup`, the object changed, one that its schema refuses", h.orchardAgain},
		{"`uninstall --wait`: no object and no release is left, and the definition stays", h.uninstall},
	}
	if tool == "helm3" {
		sc.acts = slices.Insert(sc.acts, 7, act{"its release taken over by v4, `upgrade --server-side=true`: what v3 had set is v4's", h.takeOver})
	}
	return sc
}

func (h *helmUser) helm(ctx context.Context, args ...string) (string, error) {
	return h.run(ctx, "", append([]string{h.program(h.tool), "--namespace", h.space}, args...)...)
}

func (h *helmUser) install(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(h.chart), 0o755); err != nil {
		return err
	}
	if _, err := h.helm(ctx, "create", h.chart); err != nil {
		return err
	}
	// The chart's own image is nginx of a version; nginx is what is here, too.
	out, err := h.helm(ctx, "install", "demo", h.chart, "--create-namespace", "--wait", "--timeout", "2m", "--set", "image.tag=1.25")
	if err := says(out, err, "STATUS: deployed", "REVISION: 1"); err != nil {
		return err
	}
	return errors.Join(
		h.is(ctx, "1", "{.status.availableReplicas}", "-n", h.space, "deployment/demo"),
		h.is(ctx, "nginx:1.25", "{.spec.template.spec.containers[0].image}", "-n", h.space, "deployment/demo"))
}

func (h *helmUser) read(ctx context.Context) error {
	out, err := h.helm(ctx, "list")
	if err := says(out, err, "demo", "deployed", "demo-0.1.0"); err != nil {
		return err
	}
	out, err = h.helm(ctx, "status", "demo", "-o", "json")
	if err := says(out, err, `"status":"deployed"`); err != nil {
		return err
	}
	manifest, err := h.helm(ctx, "get", "manifest", "demo")
	if err := says(manifest, err, "kind: Deployment", "kind: Service", "kind: ServiceAccount"); err != nil {
		return err
	}
	_, err = h.in(ctx, manifest, "diff", "-n", h.space, "-f", "-")
	return err
}

func (h *helmUser) test(ctx context.Context) error {
	out, err := h.helm(ctx, "test", "demo", "--timeout", "2m", "--logs")
	return says(out, err, "Succeeded", "saving to 'index.html'")
}

func (h *helmUser) upgrade(ctx context.Context) error {
	out, err := h.helm(ctx, "upgrade", "demo", h.chart, "--reuse-values", "--set", "replicaCount=3", "--wait", "--timeout", "2m")
	if err := says(out, err, "REVISION: 2"); err != nil {
		return err
	}
	return h.is(ctx, "3 3", "{.status.readyReplicas} {.status.updatedReplicas}", "-n", h.space, "deployment/demo")
}

func (h *helmUser) rollback(ctx context.Context) error {
	out, err := h.helm(ctx, "rollback", "demo", "1", "--wait", "--timeout", "2m")
	if err := says(out, err, "Rollback was a success"); err != nil {
		return err
	}
	out, err = h.helm(ctx, "history", "demo")
	if err := says(out, err, "superseded", "Upgrade complete", "Rollback to 1"); err != nil {
		return err
	}
	return h.is(ctx, "1", "{.spec.replicas}", "-n", h.space, "deployment/demo")
}

func (h *helmUser) hopeless(ctx context.Context, flag string) error {
	start := time.Now()
	out, err := h.helm(ctx, "upgrade", "--install", "demo", h.chart, "--reuse-values", "--set", "image.tag=absent", flag, "--timeout", "20s")
	if err := refused(out, err, "demo", "rolled back"); err != nil {
		return err
	}
	if took := time.Since(start); took < 15*time.Second {
		return fmt.Errorf("it gave up after %s of 20 s:\n%s", took, out)
	}
	out, err = h.helm(ctx, "history", "demo")
	if err := says(out, err, "failed", "Rollback to 3"); err != nil {
		return err
	}
	out, err = h.helm(ctx, "status", "demo")
	return errors.Join(
		says(out, err, "STATUS: deployed"),
		h.is(ctx, "nginx:1.25", "{.spec.template.spec.containers[0].image}", "-n", h.space, "deployment/demo"),
		h.is(ctx, "1", "{.status.availableReplicas}", "-n", h.space, "deployment/demo"))
}

// conflicts: who applies on the server's side does not take fields from others
// unless told to.
func (h *helmUser) conflicts(ctx context.Context) error {
	if err := errors.Join(
		h.is(ctx, "Apply", `{.metadata.managedFields[?(@.manager=="helm")].operation}`, "-n", h.space, "deployment/demo", "--show-managed-fields"),
		h.scale(ctx)); err != nil {
		return err
	}
	upgrade := []string{"upgrade", "demo", h.chart, "--reuse-values", "--set", "replicaCount=1", "--wait", "--timeout", "2m"}
	out, err := h.helm(ctx, upgrade...)
	if err := refused(out, err, `conflict with "kubectl" with subresource "scale"`, ".spec.replicas"); err != nil {
		return err
	}
	if _, err := h.helm(ctx, append(upgrade, "--force-conflicts")...); err != nil {
		return err
	}
	return h.is(ctx, "1", "{.spec.replicas}", "-n", h.space, "deployment/demo")
}

// merges: what was changed by hand and is in the chart is changed back.
func (h *helmUser) merges(ctx context.Context) error {
	if err := errors.Join(
		h.is(ctx, "Update", `{.metadata.managedFields[?(@.manager=="helm")].operation}`, "-n", h.space, "deployment/demo", "--show-managed-fields"),
		h.scale(ctx)); err != nil {
		return err
	}
	if _, err := h.helm(ctx, "upgrade", "demo", h.chart, "--reuse-values", "--wait", "--timeout", "2m"); err != nil {
		return err
	}
	return h.is(ctx, "1", "{.spec.replicas}", "-n", h.space, "deployment/demo")
}

// takeOver: v4 makes the fields that v3 had updated its own applied ones.
func (h *helmUser) takeOver(ctx context.Context) error {
	out, err := h.run(ctx, "", h.program("helm4"), "-n", h.space, "upgrade", "demo", h.chart, "--reuse-values", "--server-side=true", "--wait", "--timeout", "2m")
	return errors.Join(
		says(out, err, "STATUS: deployed"),
		h.is(ctx, "Apply", `{.metadata.managedFields[?(@.manager=="helm")].operation}`, "-n", h.space, "deployment/demo", "--show-managed-fields"))
}

func (h *helmUser) scale(ctx context.Context) error {
	_, err := h.kubectl(ctx, "scale", "-n", h.space, "deployment/demo", "--replicas=2")
	return err
}

func (h *helmUser) orchard(ctx context.Context) error {
	if _, err := h.helm(ctx, "install", "orchard", h.charts("orchard"), "--wait", "--timeout", "2m"); err != nil {
		return err
	}
	var facts, system struct {
		Metadata struct{ UID, CreationTimestamp string }
		Data     map[string]string
	}
	if err := errors.Join(
		h.object(ctx, &facts, "-n", h.space, "configmap/orchard-facts"),
		h.object(ctx, &system, "namespace/kube-system")); err != nil {
		return err
	}
	// v4 asks again which APIs there are after it has made a chart's definitions,
	// v3 as well.
	for key, want := range map[string]string{
		"recent": "true", "deployments": "true", "trees": "true", "fruit": "false", "uid": system.Metadata.UID, "nodes": "1", "minor": "37",
	} {
		if facts.Data[key] != want {
			return fmt.Errorf("the template saw %s = %q, want %q", key, facts.Data[key], want)
		}
	}
	// The hook before the installation had ended before it began, and is kept;
	// that after it is gone.
	ended, err := h.field(ctx, "{.status.completionTime}", "-n", h.space, "job/orchard-pre-install")
	if err != nil {
		return err
	}
	if ended == "" || ended > facts.Metadata.CreationTimestamp {
		return fmt.Errorf("the hook ended %q, the ConfigMap is of %s", ended, facts.Metadata.CreationTimestamp)
	}
	out, err := h.kubectl(ctx, "get", "-n", h.space, "job/orchard-post-install")
	return errors.Join(
		refused(out, err, "NotFound"),
		h.is(ctx, "apple 3 true", "{.spec.kind} {.spec.height} {.spec.ripe}", "-n", h.space, "tree/orchard-tree"))
}

func (h *helmUser) orchardAgain(ctx context.Context) error {
	password := func() (string, error) {
		return h.field(ctx, "{.data.password}", "-n", h.space, "secret/orchard-password")
	}
	before, err := password()
	if err != nil {
		return err
	}
	if _, err := h.helm(ctx, "upgrade", "orchard", h.charts("orchard"), "--set", "height=7", "--wait", "--timeout", "2m"); err != nil {
		return err
	}
	after, err := password()
	if err != nil || before == "" || before != after {
		return fmt.Errorf("the password was %q and is %q: %w", before, after, err)
	}
	if err := h.is(ctx, "7", "{.spec.height}", "-n", h.space, "tree/orchard-tree"); err != nil {
		return err
	}
	out, err := h.helm(ctx, "upgrade", "orchard", h.charts("orchard"), "--set", "height=70")
	return errors.Join(
		refused(out, err, "spec.height", "should be less than or equal to 30"),
		h.is(ctx, "7", "{.spec.height}", "-n", h.space, "tree/orchard-tree"))
}

func (h *helmUser) uninstall(ctx context.Context) error {
	for _, release := range []string{"demo", "orchard"} {
		out, err := h.helm(ctx, "uninstall", release, "--wait", "--timeout", "2m")
		if err := says(out, err, `release "`+release+`" uninstalled`); err != nil {
			return err
		}
	}
	out, err := h.kubectl(ctx, "get", "deployment,replicaset,service,serviceaccount,secret,tree", "-n", h.space, "-o", "name")
	if err == nil && strings.TrimSpace(out) != "serviceaccount/default" {
		err = fmt.Errorf("left: %s", out)
	}
	// Helm never deletes what a chart has in crds/.
	return errors.Join(err,
		h.is(ctx, "trees.orchard.example.com", "{.metadata.name}", "crd/trees.orchard.example.com"),
		h.clean(ctx))
}

// clean takes away what releases leave on purpose, or were too broken to delete.
func (h *helmUser) clean(ctx context.Context) error {
	_, a := h.kubectl(ctx, "delete", "namespace", h.space, "--ignore-not-found", "--timeout=2m")
	_, b := h.kubectl(ctx, "delete", "crd", "trees.orchard.example.com", "--ignore-not-found", "--timeout=1m")
	return errors.Join(a, b)
}

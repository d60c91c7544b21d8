package kubeadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// patchTargets are what can be patched, and the types by which a strategic patch
// knows how lists merge; without one it merges as RFC 7386 says.
var patchTargets = map[string]any{
	"etcd": corev1.Pod{}, "kube-apiserver": corev1.Pod{}, "kube-controller-manager": corev1.Pod{}, "kube-scheduler": corev1.Pod{},
	"kubeletconfiguration": nil, "corednsdeployment": appsv1.Deployment{},
}

// patch is one document of one file.
type patch struct {
	file, target string
	kind         types.PatchType
	body         []byte // JSON
}

// patches are an administrator's changes to what kubeadm writes. None is nil.
type patches struct {
	dir   string
	list  []patch
	other []string // files that are no patch
}

// readPatches reads a directory of files target[suffix][+patchtype].extension,
// in the order of their names.
func readPatches(p *config.Patches) (*patches, error) {
	if p == nil || p.Directory == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(p.Directory) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("patches: %w", err)
	}
	out := &patches{dir: p.Directory}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		target, kind, err := patchName(e.Name())
		if err != nil {
			return nil, fmt.Errorf("patches: %s: %w", filepath.Join(p.Directory, e.Name()), err)
		}
		if target == "" {
			out.other = append(out.other, e.Name())
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.Directory, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("patches: %w", err)
		}
		for _, doc := range strings.Split(string(text), "\n---") {
			if doc = strings.TrimPrefix(strings.TrimSpace(doc), "---"); strings.TrimSpace(doc) == "" {
				continue
			}
			js, err := utilyaml.ToJSON([]byte(doc))
			if err != nil {
				return nil, fmt.Errorf("patches: could not parse patch file %q: %w", e.Name(), err)
			}
			out.list = append(out.list, patch{e.Name(), target, kind, js})
		}
	}
	return out, nil
}

// patchName reads a file's name. Without a target the file is not a patch.
func patchName(name string) (target string, kind types.PatchType, err error) {
	base, extension, _ := cutLast(name, ".")
	if extension != "json" && extension != "yaml" {
		return "", "", nil
	}
	base, word, typed := strings.Cut(base, "+")
	for t := range patchTargets {
		// The longest, should one begin with another.
		if strings.HasPrefix(base, t) && len(t) > len(target) {
			target = t
		}
	}
	if target == "" {
		return "", "", nil
	}
	switch word {
	case "strategic":
		return target, types.StrategicMergePatchType, nil
	case "merge":
		return target, types.MergePatchType, nil
	case "json":
		return target, types.JSONPatchType, nil
	case "":
		if !typed {
			return target, types.StrategicMergePatchType, nil
		}
	}
	return "", "", fmt.Errorf("unknown patch type %q from filename %q: the types are strategic, merge and json", word, name)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// tell says what was found in the directory.
func (p *patches) tell(say func(string, ...any)) {
	if p == nil {
		return
	}
	say("[patches] Reading patches from path %q", p.dir)
	var files []string
	for _, q := range p.list {
		files = append(files, q.file)
	}
	say("[patches] Found the following patch files: %v", slices.Compact(files))
	if len(p.other) > 0 {
		say("[patches] Ignored the following files: %v; the known targets are etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubeletconfiguration and corednsdeployment, the extensions json and yaml", p.other)
	}
}

// apply changes YAML of a target.
func (p *patches) apply(target string, text []byte, say func(string, ...any)) ([]byte, error) {
	if p == nil || !slices.ContainsFunc(p.list, func(q patch) bool { return q.target == target }) {
		return text, nil
	}
	js, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	for _, q := range p.list {
		if q.target != target {
			continue
		}
		if js, err = q.apply(js); err != nil {
			return nil, fmt.Errorf("could not apply the following patch of type %q to target %q: %s: %w", q.kind, target, q.file, err)
		}
		say("[patches] Applied patch of type %q to target %q", q.kind, target)
	}
	return yaml.JSONToYAML(js)
}

func (q patch) apply(js []byte) ([]byte, error) {
	switch like := patchTargets[q.target]; {
	case q.kind == types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(q.body)
		if err != nil {
			return nil, err
		}
		return p.Apply(js)
	case q.kind == types.StrategicMergePatchType && like != nil:
		return strategicpatch.StrategicMergePatch(js, q.body, like)
	}
	return jsonpatch.MergePatch(js, q.body)
}

// manifest writes a static pod with its patches.
func (p *patches) manifest(dir string, c component, say func(string, ...any)) error {
	text, err := p.pod(c, say)
	if err != nil {
		return err
	}
	return writeManifest(dir, c.name, text)
}

// pod is a component's manifest with its patches.
func (p *patches) pod(c component, say func(string, ...any)) ([]byte, error) {
	text, err := yaml.Marshal(c.pod())
	if err != nil {
		return nil, err
	}
	if text, err = p.apply(c.name, text, say); err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		return nil, fmt.Errorf("%s with its patches is no Pod any more: %w", c.name, err)
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, errors.New(c.name + " with its patches has no container any more")
	}
	return text, nil
}

// deployment changes a Deployment of kube-system as the patches of target say.
func (p *patches) deployment(ctx context.Context, c client.Interface, name, target string, say func(string, ...any)) error {
	if p == nil {
		return nil
	}
	of := client.Of[appsv1.Deployment](c, metav1.NamespaceSystem)
	old, err := of.Get(ctx, name)
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(old)
	if err != nil {
		return err
	}
	next, err := p.apply(target, text, say)
	if err != nil || bytes.Equal(next, text) {
		return err
	}
	d := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict(next, d); err != nil {
		return fmt.Errorf("with its patches it is no Deployment any more: %w", err)
	}
	_, err = of.Update(ctx, d)
	return err
}

package kubeadm

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kubeadm/config"
	"github.com/sampan-dev/sampan/storage/etcd"
)

func TestPatchNames(t *testing.T) {
	for name, want := range map[string]struct {
		target string
		kind   types.PatchType
		err    string
	}{
		"etcd.json":                           {target: "etcd", kind: types.StrategicMergePatchType},
		"kube-apiserver0+merge.yaml":          {target: "kube-apiserver", kind: types.MergePatchType},
		"kube-scheduler_b+json.json":          {target: "kube-scheduler", kind: types.JSONPatchType},
		"kubeletconfiguration+strategic.yaml": {target: "kubeletconfiguration", kind: types.StrategicMergePatchType},
		"kube-apiserver.yml":                  {},
		"readme.yaml":                         {},
		"etcd+shell.yaml":                     {err: `unknown patch type "shell" from filename "etcd+shell.yaml"`},
		"etcd+.yaml":                          {err: `unknown patch type ""`},
	} {
		target, kind, err := patchName(name)
		if target != want.target || kind != want.kind || (err == nil) != (want.err == "") || (err != nil && !strings.Contains(err.Error(), want.err)) {
			t.Errorf("%s: %q %q %v, want %+v", name, target, kind, err, want)
		}
	}
}

func TestPatchesChangeManifests(t *testing.T) {
	r := fresh(t, "")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kube-apiserver0.yaml":       "spec: {containers: [{name: kube-apiserver, resources: {requests: {cpu: 77m}}}]}",
		"kube-apiserver1+json.yaml":  `[{"op": "add", "path": "/metadata/labels/team", "value": "blue"}]`,
		"kubeletconfiguration0.yaml": "maxPods: 55\n---\ncgroupDriver: null",
		"notes.txt":                  "to read",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.patches, err = readPatches(&config.Patches{Directory: dir}); err != nil {
		t.Fatal(err)
	}
	if err := run(t, r, "control-plane"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.manifests(), "kube-apiserver.yaml"))
	for _, want := range []string{"cpu: 77m", "team: blue", "image: registry.k8s.io/kube-apiserver:"} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %v\n%s", want, err, text)
		}
	}
	cfg, err := r.patches.apply("kubeletconfiguration", []byte("cgroupDriver: cgroupfs\nhealthzPort: 10248\n"), r.say)
	if err != nil || strings.TrimSpace(string(cfg)) != "healthzPort: 10248\nmaxPods: 55" {
		t.Errorf("kubelet's configuration %q, %v", cfg, err)
	}
	said := r.out.(*strings.Builder).String()
	if !strings.Contains(said, `[patches] Applied patch of type "application/strategic-merge-patch+json" to target "kube-apiserver"`) {
		t.Errorf("said %s", said)
	}
	if r.patches.tell(r.say); !strings.Contains(r.out.(*strings.Builder).String(), "Ignored the following files: [notes.txt]") {
		t.Errorf("said %s", r.out)
	}
	bad := &patches{list: []patch{{"etcd.yaml", "etcd", types.MergePatchType, []byte(`{"spec": {"containers": null}}`)}}}
	if _, err := bad.pod(etcdMember(r.machine(), nil), r.say); err == nil || !strings.Contains(err.Error(), "no container any more") {
		t.Errorf("a patch that takes the container away: %v", err)
	}
}

func TestUnfinishedCommandGoesOn(t *testing.T) {
	p := paths{conf: filepath.Join(t.TempDir(), "kubernetes")}
	if p.unfinished(joinName) {
		t.Error("unfinished before it began")
	}
	if err := p.begin(joinName); err != nil {
		t.Fatal(err)
	}
	if !p.unfinished(joinName) || p.unfinished(initName) {
		t.Error("the mark of a join is a join's alone")
	}
	for name, want := range map[string]bool{"Port-6443": true, "FileAvailable--etc-kubernetes-kubelet.conf": true, "DirAvailable--var-lib-etcd": true, "CRI": false, "KubeletVersion": false} {
		if left(check{name: name}) != want {
			t.Errorf("left over by an earlier try: %s %v", name, !want)
		}
	}
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	if err := p.finish(); err != nil || p.unfinished(joinName) {
		t.Errorf("finished twice: %v", err)
	}
}

func TestVersionSkew(t *testing.T) {
	for _, tc := range []struct {
		cluster, mine string
		serves        bool
		want          string
	}{
		{"v1.37.2", "v1.37.2", true, ""},
		{"v1.37.1", "v1.37.2", false, ""},
		{"v1.37.1", "v1.37.2", true, "kubeadm upgrade apply v1.37.2 on a control plane"},
		{"v1.36.4", "v1.37.2", false, "the kubelet version is higher than the control plane version"},
		{"v1.40.0", "v1.37.2", false, ""},
		{"v1.41.0", "v1.37.2", false, "lower than kubeadm can support"},
	} {
		var out strings.Builder
		err := preflight(t.Context(), printer{&out}, versionChecks(tc.cluster, tc.mine, tc.serves), nil)
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s joins %s (control plane: %v): %v, want %q", tc.mine, tc.cluster, tc.serves, err, tc.want)
		}
	}
}

func TestNewMemberKnowsTheOthers(t *testing.T) {
	all := []etcd.Member{
		{ID: 1, Name: "m1", PeerURLs: []string{"https://100.64.0.2:2380"}},
		{ID: 2, PeerURLs: []string{"https://100.64.0.3:2380"}, Learner: true},
		{ID: 3, PeerURLs: []string{"https://100.64.0.4:2380"}, Learner: true},
	}
	id, others := acquainted(all, "m2", "https://100.64.0.3:2380")
	if want := []member{{"m1", "https://100.64.0.2:2380"}, {"m2", "https://100.64.0.3:2380"}}; id != 2 || !reflect.DeepEqual(others, want) {
		t.Errorf("member %d knows %v, want %v", id, others, want)
	}
}

package volume

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func files(pairs ...string) map[string]File {
	out := map[string]File{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = File{Data: []byte(pairs[i+1]), Mode: 0o640}
	}
	return out
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteAtomicShowsExactlyWhatItIsGiven(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name    string
		files   map[string]File
		changed bool
		want    []string
	}{
		{"first", files("a", "1", "sub/b", "2"), true, []string{"a", "sub"}},
		{"the same again", files("a", "1", "sub/b", "2"), false, []string{"a", "sub"}},
		{"new content", files("a", "9", "sub/b", "2"), true, []string{"a", "sub"}},
		{"one goes, one comes", files("c", "3"), true, []string{"c"}},
		{"nothing", files(), true, nil},
	} {
		changed, err := WriteAtomic(dir, tt.files)
		if err != nil || changed != tt.changed {
			t.Fatalf("%s: changed %v, err %v", tt.name, changed, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		hidden := 0
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..") {
				hidden++
			} else {
				names = append(names, e.Name())
			}
		}
		if !slices.Equal(names, tt.want) || hidden != 2 {
			t.Errorf("%s: shows %v and %d hidden entries, want %v and ..data with its directory", tt.name, names, hidden, tt.want)
		}
		for p, f := range tt.files {
			if got := read(t, dir, p); got != string(f.Data) {
				t.Errorf("%s: %s holds %q", tt.name, p, got)
			}
		}
	}
}

func TestWriteAtomicRefusesPathsThatLeave(t *testing.T) {
	for _, p := range []string{"../a", "/etc/a", "a/../../b", "..x", ""} {
		if _, err := WriteAtomic(t.TempDir(), files(p, "x")); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
}

func TestSubPathsDoNotLeaveTheVolume(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(root, "in"), 0o755), os.Symlink("in", filepath.Join(root, "inner")),
		os.Symlink(outside, filepath.Join(root, "absolute")), os.Symlink("../../..", filepath.Join(root, "up")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for sub, ok := range map[string]bool{
		"in": true, "inner": true, "new/deep/er": true, "absolute": false, "absolute/x": false, "up": false, "up/etc": false, "in/../in": true,
	} {
		fd, err := openBeneath(root, sub, &corev1.Pod{})
		if (err == nil) != ok {
			t.Errorf("%s: %v, want allowed %v", sub, err, ok)
		}
		if err == nil {
			_ = os.NewFile(uintptr(fd), sub).Close()
		}
	}
	if e, _ := os.ReadDir(outside); len(e) != 0 {
		t.Errorf("something was made outside: %v", e)
	}
}

// objects is a Source of fixed objects.
type objects struct {
	config map[string]*corev1.ConfigMap
	tokens int
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if c := o.config[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (o *objects) Claim(context.Context, *corev1.Pod, string) (*corev1.PersistentVolume, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, "")
}

func (o *objects) Token(_ context.Context, _, _ string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	o.tokens++
	r = r.DeepCopy()
	r.Status.Token = strings.Repeat("t", o.tokens)
	r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))
	return r, nil
}
func (o *objects) Field(pod *corev1.Pod, path string) (string, error) {
	return pod.Name + " " + path, nil
}
func (o *objects) Resource(*corev1.Pod, *corev1.ResourceFieldSelector) (string, error) {
	return "7", nil
}

func podWith(v ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{Volumes: v}}
}

func configVolume(name string, optional bool, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: &optional, Items: items,
	}}}
}

func TestConfigMapVolumes(t *testing.T) {
	src := &objects{config: map[string]*corev1.ConfigMap{"c": {Data: map[string]string{"k": "v", "l": "w"}}}}
	for _, tt := range []struct {
		name string
		v    corev1.Volume
		want []string
		err  string
	}{
		{"all keys", configVolume("c", false), []string{"k", "l"}, ""},
		{"chosen keys", configVolume("c", false, corev1.KeyToPath{Key: "k", Path: "d/e"}), []string{"d"}, ""},
		{"a key that is not there", configVolume("c", false, corev1.KeyToPath{Key: "x", Path: "x"}), nil, "references non-existent configmap key: x"},
		{"unless it is optional", configVolume("c", true, corev1.KeyToPath{Key: "x", Path: "x"}), nil, ""},
		{"one that is not there", configVolume("no", false), nil, `MountVolume.SetUp failed for volume "v" : configmap "no" not found`},
		{"unless it is optional too", configVolume("no", true), nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(t.TempDir(), src, nil)
			paths, err := m.Setup(t.Context(), podWith(tt.v))
			if tt.err != "" {
				if err == nil || !strings.HasSuffix(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			shown, err := filepath.Glob(paths["v"].Path + "/[a-z]*")
			if err != nil {
				t.Fatal(err)
			}
			for i := range shown {
				shown[i] = filepath.Base(shown[i])
			}
			if !slices.Equal(shown, tt.want) {
				t.Errorf("shows %v, want %v", shown, tt.want)
			}
			if err := m.Teardown("u"); err != nil {
				t.Error(err)
			}
			if left, _ := m.Orphans(); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestTokensAreRenewedAtFourFifths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &objects{}
		m := New(t.TempDir(), src, nil)
		life := int64(1000)
		pod := podWith()
		get := func() string {
			v, err := m.token(t.Context(), pod, &corev1.ServiceAccountTokenProjection{ExpirationSeconds: &life, Path: "token"})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for _, tt := range []struct {
			wait time.Duration
			want string
		}{{0, "t"}, {799 * time.Second, "t"}, {2 * time.Second, "tt"}, {700 * time.Second, "tt"}} {
			time.Sleep(tt.wait)
			if got := get(); got != tt.want {
				t.Errorf("after another %s the token is %q, want %q", tt.wait, got, tt.want)
			}
		}
	})
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		kind corev1.HostPathType
		err  string
	}{
		{dir, corev1.HostPathDirectory, ""},
		{file, corev1.HostPathDirectory, "hostPath type check failed: " + file + " is not a directory"},
		{file, corev1.HostPathFile, ""},
		{dir, corev1.HostPathFile, "hostPath type check failed: " + dir + " is not a file"},
		{dir + "/new", corev1.HostPathDirectoryOrCreate, ""},
		{dir + "/newfile", corev1.HostPathFileOrCreate, ""},
		{file, corev1.HostPathSocket, "hostPath type check failed: " + file + " is not a socket file"},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{dir + "/none", corev1.HostPathUnset, ""},
	} {
		err := checkHostPath(&corev1.HostPathVolumeSource{Path: tt.path, Type: &tt.kind})
		if got := ""; err != nil {
			got = err.Error()
			if got != tt.err {
				t.Errorf("%s as %q: %s", tt.path, tt.kind, got)
			}
		} else if tt.err != "" {
			t.Errorf("%s as %q was accepted", tt.path, tt.kind)
		}
	}
}

package api_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
)

// formats are the published files of one object, by their extension.
var formats = map[string]api.Format{".json": api.FormatJSON, ".yaml": api.FormatYAML, ".pb": api.FormatProtobuf}

// foreign are published objects that are no kinds of the API: bodies of
// webhooks, discovery documents, the frames of a watch.
var foreign = []string{"admission.k8s.io.", "imagepolicy.k8s.io.", "apidiscovery.k8s.io.", "core.v1.WatchEvent"}

// gone are published versions that have left the API since: their Go types are
// no longer published, and nothing can read them.
var gone = []string{
	"autoscaling.v2beta1.", "autoscaling.v2beta2.", "networking.k8s.io.v1alpha1.", "resource.k8s.io.v1alpha3.",
	"scheduling.k8s.io.v1alpha1.", "scheduling.k8s.io.v1alpha2.",
}

// TestPublishedObjectsRoundTrip reads every object that the Kubernetes project
// publishes as a fixture of its API and writes it again: the bytes must be the
// published ones, in each format, whatever format it was read from.
func TestPublishedObjectsRoundTrip(t *testing.T) {
	for _, version := range []string{"HEAD", "v1.33.0", "v1.36.0"} {
		t.Run(version, func(t *testing.T) {
			objects := published(t, version)
			if len(objects) < 100 {
				t.Fatalf("%d published objects, want the whole API", len(objects))
			}
			for name, files := range objects {
				named := func(p string) bool { return strings.HasPrefix(name, p) }
				if slices.ContainsFunc(foreign, named) || version != "HEAD" && left(files) && slices.ContainsFunc(gone, named) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					if version == "HEAD" {
						roundTrip(t, files)
					} else {
						readable(t, files)
					}
				})
			}
		})
	}
}

// published returns the fixtures of a release: name without extension to the
// files by extension.
func published(t *testing.T, version string) map[string]map[string][]byte {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatalf("find k8s.io/api: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "testdata", version, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string][]byte{}
	for _, path := range files {
		ext := filepath.Ext(path)
		if _, ok := formats[ext]; !ok || strings.Contains(filepath.Base(path), ".after_roundtrip.") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ext)
		if all[name] == nil {
			all[name] = map[string][]byte{}
		}
		all[name][ext] = data
	}
	return all
}

func roundTrip(t *testing.T, files map[string][]byte) {
	for from, data := range files {
		obj := decode(t, from, data)
		for to, want := range files {
			var got bytes.Buffer
			if err := api.Encode(formats[to], obj, &got); err != nil {
				t.Errorf("read from %s, write %s: %v", from, to, err)
				continue
			}
			if from == to && !bytes.Equal(plain(to, got.Bytes()), plain(to, want)) {
				t.Errorf("%s: read and written again it is\n%s\nwant\n%s", to, clip(got.Bytes()), clip(want))
			}
			// Parts without a schema are kept as they were spelled, so across
			// formats objects are compared by meaning.
			if again := asJSON(t, decode(t, to, got.Bytes())); !bytes.Equal(again, asJSON(t, decode(t, to, want))) {
				t.Errorf("read from %s and written as %s it is another object: %s", from, to, clip(again))
			}
		}
	}
}

// readable is what an older release's object must be while its version is
// still served: its formats agree.
func readable(t *testing.T, files map[string][]byte) {
	var first []byte
	for from, data := range files {
		obj, _, err := api.Decode(formats[from], data, nil, false)
		if err != nil {
			t.Fatalf("read %s: %v", from, err)
		}
		if got := asJSON(t, obj); first == nil {
			first = got
		} else if !bytes.Equal(first, got) {
			t.Errorf("read from %s it is another object than from the other formats", from)
		}
	}
}

// left says whether an object is of a version without a type.
func left(files map[string][]byte) bool {
	_, _, err := api.Decode(api.FormatJSON, files[".json"], nil, false)
	return runtime.IsNotRegisteredError(err)
}

func decode(t *testing.T, from string, data []byte) runtime.Object {
	obj, _, err := api.Decode(formats[from], data, nil, false)
	if err != nil {
		t.Fatalf("read %s: %v", from, err)
	}
	return obj
}

// asJSON is the object without indentation.
func asJSON(t *testing.T, obj runtime.Object) []byte {
	var out bytes.Buffer
	if err := api.Encode(api.FormatJSON, obj, &out); err != nil {
		t.Fatal(err)
	}
	return compact(out.Bytes())
}

// plain undoes the indentation of published JSON, which the API does not have.
func plain(ext string, data []byte) []byte {
	if ext == ".json" {
		return compact(data)
	}
	return data
}

func compact(data []byte) []byte {
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return data
	}
	return out.Bytes()
}

func clip(data []byte) []byte { return data[:min(len(data), 2000)] }

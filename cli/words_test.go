package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// say runs sampan's own words in an empty home.
func say(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	return program(t, func(a []string) int { return Main(t.Context(), a) }, args...)
}

func emptyHome(t *testing.T) string {
	home := t.TempDir()
	t.Setenv("SAMPAN_HOME", home)
	t.Setenv("KUBECONFIG", filepath.Join(home, "kubeconfig"))
	return home
}

func TestVersion(t *testing.T) {
	if code, out, _ := say(t, "version"); code != 0 || !strings.HasPrefix(out, "sampan v1.37") || !strings.Contains(out, "\nKubernetes v1.37") {
		t.Errorf("code %d: %s", code, out)
	}
	code, out, _ := say(t, "version", "-o", "json")
	var v struct{ GitVersion, GoVersion string }
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil || !strings.HasPrefix(v.GitVersion, "v1.37") || v.GoVersion == "" {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
}

func TestWordsRefuseWhatTheyCannotDo(t *testing.T) {
	home := emptyHome(t)
	garbage := filepath.Join(home, "garbage.tar")
	if err := os.WriteFile(garbage, []byte("this is no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := os.Getuid() == 0
	for words, want := range map[string]string{
		"upp":                                  "Did you mean this?\n\tup",
		"up --node 2":                          "unknown flag: --node; did you mean --nodes?\nsee sampan up --help",
		"up a b":                               "accepts at most 1 arg(s)",
		"version -o xml":                       `--output "xml": want json`,
		"version extra":                        `unknown command "extra" for "sampan version"`,
		"kubeconfig nowhere":                   "there is no cluster \"nowhere\"; `sampan ls` lists those there are, `sampan up nowhere` makes it",
		"image import":                         "requires at least 1 arg(s)",
		"image import /nowhere.tar":            "/nowhere.tar: ",
		"image import " + garbage:              garbage + ": ",
		"image build":                          "from-deb",
		"image build --from-deb curl,iproute2": "-t: an image of curl, iproute2 needs a name",
		"image system":                         "--address: Required value",
		"image rm Not/A:Name:At:All":           "Not/A:Name:At:All",
		"exec":                                 "requires at least 1 arg(s)",
	} {
		code, out, errs := say(t, strings.Fields(words)...)
		if code == 0 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("sampan %s: code %d, %q %q, want %q", words, code, out, errs, want)
		}
	}
	if !root {
		return // who is not root is told so first
	}
	for words, want := range map[string]string{
		"up Bad_Name":              `cluster name "Bad_Name": want 1 to 20 lower case letters`,
		"up --nodes 0":             "--nodes 0: want 1 to 100",
		"up x --memory much":       `--memory "much"`,
		"down nowhere":             `there is no cluster "nowhere"`,
		"exec -- true":             `there is no cluster "default"`,
		"exec --cluster x -- true": `there is no cluster "x"`,
		"image ls":                 `there is no cluster "default"`,
		"image save --cluster x a": `there is no cluster "x"`,
		"server --cluster-dns 1.1.1.1 --node-ip 127.0.0.1": "--cluster-dns 1.1.1.1 is not in --service-cluster-ip-range",
		"server --join https://x:1":                        "--join needs --token and --certificate-authority",
	} {
		if code, _, errs := say(t, strings.Fields(words)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("sampan %s: code %d, %q, want %q", words, code, errs, want)
		}
	}
}

func TestLsOfNothingSaysSo(t *testing.T) {
	emptyHome(t)
	if code, out, errs := say(t, "ls"); code != 0 || out != "" || !strings.Contains(errs, "`sampan up` makes one") {
		t.Errorf("code %d: %q %q", code, out, errs)
	}
	if code, _, errs := say(t, "down", "nowhere", "--delete"); os.Getuid() == 0 && code != 0 {
		t.Errorf("removing what is not there: %d %s", code, errs)
	}
}

// Every word explains itself, with its flags.
func TestEveryWordHasHelp(t *testing.T) {
	for _, words := range []string{"", "up", "down", "ls", "exec", "kubeconfig", "version", "server", "install",
		"image", "image build", "image import", "image ls", "image rm", "image save", "image system", "image serve"} {
		code, out, errs := say(t, append(strings.Fields(words), "--help")...)
		if code != 0 || errs != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("sampan %s --help: code %d, %s%s", words, code, out, errs)
		}
	}
	_, out, _ := say(t, "--help")
	for _, word := range []string{"up", "down", "ls", "exec", "kubeconfig", "image", "version", "server", "install", "etcd", "kube-apiserver", "containerd"} {
		if !strings.Contains(out, word) {
			t.Errorf("sampan --help does not tell of %s", word)
		}
	}
}

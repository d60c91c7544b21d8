package cli

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kubelet/config"
)

func sample() *flags {
	f := newFlags("kube-thing")
	f.in("Etcd").StringSlice("etcd-servers", nil, "where etcd is")
	f.in("Serving").Int("secure-port", 6443, "the port")
	f.aliases["port"] = "secure-port"
	f.retired = []retired{{why: "logs go to standard error", bools: []string{"logtostderr"}, names: []string{"log-dir"}}}
	return f
}

func TestFlagsOfEveryAge(t *testing.T) {
	f := sample()
	set, err := f.parse(strings.Fields("--etcd_servers=http://a:1,http://b:2 --logtostderr --log-dir /x --port 1 --logtostderr=false"))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := set.GetStringSlice("etcd-servers"); len(v) != 2 {
		t.Errorf("--etcd_servers: %q", v)
	}
	if v, _ := set.GetInt("secure-port"); v != 1 {
		t.Errorf("--port: %d", v)
	}
	want := []string{
		"Flag --logtostderr has been deprecated, logs go to standard error", "Flag --log-dir has been deprecated, logs go to standard error",
		"Flag --port has been deprecated, use --secure-port",
	}
	if strings.Join(f.warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings %q", f.warnings)
	}
}

func TestUnknownFlagsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"--etcd-server=x": "unknown flag: --etcd-server; did you mean --etcd-servers?",
		"--securport=1":   "unknown flag: --securport; did you mean --secure-port?",
		"--elephant":      "unknown flag: --elephant",
		"word":            `unknown command "word"`,
		"--secure-port=x": `invalid argument "x" for "--secure-port" flag`,
		"--secure-port":   "flag needs an argument: --secure-port",
		"-q":              "unknown shorthand flag: 'q' in -q",
	} {
		if _, err := sample().parse(strings.Fields(args)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestHelpIsGroupedAndTellsOfOldFlags(t *testing.T) {
	var b bytes.Buffer
	sample().help(&b, "kube-thing does things.", 0)
	at := 0
	for _, part := range []string{"kube-thing does things.", "Usage:", "Etcd flags:", "--etcd-servers strings", "Serving flags:", "(default 6443)", "accepted with a warning:", "--log-dir, --logtostderr, --port"} {
		i := strings.Index(b.String()[at:], part)
		if i < 0 {
			t.Fatalf("%q is missing, or too early, in:\n%s", part, b.String())
		}
		at += i
	}
}

// Every flag that the kubelet's help shows works, none of them is a retired one.
func TestKubeletHelpIsHonest(t *testing.T) {
	values := map[string]string{"int64": "1", "int32": "1", "int": "1", "duration": "10s", "": "true"}
	own := map[string]string{"node-labels": "a=b", "register-with-taints": "a=b:NoSchedule", "system-reserved": "cpu=1", "kube-reserved": "cpu=1", "eviction-hard": "memory.available<1Mi",
		"eviction-soft": "memory.available<1Mi", "eviction-soft-grace-period": "memory.available=1m", "eviction-minimum-reclaim": "memory.available=1Mi"}
	kubeletFlags(func(_, name, kind, usage string) {
		if usage == "" {
			t.Errorf("--%s has no explanation", name)
		}
		if name == "help" || name == "version" || name == "config" || name == "config-dir" {
			return
		}
		value, ok := own[name]
		if !ok {
			value = values[kind]
		}
		if value == "" {
			value = "x"
		}
		o, err := config.Parse([]string{"--" + name + "=" + value})
		if err != nil || len(o.Warnings) > 0 {
			t.Errorf("--%s=%s: %v %q", name, value, err, o.Warnings)
		}
	})
}

func TestKubeletSpellingsOfLongAgo(t *testing.T) {
	c := newComponent("kubelet", "")
	args, server := kubeletArgs(strings.Fields("--api-servers=http://a:8080,http://b:8080 --experimental-bootstrap-kubeconfig=/x --v=2"), c)
	if server != "http://a:8080" || strings.Join(args, " ") != "--bootstrap-kubeconfig=/x --v=2" || len(c.warnings) != 2 {
		t.Errorf("%q %q %q", server, args, c.warnings)
	}
}

// A kubelet answers everybody only where everybody may do everything anyway.
func TestKubeletTrustsWhereItsServerDoes(t *testing.T) {
	conf := func(server string) string {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		text := "clusters:\n- name: a\n  cluster: {server: '" + server + "'}\ncontexts:\n- name: c\n  context: {cluster: a}\ncurrent-context: c\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--kubeconfig=" + path
	}
	open := conf("http://k8s-master:9090")
	for _, c := range []struct {
		args   []string
		server string
		want   bool
	}{
		{[]string{open}, "", true},
		{[]string{"--v=2"}, "http://k8s-master:8080", true},
		{[]string{conf("https://k8s-master:6443")}, "", false},
		{[]string{conf("http://localhost:8080")}, "", false},
		{[]string{"--kubeconfig=/none"}, "", false},
		{[]string{open, "--client-ca-file", "/x"}, "", false},
		{[]string{open, "--anonymous-auth=false"}, "", false},
		{[]string{open, "--authorization_mode=Webhook"}, "", false},
		{[]string{open, "--config=/x"}, "", false},
		{nil, "", false},
	} {
		k := newComponent("kubelet", "")
		got := k.trusting(c.args, c.server)
		if opened := strings.Contains(strings.Join(got, " "), "--authorization-mode=AlwaysAllow"); opened != c.want || opened != (len(k.warnings) > 0) {
			t.Errorf("%q: %q, warnings %q", c.args, got, k.warnings)
		}
	}
}

func TestOldListOfAdmission(t *testing.T) {
	for list, denied := range map[string]string{"LimitRanger,ServiceAccount": "", "LimitRanger,ResourceQuota": "ServiceAccount"} {
		c, f := apiServer()
		c.global()
		if _, err := c.parse([]string{"--admission-control=" + list}); err != nil {
			t.Fatal(err)
		}
		f.oldAdmission(slog.New(slog.DiscardHandler))
		if strings.Join(f.cfg.EnableAdmission, ",") != list || strings.Join(f.cfg.DisableAdmission, ",") != denied {
			t.Errorf("%s: on %q, off %q", list, f.cfg.EnableAdmission, f.cfg.DisableAdmission)
		}
	}
}

// program runs a component's main and returns its exit code and what it printed.
func program(t *testing.T, main func(args []string) int, args ...string) (code int, out, err string) {
	t.Helper()
	oldOut, oldErr := os.Stdout, os.Stderr
	defer func() { os.Stdout, os.Stderr = oldOut, oldErr }()
	files := [2]*os.File{}
	for i := range files {
		f, e := os.Create(filepath.Join(t.TempDir(), "out"))
		if e != nil {
			t.Fatal(e)
		}
		defer f.Close()
		files[i] = f
	}
	os.Stdout, os.Stderr = files[0], files[1]
	code = main(args)
	read := func(f *os.File) string {
		_, _ = f.Seek(0, io.SeekStart)
		b, _ := io.ReadAll(f)
		return string(b)
	}
	return code, read(files[0]), read(files[1])
}

func TestComponentsExplainThemselves(t *testing.T) {
	for name, c := range map[string]struct {
		main func(args []string) int
		says []string
	}{
		"kube-apiserver": {func(a []string) int { return APIServer(t.Context(), a) },
			[]string{"Etcd flags:", "--etcd-servers", "Secure serving flags:", "Insecure serving flags:", "--insecure-port", "Authentication flags:", "--client-ca-file", "Admission flags:", "--admission-control", "Global flags:", "--version"}},
		"kube-scheduler":          {func(a []string) int { return Scheduler(t.Context(), a) }, []string{"Leader election flags:", "--leader-elect", "(default 10259)", "--master", "--address"}},
		"kube-controller-manager": {func(a []string) int { return ControllerManager(t.Context(), a) }, []string{"--cluster-signing-cert-file", "(default 10257)", "--concurrent-deployment-syncs"}},
		"kube-proxy":              {func(a []string) int { return Proxy(t.Context(), a) }, []string{"--proxy-mode", "0.0.0.0:10256", "127.0.0.1:10249", "--ipvs-scheduler"}},
		"kubelet":                 {func(a []string) int { return Kubelet(t.Context(), a) }, []string{"Container runtime flags:", "--container-runtime-endpoint", "--cluster-dns", "--experimental-bootstrap-kubeconfig"}},
	} {
		code, out, errs := program(t, c.main, "--help")
		if code != 0 || errs != "" {
			t.Errorf("%s --help: code %d, %s", name, code, errs)
		}
		for _, s := range c.says {
			if !strings.Contains(out, s) {
				t.Errorf("%s --help lacks %q", name, s)
			}
		}
		if code, out, _ := program(t, c.main, "--version"); code != 0 || !strings.HasPrefix(out, "Kubernetes v1.37") {
			t.Errorf("%s --version: code %d, %q", name, code, out)
		}
		if code, _, errs := program(t, c.main, "--versionn"); code != 2 || !strings.Contains(errs, "did you mean --") || !strings.Contains(errs, "see "+name+" --help") {
			t.Errorf("%s with a typing error: code %d, %q", name, code, errs)
		}
	}
}

func TestAPIServerRefusesWhatItCannotDo(t *testing.T) {
	for args, want := range map[string]string{
		"--basic-auth-file=/x --etcd-servers=http://127.0.0.1:1":            "--basic-auth-file: passwords in a file were removed in v1.19",
		"--service-cluster-ip-range=10.0.0.0 --etcd-servers=http://x:1":     "--service-cluster-ip-range: ",
		"--client-ca-file=/nowhere --etcd-servers=http://x:1 --cert-dir=%d": "--client-ca-file: open /nowhere",
		"--tls-cert-file=/x --etcd-servers=http://x:1 --cert-dir=%d":        "must be given together",
		"--cert-dir=%d": "--etcd-servers: Required value",
		"--runtime-config=apps/v7=true --authorization-mode=RBAC --etcd-servers=http://127.0.0.1:1 --cert-dir=%d": "--runtime-config: unknown API version apps/v7",
		"--service-node-port-range=0 --etcd-servers=http://127.0.0.1:1 --cert-dir=%d":                             "--service-node-port-range",
		"--kubelet-preferred-address-types=IP --etcd-servers=http://127.0.0.1:1 --cert-dir=%d":                    `--kubelet-preferred-address-types: Invalid value: "IP"`,
		"--kubelet-certificate-authority=/nowhere --etcd-servers=http://127.0.0.1:1 --cert-dir=%d":                "--kubelet-certificate-authority: open /nowhere",
	} {
		args = strings.ReplaceAll(args, "%d", t.TempDir())
		code, _, errs := program(t, func(a []string) int { return APIServer(t.Context(), a) }, strings.Fields(args)...)
		if code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, %q, want %q", args, code, errs, want)
		}
	}
}

func TestInsecureAddressesAreLoopback(t *testing.T) {
	for given, want := range map[string]string{"0.0.0.0": "127.0.0.1", "127.0.0.2": "127.0.0.2", "localhost": "localhost", "::1": "::1"} {
		f := &apiServerFlags{}
		f.cfg.InsecurePort, f.cfg.InsecureAddress = 8080, given
		f.insecure(quiet())
		if f.cfg.InsecureAddress != want {
			t.Errorf("%s becomes %s", given, f.cfg.InsecureAddress)
		}
	}
	f := &apiServerFlags{allowRemote: true}
	f.cfg.InsecurePort, f.cfg.InsecureAddress = 8080, "0.0.0.0"
	if f.insecure(quiet()); f.cfg.InsecureAddress != "0.0.0.0" {
		t.Error("--insecure-allow-remote has no effect")
	}
}

// A file's settings win over flags; what is not understood is refused.
func TestConfigurationFiles(t *testing.T) {
	write := func(text string) string {
		p := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	head := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
	for text, want := range map[string]string{
		head + "profiles: [{schedulerName: a}, {schedulerName: a}]\n":                      `profiles[1].schedulerName: Duplicate value: "a"`,
		head + "extenders: [{urlPrefix: x}]\n":                                             "extenders: Forbidden",
		"apiVersion: v1\nkind: Pod\n":                                                      `no kind "Pod" is registered for version "v1"`,
		head + "profiles: [{schedulerName: mine}]\nleaderElection: {leaderElect: false}\n": "",
	} {
		code, _, errs := program(t, func(a []string) int { return Scheduler(t.Context(), a) }, "--config="+write(text), "--kubeconfig=/nowhere")
		if want == "" {
			want = "/nowhere" // read, and on to the next thing
		}
		if code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, %q, want %q", text, code, errs, want)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Every flag that the kubelet reads is in its help: the list is taken from its source.
func TestKubeletHelpIsComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../kubelet/config/config.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	kubeletFlags(func(_, name, _, _ string) { shown[name] = true })
	read := 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Type.Results == nil || len(f.Type.Results.List) != 1 {
			continue
		}
		if m, ok := f.Type.Results.List[0].Type.(*ast.MapType); !ok || fmt.Sprint(m.Value) != "flag" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if lit, ok := kv.Key.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				read++
				if name := strings.Trim(lit.Value, `"`); !shown[name] {
					t.Errorf("--%s is not in the help", name)
				}
			}
			return true
		})
	}
	if read < 50 {
		t.Errorf("only %d flags were found", read)
	}
}

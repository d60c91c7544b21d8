package kubeadm

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kit/pki"
)

// reference is kubeadm's: every command with its flags, as its reference pages
// have them. A group has `all` beside its parts.
const reference = `
init: apiserver-advertise-address apiserver-bind-port apiserver-cert-extra-sans cert-dir certificate-key config control-plane-endpoint cri-socket dry-run feature-gates ignore-preflight-errors image-repository kubernetes-version node-name patches pod-network-cidr service-cidr service-dns-domain skip-certificate-key-print skip-phases skip-token-print token token-ttl upload-certs rootfs
init phase preflight: config cri-socket dry-run ignore-preflight-errors image-repository
init phase certs all: apiserver-advertise-address apiserver-cert-extra-sans cert-dir config control-plane-endpoint dry-run kubernetes-version service-cidr service-dns-domain
init phase certs ca: cert-dir config dry-run kubernetes-version
init phase certs apiserver: apiserver-advertise-address apiserver-cert-extra-sans cert-dir config control-plane-endpoint dry-run kubernetes-version service-cidr service-dns-domain
init phase certs apiserver-kubelet-client: cert-dir config dry-run kubernetes-version
init phase certs front-proxy-ca: cert-dir config dry-run kubernetes-version
init phase certs front-proxy-client: cert-dir config dry-run kubernetes-version
init phase certs etcd-ca: cert-dir config dry-run kubernetes-version
init phase certs etcd-server: cert-dir config dry-run kubernetes-version
init phase certs etcd-peer: cert-dir config dry-run kubernetes-version
init phase certs etcd-healthcheck-client: cert-dir config dry-run kubernetes-version
init phase certs apiserver-etcd-client: cert-dir config dry-run kubernetes-version
init phase certs sa: cert-dir config dry-run kubernetes-version
init phase kubeconfig all: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version node-name
init phase kubeconfig admin: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version
init phase kubeconfig super-admin: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version
init phase kubeconfig kubelet: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version node-name
init phase kubeconfig controller-manager: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version
init phase kubeconfig scheduler: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run kubernetes-version
init phase etcd local: cert-dir config dry-run image-repository patches
init phase control-plane all: apiserver-advertise-address apiserver-bind-port cert-dir config control-plane-endpoint dry-run feature-gates image-repository kubernetes-version patches pod-network-cidr service-cidr
init phase control-plane apiserver: cert-dir config dry-run patches
init phase control-plane controller-manager: cert-dir config dry-run patches
init phase control-plane scheduler: cert-dir config dry-run patches
init phase kubelet-start: config cri-socket dry-run image-repository node-name patches
init phase wait-control-plane: config dry-run
init phase upload-config all: config dry-run
init phase upload-config kubeadm: config dry-run
init phase upload-config kubelet: config dry-run
init phase upload-certs: certificate-key config dry-run skip-certificate-key-print upload-certs
init phase mark-control-plane: config dry-run node-name
init phase bootstrap-token: config dry-run skip-token-print
init phase kubelet-finalize all: cert-dir config dry-run
init phase kubelet-finalize enable-client-cert-rotation: cert-dir config dry-run
init phase addon all: apiserver-advertise-address apiserver-bind-port config control-plane-endpoint dry-run feature-gates image-repository kubernetes-version pod-network-cidr service-cidr service-dns-domain
init phase addon coredns: config dry-run feature-gates image-repository service-cidr service-dns-domain
init phase addon kube-proxy: apiserver-advertise-address apiserver-bind-port config control-plane-endpoint dry-run image-repository pod-network-cidr
init phase show-join-command: config
join: apiserver-advertise-address apiserver-bind-port certificate-key config control-plane cri-socket discovery-file discovery-token discovery-token-ca-cert-hash discovery-token-unsafe-skip-ca-verification dry-run ignore-preflight-errors node-name patches skip-phases tls-bootstrap-token token
join phase preflight: apiserver-advertise-address apiserver-bind-port certificate-key config control-plane cri-socket discovery-file discovery-token dry-run ignore-preflight-errors node-name token
join phase control-plane-prepare all: apiserver-advertise-address apiserver-bind-port certificate-key config control-plane discovery-file dry-run node-name patches token
join phase control-plane-prepare download-certs: certificate-key config control-plane discovery-file discovery-token dry-run tls-bootstrap-token token
join phase control-plane-prepare certs: apiserver-advertise-address config control-plane dry-run node-name token
join phase control-plane-prepare kubeconfig: certificate-key config control-plane dry-run token
join phase control-plane-prepare control-plane: apiserver-advertise-address apiserver-bind-port config control-plane dry-run patches
join phase check-etcd: config control-plane dry-run
join phase kubelet-start: config cri-socket discovery-file discovery-token dry-run node-name patches tls-bootstrap-token token
join phase etcd-join: config control-plane dry-run patches
join phase kubelet-wait-bootstrap: config dry-run
join phase control-plane-join all: apiserver-advertise-address config control-plane dry-run node-name patches
join phase control-plane-join mark-control-plane: config control-plane dry-run node-name
join phase wait-control-plane: config control-plane dry-run
reset: cert-dir cleanup-tmp-dir config cri-socket dry-run force ignore-preflight-errors kubeconfig skip-phases
reset phase preflight: dry-run force ignore-preflight-errors
reset phase remove-etcd-member: dry-run kubeconfig
reset phase cleanup-node: cert-dir cleanup-tmp-dir cri-socket dry-run
token create: certificate-key config description groups print-join-command ttl usages dry-run kubeconfig
token generate: dry-run kubeconfig
token list: allow-missing-template-keys output show-managed-fields kubeconfig
token delete: dry-run kubeconfig
certs check-expiration: allow-missing-template-keys cert-dir config kubeconfig output show-managed-fields
certs certificate-key:
certs generate-csr: cert-dir config kubeconfig-dir
certs renew all: cert-dir config kubeconfig
certs renew admin.conf: cert-dir config kubeconfig
certs renew super-admin.conf: cert-dir config kubeconfig
certs renew controller-manager.conf: cert-dir config kubeconfig
certs renew scheduler.conf: cert-dir config kubeconfig
certs renew apiserver: cert-dir config kubeconfig
certs renew apiserver-etcd-client: cert-dir config kubeconfig
certs renew apiserver-kubelet-client: cert-dir config kubeconfig
certs renew etcd-healthcheck-client: cert-dir config kubeconfig
certs renew etcd-peer: cert-dir config kubeconfig
certs renew etcd-server: cert-dir config kubeconfig
certs renew front-proxy-client: cert-dir config kubeconfig
config print init-defaults: component-configs kubeconfig
config print join-defaults: component-configs kubeconfig
config print reset-defaults: kubeconfig
config print upgrade-defaults: kubeconfig
config migrate: allow-experimental-api new-config old-config
config validate: allow-experimental-api config
config images list: allow-missing-template-keys config feature-gates image-repository kubernetes-version output show-managed-fields
config images pull: config cri-socket feature-gates image-repository kubernetes-version
kubeconfig user: client-name config org token validity-period
upgrade plan: allow-experimental-upgrades allow-release-candidate-upgrades config etcd-upgrade ignore-preflight-errors kubeconfig print-config
upgrade apply: allow-experimental-upgrades allow-release-candidate-upgrades certificate-renewal config dry-run etcd-upgrade force ignore-preflight-errors kubeconfig patches print-config skip-phases yes
upgrade apply phase preflight: config dry-run ignore-preflight-errors kubeconfig
upgrade apply phase control-plane: certificate-renewal dry-run etcd-upgrade kubeconfig patches
upgrade apply phase upload-config all: dry-run kubeconfig
upgrade apply phase kubelet-config: dry-run kubeconfig patches
upgrade apply phase bootstrap-token: dry-run kubeconfig
upgrade apply phase addon all: dry-run kubeconfig patches
upgrade apply phase addon coredns: dry-run kubeconfig patches
upgrade apply phase addon kube-proxy: dry-run kubeconfig
upgrade apply phase post-upgrade: dry-run kubeconfig
upgrade node: certificate-renewal config dry-run etcd-upgrade ignore-preflight-errors kubeconfig patches skip-phases
upgrade node phase preflight: config dry-run ignore-preflight-errors
upgrade node phase control-plane: certificate-renewal dry-run etcd-upgrade kubeconfig patches
upgrade node phase kubelet-config: dry-run kubeconfig patches
upgrade node phase addon all: dry-run kubeconfig
upgrade node phase post-upgrade: dry-run kubeconfig
upgrade diff: config context-lines kubeconfig
version: output
completion bash:
completion zsh:
alpha certs check-expiration: cert-dir
`

// TestReference: every command of the reference is there, says what it is for
// when asked, and has its flags.
func TestReference(t *testing.T) {
	root := program()
	root.InitDefaultCompletionCmd("bash") // as running it does
	for line := range strings.Lines(strings.TrimSpace(reference)) {
		path, list, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			t.Fatalf("what is %q?", line)
		}
		c, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			t.Errorf("kubeadm %s: there is only %q (%v)", path, c.CommandPath(), err)
			continue
		}
		for _, f := range append(strings.Fields(list), "v", "help") {
			c.InitDefaultHelpFlag()
			if c.Flags().Lookup(f) == nil && c.InheritedFlags().Lookup(f) == nil && !strings.HasPrefix(path, "completion") {
				t.Errorf("kubeadm %s has no --%s", path, f)
			}
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() != "help" && c.Name() != "completion" {
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if out, err := say(args...); err != nil || !strings.Contains(out, "Usage:") {
				t.Errorf("kubeadm %v: %v\n%s", args, err, out)
			}
			if c.Short == "" {
				t.Errorf("kubeadm %v does not say what it is for", args)
			}
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(program())
}

// say runs kubeadm and returns what it says.
func say(args ...string) (string, error) {
	var out strings.Builder
	c := program()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

// scene is a machine whose directories are a test's, and an API server.
type scene struct {
	*testing.T
	dir, file string
	f         *front
}

// does runs kubeadm, which must say texts; one that begins with "!" it must not.
func (s *scene) does(line string, texts ...string) string {
	s.Helper()
	out, err := say(strings.Fields(strings.ReplaceAll(line, "DIR", s.dir))...)
	if err != nil {
		s.Fatalf("kubeadm %s: %v\n%s", line, err, out)
	}
	for _, text := range texts {
		if no, found := strings.CutPrefix(text, "!"); found == strings.Contains(out, no) {
			s.Errorf("kubeadm %s: %q in\n%s", line, text, out)
		}
	}
	return out
}

func (s *scene) has(files ...string) {
	s.Helper()
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(s.dir, f)); err != nil {
			s.Errorf("%s: %v", f, err)
		}
	}
}

// TestEveryCommandAlone runs the commands one by one, as who makes a cluster by
// its phases does; what needs a kubelet or a container runtime says what it
// would do.
func TestEveryCommandAlone(t *testing.T) {
	s := &scene{T: t, dir: t.TempDir()}
	before := usual
	usual = paths{conf: s.dir, kubelet: filepath.Join(s.dir, "kubelet")}
	defer func() { usual = before }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s.file = filepath.Join(s.dir, "kubeadm.yaml")
	text := `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 127.0.0.1, bindPort: ` + port + `}
nodeRegistration: {name: m1}
bootstrapTokens: [{token: abcdef.0123456789abcdef, description: from the file}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
controlPlaneEndpoint: 127.0.0.1:` + port + `
certificatesDir: ` + s.dir + `/pki
encryptionAlgorithm: ECDSA-P256
etcd: {local: {dataDir: ` + s.dir + `/etcd}}
`
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.certificates()
	ca, err := pki.Load(filepath.Join(s.dir, "pki"), "ca")
	if err != nil {
		t.Fatal(err)
	}
	s.f = newFront(t, ca, l, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
	s.phases()
	s.tokens()
	s.configs()
	s.joins()
	s.upgrades()
	s.resets()
}

func (s *scene) certificates() {
	s.Helper()
	const with = " --config DIR/kubeadm.yaml"
	s.does("init phase certs all --dry-run"+with, "[dryrun] Would run phase certs", "[dryrun] Would run phase certs/apiserver-etcd-client")
	if _, err := os.Stat(filepath.Join(s.dir, "pki")); err == nil {
		s.Error("--dry-run wrote files")
	}
	for _, c := range certificates {
		s.does("init phase certs "+c.name+with, "[certs] Generating \""+c.base+"\" certificate and key")
	}
	s.does("init phase certs sa"+with, `[certs] Generating "sa" key and public key`)
	s.does("init phase certs all"+with, "[certs] Using existing ca certificate authority", `[certs] Using the existing "sa" key`)
	for _, i := range identities {
		s.does("init phase kubeconfig "+i.phase()+with, "[kubeconfig] Writing \""+i.file+"\" kubeconfig file")
	}
	s.does("init phase kubeconfig all"+with, "[kubeconfig] Using existing kubeconfig file")
	s.does("certs check-expiration --kubeconfig-dir DIR"+with, "CERTIFICATE AUTHORITY", "apiserver-etcd-client", "364d", "!yes")
	s.does("certs check-expiration -o json --kubeconfig-dir DIR"+with, `"kind": "CertificateExpirationInfo"`, `"caName": "etcd-ca"`)
	s.does("certs renew all --kubeconfig-dir DIR"+with, "Done renewing certificates")
	for _, c := range certificates {
		if c.ca != "" {
			s.does("certs renew "+c.name+with, "renewed")
		}
	}
	s.does("certs renew admin.conf --kubeconfig-dir DIR"+with, "renewed")
	if key := strings.TrimSpace(s.does("certs certificate-key")); len(key) != 64 {
		s.Errorf("certificate key %q", key)
	}
	s.does("certs generate-csr --cert-dir DIR/elsewhere --kubeconfig-dir DIR/elsewhere" + with)
	s.has("elsewhere/apiserver.csr", "elsewhere/admin.conf.csr")
	s.does("kubeconfig user --client-name anna --org dev"+with, "client-certificate-data")
	s.does("kubeconfig user --client-name anna --token abc"+with, "token: abc")
}

func (s *scene) phases() {
	s.Helper()
	const with = " --config DIR/kubeadm.yaml"
	s.does("init --dry-run"+with, "[dryrun] Would run phase kubelet-finalize/enable-client-cert-rotation", "controlPlaneEndpoint: 127.0.0.1:")
	s.does("init --dry-run --skip-phases=addon/kube-proxy"+with, "addon/kube-proxy (skipped)")
	s.does("init phase etcd local"+with, "[etcd] Creating static Pod manifest for local etcd")
	for _, c := range []string{"apiserver", "controller-manager", "scheduler", "all"} {
		s.does("init phase control-plane "+c+with, "[control-plane] Creating static Pod manifest for")
	}
	s.has("manifests/etcd.yaml", "manifests/kube-apiserver.yaml", "manifests/kube-controller-manager.yaml", "manifests/kube-scheduler.yaml")
	for _, c := range []string{"preflight", "kubelet-start", "wait-control-plane"} {
		s.does("init phase "+c+" --dry-run"+with, "[dryrun] Would run phase "+c)
	}
	s.does("init phase upload-config kubeadm"+with, `ConfigMap "kubeadm-config"`)
	s.does("init phase upload-config kubelet"+with, `ConfigMap "kubelet-config"`)
	s.does("init phase upload-config all" + with)
	s.does("init phase upload-certs"+with, "Skipping phase")
	s.does("init phase mark-control-plane"+with, "Marking the node m1 as control-plane")
	s.does("init phase bootstrap-token"+with, "[bootstrap-token] Using token: abcdef.0123456789abcdef", `Creating the "cluster-info" ConfigMap`)
	s.does("init phase kubelet-finalize all"+with, "[kubelet-finalize]")
	s.does("init phase kubelet-finalize enable-client-cert-rotation"+with, "[kubelet-finalize]")
	s.does("init phase addon kube-proxy"+with, "[addons] Applied essential addon: kube-proxy")
	s.does("init phase addon coredns"+with, "[addons] Applied essential addon: CoreDNS")
	s.does("init phase addon all" + with)
	s.does("init phase show-join-command"+with, "kubeadm join 127.0.0.1:", "--discovery-token-ca-cert-hash sha256:")
	s.does("alpha phase mark-control-plane"+with, "use the command kubeadm init phase")
}

func (s *scene) tokens() {
	s.Helper()
	const at = " --kubeconfig DIR/admin.conf"
	if got := strings.TrimSpace(s.does("token create cccccc.0123456789abcdef --ttl 0 --description mine" + at)); got != "cccccc.0123456789abcdef" {
		s.Errorf("token create said %q", got)
	}
	s.does("token create --print-join-command --certificate-key 00"+at, "kubeadm join 127.0.0.1:", "--discovery-token-ca-cert-hash sha256:", "--control-plane --certificate-key 00")
	s.does("token create dddddd.0123456789abcdef --dry-run"+at, "dddddd.0123456789abcdef", "Would create")
	s.does("token list"+at, "cccccc.0123456789abcdef", "<forever>", "<never>", "mine", "from the file", "!dddddd")
	s.does("token list -o json"+at, `"kind": "BootstrapToken"`, `"token": "cccccc.0123456789abcdef"`)
	s.does("token delete cccccc --dry-run"+at, "Would delete")
	s.does("token delete cccccc"+at, `bootstrap token "cccccc" deleted`)
	s.does("token list"+at, "!cccccc")
	if out := s.does("token generate"); len(strings.TrimSpace(out)) != 23 {
		s.Errorf("token generate said %q", out)
	}
	if out, err := say("token", "create", "short", "--kubeconfig", s.dir+"/admin.conf"); err == nil || !strings.Contains(err.Error(), "was not of the form") {
		s.Errorf("a bad token: %v %s", err, out)
	}
}

func (s *scene) configs() {
	s.Helper()
	s.does("config print init-defaults", "kind: InitConfiguration", "kind: ClusterConfiguration", "!kind: Kube")
	s.does("config print init-defaults --component-configs KubeletConfiguration,KubeProxyConfiguration", "kind: KubeletConfiguration", "kind: KubeProxyConfiguration", "clusterDNS:")
	for _, kind := range []string{"Join", "Reset", "Upgrade"} {
		s.does("config print "+strings.ToLower(kind)+"-defaults", "kind: "+kind+"Configuration")
	}
	if _, err := say("config", "print", "init-defaults", "--component-configs", "Other"); err == nil || !strings.Contains(err.Error(), "KubeProxyConfiguration and KubeletConfiguration") {
		s.Errorf("another component: %v", err)
	}
	old := filepath.Join(s.dir, "old.yaml")
	if err := os.WriteFile(old, []byte("apiVersion: kubeadm.k8s.io/v1alpha1\nkind: MasterConfiguration\napi: {advertiseAddress: 192.0.2.7}\nnetworking: {podSubnet: 10.244.0.0/16}\nkubernetesVersion: 1.9.6\n"), 0o600); err != nil {
		s.Fatal(err)
	}
	s.does("config migrate --old-config DIR/old.yaml", "apiVersion: kubeadm.k8s.io/v1beta4", "podSubnet: 10.244.0.0/16")
	s.does("config migrate --old-config DIR/old.yaml --new-config DIR/new.yaml")
	s.does("config validate --config DIR/new.yaml --allow-experimental-api", "ok")
	s.does("config images list --image-repository example.com/k", "example.com/k/kube-apiserver:v1.37", "example.com/k/etcd:")
	s.does("config images list -o yaml", "kind: Images", "- registry.k8s.io/kube-proxy:v1.37")
	if _, err := say("config", "images", "pull", "--cri-socket", "unix:///nowhere/s"); err == nil || !strings.Contains(err.Error(), "container runtime unix:///nowhere/s") {
		s.Errorf("images pull without a runtime: %v", err)
	}
	s.does("version -o short", Version())
	s.does("version -o json", `"clientVersion"`, `"gitVersion"`)
	s.does("version", "kubeadm version: &version.Info{")
	s.does("completion bash", "bash completion")
}

func (s *scene) joins() {
	s.Helper()
	const with = " --config DIR/kubeadm.yaml"
	out := s.does("init phase upload-certs --upload-certs"+with, `Storing the certificates in Secret "kubeadm-certs"`, "[upload-certs] Using certificate key:")
	key := out[strings.Index(out, "certificate key:\n")+len("certificate key:\n"):]
	line := " " + s.f.at + " --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash " + pki.Hash(s.f.ca.Cert) + " --node-name m2 --control-plane --apiserver-advertise-address 127.0.0.1 --certificate-key " + strings.TrimSpace(key)
	s.does("join --dry-run"+line, "[dryrun] Would run phase preflight", "[dryrun] Would run phase control-plane-join/mark-control-plane")
	var all func(list []phase[*joinRun], under string)
	all = func(list []phase[*joinRun], under string) {
		for _, p := range list {
			path := under + p.name
			if len(p.parts) > 0 {
				all(p.parts, path+" ")
				path += " all"
			}
			s.does("join phase "+path+" --dry-run"+line, "[dryrun] Would run phase "+strings.ReplaceAll(strings.TrimSuffix(path, " all"), " ", "/"))
		}
	}
	all(joinPhases(), "")
	// On another machine: nothing is there but what comes over.
	for _, f := range []string{"pki", "manifests", "admin.conf", "controller-manager.conf", "scheduler.conf"} {
		if err := os.Rename(filepath.Join(s.dir, f), filepath.Join(s.dir, "m1-"+f)); err != nil {
			s.Fatal(err)
		}
	}
	s.does("join phase control-plane-prepare download-certs"+line, "[download-certs] Downloading the certificates", "[discovery] Cluster info signature and contents are valid")
	s.has("pki/ca.key", "pki/sa.key", "pki/etcd/ca.key")
	s.does("join phase control-plane-prepare certs"+line, `[certs] Generating "apiserver" certificate and key`)
	s.does("join phase control-plane-prepare kubeconfig"+line, `[kubeconfig] Writing "admin.conf" kubeconfig file`)
	s.does("join phase control-plane-prepare control-plane"+line, `[control-plane] Creating static Pod manifest for "kube-apiserver"`)
	s.has("manifests/kube-apiserver.yaml", "admin.conf")
	if err := os.Rename(filepath.Join(s.dir, "m1-manifests", "etcd.yaml"), filepath.Join(s.dir, "manifests", "etcd.yaml")); err != nil { // which etcd-join writes
		s.Fatal(err)
	}
	s.does("join phase control-plane-prepare all"+line, "[certs] Using existing apiserver certificate and key on disk")
	if err := s.f.fake.Delete(s.Context(), corev1.SchemeGroupVersion.WithResource("nodes"), "", "m1", nil); err != nil {
		s.Fatal(err)
	}
	s.f.fake.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m2"}})
	s.does("join phase control-plane-join mark-control-plane"+line, "Marking the node m2 as control-plane")
}

func (s *scene) upgrades() {
	s.Helper()
	const at = " --kubeconfig DIR/admin.conf"
	s.f.fake.SetRaw("/healthz", []byte("ok"))
	s.does("upgrade apply "+Version()+" -y --dry-run"+at, "[dryrun] Would run phase control-plane", "[dryrun] Would run phase addon/coredns")
	s.does("upgrade node --dry-run"+at, "[dryrun] Would run phase kubelet-config", "[dryrun] Would run phase addon/kube-proxy", "!run phase upload-config")
	s.does("upgrade diff"+at, "!+    - --no")
	for _, first := range []bool{true, false} {
		verb := map[bool]string{true: "apply", false: "node"}[first]
		for _, p := range upgradePhases(first) {
			path := p.name
			if len(p.parts) > 0 {
				path += " all"
			}
			s.does("upgrade "+verb+" phase "+path+" --dry-run"+at, "[dryrun] Would run phase "+p.name)
		}
	}
	s.does("upgrade apply phase upload-config all"+at, `ConfigMap "kubeadm-config"`, `ConfigMap "kubelet-config"`)
	s.does("upgrade apply phase bootstrap-token"+at, "[bootstrap-token] Configured RBAC rules")
	if out, err := say("upgrade", "apply", "v1.99.0", "-y", "--kubeconfig", s.dir+"/admin.conf"); err == nil || !strings.Contains(err.Error(), "is higher than the kubeadm version") {
		s.Errorf("a version of tomorrow: %v %s", err, out)
	}
}

func (s *scene) resets() {
	s.Helper()
	s.does("reset -f --dry-run --cert-dir DIR/pki --kubeconfig DIR/admin.conf", "[dryrun] Would run phase remove-etcd-member", "[dryrun] Would run phase cleanup-node")
	for _, p := range names(resetPhases(), "") {
		s.does("reset phase "+p+" --dry-run --cert-dir DIR/pki", "[dryrun] Would run phase "+p)
	}
	s.has("pki/ca.key", "manifests/kube-apiserver.yaml")
	if _, err := say("reset", "-f", "--skip-phases", "nothing"); err == nil || !slices.Contains(strings.Fields(err.Error()), "nothing;") {
		s.Errorf("an unknown phase: %v", err)
	}
}

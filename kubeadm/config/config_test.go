package config

import (
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var host = Host{Name: "Master1", Addr: netip.MustParseAddr("100.64.0.2"), CRISocket: "unix:///run/containerd/containerd.sock"}

// TestEveryVersion reads one cluster as the files of every age spelled it.
func TestEveryVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		args map[string]string // of the API server and the controller manager
	}{
		"v1alpha1": {`
apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
api:
  advertiseAddress: "100.64.0.240"
networking:
  podSubnet: 10.244.0.0/16
kubernetesVersion: 1.9.6
token: b99a00.a144ef80536d4344
tokenTTL: 0s
apiServerCertSANs: [100.64.0.240, api.example]
controllerManagerExtraArgs:
  node-monitor-grace-period: "10s"
apiServerExtraArgs:
  runtime-config: "api/all=true"
featureGates:
  CoreDNS: true
`, nil},
		"v1alpha3": {`
apiVersion: kubeadm.k8s.io/v1alpha3
kind: InitConfiguration
apiEndpoint: {advertiseAddress: 100.64.0.240}
bootstrapTokens:
- {token: b99a00.a144ef80536d4344, ttl: 0s}
---
apiVersion: kubeadm.k8s.io/v1alpha3
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
kubernetesVersion: v1.9.6
apiServerCertSANs: [100.64.0.240, api.example]
apiServerExtraArgs: {runtime-config: "api/all=true"}
controllerManagerExtraArgs: {node-monitor-grace-period: 10s}
`, nil},
		"v1beta2": {`
apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 100.64.0.240}
bootstrapTokens:
- {token: b99a00.a144ef80536d4344, ttl: 0s}
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
dns: {type: CoreDNS}
networking: {podSubnet: 10.244.0.0/16}
kubernetesVersion: v1.9.6
apiServer:
  certSANs: [100.64.0.240, api.example]
  extraArgs: {runtime-config: "api/all=true"}
  timeoutForControlPlane: 4m0s
controllerManager:
  extraArgs: {node-monitor-grace-period: 10s}
`, nil},
		"v1beta4": {`
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 100.64.0.240}
bootstrapTokens:
- {token: b99a00.a144ef80536d4344, ttl: 0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
kubernetesVersion: v1.9.6
apiServer:
  certSANs: [100.64.0.240, api.example]
  extraArgs: [{name: runtime-config, value: "api/all=true"}]
controllerManager:
  extraArgs: [{name: node-monitor-grace-period, value: 10s}]
`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Read([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if f.Init == nil || f.Cluster == nil {
				t.Fatalf("init %v, cluster %v: want both", f.Init, f.Cluster)
			}
			if old := name != "v1beta4"; (len(f.Warnings) > 0) != old {
				t.Errorf("warnings = %q", f.Warnings)
			}
			f.Init.Default(host)
			f.Cluster.Default("v1.37.2")
			if err := f.Init.Check(f.Cluster); err != nil {
				t.Error(err)
			}
			c, i := f.Cluster, f.Init
			if i.LocalAPIEndpoint.HostPort() != "100.64.0.240:6443" || c.KubernetesVersion != "v1.9.6" || c.Networking.PodSubnet != "10.244.0.0/16" ||
				strings.Join(c.APIServer.CertSANs, " ") != "100.64.0.240 api.example" || i.NodeRegistration.Name != "master1" {
				t.Errorf("read %+v %+v", i, c)
			}
			if len(i.BootstrapTokens) != 1 || i.BootstrapTokens[0].Token != "b99a00.a144ef80536d4344" || i.BootstrapTokens[0].TTL.Duration != 0 {
				t.Errorf("tokens %+v, want one that never expires", i.BootstrapTokens)
			}
			if len(c.APIServer.ExtraArgs) != 1 || c.APIServer.ExtraArgs[0] != (Arg{"runtime-config", "api/all=true"}) ||
				len(c.ControllerManager.ExtraArgs) != 1 || c.ControllerManager.ExtraArgs[0] != (Arg{"node-monitor-grace-period", "10s"}) {
				t.Errorf("flags %v %v", c.APIServer.ExtraArgs, c.ControllerManager.ExtraArgs)
			}
			text, err := Write(f.Init, f.Cluster)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Read(text)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v\n%s", err, text)
			}
			a, _ := yaml.Marshal([]any{f.Init, f.Cluster})
			b, _ := yaml.Marshal([]any{again.Init, again.Cluster})
			if string(a) != string(b) {
				t.Errorf("read again it is\n%s\nwant\n%s", b, a)
			}
		})
	}
}

func TestExternalEtcdOfTheFirstVersion(t *testing.T) {
	f, err := Read([]byte(`
apiVersion: kubeadm.k8s.io/v1alpha1
kind: MasterConfiguration
etcd:
  endpoints: [https://100.64.0.2:2379, https://100.64.0.3:2379]
  caFile: /etc/etcd/ssl/ca.pem
  certFile: /etc/etcd/ssl/etcd.pem
  keyFile: /etc/etcd/ssl/etcd-key.pem
  dataDir: /var/lib/etcd
`))
	if err != nil {
		t.Fatal(err)
	}
	x := f.Cluster.Etcd.External
	if x == nil || len(x.Endpoints) != 2 || x.CAFile != "/etc/etcd/ssl/ca.pem" || f.Cluster.Etcd.Local != nil {
		t.Errorf("etcd = %+v", f.Cluster.Etcd)
	}
}

func TestBadFilesSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "no InitConfiguration, ClusterConfiguration",
		"a: [":                    "bad YAML",
		"kind: InitConfiguration": "kind and apiVersion is mandatory",
		"apiVersion: kubeadm.k8s.io/v9\nkind: InitConfiguration":                               `no kind "InitConfiguration" is registered for version "kubeadm.k8s.io/v9"`,
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nfoo: 1":                  `unknown field "foo"`,
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nkind: InitConfiguration": `already set`,
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: Thing":                                      `no kind "Thing"`,
	} {
		_, err := Read([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestJudgement(t *testing.T) {
	for text, want := range map[string]string{
		"networking: {serviceSubnet: 10.96.0.0/12, podSubnet: 10.100.0.0/16}": "overlaps with serviceSubnet",
		"networking: {podSubnet: 10.244.0.0}":                                 "couldn't parse subnet",
		"controlPlaneEndpoint: 'api.example:99999'":                           "port is not a valid number",
		"apiServer: {certSANs: ['under_score']}":                              "altname is not a valid IP address",
		"certificatesDir: pki":                                                "path is not absolute",
		"encryptionAlgorithm: DSA":                                            "Unsupported value",
		"etcd: {external: {endpoints: ['https://a:2379']}}":                   "etcd.external.caFile: Required value",
		"etcd: {external: {endpoints: ['a:2379']}}":                           "want http(s)://host:port",
	} {
		f, err := Read([]byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n" + text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		f.Cluster.Default("v1.37.2")
		if err := f.Cluster.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	join := Join{Discovery: Discovery{BootstrapToken: &BootstrapTokenDiscovery{Token: "abcdef.0123456789abcdef", APIServerEndpoint: "100.64.0.2:6443"}}}
	join.Default(host)
	if err := join.Check(); err == nil || !strings.Contains(err.Error(), "caCertHashes can be unsafe") {
		t.Errorf("join without a hash: %v", err)
	}
}

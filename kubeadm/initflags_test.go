package kubeadm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// Every flag of init arrives in the configuration that it completes.
func TestFlagsOfInitArrive(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for flags, want := range map[string]string{
		"--control-plane-endpoint=api.example:8443":                          "controlPlaneEndpoint: api.example:8443",
		"--certificate-key=" + key:                                           "certificateKey: " + key,
		"--pod-network-cidr=10.244.0.0/16":                                   "podSubnet: 10.244.0.0/16",
		"--service-cidr=10.32.0.0/24":                                        "serviceSubnet: 10.32.0.0/24",
		"--service-dns-domain=example.internal":                              "dnsDomain: example.internal",
		"--apiserver-advertise-address=192.0.2.7 --apiserver-bind-port=8443": "advertiseAddress: 192.0.2.7\n  bindPort: 8443",
		"--apiserver-cert-extra-sans=a.example,192.0.2.9":                    "certSANs:\n  - a.example\n  - 192.0.2.9",
		"--token=cccccc.0123456789abcdef --token-ttl=2h":                     "token: cccccc.0123456789abcdef\n  ttl: 2h0m0s",
		"--token-ttl=0":                               "ttl: 0s",
		"--kubernetes-version=v1.36.1":                "this program carries Kubernetes " + Version() + ", and deploys that",
		"--image-repository=example.com/k":            "imageRepository: example.com/k",
		"--cri-socket=unix:///run/other.sock":         "criSocket: unix:///run/other.sock",
		"--cert-dir=/srv/pki":                         "certificatesDir: /srv/pki",
		"--node-name=other":                           "name: other",
		"--skip-phases=addon,certs/ca":                "[dryrun] Would run phase addon/coredns (skipped)",
		"--ignore-preflight-errors=Swap,NumCPU":       "[dryrun] Would run phase preflight",
		"--upload-certs --skip-certificate-key-print": "[dryrun] Would run phase upload-certs",
		"--feature-gates=Some=true":                   "[init] Using Kubernetes version: " + Version(),
	} {
		args := append([]string{"init", "--dry-run"}, strings.Fields(flags)...)
		if !strings.Contains(flags, "advertise") {
			args = append(args, "--apiserver-advertise-address=192.0.2.1")
		}
		if out, err := say(args...); err != nil || !strings.Contains(out, want) {
			t.Errorf("kubeadm init %s: %v\n%s\nwant %q", flags, err, out, want)
		}
	}
	for flags, want := range map[string]string{
		"--skip-phases=nothing":              "invalid phase name: nothing",
		"--service-cidr=10.0.0.0/8x":         "serviceSubnet",
		"--token=short":                      "was not of the form",
		"--apiserver-advertise-address=here": "ip address is not valid",
		"--certificate-key=abc":              "certificateKey",
		"--no-such-flag":                     "unknown flag: --no-such-flag",
	} {
		if out, err := say(append([]string{"init", "--dry-run"}, flags)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kubeadm init %s: %v\n%s\nwant %q", flags, err, out, want)
		}
	}
}

// A discovery file takes the place of a token's trust; the token still bootstraps.
func TestDiscoveryFile(t *testing.T) {
	f := world(t, Version())
	text, err := client.Kubeconfig{Server: "https://" + f.at, CA: f.ca.CertPEM()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cluster.conf")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	o := &joinOptions{discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{}, File: &config.FileDiscovery{KubeConfigPath: file}, TLSBootstrapToken: placeholder}}
	o.node.Name = "node1"
	var out strings.Builder
	r, err := o.build(nil, &out)
	if err != nil {
		t.Fatal(err)
	}
	r.paths = paths{conf: t.TempDir(), kubelet: t.TempDir()}
	if err := r.welcome(t.Context(), nil); err != nil || r.found.server != "https://"+f.at {
		t.Errorf("by a file: %v, %+v\n%s", err, r.found, &out)
	}
	o.discovery.File.KubeConfigPath = file + ".not"
	if r, err = o.build(nil, &out); err != nil {
		t.Fatal(err)
	}
	if err := r.welcome(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "discovery file: open "+file+".not") {
		t.Errorf("by a file that is not there: %v", err)
	}
}

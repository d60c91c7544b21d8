package kubeadm

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// world is a cluster of one control plane that machines may join.
func world(t *testing.T, version string) *front {
	t.Helper()
	ca, err := pki.NewCA("kubernetes", "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.Kubeconfig{Server: "https://" + l.Addr().String(), CA: ca.CertPEM()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	cluster := &config.Cluster{KubernetesVersion: version}
	cluster.Default(Version())
	kept, err := config.Write(cluster)
	if err != nil {
		t.Fatal(err)
	}
	token := func(token string, ttl time.Duration) *corev1.Secret {
		return tokenSecret(config.BootstrapToken{Token: token, Usages: []string{"authentication", "signing"}, Expires: &metav1.Time{Time: clock.Now().Add(ttl)}})
	}
	return newFront(t, ca, l,
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: clusterInfoName, Namespace: metav1.NamespacePublic}, Data: map[string]string{"kubeconfig": string(text)}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMapName, Namespace: metav1.NamespaceSystem}, Data: map[string]string{"ClusterConfiguration": string(kept)}},
		token(placeholder, time.Hour), token("eeeeee.0123456789abcdef", -time.Minute),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}},
	)
}

// Whoever cannot join is told why, and which command mends it.
func TestWhoCannotJoinIsToldWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		token, endpoint, hash, node, version string
		ahead                                time.Duration
		deaf                                 bool
		ignore                               []string
		want                                 []string // none: it may join
	}{
		"welcome":                {},
		"unknown token":          {token: "zzzzzz.0123456789abcdef", want: []string{`token ID "zzzzzz"`, "unknown there or has expired", "`kubeadm token create --print-join-command`"}},
		"expired token":          {token: "eeeeee.0123456789abcdef", want: []string{`token ID "eeeeee"`, "unknown there or has expired", "`kubeadm token create --print-join-command`"}},
		"token that ends midway": {deaf: true, want: []string{"the cluster refuses the token", "may have expired", "`kubeadm token create --print-join-command`"}},
		"wrong token":            {token: "abcdef.0000000000000000", want: []string{"failed to verify JWS signature", "the token's second half is wrong", "`kubeadm token list`"}},
		"wrong hash":             {hash: "sha256:" + strings.Repeat("0", 64), want: []string{"none of the public keys", "are pinned", "`kubeadm token create --print-join-command`"}},
		"nobody there":           {endpoint: "127.0.0.1:1", want: []string{"cannot reach the API server at 127.0.0.1:1", "connection refused", "curl -k https://127.0.0.1:1/livez"}},
		"clock behind":           {ahead: 26 * time.Hour, want: []string{"[ERROR ClockSkew]", "behind that of the API server", "systemctl enable --now systemd-timesyncd", "date -u -s @"}},
		"clock ahead":            {ahead: -26 * time.Hour, want: []string{"[ERROR ClockSkew]", "ahead of that of the API server", "systemctl enable --now systemd-timesyncd"}},
		"clock ahead, ignored":   {ahead: -26 * time.Hour, ignore: []string{"clockskew"}},
		"clock a little behind":  {ahead: 2 * time.Minute},
		"used name":              {node: "taken", want: []string{`a Node with name "taken" and status "Ready" already exists`, "kubectl delete node taken", "--node-name"}},
		"older cluster":          {version: "v1.36.1", want: []string{"[ERROR KubeletVersion]", "higher than the control plane version", "kubeadm upgrade apply " + Version()}},
		"much newer cluster":     {version: "v1.41.0", want: []string{"[ERROR KubeletVersion]", "lower than kubeadm can support", "Install v1.41.0 here"}},
		"older cluster, ignored": {version: "v1.36.1", ignore: []string{"ALL"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := world(t, orElse(tc.version, Version()))
			f.ahead, f.deaf = tc.ahead, tc.deaf
			var out strings.Builder
			cfg := &config.Join{
				NodeRegistration: config.NodeRegistration{Name: orElse(tc.node, "node1")},
				Discovery: config.Discovery{BootstrapToken: &config.BootstrapTokenDiscovery{
					Token: orElse(tc.token, placeholder), APIServerEndpoint: orElse(tc.endpoint, f.at), CACertHashes: []string{orElse(tc.hash, pki.Hash(f.ca.Cert))}}},
				// An error is known only when the wait for better is over: long enough for
				// the answers of a busy computer, and short where there is nothing else to see.
				Timeouts: &config.Timeouts{Discovery: &metav1.Duration{Duration: 30 * time.Second}},
			}
			r, err := prepareJoin(cfg, config.Host{CRISocket: "unix:///run/containerd/containerd.sock"}, &out)
			if err != nil {
				t.Fatal(err)
			}
			if len(tc.want) > 0 && tc.want[0][0] != '[' {
				cfg.Timeouts.Discovery.Duration = 6 * time.Second
			}
			r.paths, r.ignore = paths{conf: t.TempDir(), kubelet: t.TempDir()}, tc.ignore
			err = r.welcome(context.WithoutCancel(t.Context()), tc.ignore)
			if len(tc.want) == 0 && err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q", err, want)
				}
			}
		})
	}
}

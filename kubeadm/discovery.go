package kubeadm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kubeadm/config"
)

// found is a cluster that this machine came to trust.
type found struct {
	server string
	ca     []byte // PEM
	// skew is how far this machine's clock is ahead of the server's; 0 if it did not
	// say its time.
	skew time.Duration
}

// discover finds the cluster that a JoinConfiguration names.
func discover(ctx context.Context, d config.Discovery, wait time.Duration, say func(string, ...any)) (*found, error) {
	if d.File != nil {
		text, err := os.ReadFile(d.File.KubeConfigPath)
		if err != nil {
			return nil, fmt.Errorf("discovery file: %w", err)
		}
		server, ca, err := client.ClusterOf(text)
		if err != nil {
			return nil, fmt.Errorf("discovery file %s: %w", d.File.KubeConfigPath, err)
		}
		return &found{server: server, ca: ca}, nil
	}
	t := d.BootstrapToken
	say("[discovery] Trying to connect to API Server %q", t.APIServerEndpoint)
	var info *corev1.ConfigMap
	var skew time.Duration
	// The signature of a token made a moment ago may take a moment to appear.
	err := patiently(ctx, wait, func(ctx context.Context) (err error) {
		if info, skew, err = askInfo(ctx, t.APIServerEndpoint); err != nil {
			return fmt.Errorf("failed to request the cluster-info ConfigMap: %w", err)
		}
		return signedBy(info, t.Token)
	})
	if err != nil {
		return nil, explain(err, t)
	}
	server, ca, err := client.ClusterOf([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return nil, fmt.Errorf("discovery: cluster-info: %w", err)
	}
	if err := pinned(ca, t); err != nil {
		return nil, err
	}
	say("[discovery] Cluster info signature and contents are valid and TLS certificate validates against pinned roots, will use API Server %q", server)
	return &found{server: server, ca: ca, skew: skew}, nil
}

// askInfo reads cluster-info from a server that is not trusted yet: what it
// says counts only with the token's signature. It also says what time it is there.
func askInfo(ctx context.Context, endpoint string) (m *corev1.ConfigMap, skew time.Duration, err error) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+endpoint+"/api/v1/namespaces/kube-public/configmaps/cluster-info", nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if there, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		skew = clock.Since(there)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, skew, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, skew, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	m = &corev1.ConfigMap{}
	return m, skew, json.Unmarshal(text, m)
}

// errNoSignature means that the cluster does not know the token.
var errNoSignature = errors.New("could not find a JWS signature in the cluster-info ConfigMap for token ID")

// signedBy checks that who wrote cluster-info knows the token: a JSON Web
// Signature without its payload, which is the kubeconfig.
func signedBy(info *corev1.ConfigMap, token string) error {
	id, secret, _ := strings.Cut(token, ".")
	jws, ok := info.Data["jws-kubeconfig-"+id]
	if !ok {
		return fmt.Errorf("%w %q", errNoSignature, id)
	}
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return errors.New("cluster-info: the signature is no JWS")
	}
	got, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return fmt.Errorf("cluster-info: the signature: %w", err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(info.Data["kubeconfig"]))))
	if !hmac.Equal(mac.Sum(nil), got) {
		return errors.New("failed to verify JWS signature of received cluster info object, can't trust this API Server: the token's second half is wrong; `kubeadm token list` on a control plane shows the right one")
	}
	return nil
}

// explain says how to mend a failed discovery.
func explain(err error, t *config.BootstrapTokenDiscovery) error {
	switch {
	case errors.Is(err, errNoSignature):
		return fmt.Errorf("%w: the token is unknown there or has expired; on a control plane, `kubeadm token create --print-join-command` makes another", err)
	case strings.Contains(err.Error(), "JWS signature"):
		return err
	}
	return fmt.Errorf("cannot reach the API server at %s: %w; is the address right, the server running, and the port open between the machines? To try: curl -k https://%[1]s/livez", t.APIServerEndpoint, err)
}

// pinned checks the cluster's authority against the hashes the user gave.
func pinned(ca []byte, t *config.BootstrapTokenDiscovery) error {
	certs, err := pki.DecodeCerts(ca)
	if err != nil {
		return fmt.Errorf("discovery: the cluster's authority: %w", err)
	}
	if err := clocks(certs[0], clock.Now()); err != nil {
		return err
	}
	if len(t.CACertHashes) == 0 {
		return nil
	}
	var have []string
	for _, c := range certs {
		have = append(have, pki.Hash(c))
		if slices.Contains(t.CACertHashes, pki.Hash(c)) {
			return nil
		}
	}
	return fmt.Errorf("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys %q are pinned; the hash of this cluster is printed by `kubeadm token create --print-join-command` on a control plane", strings.Join(have, ":"))
}

// clocks says what is wrong with an authority as of now, which most often is a clock.
func clocks(ca *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(ca.NotBefore):
		return fmt.Errorf("the cluster's authority is not valid before %s, and it is %s here: one of the machines' clocks is wrong; start an NTP client (systemctl enable --now systemd-timesyncd)",
			ca.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	case now.After(ca.NotAfter):
		return fmt.Errorf("the cluster's authority expired on %s, and it is %s here: if this clock is right the cluster needs a new authority; if not, start an NTP client (systemctl enable --now systemd-timesyncd)",
			ca.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

// bootstrapConf is the kubeconfig by which the kubelet gets its certificate.
func (f *found) bootstrapConf(token string) client.Kubeconfig {
	return client.Kubeconfig{Cluster: "kubernetes", User: "tls-bootstrap-token-user", Server: f.server, CA: bytes.TrimSpace(f.ca), Token: token}
}

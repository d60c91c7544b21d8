package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kubeadm/config"
)

// The kubelet's files.
const (
	kubeletConfigFile = "config.yaml"
	kubeletFlagsFile  = "kubeadm-flags.env"
	kubeletPort       = 10250
	kubeletHealth     = "http://127.0.0.1:10248/healthz"
)

// kubeletConfig is the KubeletConfiguration that all nodes share: the user's
// with what the cluster needs.
func kubeletConfig(m machine, manifests string, user map[string]any) ([]byte, error) {
	dns, err := m.cluster.ServiceAddress(10)
	if err != nil {
		return nil, err
	}
	c := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true, "cacheTTL": "0s"},
			"x509": map[string]any{"clientCAFile": filepath.Join(m.cluster.CertificatesDir, "ca.crt")},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"clusterDNS":    []any{dns.String()}, "clusterDomain": m.cluster.Networking.DNSDomain, "cgroupDriver": cgroupDriver(),
		"healthzBindAddress": "127.0.0.1", "healthzPort": 10248, "rotateCertificates": true, "staticPodPath": manifests,
	}
	maps.Copy(c, user)
	return yaml.Marshal(c)
}

// cgroupDriver is systemd's where systemd runs the machine.
func cgroupDriver() string {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return "systemd"
	}
	return "cgroupfs"
}

// kubeletFlags are what differs from node to node.
func kubeletFlags(node config.NodeRegistration, taints []corev1.Taint, address string) string {
	args := []config.Arg{{Name: "container-runtime-endpoint", Value: node.CRISocket}}
	if host, _ := os.Hostname(); !strings.EqualFold(host, node.Name) {
		args = append(args, config.Arg{Name: "hostname-override", Value: node.Name})
	}
	if len(taints) > 0 {
		var list []string
		for _, t := range taints {
			list = append(list, t.ToString())
		}
		args = append(args, config.Arg{Name: "register-with-taints", Value: strings.Join(list, ",")})
	}
	if address != "" {
		args = append(args, config.Arg{Name: "node-ip", Value: address})
	}
	return fmt.Sprintf("KUBELET_KUBEADM_ARGS=%q\n", strings.Join(flags("", args, node.KubeletExtraArgs)[1:], " "))
}

// startKubelet writes the kubelet's files and has the init system start it.
func startKubelet(ctx context.Context, dir string, cfg []byte, env string, say func(string, ...any)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	say("[kubelet-start] Writing kubelet environment file with flags to file %q", filepath.Join(dir, kubeletFlagsFile))
	if err := os.WriteFile(filepath.Join(dir, kubeletFlagsFile), []byte(env), 0o644); err != nil {
		return err
	}
	say("[kubelet-start] Writing kubelet configuration to file %q", filepath.Join(dir, kubeletConfigFile))
	if err := os.WriteFile(filepath.Join(dir, kubeletConfigFile), cfg, 0o644); err != nil {
		return err
	}
	say("[kubelet-start] Starting the kubelet")
	return service(ctx, "restart", say)
}

// service asks the init system to start or stop the kubelet. Where nobody
// manages services, whoever runs the machine does: the kubelet ends until its
// configuration is there and is started again, as its unit says.
func service(ctx context.Context, verb string, say func(string, ...any)) error {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		for _, args := range [][]string{{"daemon-reload"}, {verb, "kubelet"}} {
			if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
			}
		}
		return nil
	}
	say("[kubelet-start] No init system manages services here: whoever runs `kubelet --config %s` must %s it", filepath.Join("/var/lib/kubelet", kubeletConfigFile), verb)
	return nil
}

// kubeletHealthy waits for this machine's kubelet.
func kubeletHealthy(ctx context.Context, wait time.Duration, say func(string, ...any)) error {
	say("[kubelet-check] Waiting for a healthy kubelet at %s. This can take up to %s", kubeletHealth, wait)
	err := patiently(ctx, wait, func(ctx context.Context) error { return healthy(ctx, http.DefaultClient, kubeletHealth) })
	if err != nil {
		return fmt.Errorf("the kubelet is not healthy: %w\nThis error is likely caused by:\n\t- The kubelet is not running: systemctl status kubelet\n"+
			"\t- The kubelet is unhealthy due to a misconfiguration of the node in some way (required cgroups disabled): journalctl -xeu kubelet", err)
	}
	return nil
}

// healthy asks a health page for "200 OK".
func healthy(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode != http.StatusOK {
		return errors.New(url + ": " + resp.Status + ": " + strings.TrimSpace(string(text)))
	}
	return nil
}

// rotating makes kubelet.conf name the file that the kubelet renews, instead of
// carrying the certificate of init, which would end with its year.
func rotating(conf, kubelet string, say func(string, ...any)) error {
	current := filepath.Join(kubelet, "pki", "kubelet-client-current.pem")
	if _, err := os.Stat(current); errors.Is(err, fs.ErrNotExist) {
		say("[kubelet-finalize] Assuming that kubelet client certificate rotation is disabled: %s is not there", current)
		return nil
	}
	say("[kubelet-finalize] Updating %q to point to a rotatable kubelet client certificate and key", conf)
	return editUser(conf, func(u *clientcmdapi.AuthInfo) {
		u.ClientCertificate, u.ClientKey, u.ClientCertificateData, u.ClientKeyData = current, current, nil, nil
	})
}

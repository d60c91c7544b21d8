package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlagsWinOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\nclusterDNS: [10.96.0.10]\nsyncFrequency: 0s\nauthentication:\n  anonymous: {enabled: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := Parse([]string{"--config=" + file, "--cluster-domain", "my.domain", "--max-pods=9", "--network-plugin=cni", "--logtostderr", "--node-labels=a=b,c=d", "--register-with-taints=k=v:NoSchedule", "--seccomp-default"})
	if err != nil {
		t.Fatal(err)
	}
	c := o.Component
	if c.MaxPods != 9 || c.ClusterDomain != "my.domain" || c.ClusterDNS[0] != "10.96.0.10" || !*c.Authentication.Anonymous.Enabled || !*c.SeccompDefault {
		t.Errorf("got %+v", c)
	}
	if c.SyncFrequency.Duration.Seconds() != 60 || c.ContainerLogMaxSize != "10Mi" || !*c.Authentication.Webhook.Enabled {
		t.Errorf("defaults are lost: sync %s, log size %s", c.SyncFrequency.Duration, c.ContainerLogMaxSize)
	}
	if o.Labels["c"] != "d" || c.RegisterWithTaints[0].Key != "k" {
		t.Errorf("labels %v, taints %v", o.Labels, c.RegisterWithTaints)
	}
	if len(o.Warnings) != 2 {
		t.Errorf("warnings %q, want one for each retired flag", o.Warnings)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	for args, want := range map[string]string{
		"--nonsense": "unknown flag: --nonsense", "--max-pods": "flag needs an argument: --max-pods", "--max-pods=x": `invalid argument "x" for "--max-pods" flag`,
		"word": `unknown command "word"`, "--config=/none": "failed to load kubelet config file, path: /none",
	} {
		if _, err := Parse(strings.Fields(args)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

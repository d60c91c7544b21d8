package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func units(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := unitsCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestUnitOfAComponentWithFlags(t *testing.T) {
	got, err := units(t, "kube-apiserver", "--bin-dir=/opt/bin", "--", "--etcd-servers=http://a:2379", "--audit-log-path=/var/log/my audit", "--service-account-issuer=50%$x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# /etc/systemd/system/kube-apiserver.service\n[Unit]\n", "After=network-online.target etcd.service\n", "Type=notify\n",
		"ExecStart=/opt/bin/kube-apiserver \\\n  --etcd-servers=http://a:2379 \\\n  \"--audit-log-path=/var/log/my audit\" \\\n  --service-account-issuer=50%%$$x\nRestart=on-failure\n", "WantedBy=multi-user.target\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "EnvironmentFile") || strings.Contains(got, "Delegate") {
		t.Errorf("too much in:\n%s", got)
	}
}

func TestUnitsReadDistributionsVariables(t *testing.T) {
	dir := t.TempDir()
	said, err := units(t, "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"etcd":                    {"Type=notify", "EnvironmentFile=-/etc/etcd/etcd.conf", "ExecStart=/usr/local/bin/etcd\n"},
		"kube-apiserver":          {"Type=notify", "EnvironmentFile=-/etc/kubernetes/config", "EnvironmentFile=-/etc/kubernetes/apiserver", "$KUBE_ETCD_SERVERS", "$KUBE_API_ARGS\n"},
		"kube-controller-manager": {"EnvironmentFile=-/etc/kubernetes/controller-manager", "$KUBE_MASTER $KUBE_CONTROLLER_MANAGER_ARGS\n"},
		"kube-scheduler":          {"$KUBE_SCHEDULER_ARGS"},
		"containerd":              {"Delegate=yes", "KillMode=process", "ExecStart=/usr/local/bin/containerd\n"},
		"kubelet":                 {"After=network-online.target containerd.service", "$KUBELET_HOSTNAME", "Delegate=yes"},
		"kube-proxy":              {"$KUBE_PROXY_ARGS"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, name+".service"))
		if err != nil {
			t.Error(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: %q is missing in:\n%s", name, want, text)
			}
		}
		if !strings.Contains(said, name+".service\n") {
			t.Errorf("%s is not told of: %s", name, said)
		}
	}
}

func TestProgramFilesForSupervisor(t *testing.T) {
	logs := filepath.Join(t.TempDir(), "logs")
	got, err := units(t, "--supervisor", "--log-dir="+logs, "kube-scheduler", "--", "--kubeconfig=/etc/it's.conf", "--v=2")
	if err != nil || !strings.Contains(got, "[program:kube-scheduler]\ncommand=/usr/local/bin/kube-scheduler '--kubeconfig=/etc/it'\"'\"'s.conf' --v=2\n") || !strings.Contains(got, "stdout_logfile="+logs+"/%(program_name)s.log\n") {
		t.Errorf("%v:\n%s", err, got)
	}
	dir := t.TempDir()
	if _, err := units(t, "--supervisor", "--log-dir="+logs, "--dir", dir, "kubelet"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "kubelet.conf"))
	if err != nil || !strings.Contains(string(text), "command=/bin/sh -c 'set -a; [ ! -e /etc/kubernetes/config ] || . /etc/kubernetes/config; [ ! -e /etc/kubernetes/kubelet ] || . /etc/kubernetes/kubelet; exec /usr/local/bin/kubelet $KUBE_LOGTOSTDERR") {
		t.Errorf("%v:\n%s", err, text)
	}
	if _, err := os.Stat(logs); err != nil {
		t.Error("supervisor does not start without the directory of its logs:", err)
	}
}

func TestUnitsOfNobody(t *testing.T) {
	for want, args := range map[string][]string{
		`there is no component "kubelt"; did you mean kubelet?`:                                {"kubelt"},
		`there is no component "x"; those with a unit are etcd, flanneld, kube-apiserver`:      {"x"},
		"kube-scheduler: unknown flag: --kubeconfg; did you mean --kubeconfig?":                {"kube-scheduler", "--", "--kubeconfg=/x"},
		"kubelet: unknown flag: --hostname-overide; did you mean --hostname-override?":         {"kubelet", "--", "--hostname-overide=x"},
		`kube-controller-manager: invalid argument "x" for "--node-monitor-grace-period" flag`: {"kube-controller-manager", "--", "--node-monitor-grace-period=x"},
		"kube-apiserver: unknown flag: --etcd-server; did you mean --etcd-servers?":            {"kube-apiserver", "--", "--etcd-server=x"},
		"kube-proxy: unknown flag: --hostname-overide; did you mean --hostname-override?":      {"kube-proxy", "--", "--hostname-overide=x"},
	} {
		if _, err := units(t, args...); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	// A file that is not there yet is no fault of its flag.
	if _, err := units(t, "kubelet", "--", "--config=/not/there.yaml", "--v=2"); err != nil {
		t.Error(err)
	}
}

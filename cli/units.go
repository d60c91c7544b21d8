package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/kit/words"
	"github.com/sampan-dev/sampan/kubeadm"
	"github.com/sampan-dev/sampan/kubelet/config"
)

// service is what an init system must know of a component.
type service struct {
	name, about string
	after       []string // services
	notify      bool     // it says when it is ready
	containers  bool     // it looks after other processes, which outlive it
	files       []string // of variables
	variables   string   // flags without flags asked for: distributions' names
	check       func(args []string) error
}

// services are the components in the order in which they start.
var services = []service{
	{name: "etcd", about: "etcd, the cluster's database", notify: true, files: []string{"/etc/etcd/etcd.conf"}},
	{name: "flanneld", about: "overlay between nodes", after: []string{"etcd"}, files: []string{"/etc/sysconfig/flanneld"}, variables: "$FLANNEL_OPTIONS"},
	{name: "kube-apiserver", about: "Kubernetes API server", after: []string{"etcd"}, notify: true, files: []string{"/etc/kubernetes/config", "/etc/kubernetes/apiserver"},
		variables: "$KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBE_ETCD_SERVERS $KUBE_API_ADDRESS $KUBE_API_PORT $KUBELET_PORT $KUBE_ALLOW_PRIV $KUBE_SERVICE_ADDRESSES $KUBE_ADMISSION_CONTROL $KUBE_API_ARGS",
		check:     func(args []string) error { c, _ := apiServer(); return c.check(args) }},
	{name: "kube-controller-manager", about: "Kubernetes controller manager", after: []string{"kube-apiserver"}, files: []string{"/etc/kubernetes/config", "/etc/kubernetes/controller-manager"},
		variables: "$KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBE_MASTER $KUBE_CONTROLLER_MANAGER_ARGS",
		check:     func(args []string) error { m := newControllerManager(); return m.check(args) }},
	{name: "kube-scheduler", about: "Kubernetes scheduler", after: []string{"kube-apiserver"}, files: []string{"/etc/kubernetes/config", "/etc/kubernetes/scheduler"},
		variables: "$KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBE_MASTER $KUBE_SCHEDULER_ARGS",
		check:     func(args []string) error { s := newScheduler(); return s.check(args) }},
	{name: "containerd", about: "container runtime", containers: true},
	{name: "kubelet", about: "Kubernetes kubelet", after: []string{"containerd"}, containers: true, files: []string{"/etc/kubernetes/config", "/etc/kubernetes/kubelet"},
		variables: "$KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBELET_API_SERVER $KUBELET_ADDRESS $KUBELET_PORT $KUBELET_HOSTNAME $KUBE_ALLOW_PRIV $KUBELET_POD_INFRA_CONTAINER $KUBELET_ARGS",
		check:     checkKubelet},
	{name: "kube-proxy", about: "Kubernetes proxy", files: []string{"/etc/kubernetes/config", "/etc/kubernetes/proxy"},
		variables: "$KUBE_LOGTOSTDERR $KUBE_LOG_LEVEL $KUBE_MASTER $KUBE_PROXY_ARGS",
		check:     func(args []string) error { p := newProxy(); return p.check(args) }},
}

// check says what is wrong with a component's command line.
func (c *component) check(args []string) error {
	c.global()
	_, err := c.parse(args)
	return err
}

// checkKubelet checks the flags without the files they name, which may not be there yet.
func checkKubelet(args []string) error {
	c := newComponent("kubelet", "")
	now, _ := kubeletArgs(args, c)
	now = slices.DeleteFunc(now, func(a string) bool { return strings.HasPrefix(a, "--config") })
	_, err := config.Parse(now)
	return kubeletUnknown(err)
}

// unitOptions say how units are written.
type unitOptions struct {
	supervisor       bool
	dir, bin, logDir string
}

// configCommand has words about configuration: units, and kubeadm's.
func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Unit files for an init system, and kubeadm's configuration files", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := kubeadm.Main(cmd.Context(), append([]string{"config"}, args...)); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	cmd.AddCommand(unitsCommand())
	return cmd
}

func unitsCommand() *cobra.Command {
	var o unitOptions
	cmd := &cobra.Command{
		Use: "units [COMPONENT [-- FLAGS...]]", Short: "Write unit files for systemd, or program files for supervisor",
		Long: `Write unit files for systemd, or program files for supervisor, of one component
or of all. With flags the unit runs the component with them; flags that the
component does not know are refused. Without, the unit reads the variables of
/etc/kubernetes/config, /etc/kubernetes/apiserver and so on, under the names that
distributions gave them (KUBE_MASTER, KUBE_API_ARGS, KUBELET_ARGS ...), and etcd
those of /etc/etcd/etcd.conf.`,
		Example: "  sampan config units --dir /etc/systemd/system\n  sampan config units kube-scheduler -- --kubeconfig=/etc/kubernetes/scheduler.conf --v=2\n  sampan config units --supervisor --dir /etc/supervisor/conf.d kubelet -- --config=/etc/kubernetes/kubelet.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			picked := services
			var flags []string
			if len(args) > 0 {
				s, err := serviceNamed(args[0])
				if err != nil {
					return err
				}
				picked, flags = []service{s}, args[1:]
			}
			for _, s := range picked {
				if s.check != nil {
					if err := s.check(flags); err != nil {
						return fmt.Errorf("%s: %w", s.name, err)
					}
				}
				if err := o.write(cmd.OutOrStdout(), s, flags); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.supervisor, "supervisor", false, "write supervisor's program files instead")
	fs.StringVar(&o.dir, "dir", "", "the directory to write to; by default everything is printed")
	fs.StringVar(&o.bin, "bin-dir", "/usr/local/bin", "where the programs are, see `sampan install`")
	fs.StringVar(&o.logDir, "log-dir", "/var/log/kubernetes", "where supervisor keeps what components say")
	return cmd
}

func serviceNamed(name string) (service, error) {
	var names []string
	for _, s := range services {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	err := fmt.Errorf("there is no component %q; those with a unit are %s", name, strings.Join(names, ", "))
	if near := words.Nearest(name, names); near != "" {
		err = fmt.Errorf("there is no component %q; did you mean %s?", name, near)
	}
	return service{}, err
}

// write writes a service's file, or prints it under its name.
func (o *unitOptions) write(out io.Writer, s service, flags []string) error {
	name, text := s.name+".service", s.systemd(o.bin, flags)
	if o.supervisor {
		name, text = s.name+".conf", s.supervised(o.bin, o.logDir, flags)
	}
	if o.dir == "" {
		dir := "/etc/systemd/system"
		if o.supervisor {
			dir = "/etc/supervisor/conf.d"
		}
		_, err := fmt.Fprintf(out, "# %s\n%s\n", filepath.Join(dir, name), text)
		return err
	}
	path := filepath.Join(o.dir, name)
	err := os.MkdirAll(o.dir, 0o755)
	if o.supervisor {
		err = errors.Join(err, os.MkdirAll(o.logDir, 0o755)) // supervisor does not start without it
	}
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err == nil {
		_, err = fmt.Fprintln(out, path)
	}
	return err
}

// systemd is the service's unit file.
func (s service) systemd(bin string, flags []string) string {
	var b strings.Builder
	after := []string{"network-online.target"}
	for _, a := range s.after {
		after = append(after, a+".service")
	}
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\nDocumentation=https://kubernetes.io/docs/\nAfter=%s\nWants=network-online.target\n\n[Service]\n", s.about, strings.Join(after, " "))
	if s.notify {
		b.WriteString("Type=notify\n")
	}
	line := filepath.Join(bin, s.name)
	if len(flags) == 0 {
		for _, f := range s.files {
			b.WriteString("EnvironmentFile=-" + f + "\n")
		}
		line = strings.TrimSpace(line + " " + s.variables)
	}
	for _, f := range flags {
		line += " \\\n  " + systemdWord(f)
	}
	b.WriteString("ExecStart=" + line + "\nRestart=on-failure\nRestartSec=5\nLimitNOFILE=65536\n")
	if s.containers {
		b.WriteString("Delegate=yes\nKillMode=process\nTasksMax=infinity\n")
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// systemdWord is a word of ExecStart= that means itself.
func systemdWord(w string) string {
	w = strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`).Replace(w)
	if strings.ContainsAny(w, " \t'\";") {
		w = `"` + strings.ReplaceAll(w, `"`, `\"`) + `"`
	}
	return w
}

// supervised is the service's program file for supervisor.
func (s service) supervised(bin, logDir string, flags []string) string {
	line := filepath.Join(bin, s.name)
	for _, f := range flags {
		line += " " + shellWord(f)
	}
	if len(flags) == 0 && len(s.files) > 0 {
		script := "set -a;"
		for _, f := range s.files {
			script += " [ ! -e " + f + " ] || . " + f + ";"
		}
		line = "/bin/sh -c " + shellWord(script+" exec "+line+" "+s.variables)
	}
	return fmt.Sprintf(`[program:%s]
command=%s
user=root
autostart=true
autorestart=true
startsecs=5
startretries=100
stopsignal=TERM
stopwaitsecs=30
redirect_stderr=true
stdout_logfile=%s
`, s.name, strings.ReplaceAll(line, "%", "%%"), filepath.Join(logDir, "%(program_name)s.log"))
}

// shellWord is a word that a shell, and supervisor, takes as it is.
func shellWord(w string) string {
	if !strings.ContainsAny(w, " \t'\"\\$;|&<>()*?[]#~`") {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'"'"'`) + "'"
}

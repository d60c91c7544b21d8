package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// The names of cgroup drivers: who writes containers' control groups.
const (
	cgroupfs = "cgroupfs"
	systemd  = "systemd"
)

// AgreeOnDriver asks the runtime who writes the control groups of its containers,
// waiting until it answers, and refuses what cannot go together: this agent writes
// those of pods itself, and a runtime that has systemd write them would not find
// its containers' place. asked is what the command line said, "" if nothing; a
// configuration file's word gives way to the runtime's, as upstream's does.
func AgreeOnDriver(ctx context.Context, r cri.Runtime, cfg *Config, asked string, log *slog.Logger) error {
	has, err := runtimeDriver(ctx, r, log)
	if err != nil {
		return nil // the agent ends
	}
	return disagree(asked, has, cfg.Cgroups)
}

// runtimeDriver is the runtime's driver; "" if it cannot say.
func runtimeDriver(ctx context.Context, r cri.Runtime, log *slog.Logger) (string, error) {
	for told := false; ; told = true {
		c, err := r.RuntimeConfig(ctx)
		switch {
		case err == nil && c.GetLinux() == nil:
			return "", nil
		case err == nil && c.Linux.CgroupDriver == runtimeapi.CgroupDriver_SYSTEMD:
			return systemd, nil
		case err == nil:
			return cgroupfs, nil
		case cri.Unknown(err):
			log.Info("CRI implementation should be updated to support RuntimeConfig; its containers' cgroup driver is taken for this agent's", "driver", cgroupfs)
			return "", nil
		case !told:
			log.Info("the runtime does not yet say which cgroup driver it has", "err", err)
		}
		if err := clock.Sleep(ctx, time.Second); err != nil {
			return "", err
		}
	}
}

// disagree says what is wrong with the driver that was asked for where the
// runtime has another; pods says that the agent makes control groups of pods.
func disagree(asked, has string, pods bool) error {
	const remedy = "; set SystemdCgroup = false in containerd's configuration, or leave pods without control groups of their own by --cgroups-per-qos=false"
	switch {
	case asked != "" && asked != cgroupfs && asked != systemd:
		return fmt.Errorf("invalid argument %q for \"--cgroup-driver\" flag: must be cgroupfs or systemd", asked)
	case asked == systemd && has == cgroupfs:
		return fmt.Errorf("%w (as the container runtime says); start the kubelet with --cgroup-driver=cgroupfs, or without the flag", misconfigured(asked, has))
	case asked != systemd && has == systemd && (asked != "" || pods):
		return fmt.Errorf("%w (as the container runtime says)%s", misconfigured(cgroupfs, has), remedy)
	case has == systemd && pods:
		return fmt.Errorf(`misconfiguration: kubelet cgroup driver: "systemd" is not to be had: this kubelet makes pods' control groups itself, as cgroupfs does%s`, remedy)
	case has == "" && asked == systemd:
		return fmt.Errorf(`misconfiguration: kubelet cgroup driver: "systemd", but the container runtime does not say that it has the same; start the kubelet without --cgroup-driver`)
	}
	return nil
}

// misconfigured is upstream's word for it, from when the runtime was docker.
func misconfigured(kubelet, runtime string) error {
	return fmt.Errorf("failed to run Kubelet: failed to create kubelet: misconfiguration: kubelet cgroup driver: %q is different from docker cgroup driver: %q", kubelet, runtime)
}

package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	fakecri "github.com/sampan-dev/sampan/kubelet/cri/fake"
)

func TestCgroupDriversThatDiffer(t *testing.T) {
	for _, c := range []struct {
		asked, has string
		noPods     bool
		want       string // in the error; none if empty
	}{
		{"systemd", "cgroupfs", false, `misconfiguration: kubelet cgroup driver: "systemd" is different from docker cgroup driver: "cgroupfs"`},
		{"systemd", "cgroupfs", true, `kubelet cgroup driver: "systemd" is different from docker cgroup driver: "cgroupfs"`},
		{"cgroupfs", "systemd", false, `misconfiguration: kubelet cgroup driver: "cgroupfs" is different from docker cgroup driver: "systemd"`},
		{"", "systemd", false, `kubelet cgroup driver: "cgroupfs" is different from docker cgroup driver: "systemd"`},
		{"systemd", "systemd", false, `"systemd" is not to be had`},
		{"systemd", "", false, "does not say that it has the same"},
		{"docker", "cgroupfs", false, `invalid argument "docker" for "--cgroup-driver" flag: must be cgroupfs or systemd`},
		{"cgroupfs", "cgroupfs", false, ""},
		{"", "cgroupfs", false, ""},
		{"", "", false, ""},
		{"", "systemd", true, ""},
		{"systemd", "systemd", true, ""},
	} {
		rt := fakecri.New()
		rt.CgroupDriver(c.has)
		cfg := Default()
		cfg.Cgroups = !c.noPods
		err := AgreeOnDriver(t.Context(), rt, &cfg, c.asked, slog.New(slog.DiscardHandler))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("asked for %q where the runtime has %q: %v, want %q", c.asked, c.has, err, c.want)
		}
	}
}

// A runtime that is not up yet is waited for; one that cannot say is left alone.
func TestCgroupDriverOfALateRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, cfg := fakecri.New(), Default()
		cfg.Cgroups = true
		rt.Fail("RuntimeConfig", status.Error(codes.Unavailable, "server is not initialized yet"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		agree := func() { ended <- AgreeOnDriver(ctx, rt, &cfg, "systemd", slog.New(slog.DiscardHandler)) }
		go agree()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatal("not waited for:", err)
		default:
		}
		rt.Fail("RuntimeConfig", nil)
		if err := <-ended; err == nil {
			t.Error("what differs is taken once the runtime has come")
		}

		rt.Fail("RuntimeConfig", errors.New("nobody there"))
		go agree()
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Error("an agent that ends says", err)
		}

		rt.Fail("RuntimeConfig", status.Error(codes.Unimplemented, "unknown method RuntimeConfig"))
		if err := AgreeOnDriver(t.Context(), rt, &cfg, "", slog.New(slog.DiscardHandler)); err != nil {
			t.Error("a runtime that cannot say:", err)
		}
	})
}

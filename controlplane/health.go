package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/apiserver/virtual"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Where the scheduler and the controllers answer when they run alone, on the
// API server's machine, as upstream asks them.
const (
	schedulerPort   = 10259
	controllersPort = 10257
)

// vital is what a component in this process says of itself.
type vital struct {
	mu  sync.Mutex
	err error
}

var errNotStarted = errors.New("not started yet")

func newVital() *vital { return &vital{err: errNotStarted} }

func (v *vital) say(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

// during says that the component is well for as long as fn runs.
func (v *vital) during(fn func() error) error {
	v.say(nil)
	err := fn()
	if err == nil {
		v.say(errors.New("ended"))
	} else {
		v.say(fmt.Errorf("ended: %w", err))
	}
	return err
}

// check answers a question after the component's health.
func (v *vital) check(context.Context) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return "ok", v.err
}

// askHealthz asks a component that is a process of its own. Its certificate is
// its own, so it is not verified, as upstream does not; nothing secret is said.
func askHealthz(port int) func(context.Context) (string, error) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	return func(ctx context.Context) (string, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(port))+"/healthz", nil)
		if err != nil {
			return "", err
		}
		answer, err := c.Do(r)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("unhealthy http status code: %d with body: %s", answer.StatusCode, body)
		}
		return strings.TrimSpace(string(body)), err
	}
}

// checks are what kubectl get componentstatuses shows: each component answers
// for itself, here or through its own port.
func (c *ControlPlane) checks() []virtual.Check {
	scheduler, controllers := askHealthz(schedulerPort), askHealthz(controllersPort)
	if c.whole {
		scheduler, controllers = c.scheduler.check, c.controllers.check
	}
	checks := []virtual.Check{{Name: "scheduler", Fn: scheduler}, {Name: "controller-manager", Fn: controllers}}
	if len(c.cfg.EtcdServers) < 2 {
		return append(checks, virtual.Check{Name: "etcd-0", Fn: etcdHealth(c.store)})
	}
	for i, server := range c.cfg.EtcdServers { // each is asked by itself
		check := virtual.Check{Name: fmt.Sprintf("etcd-%d", i)}
		store, err := etcd.NewRemote([]string{server}, c.cfg.EtcdTLS)
		if check.Fn = etcdHealth(store); err != nil {
			check.Fn = func(context.Context) (string, error) { return "", err }
		}
		checks = append(checks, check)
	}
	return checks
}

// etcdHealth asks whether an etcd answers.
func etcdHealth(store *etcd.Store) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := store.Healthy(ctx); err != nil {
			return "", fmt.Errorf("etcd: %w", err)
		}
		return "ok", nil
	}
}

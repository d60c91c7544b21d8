package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

const namespace = "default"

// pods times nginx × 10 from its creation to the last pod Running.
func (b *bench) pods(ctx context.Context) error {
	labels := map[string]string{"app": "bench"}
	deployments := client.Of[appsv1.Deployment](b.c, namespace)
	start := clock.Now()
	_, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(10)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To(int64(1)),
					Containers: []corev1.Container{{Name: "nginx", Image: "nginx", ImagePullPolicy: corev1.PullIfNotPresent}}},
			},
		},
	})
	if err != nil {
		return err
	}
	mirrors := client.NewMirrors(b.c)
	running, done := map[string]bool{}, make(chan struct{})
	client.MirrorOf[corev1.Pod](mirrors, client.MirrorOptions{Namespace: namespace, Labels: "app=bench"}).OnChange(func(_, p *corev1.Pod) {
		if p == nil || p.Status.Phase != corev1.PodRunning || running[p.Name] {
			return
		}
		if running[p.Name] = true; len(running) == 10 {
			close(done)
		}
	})
	limit := clock.NewTimer(2 * time.Minute)
	defer limit.Stop()
	g := run.New(ctx)
	g.Go("pods", mirrors.Run)
	select {
	case <-done:
		figure{What: "create to 10/10 Running, image present", Value: clock.Since(start).Seconds(), Unit: "s"}.print()
	case <-limit.C:
		err = errors.New("10 pods not Running after two minutes")
	}
	g.Stop()
	return errors.Join(err, g.Wait())
}

// throughput measures the API server over HTTPS, the client included in the
// machine's load but not in the server's CPU.
func (b *bench) throughput(ctx context.Context, n int) error {
	maps := client.Of[corev1.ConfigMap](b.c, namespace)
	body := strings.Repeat("x", 1024)
	var serial atomic.Int64
	create := func(ctx context.Context) error {
		_, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bench-%d", serial.Add(1))}, Data: map[string]string{"a": body}})
		return err
	}
	get := func(ctx context.Context) error {
		_, err := maps.Get(ctx, fmt.Sprintf("bench-%d", 1+serial.Add(1)%64))
		return err
	}
	for _, clients := range []int{1, 16, 64} {
		if err := load(ctx, "create ConfigMap 1 KiB", clients, n, create); err != nil {
			return err
		}
	}
	for _, clients := range []int{1, 16, 64} {
		if err := load(ctx, "get ConfigMap 1 KiB", clients, n, get); err != nil {
			return err
		}
	}
	list := func(ctx context.Context) error {
		_, err := b.c.Raw(ctx, "GET", "/api/v1/namespaces/default/configmaps", nil)
		return err
	}
	if err := load(ctx, fmt.Sprintf("list %d ConfigMaps as JSON", 3*n), 1, 10, list); err != nil {
		return err
	}
	return b.watch(ctx, maps)
}

// load runs op n times from a number of clients at once.
func load(ctx context.Context, what string, clients, n int, op func(context.Context) error) error {
	times := make([][]time.Duration, clients)
	left := atomic.Int64{}
	left.Store(int64(n))
	cpu, start := serverTicks(), clock.Now()
	g := run.New(ctx)
	for i := range clients {
		g.Go(fmt.Sprint(what, " ", i), func(ctx context.Context) error {
			for left.Add(-1) >= 0 {
				t := clock.Now()
				if err := op(ctx); err != nil {
					return err
				}
				times[i] = append(times[i], clock.Since(t))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took := clock.Since(start)
	all := slices.Concat(times...)
	slices.Sort(all)
	figure{What: what, Value: float64(n) / took.Seconds(), Unit: "/s", Clients: clients,
		CPU: (serverTicks() - cpu) * 10 / float64(n), P99: float64(all[len(all)*99/100].Microseconds()) / 1000}.print()
	return nil
}

// watch counts how fast 100 watchers get 500 updates of one object.
func (b *bench) watch(ctx context.Context, maps client.Typed[corev1.ConfigMap]) error {
	const watchers, updates = 100, 500
	obj, err := maps.Get(ctx, "bench-1")
	if err != nil {
		return err
	}
	// What was written since the object was made is more than any server's
	// watch remembers; the watchers begin at a change made now.
	obj = obj.DeepCopy()
	obj.Data["n"] = "the watch begins"
	if obj, err = maps.Update(ctx, obj); err != nil {
		return err
	}
	var open, got sync.WaitGroup
	open.Add(watchers)
	got.Add(watchers)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	g := run.New(ctx)
	for i := range watchers {
		g.Go(fmt.Sprint("watcher ", i), func(ctx context.Context) error {
			defer got.Done()
			w, err := b.c.Watch(ctx, client.Resource[corev1.ConfigMap](), namespace,
				&metav1.ListOptions{ResourceVersion: obj.ResourceVersion, FieldSelector: "metadata.name=bench-1"})
			open.Done()
			if err != nil {
				return err
			}
			defer w.Stop()
			for range updates {
				if _, err := w.Next(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	open.Wait()
	cpu, start := serverTicks(), clock.Now()
	for i := range updates {
		obj = obj.DeepCopy()
		obj.Data["n"] = fmt.Sprint(i)
		if obj, err = maps.Update(ctx, obj); err != nil {
			return err
		}
	}
	got.Wait()
	took := clock.Since(start)
	figure{What: "events delivered to 100 watchers", Value: watchers * updates / took.Seconds(), Unit: "/s",
		CPU: (serverTicks() - cpu) * 10 / (watchers * updates)}.print()
	return g.Wait()
}

package controller_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/controller/deployment"
	"github.com/sampan-dev/sampan/controller/disruption"
	"github.com/sampan-dev/sampan/controller/endpoints"
	"github.com/sampan-dev/sampan/controller/endpointslice"
	"github.com/sampan-dev/sampan/controller/namespace"
	"github.com/sampan-dev/sampan/controller/replicaset"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/scheduler"
)

// kubelets runs every bound pod at once: it becomes ready with an address, and
// ends when asked to.
func kubelets(srv *fake.Server, m *client.Mirrors) {
	n := 0
	zero := int64(0)
	client.MirrorOf[corev1.Pod](m, client.MirrorOptions{}).OnChange(func(_, p *corev1.Pod) {
		switch {
		case p == nil || p.Spec.NodeName == "":
		case p.DeletionTimestamp != nil:
			run.Detach(context.Background(), "end", func(ctx context.Context) {
				client.Of[corev1.Pod](srv, p.Namespace).Delete(ctx, p.Name, &metav1.DeleteOptions{GracePeriodSeconds: &zero})
			})
		case p.Status.PodIP == "":
			n++
			c := p.DeepCopy()
			ip := fmt.Sprintf("10.244.0.%d", n)
			c.Status.Phase, c.Status.PodIP, c.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
			c.Status.Conditions = append(c.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(clock.Now())})
			run.Detach(context.Background(), "start", func(ctx context.Context) { client.Of[corev1.Pod](srv, p.Namespace).UpdateStatus(ctx, c) })
		}
	})
}

// TestStory is a Deployment's life with all its actors.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, percent, minimum := int32(10), intstr.FromString("25%"), intstr.FromInt32(8)
		labels := map[string]string{"app": "web"}
		node := func(name string) *corev1.Node {
			return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
				Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("16Gi"), "pods": resource.MustParse("110")}}}
		}
		srv := fake.New(node("a"), node("b"),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}},
			&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &minimum, Selector: &metav1.LabelSelector{MatchLabels: labels}}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.5", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: labels, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(80)}}}},
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"}, Spec: appsv1.DeploymentSpec{
				Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{SchedulerName: "default-scheduler", Containers: []corev1.Container{{Name: "c", Image: "nginx:1"}}}},
				Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &percent, MaxUnavailable: &percent}}}},
		)
		srv.Serve([]schema.GroupVersionResource{client.Resource[corev1.Pod](), client.Resource[corev1.Service](), client.Resource[corev1.Endpoints](), client.Resource[appsv1.Deployment](), client.Resource[appsv1.ReplicaSet](), client.Resource[discoveryv1.EndpointSlice](), client.Resource[policyv1.PodDisruptionBudget](), client.Resource[corev1.Event]()})
		d := controller.WithClient(srv)
		kubelets(srv, d.Mirrors)
		s, err := scheduler.New(scheduler.Config{Seed: 1}, scheduler.Deps{Client: srv, Mirrors: d.Mirrors})
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("scheduler", s.Run)
		for _, mk := range []func(controller.Deps) controller.Controller{deployment.New, replicaset.New, endpoints.New, endpointslice.New, disruption.New, namespace.New} {
			c := mk(d)
			g.Go(c.Name(), c.Run)
		}
		defer func() { g.Stop(); g.Wait() }()

		rest := func(want int32, image string) {
			t.Helper()
			clock.Sleep(t.Context(), time.Minute)
			dep, err := client.Of[appsv1.Deployment](srv, "ns").Get(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			if st := dep.Status; st.ReadyReplicas != want || st.UpdatedReplicas != want || st.Replicas != want || st.AvailableReplicas != want {
				t.Fatalf("deployment status %+v, want %d of everything", st, want)
			}
			pods, _ := client.Of[corev1.Pod](srv, "ns").List(t.Context(), nil)
			on := map[string]int{}
			for _, p := range pods {
				on[p.Spec.NodeName]++
				if p.Spec.Containers[0].Image != image {
					t.Errorf("pod %s runs %s, want %s", p.Name, p.Spec.Containers[0].Image, image)
				}
			}
			// Scaling down ranks pods by what shared their nodes before, as upstream
			// does, so a few that remain may share one node.
			if len(pods) != int(want) || want >= 10 && (on["a"] == 0 || on["b"] == 0) {
				t.Errorf("%d pods on %v, want %d on both nodes", len(pods), on, want)
			}
			listed := 0
			slices, _ := client.Of[discoveryv1.EndpointSlice](srv, "ns").List(t.Context(), nil)
			for _, sl := range slices {
				listed += len(sl.Endpoints)
			}
			eps, err := client.Of[corev1.Endpoints](srv, "ns").Get(t.Context(), "web")
			if err != nil || listed != int(want) || len(eps.Subsets[0].Addresses) != int(want) {
				t.Errorf("%d endpoints in slices, endpoints %v; want %d", listed, eps, want)
			}
			b, _ := client.Of[policyv1.PodDisruptionBudget](srv, "ns").Get(t.Context(), "web")
			if got := b.Status.DisruptionsAllowed; got != max(0, want-8) {
				t.Errorf("%d pods may be evicted, want %d", got, max(0, want-8))
			}
		}
		edit := func(fn func(*appsv1.Deployment)) {
			t.Helper()
			dep, _ := client.Of[appsv1.Deployment](srv, "ns").Get(t.Context(), "web")
			c := dep.DeepCopy()
			fn(c)
			if _, err := client.Of[appsv1.Deployment](srv, "ns").Update(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		rest(10, "nginx:1")
		pods, _ := client.Of[corev1.Pod](srv, "ns").List(t.Context(), nil)
		client.Of[corev1.Pod](srv, "ns").Delete(t.Context(), pods[3].Name, nil)
		rest(10, "nginx:1")
		edit(func(d *appsv1.Deployment) { n := int32(3); d.Spec.Replicas = &n })
		rest(3, "nginx:1")
		edit(func(d *appsv1.Deployment) {
			n := int32(20)
			d.Spec.Replicas = &n
			d.Spec.Template.Spec.Containers[0].Image = "nginx:2"
		})
		rest(20, "nginx:2")
		client.Of[corev1.Namespace](srv, "").Delete(t.Context(), "ns", nil)
		clock.Sleep(t.Context(), 2*time.Minute)
		if _, err := client.Of[corev1.Namespace](srv, "").Get(t.Context(), "ns"); !apierrors.IsNotFound(err) {
			t.Errorf("the namespace is still there: %v", err)
		}
	})
}

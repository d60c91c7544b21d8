package endpointslicemirroring

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// TestFollows mirrors what a person wrote, and nothing else.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "ns"} }
		subset := func(ips ...string) []corev1.EndpointSubset {
			s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP}}}
			for _, ip := range ips {
				s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: ip})
			}
			return []corev1.EndpointSubset{s}
		}
		skipped := &corev1.Endpoints{ObjectMeta: named("skipped"), Subsets: subset("192.0.2.9")}
		skipped.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"}
		srv := fake.New(
			&corev1.Service{ObjectMeta: named("db")}, &corev1.Endpoints{ObjectMeta: named("db"), Subsets: subset("192.0.2.1", "2001:db8::1")},
			&corev1.Service{ObjectMeta: named("web"), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}, &corev1.Endpoints{ObjectMeta: named("web"), Subsets: subset("192.0.2.5")},
			&corev1.Service{ObjectMeta: named("skipped")}, skipped,
			&corev1.Endpoints{ObjectMeta: named("alone"), Subsets: subset("192.0.2.7")},
		)
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		addresses := func() map[string]int {
			clock.Sleep(t.Context(), 5*time.Second)
			list, err := client.Of[discoveryv1.EndpointSlice](srv, "ns").List(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			out := map[string]int{}
			for _, s := range list {
				for _, e := range s.Endpoints {
					out[string(s.AddressType)+" "+s.Labels[discoveryv1.LabelServiceName]+" "+e.Addresses[0]]++
				}
			}
			return out
		}
		if got := addresses(); len(got) != 2 || got["IPv4 db 192.0.2.1"] != 1 || got["IPv6 db 2001:db8::1"] != 1 {
			t.Errorf("mirrored %v, want the two addresses of db", got)
		}
		eps := client.Of[corev1.Endpoints](srv, "ns")
		if _, err := eps.Update(t.Context(), &corev1.Endpoints{ObjectMeta: named("db"), Subsets: subset("192.0.2.2")}); err != nil {
			t.Fatal(err)
		}
		if got := addresses(); len(got) != 1 || got["IPv4 db 192.0.2.2"] != 1 {
			t.Errorf("after an edit %v, want the new address", got)
		}
		eps.Delete(t.Context(), "db", nil)
		if got := addresses(); len(got) != 0 {
			t.Errorf("after deletion %v, want none", got)
		}
	})
}

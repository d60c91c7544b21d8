package kubeadm

import (
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client/fake"
)

// Where no static pod tells of etcd, its members are where the API servers are.
func TestMembersBesideAPIServers(t *testing.T) {
	if got, err := beside(t.Context(), fake.New(), "100.64.0.2"); err != nil || len(got) != 0 {
		t.Errorf("of nobody: %v %v", got, err)
	}
	there := fake.New(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"100.64.0.2"}}, {Addresses: []string{"100.64.0.3"}}}})
	got, err := beside(t.Context(), there, "100.64.0.2")
	if err != nil || !slices.Equal(got, []string{"https://100.64.0.3:2379"}) {
		t.Errorf("beside another: %v %v", got, err)
	}
}

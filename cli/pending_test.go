package cli

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
)

func TestConnectionToCome(t *testing.T) {
	p := &pending{}
	nodes := client.Of[corev1.Node](p, "")
	if _, err := nodes.Get(t.Context(), "n"); !errors.Is(err, errPending) {
		t.Errorf("before it came: %v", err)
	}
	p.come(fake.New(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}))
	if n, err := nodes.Get(t.Context(), "n"); err != nil || n.Name != "n" {
		t.Errorf("when it is there: %v, %v", n, err)
	}
	if err := nodes.Delete(t.Context(), "n", nil); err != nil {
		t.Error(err)
	}
	if list, err := nodes.List(t.Context(), nil); err != nil || len(list) != 0 {
		t.Errorf("after deletion: %v, %v", list, err)
	}
}

package kubelet

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
)

// A node that has just started knows the pods before it knows the services.
func TestContainersWaitForTheServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &Kubelet{services: client.MirrorOf[corev1.Service](client.NewMirrors(fake.New()), client.MirrorOptions{})}
		if env, err := k.serviceEnv(t.Context(), "default", true, false); err == nil {
			t.Errorf("started with %v before the services were read", env)
		}
		if _, err := k.serviceEnv(t.Context(), "default", true, true); err != nil {
			t.Errorf("a static pod: %v", err)
		}
	})
}

package cli

import (
	"strings"
	"testing"
)

// Every flag that the guides give or explain is known, or is of earlier releases
// and says what it became.
func TestFlagsOfTheGuides(t *testing.T) {
	const master = `--admission-control-config-file= --advertise-address=10.0.0.1 --allow-privileged=true --authorization-mode=AlwaysAllow --authorization-policy-file=
		--bind-address=0.0.0.0 --cert-dir=/var/run/kubernetes --client-ca-file= --cloud-config= --cloud-provider= --cors-allowed-origins=x
		--etcd-prefix=/registry --etcd-servers=http://a:1 --etcd-servers-overrides= --event-ttl=1h0m0s --external-hostname= --insecure-bind-address=127.0.0.1 --insecure-port=8080
		--kubelet-certificate-authority= --kubelet-client-certificate= --kubelet-client-key= --kubelet-https --kubelet-port=10250 --kubelet-timeout=5s --log-flush-frequency=5s
		--long-running-request-regexp=x --master-service-namespace=default --max-connection-bytes-per-sec=0 --max-requests-inflight=400 --min-request-timeout=1800
		--oidc-ca-file= --oidc-client-id= --oidc-issuer-url= --oidc-username-claim=sub --profiling --runtime-config=api/all=true --secure-port=6443 --service-account-key-file= --service-account-lookup
		--service-cluster-ip-range=10.0.0.0/16 --service-node-port-range=30000-32767 --ssh-keyfile= --ssh-user= --storage-versions=v1 --tls-cert-file= --tls-private-key-file= --token-auth-file= --watch-cache
		--cluster-name=kubernetes --etcd-config= --google-json-key= --experimental-keystone-url=
		--anonymous-auth=true --service-account-signing-key-file=x --service-account-issuer=api --enable-bootstrap-token-auth --audit-log-path=/x --logtostderr=false --log-dir=/x --v=2 --port=8080`
	for _, flag := range strings.Fields(master) {
		c, _ := apiServer()
		if err := c.check([]string{flag}); err != nil {
			t.Errorf("kube-apiserver %s: %v", flag, err)
		}
	}
	for _, c := range []struct {
		name  string
		check func([]string) error
		flags string
	}{
		{"kube-controller-manager", newControllerManager().check, "--master=https://k8s-master:6443 --cluster-cidr=10.0.0.0/16 --service-account-private-key-file=/x --root-ca-file=/x --cluster-signing-cert-file=/x --cluster-signing-key-file=/x --kubeconfig=/x --logtostderr=false --log-dir=/x --v=2 --horizontal-pod-autoscaler-use-rest-clients=true --horizontal-pod-autoscaler-sync-period=10s --node-monitor-grace-period=10s"},
		{"kube-scheduler", newScheduler().check, "--master=http://k8s-master:9090 --address=0.0.0.0 --logtostderr=false --log-dir=/x --v=2"},
		{"kube-proxy", newProxy().check, "--master http://k8s-master:8080 --hostname-override=k8s-node1 --logtostderr=false --log-dir=/x --v=2"},
		{"kubelet", checkKubelet, "--kubeconfig=/x --hostname-override=a --logtostderr=false --log-dir=/x --v=2 --cgroup-driver=systemd --runtime-cgroups=/systemd/system.slice --kubelet-cgroups=/systemd/system.slice --enforce-node-allocatable=pods --cgroups-per-qos=true --kube-reserved=cpu=1000m,memory=8Gi,ephemeral-storage=16Gi --kube-reserved-cgroup=/kubelet.service --system-reserved=cpu=500m,memory=4Gi,ephemeral-storage=4Gi --system-reserved-cgroup=/system.slice --eviction-hard=memory.available<1Mi --bootstrap-kubeconfig=/x --pod-manifest-path=/x --allow-privileged=true --network-plugin=cni --cni-conf-dir=/x --cni-bin-dir=/x --cluster-dns=10.96.0.10 --cluster-domain=cluster.local --authorization-mode=Webhook --client-ca-file=/x --cadvisor-port=0 --rotate-certificates=true --cert-dir=/x --pod-infra-container-image=a/b:3.0 --enable-debugging-handlers=true"},
	} {
		if err := c.check(strings.Fields(c.flags)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

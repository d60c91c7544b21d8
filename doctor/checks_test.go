package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

func ptr[T any](v T) *T { return &v }

func leaf(from, to time.Duration) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: now.Add(from), NotAfter: now.Add(to), DNSNames: []string{"kubernetes"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}
}

const day = 24 * time.Hour

// well are the facts of a cluster of two nodes, and of one of them, where all is well.
func well() *Facts {
	node := func(name, address, pods string) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"kubeadm.alpha.kubernetes.io/cri-socket": "unix:///run/containerd/containerd.sock"}},
			Spec:       corev1.NodeSpec{PodCIDR: pods},
			Status: corev1.NodeStatus{
				Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}, NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.37.2"},
				Conditions: []corev1.NodeCondition{
					{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: before(5 * time.Second)},
					{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse},
					{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse},
					{Type: overlayReachable, Status: corev1.ConditionTrue, Reason: "PeersReached"},
				},
			},
		}
	}
	node1 := node("node1", "10.0.0.1", "10.244.0.0/24")
	node1.Labels = map[string]string{controlPlaneLabel: ""}
	lease := func(name string, age time.Duration) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr("x"), RenewTime: &metav1.MicroTime{Time: now.Add(-age)}}}
	}
	slice := func(namespace, service, address string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}}}
	}
	component := func(name string) *corev1.ComponentStatus {
		return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}}}
	}
	return &Facts{
		Now:    now,
		Target: Target{Kubeconfig: "/root/.kube/config", Context: "c", Server: "https://10.0.0.1:6443", Host: "10.0.0.1", Served: []*x509.Certificate{leaf(-day, 300*day)}, Client: leaf(-day, 300*day)},
		Cluster: &Cluster{
			Version: "v1.37.2", Time: now,
			Components: []*corev1.ComponentStatus{component("scheduler"), component("controller-manager"), component("etcd-0")},
			Nodes:      []*corev1.Node{node1, node("node2", "10.0.0.2", "10.244.1.0/24")},
			NodeLeases: []*coordinationv1.Lease{lease("node1", 3*time.Second), lease("node2", 9*time.Second)},
			Leaders:    []*coordinationv1.Lease{lease("kube-scheduler", time.Second), lease("kube-controller-manager", time.Second)},
			Services: []*corev1.Service{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns", Labels: map[string]string{"k8s-app": "kube-dns"}}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "guard"}},
			},
			Slices: []*discoveryv1.EndpointSlice{slice("kube-system", "kube-dns", "10.244.0.2"), slice("default", "kubernetes", "10.0.0.1"), slice("shop", "guard", "10.244.0.3")},
			Deployments: []*appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns", Labels: map[string]string{"k8s-app": "kube-dns"}},
				Spec: appsv1.DeploymentSpec{Replicas: ptr(int32(2))}, Status: appsv1.DeploymentStatus{ReadyReplicas: 2}}},
			Answers: map[string]error{"coredns-x": nil},
			Pods:    []*corev1.Pod{pod("fine", func(p *corev1.Pod) {})},
			Mutating: []*admissionv1.MutatingWebhookConfiguration{{ObjectMeta: metav1.ObjectMeta{Name: "guard"}, Webhooks: []admissionv1.MutatingWebhook{{
				Name: "guard.shop", ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "shop", Name: "guard"}}}}}},
			APIServices: []*apiregistrationv1.APIService{{ObjectMeta: metav1.ObjectMeta{Name: "v1.metrics.k8s.io"}, Spec: apiregistrationv1.APIServiceSpec{Group: "metrics.k8s.io", Version: "v1", Service: &apiregistrationv1.ServiceReference{Namespace: "shop", Name: "guard"}},
				Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}}}},
			Definitions: []*apiextensionsv1.CustomResourceDefinition{{ObjectMeta: metav1.ObjectMeta{Name: "ships.shop.io"}, Status: apiextensionsv1.CustomResourceDefinitionStatus{Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{
				{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}}}},
			Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, {ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: ptr(before(5 * time.Second))}}},
			Classes:    []*storagev1.StorageClass{{ObjectMeta: metav1.ObjectMeta{Name: "fast"}}},
		},
		Members:      []Member{{Name: "node1", Size: 20 << 20, InUse: 15 << 20, Quota: 2 << 30, Leader: true}},
		Certificates: []Certificate{{Path: "/etc/kubernetes/pki/ca.crt", Cert: leaf(-day, 3000*day)}},
		Machine: &Machine{
			Hostname: "node1", Kind: Kubeadm, Plane: true, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Forwarding: "1", BridgeFilter: "1",
			Instances: 10, MaxInstances: 8192, MaxWatches: 524288, Tracked: 10, MaxTracked: 65536, Tasks: 300, MaxTasks: 32768, Files: 1000, MaxFiles: 100000, Memory: 4 << 30, Available: 1 << 30,
			Disks: []Disk{{Path: "/", Free: 20 << 30, Size: 40 << 30, FreeInodes: 1e6, AllInodes: 2e6}},
			Ports: []Port{{10250, "the kubelet", "kubelet", true}, {6443, "the API server", "kube-apiserver", true}},
			CNI:   CNI{Dir: "/etc/cni/net.d", Files: []string{"/etc/cni/net.d/10-flannel.conflist"}, Flannel: true, Subnet: true}, DNS: time.Millisecond,
		},
	}
}

func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, CreationTimestamp: before(time.Hour)}, Spec: corev1.PodSpec{NodeName: "node2"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Image: "i:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}}
	change(p)
	return p
}

// waits is a pod whose container waits.
func waits(reason, message string, last *corev1.ContainerStateTerminated) func(*Facts) {
	return func(f *Facts) {
		f.Cluster.Pods = append(f.Cluster.Pods, pod("p", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
			p.Status.ContainerStatuses[0].RestartCount = 7
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = last
		}))
	}
}

func unscheduled(message string) func(*Facts) {
	return func(f *Facts) {
		f.Cluster.Pods = append(f.Cluster.Pods, pod("p", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message, LastTransitionTime: before(time.Hour)}}
		}))
	}
}

func said(kind, name, reason, message string) func(*Facts) {
	return func(f *Facts) {
		f.Cluster.Events = append(f.Cluster.Events, &corev1.Event{InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: "shop", Name: name}, Reason: reason, Message: message, LastTimestamp: before(time.Minute)})
	}
}

func set(n *corev1.Node, t corev1.NodeConditionType, s corev1.ConditionStatus, reason, message string) {
	if c := condition(n, t); c != nil {
		c.Status, c.Reason, c.Message = s, reason, message
		return
	}
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: s, Reason: reason, Message: message})
}

func terminating(conditions ...corev1.NamespaceCondition) func(*Facts) {
	return func(f *Facts) {
		for i := range conditions {
			conditions[i].Status = corev1.ConditionTrue
		}
		f.Cluster.Namespaces = append(f.Cluster.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "stuck", DeletionTimestamp: ptr(before(time.Hour))},
			Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Conditions: conditions}})
	}
}

func unreached(err error) func(*Facts) {
	return func(f *Facts) { f.Cluster, f.Target.Err = nil, err }
}

func then(changes ...func(*Facts)) func(*Facts) {
	return func(f *Facts) {
		for _, c := range changes {
			c(f)
		}
	}
}

func claim(change func(*corev1.PersistentVolumeClaim)) func(*Facts) {
	return func(f *Facts) {
		v := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", CreationTimestamp: before(time.Hour)}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
		change(v)
		f.Cluster.Claims = append(f.Cluster.Claims, v)
	}
}

// Where all is well nothing is said; each thing that goes wrong is told, about
// the right one, with what mends it.
func TestChecks(t *testing.T) {
	if r := Examine(well()); len(r.Findings) > 0 || r.Code() != 0 {
		t.Fatalf("where all is well: %d %+v", r.Code(), r.Findings)
	}
	webhook := func(f *Facts) *admissionv1.MutatingWebhook { return &f.Cluster.Mutating[0].Webhooks[0] }
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		check    string
		breaks   func(*Facts)
		severity Severity
		subject  string
		what     string
		mend     string
	}{
		{"reach", unreached(refused), Error, "server https://10.0.0.1:6443", "nothing listens at port 6443 of 10.0.0.1", "systemctl restart kubelet"},
		{"reach", then(unreached(refused), func(f *Facts) { f.Target.Name = "ci" }), Error, "server", "nothing listens", "sampan up ci"},
		{"reach", unreached(fmt.Errorf("x: %w", ErrNoKubeconfig)), Error, "server", "no kubeconfig", "--kubeconfig FILE"},
		{"reach", unreached(fmt.Errorf("%w: current-context is \"c\"", ErrContext)), Error, "context c", "current-context", "config use-context"},
		{"reach", unreached(x509.UnknownAuthorityError{}), Error, "server", "does not trust", "cp /etc/kubernetes/admin.conf"},
		{"reach", unreached(x509.HostnameError{Certificate: leaf(-day, day), Host: "10.0.0.9"}), Error, "server", "is for kubernetes, 10.0.0.1, not for 10.0.0.1", "--tls-san"},
		{"reach", unreached(x509.CertificateInvalidError{Cert: leaf(-400*day, -day), Reason: x509.Expired}), Error, "server", "ended on 2026-11-20", "kubeadm certs renew apiserver"},
		{"reach", unreached(x509.CertificateInvalidError{Cert: leaf(day, 2*day), Reason: x509.Expired}), Error, "server", "valid from 2026-11-22", "chronyc makestep"},
		{"reach", unreached(apierrors.NewUnauthorized("no")), Error, "kubeconfig /root/.kube/config", "does not know who asks", "admin.conf"},
		{"reach", then(unreached(apierrors.NewUnauthorized("no")), func(f *Facts) { f.Target.Client = leaf(-2*day, -day) }), Error, "kubeconfig", "its user's certificate (leaf) ended on", "kubeadm certs renew admin.conf"},
		{"reach", unreached(&net.DNSError{Err: "no such host", Name: "k8s"}), Error, "server", "no address is known for the name", "/etc/hosts"},
		{"reach", unreached(context.DeadlineExceeded), Error, "server", "no answer in time", "nc -vz 10.0.0.1 6443"},
		{"reach", unreached(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), Error, "server", "there is no way to 10.0.0.1", "ip route get"},
		{"reach", unreached(errors.New("http: server gave HTTP response to HTTPS client")), Error, "server", "speaks HTTP", "--server=http://"},
		{"served-certificate", func(f *Facts) { f.Target.Served[0] = leaf(-360*day, 5*day) }, Warning, "server", "ends on 2026-11-26", "kubeadm certs renew apiserver"},
		{"served-certificate", func(f *Facts) { f.Target.Client = leaf(-360*day, 5*day) }, Warning, "kubeconfig", "ends on 2026-11-26", "admin.conf"},
		{"machines", func(f *Facts) { f.Target.Name, f.Machines = "ci", []Running{{"ci-1", true}, {"ci-2", false}} }, Error, "machine ci-2", "it is off", "sampan up ci"},
		{"readyz", func(f *Facts) { f.Cluster.Ready = []Probe{{"etcd", "etcd: alarm NOSPACE"}} }, Error, "readyz/etcd", "alarm NOSPACE", "etcdctl alarm disarm"},
		{"readyz", func(f *Facts) { f.Cluster.Ready = []Probe{{"crds", "not started"}} }, Error, "readyz/crds", "not started", "/readyz/crds"},
		{"etcd", func(f *Facts) { f.Members[0].Alarms = []string{"NOSPACE"} }, Error, "etcd node1", "reached its quota", "etcdctl defrag"},
		{"etcd", func(f *Facts) { f.Members[0].Alarms = []string{"CORRUPT"} }, Error, "etcd node1", "alarm CORRUPT", "member remove"},
		{"etcd", func(f *Facts) { f.Members[0].Size = 19 << 30 / 10 }, Warning, "etcd node1", "1.9 GiB of a quota of 2.0 GiB", "etcdctl defrag"},
		{"etcd", func(f *Facts) { f.Members[0].Size, f.Members[0].InUse = 19<<30/10, 18<<30/10 }, Warning, "etcd node1", "when it is full", "quota-backend-bytes"},
		{"etcd", func(f *Facts) { f.Members[0].Err = refused }, Error, "etcd node1", "does not answer", "etcdctl member list"},
		{"etcd", func(f *Facts) { f.Members[0].Leader = false }, Error, "etcd node1", "knows no leader", "force-new-cluster"},
		{"etcd", func(f *Facts) { f.Members[0].Learner = true }, Warning, "etcd node1", "learner", "member promote"},
		{"etcd", func(f *Facts) { f.Members, f.Database = nil, 2<<30 }, Warning, "etcd", "2.0 GiB of a quota", "quota"},
		{"components", func(f *Facts) {
			f.Cluster.Components[0].Conditions[0] = corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionFalse, Message: "connection refused"}
			f.Cluster.Leaders[0].Spec.RenewTime.Time = now.Add(-time.Hour)
		}, Error, "component scheduler", "does not act: connection refused", "kube-scheduler"},
		{"components", func(f *Facts) {
			f.Cluster.Components[2].Conditions[0] = corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionFalse, Error: "context deadline exceeded"}
		}, Error, "component etcd-0", "deadline", "etcdctl endpoint health"},
		{"components", func(f *Facts) {
			f.Cluster.Nodes[1].Status.Addresses[0].Address = "10.0.0.2"
			f.Cluster.Slices[1].Endpoints = append(f.Cluster.Slices[1].Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.2"}})
			f.Cluster.Leaders[1].Spec.RenewTime.Time = now.Add(-time.Hour)
		}, Error, "component controller-manager", "nobody has led for 60 minutes", "kube-controller-manager"},
		{"control-planes", func(f *Facts) { f.Cluster.Nodes[1].Labels = map[string]string{controlPlaneLabel: ""} }, Error, "control plane node2", "one more lost and nothing can be written", "systemctl restart kubelet"},
		{"control-planes", func(f *Facts) {
			f.Cluster.Nodes[1].Labels = map[string]string{controlPlaneLabel: ""}
			f.Cluster.Slices[1].Endpoints = append(f.Cluster.Slices[1].Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.2"}})
		}, Warning, "control planes", "survive the loss of none", "on a third machine"},
		{"certificates", func(f *Facts) {
			f.Certificates = []Certificate{{Path: "/etc/kubernetes/pki/apiserver.crt", Cert: leaf(-400*day, -day), Renew: "kubeadm certs renew all"}}
		}, Error, "certificate /etc/kubernetes/pki/apiserver.crt", "ended on 2026-11-20", "kubeadm certs renew all"},
		{"certificates", func(f *Facts) {
			f.Certificates = []Certificate{{Path: "x", Cert: leaf(-350*day, 15*day), Renew: "renew"}}
		}, Warning, "certificate x", "in 15 days", "renew"},
		{"certificates", func(f *Facts) { f.Certificates = []Certificate{{Path: "x", Cert: leaf(day, 2*day)}} }, Error, "certificate x", "valid from", "chronyc"},
		{"certificates", func(f *Facts) { f.Certificates = []Certificate{{Path: "x", Err: errors.New("torn")}} }, Error, "certificate x", "torn", "restore it"},
		{"kubelets", func(f *Facts) {
			set(f.Cluster.Nodes[1], corev1.NodeReady, corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.")
		}, Error, "node node2", "has not reported for", "on node2: systemctl restart kubelet"},
		{"kubelets", func(f *Facts) {
			set(f.Cluster.Nodes[1], corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized")
		}, Error, "node node2", "no network for pods is configured", "kubectl apply -f kube-flannel.yml"},
		{"kubelets", func(f *Facts) {
			set(f.Cluster.Nodes[1], corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", "container runtime is down")
		}, Error, "node node2", "container runtime is down", "journalctl -u kubelet"},
		{"kubelets", func(f *Facts) { f.Cluster.Nodes[1].Status.Conditions = nil }, Error, "node node2", "never reported", "kubelet"},
		{"kubelets", func(f *Facts) { f.Cluster.Nodes[1].Spec.Unschedulable = true }, Note, "node node2", "cordoned", "kubectl uncordon node2"},
		{"kubelets", func(f *Facts) { f.Cluster.Nodes, f.Machine = nil, nil }, Error, "nodes", "has none", "kubeadm token create"},
		{"pressure", func(f *Facts) {
			set(f.Cluster.Nodes[1], corev1.NodeDiskPressure, corev1.ConditionTrue, "KubeletHasDiskPressure", "kubelet has disk pressure")
		}, Error, "node node2", "DiskPressure", "df -h"},
		{"pressure", func(f *Facts) { set(f.Cluster.Nodes[1], corev1.NodeMemoryPressure, corev1.ConditionTrue, "", "") }, Error, "node node2", "MemoryPressure", "kubectl top pods"},
		{"pressure", func(f *Facts) { set(f.Cluster.Nodes[1], corev1.NodePIDPressure, corev1.ConditionTrue, "", "") }, Error, "node node2", "PIDPressure", "podPidsLimit"},
		{"overlay", func(f *Facts) {
			set(f.Cluster.Nodes[0], overlayReachable, corev1.ConditionFalse, "PeerUnreachable", "node node2 (10.0.0.2): no answer from its pods' range 10.244.1.0/24")
		}, Error, "overlay from node node1", "no answer from its pods' range", "8472/udp"},
		{"overlay", func(f *Facts) {
			set(f.Cluster.Nodes[0], overlayReachable, corev1.ConditionFalse, "PacketsTooLarge", "node node2 (10.0.0.2): packets of 1450 bytes do not arrive")
		}, Error, "overlay from node node1", "1450 bytes", "MTU"},
		{"overlay", func(f *Facts) {
			set(f.Cluster.Nodes[0], overlayReachable, corev1.ConditionFalse, "ChecksumsSpoiled", "node node2 (10.0.0.2): spoiled")
		}, Error, "overlay from node node1", "spoiled", "ethtool -K flannel.1"},
		{"overlay", func(f *Facts) {
			set(f.Cluster.Nodes[0], corev1.NodeNetworkUnavailable, corev1.ConditionTrue, "NoRouteCreated", "no route")
		}, Error, "node node1", "no route", "kube-flannel.yml"},
		{"clocks", func(f *Facts) { f.Cluster.NodeLeases[1].Spec.RenewTime.Time = now.Add(30 * time.Second) }, Warning, "node node2", "30s ahead of", "on node2: chronyc"},
		{"clocks", func(f *Facts) { f.Cluster.NodeLeases[1].Spec.RenewTime.Time = now.Add(-2 * time.Hour) }, Error, "node node2", "behind the API server's", "chronyc"},
		{"clocks", func(f *Facts) { f.Target.Ahead = time.Minute }, Warning, "this machine", "behind the API server's", "chronyc"},
		{"versions", func(f *Facts) { f.Cluster.Nodes[1].Status.NodeInfo.KubeletVersion = "v1.38.0" }, Error, "node node2", "newer than the API server", "kubeadm upgrade apply v1.38.0"},
		{"versions", func(f *Facts) { f.Cluster.Nodes[1].Status.NodeInfo.KubeletVersion = "v1.33.0" }, Error, "node node2", "more than three minor versions older", "kubeadm upgrade node"},
		{"versions", func(f *Facts) { f.Cluster.Nodes[1].Status.NodeInfo.KubeletVersion = "v1.36.1" }, Note, "node node2", "v1.36.1", "kubeadm upgrade node"},
		{"addresses", func(f *Facts) { f.Cluster.Nodes[1].Status.Addresses[0].Address = "10.0.0.1" }, Error, "node node2", "as node node1 has", "kubectl delete node node1"},
		{"addresses", func(f *Facts) { f.Cluster.Nodes[1].Spec.PodCIDR = "10.244.0.0/24" }, Error, "node node2", "pods' range 10.244.0.0/24", "join it again"},
		{"addresses", func(f *Facts) { f.Cluster.Nodes[1].Spec.PodCIDR = "" }, Error, "node node2", "no range", "--allocate-node-cidrs"},
		{"requests", func(f *Facts) {
			f.Cluster.Requests = []*certificatesv1.CertificateSigningRequest{{ObjectMeta: metav1.ObjectMeta{Name: "csr-1", CreationTimestamp: before(time.Hour)}, Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Username: "system:bootstrap:x"}}}
		}, Error, "certificate request csr-1", "it cannot join", "kubectl certificate approve csr-1"},
		{"requests", func(f *Facts) {
			f.Cluster.Requests = []*certificatesv1.CertificateSigningRequest{{ObjectMeta: metav1.ObjectMeta{Name: "csr-1", CreationTimestamp: before(time.Hour)}, Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: certificatesv1.KubeletServingSignerName, Username: "system:node:n"}}}
		}, Warning, "certificate request csr-1", "waits to be approved", "kubectl certificate approve csr-1"},
		{"dns", func(f *Facts) { f.Cluster.Deployments[0].Spec.Replicas = ptr(int32(0)) }, Error, "cluster DNS", "scaled to 0", "kubectl -n kube-system scale deployment coredns --replicas=2"},
		{"dns", func(f *Facts) { f.Cluster.Slices = f.Cluster.Slices[1:] }, Error, "cluster DNS", "no pod that is ready", "describe pods"},
		{"dns", func(f *Facts) { f.Cluster.Deployments[0].Status.ReadyReplicas = 1 }, Warning, "cluster DNS", "1 of 2 pods", "describe pods"},
		{"dns", func(f *Facts) { f.Cluster.Services = f.Cluster.Services[1:] }, Warning, "cluster DNS", "no service with the label", "addon coredns"},
		{"dns", func(f *Facts) { f.Cluster.Answers["coredns-x"] = errors.New("refused") }, Error, "cluster DNS", "pod coredns-x is Ready and does not answer", "logs coredns-x"},
		{"dns", func(f *Facts) { f.Machine.DNSErr = errors.New("i/o timeout") }, Error, "cluster DNS", "got no answer", "nft list tables"},
		{"dns", func(f *Facts) { f.Machine.DNS = 5 * time.Second }, Warning, "cluster DNS", "took 5s", "--replicas=3"},
		{"webhooks", func(f *Facts) { webhook(f).ClientConfig.Service.Name = "nobody" }, Error, "mutatingwebhookconfiguration/guard", "service shop/nobody does not exist", "kubectl delete mutatingwebhookconfiguration guard"},
		{"webhooks", func(f *Facts) {
			f.Cluster.Slices[2].Endpoints[0].Conditions.Ready = ptr(false)
			f.Cluster.APIServices = nil
		}, Error, "mutatingwebhookconfiguration/guard", "has no pod that is ready", "kubectl -n shop get pods"},
		{"webhooks", func(f *Facts) {
			webhook(f).ClientConfig.Service.Name, webhook(f).FailurePolicy = "nobody", ptr(admissionv1.Ignore)
		}, Warning, "mutatingwebhookconfiguration/guard", "waits for its timeout", "delete"},
		{"apiservices", func(f *Facts) {
			f.Cluster.APIServices[0].Status.Conditions[0] = apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse, Reason: "MissingEndpoints", Message: "no endpoints"}
		}, Error, "apiservice/v1.metrics.k8s.io", "MissingEndpoints", "kubectl delete apiservice v1.metrics.k8s.io"},
		{"resources", func(f *Facts) {
			f.Cluster.Definitions[0].Status.Conditions[0] = apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionFalse, Reason: "PluralConflict", Message: "in use"}
		}, Error, "crd/ships.shop.io", "PluralConflict", "kubectl get crd"},
		{"resources", func(f *Facts) {
			f.Cluster.Definitions[0].Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Webhook: &apiextensionsv1.WebhookConversion{ClientConfig: &apiextensionsv1.WebhookClientConfig{Service: &apiextensionsv1.ServiceReference{Namespace: "shop", Name: "gone"}}}}
		}, Error, "crd/ships.shop.io", "conversion webhook is dead", "kubectl -n shop get pods"},
		{"resources", func(f *Facts) { f.Cluster.Definitions[0].DeletionTimestamp = ptr(before(time.Hour)) }, Error, "crd/ships.shop.io", "Terminating for 60 minutes", "finalizers"},
		{"namespaces", terminating(corev1.NamespaceCondition{Type: corev1.NamespaceDeletionDiscoveryFailure, Message: "unable to retrieve the complete list of server APIs: metrics.k8s.io/v1: stale GroupVersion discovery"}),
			Error, "namespace stuck", "an API does not answer", "kubectl delete apiservice v1.metrics.k8s.io"},
		{"namespaces", terminating(corev1.NamespaceCondition{Type: corev1.NamespaceFinalizersRemaining, Message: "Some content in the namespace has finalizers remaining: shop.io/hold in 1 resource instances"},
			corev1.NamespaceCondition{Type: corev1.NamespaceContentRemaining, Message: "Some resources are remaining: configmaps. has 1 resource instances"}),
			Error, "namespace stuck", "shop.io/hold", "get configmaps -o name"},
		{"namespaces", terminating(), Error, "namespace stuck", "nobody said why", "controller-manager"},
		{"namespaces", then(terminating(), func(f *Facts) { f.Cluster.Namespaces[2].Spec.Finalizers = []corev1.FinalizerName{"own.io/f"} }), Error, "namespace stuck", "own.io/f", "/finalize"},
		{"creation", func(f *Facts) {
			f.Cluster.Deployments[0].Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "pods is forbidden: exceeded quota: q"}}
		}, Error, "deployment kube-system/coredns", "exceeded quota", "resourcequota"},
		{"creation", said("DaemonSet", "d", "FailedCreate", `failed calling webhook "guard.shop"`), Error, "daemonset shop/d", "failed calling webhook", "webhook's finding"},
		{"pods", waits("ImagePullBackOff", `Back-off pulling image "i:1"`, nil), Error, "pod shop/p", "ImagePullBackOff", "sampan image import"},
		{"pods", waits("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}), Error, "pod shop/p", "7 times; it ended with 1 (Error)", "logs p -c c --previous"},
		{"pods", waits("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}), Error, "pod shop/p", "OOMKilled", "--limits=memory"},
		{"pods", waits("CreateContainerConfigError", `configmap "x" not found`, nil), Error, "pod shop/p", `configmap "x" not found`, "create configmap"},
		{"pods", unscheduled("0/2 nodes are available: 2 Insufficient cpu."), Error, "pod shop/p", "Insufficient cpu", "Allocated resources"},
		{"pods", unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint(s) {node-role.kubernetes.io/control-plane: }"), Error, "pod shop/p", "taint", "kubectl taint nodes --all node-role.kubernetes.io/control-plane-"},
		{"pods", then(waits("ContainerCreating", "", nil), said("Pod", "p", "FailedCreatePodSandBox", `plugin type="flannel" failed: open /run/flannel/subnet.env: no such file`)), Error, "pod shop/p", "subnet.env", "kube-flannel"},
		{"pods", then(waits("ContainerCreating", "", nil), said("Pod", "p", "FailedMount", `secret "s" not found`)), Error, "pod shop/p", "FailedMount", "configmaps,secrets"},
		{"pods", waits("ContainerCreating", "", nil), Error, "pod shop/p", "not started for 60 minutes", "describe pod p"},
		{"pods", func(f *Facts) {
			set(f.Cluster.Nodes[1], corev1.NodeReady, corev1.ConditionUnknown, "NodeStatusUnknown", "")
			f.Cluster.Pods = append(f.Cluster.Pods, pod("p", func(p *corev1.Pod) { p.DeletionTimestamp = ptr(before(time.Hour)) }))
		}, Error, "pod shop/p", "its node node2 is lost", "node.kubernetes.io/out-of-service"},
		{"pods", func(f *Facts) {
			f.Cluster.Pods = append(f.Cluster.Pods, pod("p", func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = ptr(before(time.Hour)), []string{"x/y"} }))
		}, Error, "pod shop/p", "x/y", "finalizers"},
		{"claims", claim(func(*corev1.PersistentVolumeClaim) {}), Error, "pvc shop/data", "none is the default", "is-default-class=true"},
		{"claims", claim(func(v *corev1.PersistentVolumeClaim) { v.Spec.StorageClassName = ptr("slow") }), Error, "pvc shop/data", "slow does not exist", "kubectl get storageclass"},
		{"claims", then(claim(func(v *corev1.PersistentVolumeClaim) { v.Spec.StorageClassName = ptr("fast") }), said("PersistentVolumeClaim", "data", "ProvisioningFailed", "no room")), Error, "pvc shop/data", "ProvisioningFailed", "describe pvc"},
		{"claims", claim(func(v *corev1.PersistentVolumeClaim) { v.Status.Phase, v.Spec.VolumeName = corev1.ClaimLost, "pv1" }), Error, "pvc shop/data", "pv1 is gone", "backup"},
		{"unread", func(f *Facts) { f.Cluster.Unread = map[string]error{"secrets": errors.New("forbidden")} }, Note, "secrets", "not looked at: forbidden", "auth can-i"},
		{"host", func(f *Facts) { f.Machine.Forwarding = "0" }, Error, "machine node1", "ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"},
		{"host", func(f *Facts) { f.Machine.Swap = true }, Warning, "machine node1", "swap is on", "swapoff -a"},
		{"host", func(f *Facts) { f.Machine.NFTables = errors.New("no such module") }, Error, "machine node1", "nf_tables cannot be used", "modprobe nf_tables"},
		{"host", func(f *Facts) { f.Machine.Lacks = []string{"the kernel has no overlay file system: modprobe overlay"} }, Error, "machine node1", "no overlay file system", "modprobe overlay"},
		{"host", func(f *Facts) { f.Machine.Unsynced = true }, Note, "machine node1", "nobody keeps its clock", "chronyd"},
		{"host", func(f *Facts) { f.Machine.BridgeFilter = "0" }, Note, "machine node1", "bridged packets", "bridge-nf-call-iptables=1"},
		{"limits", func(f *Facts) { f.Machine.Instances, f.Machine.MaxInstances = 127, 128 }, Error, "machine node1", "127 of 128 inotify instances", "fs.inotify.max_user_instances=8192"},
		{"limits", func(f *Facts) { f.Machine.MaxInstances = 128 }, Note, "machine node1", "max_user_instances is 128", "8192"},
		{"limits", func(f *Facts) { f.Machine.MaxWatches = 8192 }, Note, "machine node1", "max_user_watches is 8192", "524288"},
		{"limits", func(f *Facts) { f.Machine.Tracked = 65000 }, Error, "machine node1", "65000 of 65536 tracked connections", "nf_conntrack_max=131072"},
		{"limits", func(f *Facts) { f.Machine.Tasks = 32700 }, Error, "machine node1", "tasks", "kernel.pid_max"},
		{"limits", func(f *Facts) { f.Machine.Available = 10 << 20 }, Error, "machine node1", "10 MiB of 4.0 GiB", "ps aux"},
		{"disks", func(f *Facts) { f.Machine.Disks[0].Free = 1 << 30 }, Error, "disk of /", "1.0 GiB of 40.0 GiB is free", "du -xh"},
		{"disks", func(f *Facts) { f.Machine.Disks[0].Free = 3 << 30 }, Warning, "disk of /", "3.0 GiB", "du -xh"},
		{"disks", func(f *Facts) { f.Machine.Disks[0].FreeInodes = 10 }, Error, "disk of /", "10 of 2000000 inodes", "find /"},
		{"disks", func(f *Facts) { f.Machine.Disks[0].ReadOnly = true }, Error, "disk of /", "read-only", "remount"},
		{"services", func(f *Facts) { f.Machine.Ports[0] = Port{10250, "the kubelet", "", false} }, Error, "machine node1", "nothing listens at port 10250: the kubelet does not run", "systemctl restart kubelet"},
		{"services", func(f *Facts) { f.Machine.Ports[1] = Port{6443, "the API server", "nginx", false} }, Error, "machine node1", "is held by nginx", "ss -ltnp"},
		{"services", func(f *Facts) { f.Machine.Kubelet = errors.New("500") }, Error, "machine node1", "kubelet is not well", "journalctl"},
		{"cni", func(f *Facts) { f.Machine.CNI.Files, f.Machine.CNI.Flannel = nil, false }, Error, "machine node1", "/etc/cni/net.d is empty", "kube-flannel.yml"},
		{"cni", func(f *Facts) { f.Machine.CNI.Missing = []string{"bridge"} }, Error, "machine node1", "names the plugin bridge", "sampan install"},
		{"cni", func(f *Facts) { f.Machine.CNI.Subnet = false }, Error, "machine node1", "/run/flannel/subnet.env is missing", "kube-flannel"},
		{"cni", func(f *Facts) { f.Machine.CNI.Bad = map[string]string{"/etc/cni/net.d/x.conf": "torn"} }, Error, "machine node1", "x.conf cannot be read", "remove that file"},
		{"identity", func(f *Facts) { f.Machine.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.9")} }, Error, "node node1", "no link of this machine has that address (10.0.0.9)", "--node-ip NEW"},
	} {
		f := well()
		c.breaks(f)
		r := Examine(f)
		var found []Finding
		for _, x := range r.Findings {
			if x.Check == c.check || x.Check != "kubelets" { // a lost node is told of beside what follows from it
				found = append(found, x)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s, %q: want this alone, got %+v", c.check, c.what, r.Findings)
			continue
		}
		x := found[0]
		if x.Check != c.check || x.Severity != c.severity || !strings.HasPrefix(x.Subject, c.subject) || !strings.Contains(x.What, c.what) || !strings.Contains(x.Mend, c.mend) {
			t.Errorf("%s: want %s, %q, %q, %q, got %s, %q, %q, %q", c.check, c.severity, c.subject, c.what, c.mend, x.Severity, x.Subject, x.What, x.Mend)
		}
		code := map[Severity]int{Note: 0, Warning: 0, Error: 1}[c.severity]
		if f.Cluster == nil {
			code = 2
		}
		if r.Code() != code {
			t.Errorf("%s, %q: exit code %d, want %d", c.check, c.what, r.Code(), code)
		}
	}
}

// A node that is down is one finding, not one from each other node.
func TestNodeThatIsDownIsToldOnce(t *testing.T) {
	f := well()
	set(f.Cluster.Nodes[1], corev1.NodeReady, corev1.ConditionUnknown, "NodeStatusUnknown", "")
	set(f.Cluster.Nodes[0], overlayReachable, corev1.ConditionFalse, "PeerUnreachable", "node node2 (10.0.0.2): no answer from its pods' range 10.244.1.0/24")
	f.Cluster.NodeLeases[1].Spec.RenewTime.Time = now.Add(-time.Hour)
	if r := Examine(f); len(r.Findings) != 1 || r.Findings[0].Check != "kubelets" {
		t.Errorf("%+v", r.Findings)
	}
}

// Pods of one owner with the same trouble are one line.
func TestPodsOfOneOwner(t *testing.T) {
	f := well()
	for range 3 {
		waits("ImagePullBackOff", "no such image", nil)(f)
	}
	for i, p := range f.Cluster.Pods[1:] {
		p.Name = fmt.Sprintf("p%d", i)
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", Controller: ptr(true)}}
	}
	if r := Examine(f); len(r.Findings) != 1 || r.Findings[0].Subject != "pod shop/p0 and 2 more of its owner" {
		t.Errorf("%+v", r.Findings)
	}
}

// The report is one line per finding, the worst first, and valid JSON.
func TestReport(t *testing.T) {
	f := well()
	f.Machine.Unsynced = true
	f.Machine.Forwarding = "0"
	waits("ImagePullBackOff", "no\nsuch\nimage", nil)(f)
	r := Examine(f)
	var text, js bytes.Buffer
	if err := errors.Join(r.Text(&text), r.JSON(&js)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "error    pod shop/p: ImagePullBackOff: no such image  ->  ") || !strings.HasPrefix(lines[2], "note ") ||
		lines[3] != "2 errors, 0 warnings; https://10.0.0.1:6443 (v1.37.2): 2 nodes, 2 pods; this machine: node1" {
		t.Errorf("%s", text.String())
	}
	var back struct {
		Reached  bool
		Findings []struct{ Severity, Check, Subject, What, Mend string }
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || !back.Reached || len(back.Findings) != 3 || back.Findings[0].Severity != "error" || strings.Contains(js.String(), `\u00`) {
		t.Errorf("%v: %s", err, js.String())
	}
}

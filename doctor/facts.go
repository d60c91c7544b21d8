package doctor

import (
	"crypto/x509"
	"net/netip"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Facts are all that was seen, at one moment.
type Facts struct {
	Now     time.Time
	Target  Target
	Cluster *Cluster // nil if it was not reached
	Members []Member // of etcd, as far as they could be asked from here
	// Database is the size of etcd's file on this machine, 0 if it has none.
	Database     int64
	Certificates []Certificate // in files of this machine
	Machines     []Running     // of a cluster that `sampan up` made
	Machine      *Machine      // this one
}

// Target is whom the cluster is asked through.
type Target struct {
	Name       string // of a cluster that `sampan up` made
	Kubeconfig string // the file
	Context    string
	Server     string
	Host       string // of Server, as certificates name it
	Err        error  // why it was not reached
	Served     []*x509.Certificate
	Client     *x509.Certificate // by which the kubeconfig's user is known
	// Ahead is how far the server's clock is before this machine's.
	Ahead time.Duration
	// Local says that the server is on this machine.
	Local bool
}

// Running is a machine of `sampan up`.
type Running struct {
	Name    string
	Running bool
}

// Cluster is what the API says.
type Cluster struct {
	Version     string
	Time        time.Time // the server's clock
	Ready       []Probe   // of /readyz, those that failed
	Components  []*corev1.ComponentStatus
	Nodes       []*corev1.Node
	NodeLeases  []*coordinationv1.Lease
	Leaders     []*coordinationv1.Lease
	Pods        []*corev1.Pod
	Namespaces  []*corev1.Namespace
	Services    []*corev1.Service
	Slices      []*discoveryv1.EndpointSlice
	Claims      []*corev1.PersistentVolumeClaim
	Classes     []*storagev1.StorageClass
	Deployments []*appsv1.Deployment
	Events      []*corev1.Event
	Requests    []*certificatesv1.CertificateSigningRequest
	Mutating    []*admissionv1.MutatingWebhookConfiguration
	Validating  []*admissionv1.ValidatingWebhookConfiguration
	APIServices []*apiregistrationv1.APIService
	Definitions []*apiextensionsv1.CustomResourceDefinition
	// Answers say of each pod of cluster DNS that is Ready why it does not answer.
	Answers map[string]error
	// Unread are the kinds that could not be read, and why.
	Unread map[string]error
}

// Probe is a check of the API server's own.
type Probe struct{ Name, Reason string }

// Member is a member of etcd.
type Member struct {
	Name, Endpoint     string
	Err                error // it did not answer
	Size, InUse, Quota int64
	Alarms             []string
	Learner, Leader    bool // Leader: it knows one
}

// Certificate is one in a file.
type Certificate struct {
	Path  string
	Cert  *x509.Certificate
	Err   error
	Renew string // the command
}

// Kind is how a machine came to be a node.
type Kind string

// Kinds of machines.
const (
	NoNode  Kind = ""
	Kubeadm Kind = "kubeadm"
	Server  Kind = "server" // of `sampan server`
)

// Machine is the machine that the doctor runs on.
type Machine struct {
	Hostname  string
	Kind      Kind
	Plane     bool     // it has a control plane
	Lacks     []string // what keeps nodes from running here, each with its remedy
	Addresses []netip.Addr

	Forwarding   string // ip_forward; empty if it could not be read, as the others
	BridgeFilter string
	Swap         bool
	SwapTaken    bool // the kubelet is told to live with it
	Unsynced     bool // the clock
	NFTables     error

	Instances, MaxInstances int64 // of inotify
	MaxWatches              int64
	Tracked, MaxTracked     int64 // connections
	Tasks, MaxTasks         int64
	Files, MaxFiles         int64
	Available, Memory       int64 // bytes
	Disks                   []Disk
	Ports                   []Port
	Kubelet                 error // what its /healthz says
	CNI                     CNI
	// DNS is how long cluster DNS took to answer a node's own question.
	DNS    time.Duration
	DNSErr error
}

// Disk is a file system.
type Disk struct {
	Path                  string
	Free, Size            uint64
	FreeInodes, AllInodes uint64
	ReadOnly              bool
}

// Port is one that a node needs.
type Port struct {
	Number int
	What   string // who should have it
	Holder string // who has it; empty for nobody
	Ours   bool
}

// CNI is how pods are connected.
type CNI struct {
	Dir     string
	Files   []string          // configurations, the first is used
	Bad     map[string]string // those that cannot be read, and why
	Missing []string          // plugins that the first names and that are not there
	Flannel bool              // it names flannel
	Subnet  bool              // /run/flannel/subnet.env is there
	Offload string            // a tunnel's link that leaves checksums to the card
}

// Package spec says what the container runtime shall run: it turns a pod and one
// of its containers into CRI's configurations.
//
// Job: sandbox and container configuration, environment, command expansion,
// security context, resources, the hosts file, resolv.conf and host name.
//
// Not its job: making files and mounts (kubelet/volume), starting anything.
//
// Invariants: pure but for the Objects it is given to read.
package spec

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Objects reads the API objects that environments refer to. What does not exist
// is a NotFound error of the API.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Node is what the configurations need to know about the node.
type Node struct {
	Name             string
	HostIPs          []string
	Allocatable      corev1.ResourceList
	ClusterDNS       []string
	ClusterDomain    string
	ResolvConf       string // content of the node's resolv.conf
	SeccompRoot      string // directory of Localhost profiles
	SeccompByDefault bool
	MaxOOMAdjust     bool // oom_score_adj may be lowered
	CgroupV2         bool
	CPUQuota         bool // enforce CPU limits
	SwapMemory       bool
}

// Input is one container to configure.
type Input struct {
	Pod            *corev1.Pod
	Container      *corev1.Container
	Node           *Node
	Restarts       int
	ImageRef       string
	ImageUser      *runtimeapi.Image // its user, for runAsNonRoot
	PodIPs         []string
	Mounts         []*runtimeapi.Mount
	Env            []*runtimeapi.KeyValue
	Devices        []*runtimeapi.Device
	LogPath        string // relative to the sandbox's log directory
	QOS            corev1.PodQOSClass
	Target         string // id of the container whose processes it shall see; "" is its own
	Static         bool   // of the node's own manifests
	MemoryCapacity int64  // bytes, for the OOM score
}

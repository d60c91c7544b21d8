package cri

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Labels and annotations of sandboxes and containers; they are upstream's, so
// that either agent adopts the other's pods.
const (
	PodNameLabel       = "io.kubernetes.pod.name"
	PodNamespaceLabel  = "io.kubernetes.pod.namespace"
	PodUIDLabel        = "io.kubernetes.pod.uid"
	ContainerNameLabel = "io.kubernetes.container.name"

	hashAnnotation              = "io.kubernetes.container.hash"
	restartCountAnnotation      = "io.kubernetes.container.restartCount"
	terminationPathAnnotation   = "io.kubernetes.container.terminationMessagePath"
	terminationPolicyAnnotation = "io.kubernetes.container.terminationMessagePolicy"
	preStopAnnotation           = "io.kubernetes.container.preStopHandler"
	portsAnnotation             = "io.kubernetes.container.ports"
	podGraceAnnotation          = "io.kubernetes.pod.terminationGracePeriod"
	podDeletionGraceAnnotation  = "io.kubernetes.pod.deletionGracePeriod"
)

// PodLabels returns the labels of a pod's sandbox.
func PodLabels(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	for k, v := range pod.Labels {
		out[k] = v
	}
	out[PodNameLabel] = pod.Name
	out[PodNamespaceLabel] = pod.Namespace
	out[PodUIDLabel] = string(pod.UID)
	return out
}

// ContainerLabels returns the labels of a container of pod.
func ContainerLabels(pod *corev1.Pod, container string) map[string]string {
	return map[string]string{
		PodNameLabel: pod.Name, PodNamespaceLabel: pod.Namespace,
		PodUIDLabel: string(pod.UID), ContainerNameLabel: container,
	}
}

// ContainerAnnotations returns what is remembered with a container.
func ContainerAnnotations(pod *corev1.Pod, c *corev1.Container, restarts int) map[string]string {
	a := map[string]string{
		hashAnnotation:              strconv.FormatUint(Hash(c), 16),
		restartCountAnnotation:      strconv.Itoa(restarts),
		terminationPathAnnotation:   c.TerminationMessagePath,
		terminationPolicyAnnotation: string(c.TerminationMessagePolicy),
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		a[podGraceAnnotation] = strconv.FormatInt(*g, 10)
	}
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		a[podDeletionGraceAnnotation] = strconv.FormatInt(*g, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		if b, err := json.Marshal(c.Lifecycle.PreStop); err == nil {
			a[preStopAnnotation] = string(b)
		}
	}
	if len(c.Ports) > 0 {
		if b, err := json.Marshal(c.Ports); err == nil {
			a[portsAnnotation] = string(b)
		}
	}
	return a
}

// Hash identifies the part of a container whose change calls for a restart: as
// upstream, its name and image.
func Hash(c *corev1.Container) uint64 {
	h := fnv.New32a()
	fmt.Fprintf(h, `{"image":%q,"name":%q}`, c.Image, c.Name)
	return uint64(h.Sum32())
}

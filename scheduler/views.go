package scheduler

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	devicev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/semantics/device"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// views are the mirrors the scheduler reads.
type views struct {
	pods        *client.Mirror[corev1.Pod]
	nodes       *client.Mirror[corev1.Node]
	namespaces  *client.Mirror[corev1.Namespace]
	services    *client.Mirror[corev1.Service]
	controllers *client.Mirror[corev1.ReplicationController]
	sets        *client.Mirror[appsv1.ReplicaSet]
	stateful    *client.Mirror[appsv1.StatefulSet]
	budgets     *client.Mirror[policyv1.PodDisruptionBudget]
	claims      *client.Mirror[corev1.PersistentVolumeClaim]
	volumes     *client.Mirror[corev1.PersistentVolume]
	classes     *client.Mirror[storagev1.StorageClass]
	devicesOf   *client.Mirror[devicev1.ResourceClaim]
	slices      *client.Mirror[devicev1.ResourceSlice]

	deviceClasses *client.Mirror[devicev1.DeviceClass]

	// Pods of one controller are told alike: what chooses them is kept by the
	// controller's UID as long as no service changes.
	serviceRev int
	kept       map[types.UID]keptWorkload

	// assumed are volumes chosen for claims, by the claim's UID, that the mirror
	// does not show as taken yet.
	assumed map[string]types.UID

	// allocating are devices chosen for claims, by the claim's UID, that the
	// mirror does not show as allocated yet.
	allocating map[types.UID]*devicev1.AllocationResult
	inventory  *device.Inventory // of the slices; nil is out of date
	selectors  map[string]selector
}

type keptWorkload struct {
	serviceRev int
	labels     map[string]string
	selector   labels.Selector
}

// keptMost bounds the memory of kept answers.
const keptMost = 4096

func newViews(m *client.Mirrors) *views {
	all := client.MirrorOptions{}
	v := &views{
		pods: client.MirrorOf[corev1.Pod](m, all), nodes: client.MirrorOf[corev1.Node](m, all),
		namespaces: client.MirrorOf[corev1.Namespace](m, all), services: client.MirrorOf[corev1.Service](m, all),
		controllers: client.MirrorOf[corev1.ReplicationController](m, all), sets: client.MirrorOf[appsv1.ReplicaSet](m, all),
		stateful: client.MirrorOf[appsv1.StatefulSet](m, all), budgets: client.MirrorOf[policyv1.PodDisruptionBudget](m, all),
		claims: client.MirrorOf[corev1.PersistentVolumeClaim](m, all), volumes: client.MirrorOf[corev1.PersistentVolume](m, all),
		classes: client.MirrorOf[storagev1.StorageClass](m, all), devicesOf: client.MirrorOf[devicev1.ResourceClaim](m, all), kept: map[types.UID]keptWorkload{},
		slices: client.MirrorOf[devicev1.ResourceSlice](m, all), deviceClasses: client.MirrorOf[devicev1.DeviceClass](m, all),
		assumed: map[string]types.UID{}, allocating: map[types.UID]*devicev1.AllocationResult{}, selectors: map[string]selector{},
	}
	v.volumes.Index(byClass, func(pv *corev1.PersistentVolume) []string { return []string{volume.ClassOfVolume(pv)} })
	v.pods.Index(byClaim, claimsOf)
	return v
}

func (v *views) namespaceLabels(name string) labels.Set {
	ns, ok := v.namespaces.Get("", name)
	if !ok {
		return nil
	}
	return ns.Labels
}

// workload returns what chooses the pods that p should be spread among: those
// of its services and of its controller. nil if it has neither.
func (v *views) workload(p *corev1.Pod) labels.Selector {
	if len(p.Spec.TopologySpreadConstraints) > 0 {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		sel, _ := v.findWorkload(p, nil)
		return sel
	}
	if k, ok := v.kept[ref.UID]; ok && k.serviceRev == v.serviceRev && equalLabels(k.labels, p.Labels) {
		return k.selector
	}
	if len(v.kept) >= keptMost {
		clear(v.kept)
	}
	sel, sure := v.findWorkload(p, ref)
	if !sure {
		return sel // the controller is not in the mirror yet
	}
	v.kept[ref.UID] = keptWorkload{v.serviceRev, p.Labels, sel}
	return sel
}

// findWorkload says what chooses p's siblings, and whether all that matters is known.
func (v *views) findWorkload(p *corev1.Pod, ref *metav1.OwnerReference) (sel labels.Selector, sure bool) {
	set := labels.Set{}
	for _, s := range v.services.List(p.Namespace) {
		if len(s.Spec.Selector) > 0 && labels.Set(s.Spec.Selector).AsSelectorPreValidated().Matches(labels.Set(p.Labels)) {
			set = labels.Merge(set, s.Spec.Selector)
		}
	}
	var own labels.Selector
	sure = true
	if ref != nil {
		switch ref.Kind {
		case "ReplicationController":
			rc, ok := v.controllers.Get(p.Namespace, ref.Name)
			if sure = ok; ok {
				set = labels.Merge(set, rc.Spec.Selector)
			}
		case "ReplicaSet":
			rs, ok := v.sets.Get(p.Namespace, ref.Name)
			if sure = ok; ok {
				own = selectorOf(rs.Spec.Selector)
			}
		case "StatefulSet":
			ss, ok := v.stateful.Get(p.Namespace, ref.Name)
			if sure = ok; ok {
				own = selectorOf(ss.Spec.Selector)
			}
		}
	}
	if len(set) == 0 && own == nil {
		return nil, sure
	}
	sel = set.AsSelectorPreValidated()
	if own != nil {
		if reqs, ok := own.Requirements(); ok {
			sel = sel.Add(reqs...)
		}
	}
	return sel, sure
}

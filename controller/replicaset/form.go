package replicaset

import (
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// form is how a kind of set is read as a ReplicaSet and told its status.
type form[T any] struct {
	kind   schema.GroupVersionKind
	view   func(*T) *appsv1.ReplicaSet
	report func(set *T, s appsv1.ReplicaSetStatus) *T // a copy, or the set itself when nothing changes
}

// replicas is a set of either kind, read as a ReplicaSet.
type replicas struct {
	*appsv1.ReplicaSet
	self api.Object
}

func (f form[T]) read(o *T) replicas { return replicas{f.view(o), any(o).(api.Object)} }

var replicaSets = form[appsv1.ReplicaSet]{
	kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
	view: func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs },
	report: func(rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
		if reflect.DeepEqual(rs.Status, s) {
			return rs
		}
		c := rs.DeepCopy()
		c.Status = s
		return c
	},
}

var replicationControllers = form[corev1.ReplicationController]{
	kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
	view: func(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
		s := &rc.Status
		rs := &appsv1.ReplicaSet{ObjectMeta: rc.ObjectMeta,
			Spec: appsv1.ReplicaSetSpec{Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}},
			Status: appsv1.ReplicaSetStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas,
				ReadyReplicas: s.ReadyReplicas, AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}}
		if rc.Spec.Template != nil {
			rs.Spec.Template = *rc.Spec.Template
		}
		for _, c := range s.Conditions {
			rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
				LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
		}
		return rs
	},
	report: func(rc *corev1.ReplicationController, s appsv1.ReplicaSetStatus) *corev1.ReplicationController {
		c := rc.DeepCopy()
		c.Status = corev1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas,
			ReadyReplicas: s.ReadyReplicas, AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
		for _, k := range s.Conditions {
			c.Status.Conditions = append(c.Status.Conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(k.Type), Status: k.Status,
				LastTransitionTime: k.LastTransitionTime, Reason: k.Reason, Message: k.Message})
		}
		if reflect.DeepEqual(rc.Status, c.Status) {
			return rc
		}
		return c
	},
}

package deployment

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations that kubectl rollout and old clients read.
const (
	annRevision = "deployment.kubernetes.io/revision"
	annHistory  = "deployment.kubernetes.io/revision-history"
	annDesired  = "deployment.kubernetes.io/desired-replicas"
	annMax      = "deployment.kubernetes.io/max-replicas"
	annRollback = appsv1.DeprecatedRollbackTo

	maxHistory = 2000 // characters of annHistory
)

// notCopied are the Deployment's annotations that its ReplicaSets do not get.
var notCopied = []string{corev1.LastAppliedConfigAnnotation, annRevision, annHistory, annDesired, annMax, annRollback}

// hash names a template: clients and other tools know pods by it, so it must be
// computed as upstream does.
func hash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return semanticEqual(x, y)
}

func revisionOf(annotations map[string]string) int64 {
	n, err := strconv.ParseInt(annotations[annRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func maxRevision(sets []*appsv1.ReplicaSet) int64 {
	var m int64
	for _, rs := range sets {
		m = max(m, revisionOf(rs.Annotations))
	}
	return m
}

// annotate gives rs the Deployment's annotations and its revision, and says
// whether anything changed. rs is ours to modify.
func annotate(d *appsv1.Deployment, rs *appsv1.ReplicaSet, revision int64, exists bool) bool {
	changed := false
	set := func(k, v string) {
		if old, ok := rs.Annotations[k]; !ok || old != v {
			if rs.Annotations == nil {
				rs.Annotations = map[string]string{}
			}
			rs.Annotations[k], changed = v, true
		}
	}
	for k, v := range d.Annotations {
		if !slices.Contains(notCopied, k) {
			set(k, v)
		}
	}
	old, had := rs.Annotations[annRevision]
	if revisionOf(rs.Annotations) < revision {
		set(annRevision, strconv.FormatInt(revision, 10))
		if had {
			set(annHistory, remember(rs.Annotations[annHistory], old))
		}
	}
	if !exists && annotateSize(d, rs) {
		changed = true
	}
	return changed
}

// remember appends a revision to a history, dropping the oldest ones when it grows too long.
func remember(history, revision string) string {
	if history == "" {
		return revision
	}
	for len(history)+len(revision)+1 > maxHistory {
		_, rest, ok := strings.Cut(history, ",")
		if !ok {
			return revision
		}
		history = rest
	}
	return history + "," + revision
}

// annotateSize notes in rs what the Deployment's size was when rs was sized.
func annotateSize(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	desired := strconv.Itoa(int(replicas(d)))
	most := strconv.Itoa(int(replicas(d) + maxSurge(d)))
	if rs.Annotations[annDesired] == desired && rs.Annotations[annMax] == most {
		return false
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[annDesired], rs.Annotations[annMax] = desired, most
	return true
}

func annotatedSize(rs *appsv1.ReplicaSet, name string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[name], 10, 32)
	return int32(n), err == nil
}

func byAge(a, b *appsv1.ReplicaSet) int {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return strings.Compare(a.Name, b.Name)
	}
	return cmp.Compare(a.CreationTimestamp.UnixNano(), b.CreationTimestamp.UnixNano())
}

func statusEqual(a, b *appsv1.DeploymentStatus) bool { return reflect.DeepEqual(a, b) }

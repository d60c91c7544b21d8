package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// missing returns those of want that the node's annotations do not say.
func missing(n *corev1.Node, want map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range want {
		if got, ok := n.Annotations[k]; !ok || got != v {
			out[k] = v
		}
	}
	return out
}

// overwrite is the public address that an administrator chose for a node.
func (a annotations) overwrite(n *corev1.Node, public netip.Addr) netip.Addr {
	if ip, err := netip.ParseAddr(n.Annotations[a.key("public-ip-overwrite")]); err == nil && ip.Is4() {
		return ip
	}
	return public
}

// available says of a node that its network is there, as flannel says it.
func available() corev1.NodeCondition {
	now := metav1.Time{Time: clock.Now()}
	return corev1.NodeCondition{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "FlannelIsUp", Message: "Flannel is running on this node",
		LastTransitionTime: now, LastHeartbeatTime: now,
	}
}

// lacks says that the node's status does not have the condition as it is.
func lacks(n *corev1.Node, want corev1.NodeCondition) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == want.Type {
			return c.Status != want.Status || c.Reason != want.Reason || c.Message != want.Message
		}
	}
	return true
}

// patchStatus changes a node's annotations and conditions by one request.
func patchStatus(ctx context.Context, c client.Interface, node string, notes map[string]string, conditions ...corev1.NodeCondition) error {
	patch := map[string]any{}
	if len(notes) > 0 {
		patch["metadata"] = map[string]any{"annotations": notes}
	}
	if len(conditions) > 0 {
		patch["status"] = map[string]any{"conditions": conditions}
	}
	if len(patch) == 0 {
		return nil
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	if _, err := client.Of[corev1.Node](c, "").Patch(ctx, node, "status", types.StrategicMergePatchType, data); err != nil {
		return fmt.Errorf("node %s: tell other nodes: %w", node, err)
	}
	return nil
}

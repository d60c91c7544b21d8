package bootstrap

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
)

// nodeBindings are kubeadm's bindings by which nodes with a bootstrap token get
// a certificate, and ours by which a node's own identity runs the proxy.
var nodeBindings = []struct{ name, role, group string }{
	{"kubeadm:kubelet-bootstrap", "system:node-bootstrapper", "system:bootstrappers:kubeadm:default-node-token"},
	{"kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", "system:bootstrappers:kubeadm:default-node-token"},
	{"kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"},
	{"sampan:node-proxier", "system:node-proxier", "system:nodes"},
}

// joinObjects makes what joining nodes need: the bindings, and the token if
// there is one.
func joinObjects(ctx context.Context, c client.Interface, token string) error {
	bindings := client.Of[rbacv1.ClusterRoleBinding](c, "")
	for _, b := range nodeBindings {
		_, err := bindings.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: b.name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: b.group}},
		})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	id, secret, ok := strings.Cut(token, ".")
	if !ok {
		return nil
	}
	_, err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id, Namespace: metav1.NamespaceSystem},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": id, "token-secret": secret,
			"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
			"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
		},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// controlPlaneLabel is kubeadm's mark of a control plane's node, which kubelets
// may not give themselves.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// markControlPlane labels the node once it has registered.
func markControlPlane(ctx context.Context, c client.Interface, name string) error {
	w, err := c.Watch(ctx, client.Resource[corev1.Node](), "", &metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return err
		}
		n, ok := e.Object.(*corev1.Node)
		if !ok {
			continue
		}
		if _, marked := n.Labels[controlPlaneLabel]; marked {
			return nil
		}
		_, err = client.Of[corev1.Node](c, "").Patch(ctx, name, "", types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"`+controlPlaneLabel+`":""}}}`))
		return err
	}
}

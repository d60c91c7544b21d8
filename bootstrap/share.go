package bootstrap

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// kubeadm's names: a control plane of either kind hands its files to one of the other.
const (
	certsSecret = "kubeadm-certs"
	certsLife   = 2 * time.Hour
	joiners     = "system:bootstrappers:kubeadm:default-node-token"
)

// SharedFiles are what every control plane of a cluster has the same, by their
// names in the Secret and below the directory of certificates.
func SharedFiles() map[string]string {
	files := map[string]string{"etcd-ca.crt": "etcd/ca.crt", "etcd-ca.key": "etcd/ca.key"}
	for _, name := range []string{"ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key"} {
		files[name] = name
	}
	return files
}

func sealer(key string) (cipher.AEAD, error) {
	raw, err := hex.DecodeString(key)
	if err != nil || len(raw) != 32 {
		return nil, errors.New("--certificate-key: want 64 hexadecimal digits, as `openssl rand -hex 32` prints")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// NewCertificateKey makes the key that shared files are encrypted with.
func NewCertificateKey() (string, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return hex.EncodeToString(raw), nil
}

// share is ShareFiles for the shared files below dir.
func share(ctx context.Context, c client.Interface, dir, key string) error {
	return ShareFiles(ctx, c, below(dir), key)
}

// below says where the shared files of a directory of certificates lie.
func below(dir string) map[string]string {
	files := SharedFiles()
	for name, path := range files {
		files[name] = filepath.Join(dir, path)
	}
	return files
}

// ShareFiles keeps files, by their names in the Secret and their paths, encrypted
// with key, where those who join with a bootstrap token find them, for two hours:
// they belong to a token that ends then, and go with it.
func ShareFiles(ctx context.Context, c client.Interface, files map[string]string, key string) error {
	seal, err := sealer(key)
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for name, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("error loading secrets data: %w", err)
		}
		nonce := make([]byte, seal.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return err
		}
		data[name] = seal.Seal(nonce, nonce, text, nil)
	}
	owner, err := lifetime(ctx, c)
	if err != nil {
		return err
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: certsSecret, Namespace: metav1.NamespaceSystem, OwnerReferences: []metav1.OwnerReference{owner}}, Data: data}
	secrets := client.Of[corev1.Secret](c, metav1.NamespaceSystem)
	_, err = secrets.Create(ctx, s)
	if apierrors.IsAlreadyExists(err) { // of an earlier key
		var old *corev1.Secret
		if old, err = secrets.Get(ctx, certsSecret); err == nil {
			s.ResourceVersion = old.ResourceVersion
			_, err = secrets.Update(ctx, s)
		}
	}
	if err != nil {
		return fmt.Errorf("error creating %s secret: %w", certsSecret, err)
	}
	return allow(ctx, c, metav1.NamespaceSystem, "kubeadm:"+certsSecret, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: joiners},
		rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{certsSecret}})
}

// lifetime makes a token that can do nothing but expire, and take with it what it owns.
func lifetime(ctx context.Context, c client.Interface) (metav1.OwnerReference, error) {
	raw := make([]byte, 11)
	if _, err := rand.Read(raw); err != nil {
		return metav1.OwnerReference{}, err
	}
	text := hex.EncodeToString(raw)
	made, err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + text[:6], Namespace: metav1.NamespaceSystem},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": text[:6], "token-secret": text[6:22], "description": "Proxy for managing TTL for the kubeadm-certs secret",
			"expiration": clock.Now().Add(certsLife).UTC().Format(time.RFC3339),
		},
	})
	if err != nil {
		return metav1.OwnerReference{}, err
	}
	yes := true
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Secret", Name: made.Name, UID: made.UID, Controller: &yes, BlockOwnerDeletion: &yes}, nil
}

// fetchShared is FetchFiles for the shared files below dir.
func fetchShared(ctx context.Context, c client.Interface, dir, key string) error {
	return FetchFiles(ctx, c, below(dir), key, "a control plane that is started with --cluster-init and --certificate-key keeps it for two hours")
}

// FetchFiles writes the files that another control plane keeps by ShareFiles.
// remedy says how its user makes it keep them again.
func FetchFiles(ctx context.Context, c client.Interface, files map[string]string, key, remedy string) error {
	seal, err := sealer(key)
	if err != nil {
		return err
	}
	s, err := client.Of[corev1.Secret](c, metav1.NamespaceSystem).Get(ctx, certsSecret)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return fmt.Errorf("Secret %q was not found in the %q Namespace. This Secret might have expired: %s: %w", certsSecret, metav1.NamespaceSystem, remedy, err)
	}
	if err != nil {
		return err
	}
	plain := map[string][]byte{} // all of them, before any is written
	for name, path := range files {
		text, ok := s.Data[name]
		if !ok {
			return fmt.Errorf("the Secret does not include the required certificate or key - name: %s, path: %s: %s", name, path, remedy)
		}
		if len(text) < seal.NonceSize() {
			return fmt.Errorf("error decrypting secret data of %s: it is cut short", name)
		}
		if plain[path], err = seal.Open(nil, text[:seal.NonceSize()], text[seal.NonceSize():], nil); err != nil {
			return fmt.Errorf("error decoding secret data with provided key: the --certificate-key is not the one the certificates were uploaded with: %s", remedy)
		}
	}
	for path, text := range plain {
		if len(text) == 0 {
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(path, ".key") {
			mode = 0o600
		}
		if err := pki.WriteFile(path, text, mode); err != nil {
			return err
		}
	}
	return nil
}

// missingShared says which shared file is not there.
func missingShared(dir string) error {
	for _, path := range SharedFiles() {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			return fmt.Errorf("failure loading %s: %w; copy the certificates from another control plane, or pass the --certificate-key that one was started with", filepath.Join(dir, path), err)
		}
	}
	return nil
}

// allow makes a role of one rule and gives it to somebody.
func allow(ctx context.Context, c client.Interface, namespace, name string, who rbacv1.Subject, rule rbacv1.PolicyRule) error {
	return allowAll(ctx, c, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Rules: []rbacv1.PolicyRule{rule}}, who)
}

// allowAll gives a role to several.
func allowAll(ctx context.Context, c client.Interface, role *rbacv1.Role, who ...rbacv1.Subject) error {
	_, err := client.Of[rbacv1.Role](c, role.Namespace).Create(ctx, role)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = client.Of[rbacv1.RoleBinding](c, role.Namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name, Namespace: role.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}, Subjects: who,
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

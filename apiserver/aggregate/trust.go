package aggregate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Trust is whom other servers are to believe: published in a ConfigMap that they
// may read.
type Trust struct {
	ClientCA []byte // PEM
	// Of front proxies: this server is one.
	RequestHeaderCA                              []byte // PEM; nil publishes none of the following
	AllowedNames                                 []string
	UserHeaders, UIDHeaders, GroupHeaders, Extra []string

	mu sync.Mutex // of the authorities, which may change
}

// Renew replaces the authorities. Those that were published before stay
// published, for others may still show certificates of theirs.
func (t *Trust) Renew(clientCA, requestHeaderCA []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ClientCA, t.RequestHeaderCA = clientCA, requestHeaderCA
}

// TrustMap is the ConfigMap, in kube-system.
const TrustMap = "extension-apiserver-authentication"

// Publish writes the ConfigMap.
func (t *Trust) Publish(ctx context.Context, back request.Backend) error {
	maps := schema.GroupResource{Resource: "configmaps"}
	cur, err := back.Get(ctx, maps, metav1.NamespaceSystem, TrustMap)
	if apierrors.IsNotFound(err) {
		data, err := t.data(nil)
		if err != nil {
			return err
		}
		_, err = back.Create(ctx, maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: TrustMap}, Data: data}, nil)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("configmap: %s: %w", TrustMap, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if m, ok := cur.(*corev1.ConfigMap); ok && t.Right(m) {
		return nil
	}
	_, err = back.Modify(ctx, maps, metav1.NamespaceSystem, TrustMap, "", func(o api.Object) error {
		m := o.(*corev1.ConfigMap)
		data, err := t.data(m.Data)
		if err != nil {
			return err
		}
		m.Data = data
		return nil
	})
	if err != nil {
		return fmt.Errorf("configmap: %s: %w", TrustMap, err)
	}
	return nil
}

// Right says whether a ConfigMap holds what it should.
func (t *Trust) Right(m *corev1.ConfigMap) bool {
	want, err := t.data(m.Data)
	return err == nil && maps.Equal(want, m.Data)
}

// data is what the ConfigMap holds. Authorities that other replicas added stay:
// while certificates change, both are believed.
func (t *Trust) data(have map[string]string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	if len(t.ClientCA) > 0 {
		out["client-ca-file"] = join(have["client-ca-file"], t.ClientCA)
	}
	if len(t.RequestHeaderCA) == 0 {
		return out, nil
	}
	out["requestheader-client-ca-file"] = join(have["requestheader-client-ca-file"], t.RequestHeaderCA)
	for key, list := range map[string][]string{
		"requestheader-username-headers": t.UserHeaders, "requestheader-uid-headers": t.UIDHeaders, "requestheader-group-headers": t.GroupHeaders,
		"requestheader-extra-headers-prefix": t.Extra, "requestheader-allowed-names": t.AllowedNames,
	} {
		if list == nil {
			list = []string{}
		}
		text, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		out[key] = string(text)
	}
	return out, nil
}

// join adds a bundle to those that are there already.
func join(have string, bundle []byte) string {
	if bytes.Contains([]byte(have), bytes.TrimSpace(bundle)) {
		return have
	}
	if have != "" && have[len(have)-1] != '\n' {
		have += "\n"
	}
	return have + string(bundle)
}

// Repair publishes whenever something is wrong, until it has succeeded. It ends
// with ctx.
func (t *Trust) Repair(ctx context.Context, back request.Backend, log *slog.Logger, wrong <-chan struct{}) error {
	again := backoff.Policy{First: 100 * time.Millisecond, Max: 30 * time.Second}
	for {
		select {
		case <-wrong:
		case <-ctx.Done():
			return nil
		}
		for failures := 1; ; failures++ {
			err := t.Publish(ctx, back)
			if err == nil || ctx.Err() != nil {
				break
			}
			log.Warn("publish whom other servers may trust", "err", err)
			if clock.Sleep(ctx, again.After(failures)) != nil {
				return nil
			}
		}
	}
}

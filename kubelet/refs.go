package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet/spec"

	"time"
)

// refs keeps the ConfigMaps and Secrets that this node's pods refer to, each
// watched by its name alone: the node may not see others.
type refs struct {
	c       client.Interface
	changed func(types.UID)

	mu    sync.Mutex
	ctx   context.Context
	known map[refKey]*ref
	held  map[types.UID]map[refKey]bool
}

type refKey struct{ kind, namespace, name string }

type ref struct {
	obj    api.Object // nil: does not exist
	loaded bool
	cancel context.CancelFunc
	users  map[types.UID]bool
}

func newRefs(c client.Interface, changed func(types.UID)) *refs {
	return &refs{c: c, changed: changed, known: map[refKey]*ref{}, held: map[types.UID]map[refKey]bool{}}
}

// refChanged wakes a pod whose ConfigMap or Secret changed.
func (k *Kubelet) refChanged(uid types.UID) {
	if w := k.worker(uid); w != nil {
		k.work.Add(uid)
	}
}

func (r *refs) run(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	for key, e := range r.known {
		r.start(key, e)
	}
	r.mu.Unlock()
	<-ctx.Done()
	return nil
}

// start watches one object; the lock is held.
func (r *refs) start(key refKey, e *ref) {
	if r.ctx == nil || e.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	e.cancel = cancel
	run.Detach(ctx, "ref", func(ctx context.Context) {
		for ctx.Err() == nil {
			_ = r.follow(ctx, key) // ends with every watch: begin again
			if clock.Sleep(ctx, clock.Jitter(time.Second, 1)) != nil {
				return
			}
		}
	})
}

func (r *refs) follow(ctx context.Context, key refKey) error {
	gvr := client.Resource[corev1.ConfigMap]()
	if key.kind == "secret" {
		gvr = client.Resource[corev1.Secret]()
	}
	o := &metav1.ListOptions{FieldSelector: "metadata.name=" + key.name}
	l, err := r.c.List(ctx, gvr, key.namespace, o)
	if err != nil {
		return err
	}
	var obj api.Object
	if len(l.Items) > 0 {
		obj = l.Items[0]
	}
	r.store(key, obj)
	o = &metav1.ListOptions{FieldSelector: o.FieldSelector, ResourceVersion: l.ResourceVersion}
	events, err := r.c.Watch(ctx, gvr, key.namespace, o)
	if err != nil {
		return err
	}
	defer events.Stop()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Type {
		case watch.Added, watch.Modified:
			if obj, ok := e.Object.(api.Object); ok {
				r.store(key, obj)
			}
		case watch.Deleted:
			r.store(key, nil)
		case watch.Error:
			return errors.New("watch ended")
		}
	}
}

func (r *refs) store(key refKey, obj api.Object) {
	r.mu.Lock()
	e := r.known[key]
	var wake []types.UID
	if e != nil {
		if e.loaded && obj != nil && e.obj != nil && obj.GetResourceVersion() == e.obj.GetResourceVersion() {
			r.mu.Unlock()
			return
		}
		e.obj, e.loaded = obj, true
		for uid := range e.users {
			wake = append(wake, uid)
		}
	}
	r.mu.Unlock()
	for _, uid := range wake {
		r.changed(uid)
	}
}

// hold makes sure that all that pod refers to is watched.
func (r *refs) hold(pod *corev1.Pod) {
	keys := references(pod)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[pod.UID] = keys
	for key := range keys {
		e := r.known[key]
		if e == nil {
			e = &ref{users: map[types.UID]bool{}}
			r.known[key] = e
			r.start(key, e)
		}
		e.users[pod.UID] = true
	}
}

// release drops what only this pod referred to.
func (r *refs) release(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.held[uid] {
		if e := r.known[key]; e != nil {
			if delete(e.users, uid); len(e.users) == 0 {
				if e.cancel != nil {
					e.cancel()
				}
				delete(r.known, key)
			}
		}
	}
	delete(r.held, uid)
}

// references lists the ConfigMaps and Secrets that a pod names.
func references(pod *corev1.Pod) map[refKey]bool {
	out := map[refKey]bool{}
	add := func(kind, name string) {
		if name != "" {
			out[refKey{kind, pod.Namespace, name}] = true
		}
	}
	lists := [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers}
	for i := range pod.Spec.EphemeralContainers {
		lists = append(lists, []corev1.Container{corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)})
	}
	for _, list := range lists {
		for i := range list {
			for _, f := range list[i].EnvFrom {
				if f.ConfigMapRef != nil {
					add("configmap", f.ConfigMapRef.Name)
				}
				if f.SecretRef != nil {
					add("secret", f.SecretRef.Name)
				}
			}
			for _, e := range list[i].Env {
				if e.ValueFrom == nil {
					continue
				}
				if s := e.ValueFrom.ConfigMapKeyRef; s != nil {
					add("configmap", s.Name)
				}
				if s := e.ValueFrom.SecretKeyRef; s != nil {
					add("secret", s.Name)
				}
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add("configmap", v.ConfigMap.Name)
		case v.Secret != nil:
			add("secret", v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add("configmap", s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add("secret", s.Secret.Name)
				}
			}
		}
	}
	return out
}

// get returns a watched object, or reads it from the server when it is not
// there yet: what does not exist may have been made a moment ago.
func (r *refs) get(ctx context.Context, key refKey, read func() (api.Object, error)) (api.Object, error) {
	r.mu.Lock()
	e := r.known[key]
	if e != nil && e.loaded && e.obj != nil {
		obj := e.obj
		r.mu.Unlock()
		return obj, nil
	}
	r.mu.Unlock()
	return read()
}

// ConfigMap returns a ConfigMap.
func (r *refs) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	obj, err := r.get(ctx, refKey{"configmap", namespace, name}, func() (api.Object, error) {
		return client.Of[corev1.ConfigMap](r.c, namespace).Get(ctx, name)
	})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret returns a Secret.
func (r *refs) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	obj, err := r.get(ctx, refKey{"secret", namespace, name}, func() (api.Object, error) {
		return client.Of[corev1.Secret](r.c, namespace).Get(ctx, name)
	})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

// pullSecrets returns those of the pod's pull secrets that exist.
func (r *refs) pullSecrets(ctx context.Context, pod *corev1.Pod) []*corev1.Secret {
	var out []*corev1.Secret
	for _, ref := range pod.Spec.ImagePullSecrets {
		if s, err := r.Secret(ctx, pod.Namespace, ref.Name); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// handler returns the runtime handler of a runtime class.
func (r *refs) handler(ctx context.Context, class string) (string, error) {
	rc, err := client.Of[nodev1.RuntimeClass](r.c, "").Get(ctx, class)
	if apierrors.IsNotFound(err) {
		return "", errors.New("failed to get sandbox runtime: runtimeclass.node.k8s.io \"" + class + "\" not found")
	}
	if err != nil {
		return "", err
	}
	return rc.Handler, nil
}

// source is what volumes read, in terms of the agent.
type source struct{ k *Kubelet }

func (s source) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return s.k.refs.ConfigMap(ctx, namespace, name)
}

func (s source) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.k.refs.Secret(ctx, namespace, name)
}

func (s source) Claim(ctx context.Context, pod *corev1.Pod, name string) (*corev1.PersistentVolume, error) {
	pvc, err := client.Of[corev1.PersistentVolumeClaim](s.k.deps.Client, pod.Namespace).Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("error processing PVC %s/%s: failed to fetch PVC from API server: %w", pod.Namespace, name, err)
	}
	for _, v := range pod.Spec.Volumes { // an ephemeral volume's claim must be this pod's own
		if v.Ephemeral != nil && pod.Name+"-"+v.Name == name && !metav1.IsControlledBy(pvc, pod) {
			return nil, fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", pod.Namespace, name, pod.Namespace, pod.Name)
		}
	}
	switch {
	case pvc.DeletionTimestamp != nil && s.k.worker(pod.UID) == nil:
		return nil, fmt.Errorf("error processing PVC %s/%s: PVC is being deleted", pod.Namespace, name)
	case pvc.Spec.VolumeName == "" || pvc.Status.Phase != corev1.ClaimBound:
		return nil, fmt.Errorf("error processing PVC %s/%s: PVC is not bound", pod.Namespace, name)
	}
	pv, err := client.Of[corev1.PersistentVolume](s.k.deps.Client, "").Get(ctx, pvc.Spec.VolumeName)
	if err != nil {
		return nil, err
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return nil, fmt.Errorf("PV object is bound to another claim: found pv.Spec.ClaimRef %v, expected %s", pv.Spec.ClaimRef, pvc.UID)
	}
	return pv, nil
}

func (s source) Token(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return client.Post[authenticationv1.TokenRequest](ctx, client.Of[corev1.ServiceAccount](s.k.deps.Client, namespace), account, "token", r)
}

func (s source) Field(pod *corev1.Pod, path string) (string, error) {
	var ips []string
	if w := s.k.worker(pod.UID); w != nil {
		if _, st := w.view(); st != nil {
			for _, ip := range st.PodIPs {
				ips = append(ips, ip.IP)
			}
		}
	}
	return spec.PodField(pod, path, ips, &s.k.node)
}

func (s source) Resource(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
	return spec.ResourceField(pod, ref, ref.ContainerName, s.k.node.Allocatable)
}

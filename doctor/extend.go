package doctor

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// dead says why a service cannot be called; empty if it can.
func (c *Cluster) dead(namespace, name string) string {
	if c.Unread["services"] != nil || c.Unread["endpointslices"] != nil {
		return ""
	}
	i := slices.IndexFunc(c.Services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	switch {
	case i < 0:
		return fmt.Sprintf("service %s/%s does not exist", namespace, name)
	case c.Services[i].Spec.Type == corev1.ServiceTypeExternalName || c.ready(namespace, name) > 0:
		return ""
	}
	return fmt.Sprintf("service %s/%s has no pod that is ready", namespace, name)
}

// ready is how many endpoints of a service are.
func (c *Cluster) ready(namespace, name string) (n int) {
	for _, s := range c.Slices {
		if s.Namespace != namespace || s.Labels[discoveryv1.LabelServiceName] != name {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				n++
			}
		}
	}
	return n
}

// hook is a webhook of either kind.
type hook struct {
	kind, config, name string
	client             admissionv1.WebhookClientConfig
	policy             *admissionv1.FailurePolicyType
	rules              []admissionv1.RuleWithOperations
}

func (c *Cluster) hooks() (all []hook) {
	for _, m := range c.Mutating {
		for _, w := range m.Webhooks {
			all = append(all, hook{"mutatingwebhookconfiguration", m.Name, w.Name, w.ClientConfig, w.FailurePolicy, w.Rules})
		}
	}
	for _, v := range c.Validating {
		for _, w := range v.Webhooks {
			all = append(all, hook{"validatingwebhookconfiguration", v.Name, w.Name, w.ClientConfig, w.FailurePolicy, w.Rules})
		}
	}
	return all
}

// stops names what a webhook's rules are about.
func (h hook) stops() string {
	var out []string
	for _, r := range h.rules {
		var ops []string
		for _, o := range r.Operations {
			ops = append(ops, string(o))
		}
		out = append(out, strings.Join(ops, "/")+" "+strings.Join(r.Resources, ","))
	}
	return strings.Join(out, "; ")
}

func checkWebhooks(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, h := range f.Cluster.hooks() {
		about := h.kind + "/" + h.config
		write, means := p.fail, "is refused, and by that perhaps the very pods that would answer"
		if h.policy != nil && *h.policy == admissionv1.Ignore {
			write, means = p.warn, "waits for its timeout each time"
		}
		if s := h.client.Service; s != nil {
			if why := f.Cluster.dead(s.Namespace, s.Name); why != "" {
				mend := "kubectl delete " + h.kind + " " + h.config
				if !strings.Contains(why, "exist") {
					mend = fmt.Sprintf("kubectl -n %s get pods; to go on without it: kubectl delete %s %s", s.Namespace, h.kind, h.config)
				}
				write(about, mend, "webhook %s: %s: %s %s", h.name, why, h.stops(), means)
				continue
			}
		}
		if ended := bundle(f.Now, h.client.CABundle); ended != "" {
			write(about, "issue its authority anew and patch caBundle (cert-manager: kubectl annotate "+h.kind+" "+h.config+" cert-manager.io/inject-ca-from=NAMESPACE/CERTIFICATE)", "webhook %s: its caBundle %s: %s %s", h.name, ended, h.stops(), means)
		}
	}
}

// bundle says that none of the authorities in text is valid now.
func bundle(now time.Time, text []byte) string {
	var last time.Time
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	if last.IsZero() || now.Before(last) {
		return ""
	}
	return "ended on " + stamp(last)
}

func checkAPIServices(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, a := range f.Cluster.APIServices {
		for _, c := range a.Status.Conditions {
			if c.Type != apiregistrationv1.Available || c.Status == apiregistrationv1.ConditionTrue {
				continue
			}
			mend := "kubectl delete apiservice " + a.Name
			if s := a.Spec.Service; s != nil {
				mend = fmt.Sprintf("kubectl -n %s get pods; to go on without it: %s", s.Namespace, mend)
			}
			p.fail("apiservice/"+a.Name, mend, "not available (%s): %s; namespaces cannot be deleted meanwhile", c.Reason, c.Message)
		}
	}
}

func checkDefinitions(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, d := range f.Cluster.Definitions {
		about := "crd/" + d.Name
		for _, c := range d.Status.Conditions {
			if (c.Type == apiextensionsv1.Established || c.Type == apiextensionsv1.NamesAccepted) && c.Status == apiextensionsv1.ConditionFalse {
				p.fail(about, "kubectl get crd "+d.Name+" -o yaml; change its names or delete the other one", "%s is False (%s): %s", c.Type, c.Reason, c.Message)
			}
		}
		if v := d.Spec.Conversion; v != nil && v.Webhook != nil && v.Webhook.ClientConfig != nil && v.Webhook.ClientConfig.Service != nil {
			s := v.Webhook.ClientConfig.Service
			if why := f.Cluster.dead(s.Namespace, s.Name); why != "" {
				p.fail(about, "kubectl -n "+s.Namespace+" get pods; bring its operator back, or kubectl delete crd "+d.Name+" with all its objects", "its conversion webhook is dead: %s: objects of other versions cannot be read", why)
			}
		}
		if d.DeletionTimestamp != nil && f.Cluster.Time.Sub(d.DeletionTimestamp.Time) > time.Minute {
			p.fail(about, fmt.Sprintf("kubectl get %s -A -o custom-columns=NAME:.metadata.name,FINALIZERS:.metadata.finalizers; then kubectl patch … --type=merge -p '{\"metadata\":{\"finalizers\":null}}'", d.Name), "it has been Terminating for %s: objects of it have finalizers", ago(f.Cluster.Time.Sub(d.DeletionTimestamp.Time)))
		}
	}
}

// remaining is how a namespace's condition names what is left: "configmaps. has 2 resource instances".
var remaining = regexp.MustCompile(`([a-z0-9.-]+?)\.? has \d+ resource instances?`)

// groups are those whose discovery failed, as a namespace's condition names them.
var groups = regexp.MustCompile(`([a-z0-9.-]+/v[a-z0-9]+)`)

func checkNamespaces(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	for _, n := range f.Cluster.Namespaces {
		if n.DeletionTimestamp == nil || f.Cluster.Time.Sub(n.DeletionTimestamp.Time) < time.Minute {
			continue
		}
		about, since := "namespace "+n.Name, ago(f.Cluster.Time.Sub(n.DeletionTimestamp.Time))
		is := map[corev1.NamespaceConditionType]corev1.NamespaceCondition{}
		for _, c := range n.Status.Conditions {
			if c.Status == corev1.ConditionTrue {
				is[c.Type] = c
			}
		}
		own := slices.DeleteFunc(slices.Clone(n.Spec.Finalizers), func(x corev1.FinalizerName) bool { return x == corev1.FinalizerKubernetes })
		discovery, badAPI := is[corev1.NamespaceDeletionDiscoveryFailure]
		held, finalizers := is[corev1.NamespaceFinalizersRemaining]
		content, more := is[corev1.NamespaceContentRemaining]
		failure, failed := is[corev1.NamespaceDeletionContentFailure]
		switch {
		case badAPI:
			p.fail(about, f.Cluster.deadAPI(discovery.Message), "Terminating for %s: an API does not answer, so nobody knows what is left: %s", since, discovery.Message)
		case finalizers:
			p.fail(about, release(n.Name, content.Message), "Terminating for %s: %s %s", since, held.Message, content.Message)
		case failed:
			p.fail(about, "kubectl get events -A | grep "+n.Name, "Terminating for %s: %s", since, failure.Message)
		case more:
			p.fail(about, release(n.Name, content.Message), "Terminating for %s: %s", since, content.Message)
		case len(own)+len(n.Finalizers) > 0:
			p.fail(about, fmt.Sprintf("kubectl get ns %s -o json | jq '.spec.finalizers=[]|.metadata.finalizers=[]' | kubectl replace --raw /api/v1/namespaces/%[1]s/finalize -f -", n.Name), "Terminating for %s: finalizers of the namespace itself: %v", since, append(own, finalizerNames(n.Finalizers)...))
		default:
			p.fail(about, "see that kube-controller-manager acts: kubectl get componentstatuses; kubectl -n kube-system get lease", "Terminating for %s, and nobody said why", since)
		}
	}
}

func finalizerNames(list []string) (out []corev1.FinalizerName) {
	for _, s := range list {
		out = append(out, corev1.FinalizerName(s))
	}
	return out
}

// deadAPI is the command about the API group that a message names.
func (c *Cluster) deadAPI(message string) string {
	for _, a := range c.APIServices {
		gv := a.Spec.Group + "/" + a.Spec.Version
		if a.Spec.Service != nil && strings.Contains(message, gv) {
			return fmt.Sprintf("kubectl -n %s get pods (its API server); to go on without it: kubectl delete apiservice %s", a.Spec.Service.Namespace, a.Name)
		}
	}
	if gv := groups.FindString(message); gv != "" {
		group, v, _ := strings.Cut(gv, "/")
		return "kubectl delete apiservice " + v + "." + group
	}
	return "kubectl get apiservice | grep False; kubectl delete apiservice NAME"
}

// release is how to take finalizers away from what is left in a namespace.
func release(namespace, message string) string {
	kind := "KIND"
	if m := remaining.FindStringSubmatch(message); m != nil {
		kind = m[1]
	}
	return fmt.Sprintf("see that the controller of that finalizer runs; if it is gone for good: for o in $(kubectl -n %s get %s -o name); do kubectl -n %[1]s patch $o --type=merge -p '{\"metadata\":{\"finalizers\":null}}'; done", namespace, kind)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// latest are the newest events about objects, by kind/namespace/name and reason.
func (c *Cluster) latest(kind, namespace, name string, reasons ...string) *corev1.Event {
	var found *corev1.Event
	for _, e := range c.Events {
		o := e.InvolvedObject
		if o.Kind == kind && o.Namespace == namespace && o.Name == name && (len(reasons) == 0 || slices.Contains(reasons, e.Reason)) &&
			(found == nil || cmp.Compare(when(e).UnixNano(), when(found).UnixNano()) > 0) {
			found = e
		}
	}
	return found
}

// when is the last time of an event.
func when(e *corev1.Event) time.Time {
	last := e.CreationTimestamp
	for _, t := range []metav1.Time{e.LastTimestamp, {Time: e.EventTime.Time}} {
		if t.After(last.Time) {
			last = t
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(last.Time) {
		return e.Series.LastObservedTime.Time
	}
	return last.Time
}

package certificates

import (
	"context"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// account is whom all three act as.
const account = "certificate-controller"

type request = certificatesv1.CertificateSigningRequest

// ApproverConfig says what is approved beyond upstream's rules.
type ApproverConfig struct {
	// Serving approves a node's server certificate for its own addresses.
	// Upstream leaves that to others.
	Serving bool
}

type approver struct {
	*controller.Loop
	cfg      ApproverConfig
	requests *client.Mirror[request]
	nodes    *client.Mirror[corev1.Node]
}

// NewApprover returns the loop that approves certificates of kubelets.
func NewApprover(d controller.Deps, cfg ApproverConfig) controller.Controller {
	l := &approver{cfg: cfg}
	l.Loop = controller.NewLoop(d, "csrapproving", 5, l.reconcile).As(d, account)
	l.requests = controller.Input(l.Loop, present)
	if cfg.Serving {
		l.nodes = controller.Input[corev1.Node](l.Loop, nil)
	}
	return l
}

// present maps requests that are there to themselves.
func present(_, new *request) []controller.Key {
	if new == nil {
		return nil
	}
	return []controller.Key{client.KeyOf(new)}
}

func (l *approver) reconcile(ctx context.Context, k controller.Key) error {
	csr, ok := l.requests.Get("", k.Name)
	if !ok || len(csr.Status.Certificate) > 0 || has(csr, certificatesv1.CertificateApproved) || has(csr, certificatesv1.CertificateDenied) {
		return nil
	}
	r, err := pki.DecodeRequest(csr.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr %q: %w", csr.Name, err)
	}
	var node *corev1.Node
	if l.nodes != nil {
		node, _ = l.nodes.Get("", strings.TrimPrefix(csr.Spec.Username, nodePrefix))
	}
	var tried []string
	for _, c := range claims(csr, r, node, l.cfg.Serving) {
		if c.subresource != "" {
			tried = append(tried, c.subresource)
			allowed, err := l.allowed(ctx, csr, c.subresource)
			if err != nil {
				return err
			}
			if !allowed {
				continue
			}
		}
		return l.approve(ctx, csr, c.message)
	}
	if len(tried) > 0 {
		return fmt.Errorf("recognized csr %q as %v but subject access review was not approved", csr.Name, tried)
	}
	return nil
}

// allowed asks the authorizer about the requestor.
func (l *approver) allowed(ctx context.Context, csr *request, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range csr.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	sar := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Verb: "create", Subresource: subresource},
	}}
	out, err := client.Of[authorizationv1.SubjectAccessReview](l.Client, "").Create(ctx, sar)
	if err != nil {
		return false, err
	}
	return out.Status.Allowed, nil
}

func (l *approver) approve(ctx context.Context, csr *request, message string) error {
	c := csr.DeepCopy()
	now := metav1.NewTime(clock.Now())
	c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message, LastUpdateTime: now, LastTransitionTime: now})
	out, err := l.Client.Update(ctx, client.Resource[request](), "", "approval", c, nil)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	wrote(l.Loop, l.requests, out)
	return nil
}

func wrote(l *controller.Loop, m *client.Mirror[request], o api.Object) {
	if csr, ok := o.(*request); ok {
		controller.Wrote(&l.Unseen, client.KeyOf(csr), m, csr)
	}
}

type signer struct {
	*controller.Loop
	authority *pki.Pair
	longest   time.Duration
	requests  *client.Mirror[request]
}

// NewSigner returns the loop that signs with authority, for no longer than so;
// 0 is a year.
func NewSigner(d controller.Deps, authority *pki.Pair, longest time.Duration) controller.Controller {
	if longest == 0 {
		longest = pki.LeafLife
	}
	l := &signer{authority: authority, longest: longest}
	l.Loop = controller.NewLoop(d, "csrsigning", 5, l.reconcile).As(d, account)
	l.requests = controller.Input(l.Loop, present)
	return l
}

func (l *signer) reconcile(ctx context.Context, k controller.Key) error {
	csr, ok := l.requests.Get("", k.Name)
	if !ok || len(csr.Status.Certificate) > 0 || !has(csr, certificatesv1.CertificateApproved) ||
		has(csr, certificatesv1.CertificateDenied) || has(csr, certificatesv1.CertificateFailed) {
		return nil
	}
	r, err := pki.DecodeRequest(csr.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr %q: %w", csr.Name, err)
	}
	known, refusal := signable(csr.Spec.SignerName, r, csr.Spec.Usages)
	if !known {
		return nil
	}
	c := csr.DeepCopy()
	if refusal != nil {
		now := metav1.NewTime(clock.Now())
		c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: refusal.Error(), LastUpdateTime: now, LastTransitionTime: now})
	} else {
		t, err := template(r, csr.Spec.Usages, life(csr.Spec.ExpirationSeconds, l.longest), clock.Now())
		if err != nil {
			return fmt.Errorf("error auto signing csr: %w", err)
		}
		cert, err := l.authority.SignRequest(r, t)
		if err != nil {
			return fmt.Errorf("error auto signing csr: %w", err)
		}
		c.Status.Certificate = pki.EncodeCerts(cert)
	}
	out, err := client.Of[request](l.Client, "").UpdateStatus(ctx, c)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	wrote(l.Loop, l.requests, out)
	return nil
}

// NewCleaner returns the loop that deletes requests that are done with.
func NewCleaner(d controller.Deps) controller.Controller {
	l := controller.NewLoop(d, "csrcleaner", 1, nil).As(d, account)
	requests := controller.Input[request](l, nil)
	l.Every(time.Hour, func(ctx context.Context) {
		for _, csr := range requests.List("") {
			if !stale(csr, clock.Now()) {
				continue
			}
			err := client.Of[request](l.Client, "").Delete(ctx, csr.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(csr.UID))})
			if controller.Ignore(err, apierrors.IsNotFound) != nil && ctx.Err() == nil {
				l.Log.Warn("could not delete a certificate signing request", "name", csr.Name, "err", err)
			}
		}
	})
	return l
}

// unanswered is how long a pod's request is kept, answered or not: its pod has
// read the answer by then.
const unanswered = 15 * time.Minute

// NewPodCleaner returns the loop that deletes pods' old requests.
func NewPodCleaner(d controller.Deps) controller.Controller {
	type request = certificatesv1.PodCertificateRequest
	const name = "podcertificaterequestcleaner"
	l := &podCleaner{}
	l.Loop = controller.NewLoop(d, name, 1, l.reconcile).As(d, name)
	l.requests = controller.Input(l.Loop, func(old, new *request) []controller.Key {
		if old != nil || new == nil {
			return nil
		}
		return controller.Self(old, new)
	})
	return l
}

type podCleaner struct {
	*controller.Loop
	requests *client.Mirror[certificatesv1.PodCertificateRequest]
}

func (l *podCleaner) reconcile(ctx context.Context, k controller.Key) error {
	r, ok := l.requests.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	if left := clock.Until(r.CreationTimestamp.Add(unanswered)); left > 0 {
		l.After(k, left)
		return nil
	}
	err := client.Of[certificatesv1.PodCertificateRequest](l.Client, k.Namespace).Delete(ctx, k.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.UID))})
	return controller.Ignore(err, apierrors.IsNotFound)
}

package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagev1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// imagePolicy asks a service outside whether a pod's images may run.
type imagePolicy struct {
	onCreateUpdate
	url               string
	token             string
	client            *http.Client
	answers           *cache.LRUExpireCache
	allowFor, denyFor time.Duration
	retry             time.Duration
	open              bool // a service that does not answer allows
}

const (
	imageAudit     = "imagepolicywebhook.image-policy.k8s.io/"
	imageKey       = ".image-policy.k8s.io/"
	imageFailed    = "alpha.image-policy.k8s.io/failed-open"
	imageAnswers   = 1024
	imageTries     = 5
	maxImageAnswer = 1 << 20
)

type imageConfig struct {
	KubeConfigFile                  string `json:"kubeConfigFile"`
	AllowTTL, DenyTTL, RetryBackoff int64
	DefaultAllow                    bool `json:"defaultAllow"`
}

func newImagePolicy(d Deps) (request.Plugin, error) {
	fail := func(err error) (request.Plugin, error) {
		return nil, fmt.Errorf("couldn't init admission plugin %q: %w", "ImagePolicyWebhook", err)
	}
	if _, ok := d.Config["ImagePolicyWebhook"]; !ok {
		return fail(errors.New("no config specified"))
	}
	var c struct {
		Policy imageConfig `json:"imagePolicy"`
	}
	if err := d.Config.read("ImagePolicyWebhook", &c); err != nil {
		return nil, err
	}
	p := &imagePolicy{answers: cache.NewLRUExpireCache(imageAnswers), open: c.Policy.DefaultAllow}
	var errs [3]error
	p.retry, errs[0] = within(c.Policy.RetryBackoff, time.Millisecond, 1, 5*time.Minute, 500*time.Millisecond)
	p.allowFor, errs[1] = within(c.Policy.AllowTTL, time.Second, time.Second, 30*time.Minute, 5*time.Minute)
	p.denyFor, errs[2] = within(c.Policy.DenyTTL, time.Second, time.Second, 30*time.Minute, 30*time.Second)
	if err := errors.Join(errs[:]...); err != nil {
		return fail(err)
	}
	if err := p.connect(c.Policy.KubeConfigFile); err != nil {
		return fail(err)
	}
	return p, nil
}

// within reads a number of units; 0 is usual, −1 is never.
func within(n int64, unit, least, most, usual time.Duration) (time.Duration, error) {
	switch n {
	case 0:
		return usual, nil
	case -1:
		return 0, nil
	}
	d := time.Duration(n) * unit
	if d < least || d > most {
		return d, fmt.Errorf("valid value is between %v and %v, got %v", least, most, d)
	}
	return d, nil
}

// kubeconfig is the part of such a file that says how a service is reached.
type kubeconfig struct {
	Current  string `json:"current-context"`
	Contexts []struct {
		Name    string `json:"name"`
		Context struct{ Cluster, User string }
	} `json:"contexts"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Server string `json:"server"`
			CA     string `json:"certificate-authority"`
			CAData string `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			Token    string `json:"token"`
			Cert     string `json:"client-certificate"`
			Key      string `json:"client-key"`
			CertData string `json:"client-certificate-data"`
			KeyData  string `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

func (p *imagePolicy) connect(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(k.Clusters) == 0 {
		return fmt.Errorf("%s: no cluster", file)
	}
	cluster, user := k.Clusters[0].Name, ""
	if len(k.Users) > 0 {
		user = k.Users[0].Name
	}
	for _, c := range k.Contexts {
		if c.Name == k.Current {
			cluster, user = c.Context.Cluster, c.Context.User
		}
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, c := range k.Clusters {
		if c.Name != cluster {
			continue
		}
		p.url = c.Cluster.Server
		ca, err := orFile(c.Cluster.CAData, c.Cluster.CA)
		if err != nil {
			return err
		}
		if len(ca) > 0 {
			trust.RootCAs = x509.NewCertPool()
			trust.RootCAs.AppendCertsFromPEM(ca)
		}
	}
	for _, u := range k.Users {
		if u.Name != user {
			continue
		}
		p.token = u.User.Token
		cert, err1 := orFile(u.User.CertData, u.User.Cert)
		key, err2 := orFile(u.User.KeyData, u.User.Key)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if len(cert) > 0 {
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return err
			}
			trust.Certificates = []tls.Certificate{pair}
		}
	}
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
	return nil
}

func orFile(data, file string) ([]byte, error) {
	if data != "" {
		return base64.StdEncoding.DecodeString(data)
	}
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file)
}

func (*imagePolicy) Name() string { return "ImagePolicyWebhook" }

func (p *imagePolicy) Validate(ctx context.Context, a *request.Attributes) error {
	pod, ok := of[*corev1.Pod](a, "ephemeralcontainers")
	if !ok {
		return nil
	}
	spec := imagev1alpha1.ImageReviewSpec{Namespace: a.Namespace, Annotations: map[string]string{}}
	for k, v := range pod.Annotations {
		if strings.Contains(k, imageKey) {
			spec.Annotations[k] = v
		}
	}
	add := func(image string) {
		spec.Containers = append(spec.Containers, imagev1alpha1.ImageReviewContainerSpec{Image: image})
	}
	if a.Subresource == "" {
		for _, c := range pod.Spec.Containers {
			add(c.Image)
		}
		for _, c := range pod.Spec.InitContainers {
			add(c.Image)
		}
	} else {
		for _, c := range pod.Spec.EphemeralContainers {
			add(c.Image)
		}
	}
	status, err := p.review(ctx, spec)
	if err != nil {
		if !p.open {
			return forbid(a, err)
		}
		request.Annotate(ctx, imageAudit+"failed-open", "true")
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[imageFailed] = "true"
		return nil
	}
	for k, v := range status.AuditAnnotations {
		request.Annotate(ctx, imageAudit+k, v)
	}
	switch {
	case status.Allowed:
		return nil
	case status.Reason != "":
		return forbidf(a, "image policy webhook backend denied one or more images: %s", status.Reason)
	}
	return forbid(a, errors.New("one or more images rejected by webhook backend"))
}

// review asks the service, unless it has answered the same question lately.
func (p *imagePolicy) review(ctx context.Context, spec imagev1alpha1.ImageReviewSpec) (*imagev1alpha1.ImageReviewStatus, error) {
	key, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if known, ok := p.answers.Get(string(key)); ok {
		return known.(*imagev1alpha1.ImageReviewStatus), nil
	}
	body, err := json.Marshal(imagev1alpha1.ImageReview{
		TypeMeta: metav1.TypeMeta{APIVersion: imagev1alpha1.SchemeGroupVersion.String(), Kind: "ImageReview"}, Spec: spec,
	})
	if err != nil {
		return nil, err
	}
	status, err := p.ask(ctx, body)
	for try, wait := 1, p.retry; err != nil && try < imageTries && errors.Is(err, errAgain); try, wait = try+1, wait*3/2 {
		if clock.Sleep(ctx, wait) != nil {
			break
		}
		status, err = p.ask(ctx, body)
	}
	if err != nil {
		return nil, err
	}
	life := p.denyFor
	if status.Allowed {
		life = p.allowFor
	}
	p.answers.Add(string(key), status, life)
	return status, nil
}

// errAgain marks failures that may pass.
var errAgain = errors.New("try again")

func (p *imagePolicy) ask(ctx context.Context, body []byte) (*imagev1alpha1.ImageReviewStatus, error) {
	rq, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	rq.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		rq.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := p.client.Do(rq)
	if err != nil {
		return nil, fmt.Errorf("%w%.0w", err, errAgain)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxImageAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		err := fmt.Errorf("Error contacting webhook: %d", resp.StatusCode)
		if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
			return nil, fmt.Errorf("%w%.0w", err, errAgain)
		}
		return nil, err
	}
	var review imagev1alpha1.ImageReview
	if err := json.Unmarshal(data, &review); err != nil {
		return nil, err
	}
	return &review.Status, nil
}

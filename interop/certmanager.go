package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// certUser is who installs cert-manager and wants certificates of it.
type certUser struct {
	*stage
}

const (
	certSpace   = "cert-manager" // where it runs
	webSpace    = "web"          // where its user is
	certVersion = "v1.11.5"      // the last whose commands are in a published module
)

// authority is the usual way to a certificate authority of one's own.
const authority = `
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: self-signed}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: ca, namespace: web}
spec:
  isCA: true
  commonName: web-ca
  secretName: ca
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: self-signed, kind: ClusterIssuer}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca, namespace: web}
spec: {ca: {secretName: ca}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: site, namespace: web}
spec:
  secretName: site
  dnsNames: [site.example.com]
  issuerRef: {name: ca}
`

const (
	nameless = `
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: nameless, namespace: web}
spec:
  secretName: nameless
  issuerRef: {name: ca}
`
	annotated = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: web
  annotations: {cert-manager.io/issuer: ca}
spec:
  tls: [{hosts: [shop.example.com], secretName: shop}]
  rules:
  - host: shop.example.com
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]
`
)

func certManager(s *stage) *scene {
	c := &certUser{s}
	sc := &scene{name: "cert-manager", program: "cert-manager", version: certVersion, clean: c.clean}
	sc.acts = []act{
		{"`helm install --wait` of its chart: controller, webhook, cainjector, and its own check as a hook", c.install},
		{"the cainjector gave both webhook configurations their authority", c.injected},
		{"self-signed ClusterIssuer, CA Certificate, CA Issuer, Certificate: its Secret verifies", c.issue},
		{"a Certificate without a name is refused by the webhook; requests carry who made them", c.admission},
		{"an Ingress with the issuer's annotation gets its certificate", c.ingress},
		{"`cmctl status certificate`, `cmctl renew`: a new certificate, revision 2", c.renew},
		{"`helm uninstall`: definitions, their objects and the namespaces go", c.uninstall},
	}
	return sc
}

// makeChart puts the chart together as the release's own makefile does: its
// versions filled in, its definitions among its templates.
func (c *certUser) makeChart(ctx context.Context) (string, error) {
	src, err := source(ctx, "cert-manager-controller")
	if err != nil {
		return "", err
	}
	chart := filepath.Join(c.dir, "cert-manager")
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(src, "deploy/charts/cert-manager"))); err != nil {
		return "", err
	}
	about, err := os.ReadFile(filepath.Join(chart, "Chart.template.yaml"))
	if err != nil {
		return "", err
	}
	about = []byte(strings.ReplaceAll(string(about), "ersion: v0.1.0", "ersion: "+certVersion))
	if err := os.WriteFile(filepath.Join(chart, "Chart.yaml"), about, 0o644); err != nil {
		return "", err
	}
	crds, err := filepath.Glob(filepath.Join(src, "deploy/crds/crd-*.yaml"))
	if err != nil {
		return "", err
	}
	for _, crd := range crds {
		data, err := os.ReadFile(crd)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(chart, "templates", filepath.Base(crd)), data, 0o644); err != nil {
			return "", err
		}
	}
	return chart, nil
}

func (c *certUser) helm(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, "", append([]string{c.program("helm4"), "--namespace", certSpace}, args...)...)
}

func (c *certUser) install(ctx context.Context) error {
	chart, err := c.makeChart(ctx)
	if err != nil {
		return err
	}
	out, err := c.helm(ctx, "install", "cert-manager", chart, "--create-namespace", "--wait", "--timeout", "4m")
	if err := says(out, err, "STATUS: deployed", "has been deployed successfully"); err != nil {
		return err
	}
	out, err = c.kubectl(ctx, "get", "pods", "-n", certSpace, "-o", "custom-columns=PHASE:.status.phase,RESTARTS:.status.containerStatuses[0].restartCount", "--no-headers")
	if err == nil && strings.Count(out, "Running") != 3 {
		err = fmt.Errorf("want three pods, all Running:\n%s", out)
	}
	return err
}

func (c *certUser) injected(ctx context.Context) error {
	for _, kind := range []string{"validating", "mutating"} {
		bundle, err := c.field(ctx, "{.webhooks[0].clientConfig.caBundle}", kind+"webhookconfiguration/cert-manager-webhook")
		if err != nil || bundle == "" {
			return fmt.Errorf("%s webhooks have no caBundle: %w", kind, err)
		}
	}
	return nil
}

func (c *certUser) issue(ctx context.Context) error {
	if _, err := c.kubectl(ctx, "create", "namespace", webSpace); err != nil {
		return err
	}
	if _, err := c.in(ctx, authority, "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "wait", "--for=condition=Ready", "-n", webSpace, "certificate/ca", "certificate/site", "issuer/ca", "--timeout=3m"); err != nil {
		state, _ := c.kubectl(ctx, "get", "certificate,certificaterequest,issuer,secret,event", "-n", webSpace, "-o", "wide")
		log, _ := c.kubectl(ctx, "logs", "-n", certSpace, "deployment/cert-manager", "--tail=200")
		return fmt.Errorf("%w\n%s\n%s", err, state, log)
	}
	out, err := c.kubectl(ctx, "get", "certificate", "-n", webSpace)
	if err := says(out, err, "NAME", "READY", "SECRET", "AGE"); err != nil {
		return err
	}
	_, err = c.verify(ctx, "site", "site.example.com")
	return err
}

// verify checks a Secret as a server and its client would, and returns the
// certificate.
func (c *certUser) verify(ctx context.Context, secret, host string) (*x509.Certificate, error) {
	var s struct {
		Type string
		Data map[string][]byte
	}
	if err := c.object(ctx, &s, "-n", webSpace, "secret/"+secret); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if block, _ := pem.Decode(s.Data["ca.crt"]); block == nil || !roots.AppendCertsFromPEM(s.Data["ca.crt"]) {
		return nil, errors.New("ca.crt holds no certificate")
	}
	if s.Type != "kubernetes.io/tls" {
		return nil, fmt.Errorf("secret %s is of type %s", secret, s.Type)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
	return pair.Leaf, err
}

func (c *certUser) admission(ctx context.Context) error {
	out, err := c.in(ctx, nameless, "apply", "-f", "-")
	if err := refused(out, err, `admission webhook "webhook.cert-manager.io" denied the request`, "at least one of commonName, dnsNames"); err != nil {
		return err
	}
	return c.is(ctx, "system:serviceaccount:cert-manager:cert-manager", "{.items[0].spec.username}", "-n", webSpace, "certificaterequest")
}

func (c *certUser) ingress(ctx context.Context) error {
	if _, err := c.in(ctx, annotated, "apply", "-f", "-"); err != nil {
		return err
	}
	return c.until(ctx, time.Minute, func() error {
		_, err := c.verify(ctx, "shop", "shop.example.com")
		return err
	})
}

func (c *certUser) renew(ctx context.Context) error {
	ctl := func(args ...string) (string, error) {
		return c.run(ctx, "", append([]string{c.program("cert-manager-ctl"), "-n", webSpace}, args...)...)
	}
	before, err := c.verify(ctx, "site", "site.example.com")
	if err != nil {
		return err
	}
	out, err := ctl("status", "certificate", "site")
	if err := says(out, err, "Ready: True", "site.example.com", "Issuing"); err != nil {
		return err
	}
	if _, err := ctl("renew", "site"); err != nil {
		return err
	}
	return c.until(ctx, time.Minute, func() error {
		after, err := c.verify(ctx, "site", "site.example.com")
		if err == nil && after.SerialNumber.Cmp(before.SerialNumber) == 0 {
			err = errors.New("the certificate is the one from before")
		}
		return errors.Join(err, c.is(ctx, "2", "{.status.revision}", "-n", webSpace, "certificate/site"))
	})
}

func (c *certUser) uninstall(ctx context.Context) error {
	out, err := c.helm(ctx, "uninstall", "cert-manager", "--wait", "--timeout", "2m")
	if err := says(out, err, "uninstalled"); err != nil {
		return err
	}
	out, err = c.kubectl(ctx, "get", "crd", "-o", "name")
	if err == nil && strings.Contains(out, "cert-manager.io") {
		err = fmt.Errorf("left: %s", out)
	}
	if err != nil {
		return err
	}
	if err := c.clean(ctx); err != nil {
		return err
	}
	out, err = c.kubectl(ctx, "api-resources", "--api-group=cert-manager.io", "--no-headers")
	if err == nil && strings.TrimSpace(out) != "" {
		err = fmt.Errorf("still served:\n%s", out)
	}
	return err
}

func (c *certUser) clean(ctx context.Context) error {
	_, _ = c.helm(ctx, "uninstall", "cert-manager", "--ignore-not-found") // a scene that broke off may not have come to it
	_, err := c.kubectl(ctx, "delete", "namespace", webSpace, certSpace, "--ignore-not-found", "--timeout=2m")
	return err
}

package overlay

import (
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// nowhere is a webhook whose service does not exist.
const nowhere = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nowhere}
webhooks:
- name: nowhere.example.com
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {namespace: default, name: nobody}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
`

// A cluster is broken in four ways; the doctor names each and the command that
// mends it, and those commands do. Then the cluster cannot be reached.
func TestDoctor(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	all := fleet(t, []string{"master1", "node1"})
	master, node := all[0], all[1]
	ready(master, "master1", "node1")
	doctor(master, 0, []string{"all is well; https://100.64.0.2:6443 (v1.37", "2 nodes"})

	master.K("create", "-f", master.File("nowhere.yaml", nowhere))
	master.K("-n", "kube-system", "scale", "deployment", "coredns", "--replicas=0")
	authority, err := pki.NewCA("front-proxy-ca", "")
	if err != nil {
		t.Fatal(err)
	}
	old, err := authority.Issue(pki.Request{CommonName: "front-proxy-client", Client: true, Life: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	const path = "/var/lib/sampan/pki/front-proxy-client.crt"
	master.Sh("cp " + path + " /root/right.crt && cp " + master.File("old.crt", string(old.CertPEM())) + " " + path)
	sink(node)
	start := clock.Now()
	out := doctor(master, 1, []string{
		"error    validatingwebhookconfiguration/nowhere: webhook nowhere.example.com: service default/nobody does not exist: CREATE configmaps is refused",
		"  ->  kubectl delete validatingwebhookconfiguration nowhere",
		"error    cluster DNS: deployment coredns is scaled to 0",
		"  ->  kubectl -n kube-system scale deployment coredns --replicas=2",
		"error    certificate " + path + ": it (front-proxy-client) ended on ",
		"  ->  start `sampan server` again",
		"error    node node1: its kubelet has not reported for ",
		"  ->  on node1: systemctl restart kubelet, or start `sampan server` again",
	})
	t.Logf("a kubelet that is silent is told of after %.1f s; all of it:\n%s", clock.Since(start).Seconds(), out)
	if n := strings.Count(out, "\nerror ") + strings.Count(out[:6], "error "); n != 4 {
		t.Errorf("%d errors, four things are broken:\n%s", n, out)
	}
	doctor(master, 1, []string{`"severity": "error"`, `"check": "webhooks"`, `"mend": "kubectl delete validatingwebhookconfiguration nowhere"`, `"reached": true`}, "-o", "json")
	conf := node.File("admin.conf", master.Do("cat", "/var/lib/sampan/admin.conf"))
	doctor(node, 1, []string{"error    machine node1: nothing listens at port 10250: the kubelet does not run"}, "--kubeconfig="+conf)

	master.K("delete", "validatingwebhookconfiguration", "nowhere")
	master.K("-n", "kube-system", "scale", "deployment", "coredns", "--replicas=2")
	master.Sh("cp /root/right.crt " + path)
	sail(node)
	ready(master, "node1")
	doctor(master, 0, []string{"all is well; "})
	doctor(node, 0, []string{"all is well; "}, "--kubeconfig="+conf)

	// Whom the kubeconfig leads to is another one, then nobody.
	other, err := pki.NewCA("another", "")
	if err != nil {
		t.Fatal(err)
	}
	bad := master.File("other.crt", string(other.CertPEM()))
	master.Sh("cp /var/lib/sampan/admin.conf /run/hand/other.conf && sed -i 's|certificate-authority-data:.*|certificate-authority: " + bad + "|' /run/hand/other.conf")
	doctor(master, 2, []string{"its certificate is signed by an authority that /run/hand/other.conf does not trust", "cp /etc/kubernetes/admin.conf"}, "--kubeconfig=/run/hand/other.conf")
	master.Sh("sed 's/current-context:.*/current-context: none/' /var/lib/sampan/admin.conf > /run/hand/context.conf")
	doctor(master, 2, []string{`error    context none: /run/hand/context.conf:`, "config use-context NAME"}, "--kubeconfig=/run/hand/context.conf")
	sink(master)
	doctor(master, 2, []string{"error    server https://100.64.0.2:6443: nothing listens at port 6443 of 100.64.0.2", "start `sampan server`", "machine master1: nothing listens at port 10250", "the cluster was not reached; this machine: master1"})
	sail(master)
	lab.Until(t, "the control plane is back", func() error { _, err := master.Kubectl("get", "--raw", "/readyz"); return err })
}

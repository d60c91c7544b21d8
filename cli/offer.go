package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/sampan-dev/sampan/controlplane"
)

// offerFlags say what of the API is had: versions, ports, lifetimes.
type offerFlags struct {
	ports                 utilnet.PortRange
	notReady, unreachable int64
	addresses             []string
	kubeletCA             string
}

func (f *offerFlags) declare(c *component, o *controlplane.Offer) {
	fs := c.in("API enablement")
	fs.StringToStringVar(&o.Versions, "runtime-config", nil, "A set of key=value pairs that enable or disable built-in APIs. Keys are api/all, api/ga, api/beta, api/alpha, api/retired (versions that later releases of Kubernetes have removed), VERSION, GROUP/VERSION and GROUP/VERSION/RESOURCE; what is not named is served.")
	fs = c.in("Etcd")
	fs.DurationVar(&o.EventLife, "event-ttl", time.Hour, "Amount of time to retain events.")
	fs = c.in("Admission")
	fs.Int64Var(&f.notReady, "default-not-ready-toleration-seconds", 300, "Indicates the tolerationSeconds of the toleration for notReady:NoExecute that is added by default to every pod that does not already have such a toleration.")
	fs.Int64Var(&f.unreachable, "default-unreachable-toleration-seconds", 300, "Indicates the tolerationSeconds of the toleration for unreachable:NoExecute that is added by default to every pod that does not already have such a toleration.")
	fs = c.in("Misc")
	f.ports = utilnet.PortRange{Base: 30000, Size: 2768}
	fs.Var(&f.ports, "service-node-port-range", "A port range to reserve for services with NodePort visibility. Inclusive at both ends of the range.")
	fs.StringSliceVar(&f.addresses, "kubelet-preferred-address-types", nil, "List of the preferred NodeAddressTypes to use for kubelet connections: InternalIP, ExternalIP, Hostname, InternalDNS, ExternalDNS. Unset is InternalIP,ExternalIP,Hostname.")
	fs.StringVar(&f.kubeletCA, "kubelet-certificate-authority", "", "Path to a cert file for the certificate authority. Unset, kubelets' certificates are not verified.")
}

// load reads what the flags name.
func (f *offerFlags) load(o *controlplane.Offer) error {
	var errs []error
	if o.EventLife < time.Second {
		errs = append(errs, fmt.Errorf("--event-ttl: Invalid value: %s: must be at least a second", o.EventLife))
	}
	if f.ports.Size == 0 || f.ports.Base == 0 {
		errs = append(errs, errors.New("--service-node-port-range: Invalid value: 0: must be a range of ports, such as 30000-32767"))
	}
	if f.notReady < 0 || f.unreachable < 0 {
		errs = append(errs, errors.New("--default-not-ready-toleration-seconds, --default-unreachable-toleration-seconds: must not be negative"))
	}
	o.FirstPort, o.LastPort = int32(f.ports.Base), int32(f.ports.Base+f.ports.Size-1)
	o.NotReady, o.Unreachable = time.Duration(f.notReady)*time.Second, time.Duration(f.unreachable)*time.Second
	for _, a := range f.addresses {
		switch t := corev1.NodeAddressType(a); t {
		case corev1.NodeHostName, corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeExternalDNS:
			o.KubeletAddresses = append(o.KubeletAddresses, t)
		default:
			errs = append(errs, fmt.Errorf("--kubelet-preferred-address-types: Invalid value: %q: must be InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS", a))
		}
	}
	if f.kubeletCA != "" {
		text, err := os.ReadFile(f.kubeletCA)
		o.KubeletCAs = x509.NewCertPool()
		if err == nil && !o.KubeletCAs.AppendCertsFromPEM(text) {
			err = fmt.Errorf("%s holds no certificate", f.kubeletCA)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--kubelet-certificate-authority: %w", err))
		}
	}
	return errors.Join(errs...)
}

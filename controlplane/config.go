package controlplane

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Config is what a control plane needs to know.
type Config struct {
	// Etcd is the member run in this process; nil uses EtcdServers.
	Etcd        *etcd.Config
	EtcdServers []string
	EtcdTLS     etcd.TLS
	// EtcdPrefix is below what everything is kept; "" is /registry.
	EtcdPrefix string

	BindAddress string
	Port        int
	Advertise   netip.Addr // the address other machines reach the API server by
	// InsecurePort serves plain HTTP to whoever reaches InsecureAddress, as kings; 0 does not.
	InsecureAddress string
	InsecurePort    int
	ServiceCIDRs    []netip.Prefix
	ClusterCIDR     netip.Prefix
	ClusterDomain   string

	ClientCA     *pki.Pair // authority of client certificates; its key signs requests
	FrontProxyCA *pki.Pair // authority of front proxies; nil trusts none
	// ProxyClient is by which this server, as a front proxy, speaks to aggregated ones.
	ProxyClient     func() (*tls.Certificate, error)
	EndpointRouting bool // to aggregated servers by their endpoints, not their service's address
	AllowRedirects  bool // pass on redirects of aggregated servers
	Serving         func() (*tls.Certificate, error)
	Kubelet         tls.Certificate // shown to kubelets
	AccountKey      crypto.Signer   // signs service account tokens
	TokenFile       string          // static tokens; empty for none

	AuthorizationModes                []string
	Access                            Access
	EnableAdmission, DisableAdmission []string
	AdmissionConfig                   string // file that configures admission plugins; empty for none
	NoPrivileged                      bool   // refuse privileged containers everywhere
	Anonymous                         bool
	Offer                             Offer
	Guard                             Guard
	// Alone says that no other control plane serves this cluster, so that there
	// is nobody to elect a leader against.
	Alone bool
	Host  string // this machine's name, for events and leases
}

// Offer is what of the API is had, and how much of it.
type Offer struct {
	Versions            map[string]string // which versions are served, as resource.Choice says
	EventLife           time.Duration     // 0 is an hour
	FirstPort, LastPort int32             // of services on nodes; 0, 0 is 30000 to 32767
	// NotReady and Unreachable are how long pods that do not say stay on a node
	// that fails; 0 is five minutes.
	NotReady, Unreachable time.Duration
	KubeletAddresses      []corev1.NodeAddressType // in order of preference; nil is stream's
	KubeletCAs            *x509.CertPool           // by whom kubelets are known; nil is by anybody
}

// kinds returns what is served.
func (o *Offer) kinds() ([]resource.Kind, error) {
	choice, err := resource.ReadChoice(o.Versions)
	if err != nil {
		return nil, fmt.Errorf("--runtime-config: %w", err)
	}
	kinds, err := choice.Of(all.Kinds())
	if err != nil {
		return nil, fmt.Errorf("--runtime-config: %w", err)
	}
	if o.EventLife > 0 {
		kinds = resource.Lasting(kinds, schema.GroupKind{Kind: "Event"}, int64(o.EventLife/time.Second))
	}
	return kinds, nil
}

// Check fills in defaults and says what is wrong.
func (c *Config) Check() error {
	var errs []error
	if c.Etcd == nil && len(c.EtcdServers) == 0 {
		errs = append(errs, errors.New("--etcd-servers: Required value"))
	}
	if len(c.ServiceCIDRs) == 0 {
		errs = append(errs, errors.New("--service-cluster-ip-range: Required value"))
	}
	if !c.Advertise.IsValid() {
		errs = append(errs, fmt.Errorf("--advertise-address %v: want an address", c.Advertise))
	}
	if c.ClientCA == nil || c.Serving == nil || c.AccountKey == nil {
		errs = append(errs, errors.New("control plane: certificates are missing"))
	}
	if _, err := c.Offer.kinds(); err != nil {
		errs = append(errs, err)
	}
	if len(c.AuthorizationModes) == 0 {
		c.AuthorizationModes = []string{authz.ModeNode, authz.ModeRBAC}
	}
	return errors.Join(errs...)
}

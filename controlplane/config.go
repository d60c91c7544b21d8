package controlplane

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Config is what a control plane needs to know.
type Config struct {
	// Etcd is the member run in this process; nil uses EtcdServers.
	Etcd        *etcd.Config
	EtcdServers []string
	EtcdTLS     etcd.TLS

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
	Anonymous                         bool
	Guard                             Guard
	// Alone says that no other control plane serves this cluster, so that there
	// is nobody to elect a leader against.
	Alone bool
	Host  string // this machine's name, for events and leases
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
	if len(c.AuthorizationModes) == 0 {
		c.AuthorizationModes = []string{authz.ModeNode, authz.ModeRBAC}
	}
	return errors.Join(errs...)
}

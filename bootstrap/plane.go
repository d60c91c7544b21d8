package bootstrap

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Where etcd's members are reached, kubeadm's ports.
const (
	etcdClientPort = 2379
	etcdPeerPort   = 2380
)

// Pace of a stacked etcd: upstream's heartbeat, and an election a little later
// than upstream's, for machines that do more than etcd.
const (
	etcdTick     = 100 * time.Millisecond
	etcdElection = 1200 * time.Millisecond
)

// joinPatience bounds each step of a join; the steps can all be done again.
const joinPatience = 2 * time.Minute

// several says whether the control plane is, or may become, one of several.
func (c *Config) several() bool { return c.ClusterInit || c.ControlPlane }

// stacked makes the certificates of etcd's member and describes it.
func (s *session) stacked() (*etcd.Config, error) {
	dir := s.path("pki", "etcd")
	ca, err := pki.LoadOrMake(dir, caName, func() (*pki.Pair, error) { return pki.NewCA("etcd-ca", "") })
	if err != nil {
		return nil, fmt.Errorf("pki: etcd: %w", err)
	}
	hosts := []string{s.NodeName, "localhost", s.NodeIP.String(), "127.0.0.1"}
	for name, req := range map[string]pki.Request{
		"server": {CommonName: s.NodeName, Server: true, Client: true, Hosts: hosts}, "peer": {CommonName: s.NodeName, Server: true, Client: true, Hosts: hosts},
		"healthcheck-client": {CommonName: "kube-etcd-healthcheck-client", Client: true},
	} {
		if _, err := EnsureLeaf(dir, name, ca, req); err != nil {
			return nil, err
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	peer, public := "https://"+address(s.NodeIP, etcdPeerPort), "https://"+address(s.NodeIP, etcdClientPort)
	return &etcd.Config{
		Name: s.NodeName, DataDir: s.path("etcd"), Log: s.log,
		ListenClient: []string{"https://" + address(netip.AddrFrom4([4]byte{127, 0, 0, 1}), etcdClientPort), public}, AdvertiseClient: []string{public},
		ListenPeer: []string{peer}, AdvertisePeer: []string{peer},
		ClientTLS: etcd.TLS{Cert: at("server.crt"), Key: at("server.key"), CA: at("ca.crt"), RequireClient: true},
		PeerTLS:   etcd.TLS{Cert: at("peer.crt"), Key: at("peer.key"), CA: at("ca.crt"), RequireClient: true},
		Tick:      etcdTick, Election: etcdElection, InitialCluster: s.members, Existing: s.ControlPlane,
	}, nil
}

func address(a netip.Addr, port int) string { return net.JoinHostPort(a.String(), strconv.Itoa(port)) }

// member says whether this machine's etcd has been a member before.
func (c *Config) member() bool {
	logs, err := filepath.Glob(c.path("etcd", "member", "wal", "*.wal"))
	return err == nil && len(logs) > 0
}

// joinPlane makes this machine another control plane of the cluster, and runs it.
// What was begun before is gone on with.
func (s *session) joinPlane(ctx context.Context) error {
	if s.member() {
		if err := s.recall(ctx); err != nil {
			return err
		}
	} else if err := patiently(ctx, joinPatience, s.log, s.enter); err != nil {
		return fmt.Errorf("join %s as a control plane: %w", s.Join, err)
	}
	return s.serve(ctx)
}

// enter gets what control planes share and makes room for a member of etcd.
func (s *session) enter(ctx context.Context) error {
	dir := s.path("pki")
	if s.CertificateKey != "" && missingShared(dir) != nil {
		boot, err := s.bootClient(ctx)
		if err != nil {
			return err
		}
		if err := fetchShared(ctx, boot, dir, s.CertificateKey); err != nil {
			return err
		}
	}
	if err := missingShared(dir); err != nil {
		return &final{err}
	}
	if err := s.learn(ctx); err != nil {
		return fmt.Errorf("ask what the cluster is like: %w", err)
	}
	if err := s.certificates(); err != nil {
		return err
	}
	if _, err := s.stacked(); err != nil {
		return err
	}
	admin, err := client.New(client.Config{Servers: []string{s.Join}, CAFile: s.pki.File("ca.crt"), CertFile: s.pki.File("admin.crt"), KeyFile: s.pki.File("admin.key"), UserAgent: "sampan-join"})
	if err != nil {
		return err
	}
	endpoints, err := s.etcdEndpoints(ctx, admin)
	if err != nil {
		return err
	}
	ms, err := etcd.OpenMembers(endpoints, memberTLS(s.DataDir))
	if err != nil {
		return err
	}
	defer ms.Close()
	s.members, err = s.room(ctx, ms)
	if err != nil {
		return fmt.Errorf("members of etcd: %w; a control plane that others join is started with --cluster-init", err)
	}
	return nil
}

// etcdEndpoints are where etcd may be reached: with the API servers that there
// are, and where kubeadm's static pods say.
func (s *session) etcdEndpoints(ctx context.Context, c client.Interface) ([]string, error) {
	var out []string
	slice, err := client.Of[discoveryv1.EndpointSlice](c, metav1.NamespaceDefault).Get(ctx, "kubernetes")
	if err != nil {
		return nil, fmt.Errorf("find the control planes: %w", err)
	}
	for _, e := range slice.Endpoints {
		if len(e.Addresses) == 1 && e.Addresses[0] != s.NodeIP.String() {
			out = append(out, "https://"+net.JoinHostPort(e.Addresses[0], strconv.Itoa(etcdClientPort)))
		}
	}
	pods, err := client.Of[corev1.Pod](c, metav1.NamespaceSystem).List(ctx, &metav1.ListOptions{LabelSelector: "component=etcd,tier=control-plane"})
	if err != nil {
		return nil, fmt.Errorf("find the members of etcd: %w", err)
	}
	for i := range pods {
		if u := pods[i].Annotations["kubeadm.kubernetes.io/etcd.advertise-client-urls"]; u != "" && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("find the members of etcd: no other control plane is there")
	}
	return out, nil
}

// room makes room for this machine's member and returns all of them, as etcd's
// initial cluster. A member of this address, or of this name, whose data is no
// longer here is replaced: it could not go on where it was.
func (s *session) room(ctx context.Context, ms *etcd.Members) (string, error) {
	peer := "https://" + address(s.NodeIP, etcdPeerPort)
	list, err := ms.List(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range list {
		switch own := ownURL(s.NodeIP, m); {
		case own && m.Name != "":
			err = ms.Remove(ctx, m.ID)
		case !own && m.Name == s.NodeName:
			err = s.predecessor(ctx, ms, m)
		case !own && m.Learner: // etcd takes one at a time
			err = fmt.Errorf("etcd: member %x, at %s, is joining at the moment", m.ID, strings.Join(m.PeerURLs, ", "))
		}
		if err != nil {
			return "", err
		}
	}
	if list, err = ms.Add(ctx, peer); err != nil {
		return "", err
	}
	var all []string
	for _, m := range list {
		for _, u := range m.PeerURLs {
			if u == peer {
				m.Name = s.NodeName
			}
			if m.Name != "" {
				all = append(all, m.Name+"="+u)
			}
		}
	}
	return strings.Join(all, ","), nil
}

// bootClient is the API as the token's holder sees it.
func (s *session) bootClient(ctx context.Context) (*client.HTTP, error) {
	if err := s.trust(ctx); err != nil {
		return nil, err
	}
	return client.New(client.Config{Servers: []string{s.Join}, CAFile: s.CAFile, BearerToken: s.Token, UserAgent: "sampan-join"})
}

// trust gets the cluster's authority, unless a file of it was given: what the
// server says of itself counts when its hash is the one the user knows.
func (s *session) trust(ctx context.Context) error {
	if s.CAFile != "" {
		return nil
	}
	file := s.path("ca.crt")
	if _, err := os.Stat(file); err == nil {
		s.CAFile = file
		return nil
	}
	info, err := clusterInfo(ctx, s.Join)
	if err != nil {
		return fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
	}
	_, ca, err := client.ClusterOf([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
	}
	certs, err := pki.DecodeCerts(ca)
	if err != nil {
		return fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
	}
	if !slices.Contains(s.CAHashes, pki.Hash(certs[0])) {
		return &final{fmt.Errorf("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys %q are pinned", pki.Hash(certs[0]))}
	}
	if err := os.MkdirAll(s.DataDir, 0o755); err != nil {
		return err
	}
	if err := pki.WriteFile(file, ca, 0o644); err != nil {
		return err
	}
	s.CAFile = file
	return nil
}

// clusterInfo asks a server nobody vouches for yet; what it says is judged by its hash.
func clusterInfo(ctx context.Context, server string) (*corev1.ConfigMap, error) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	at, err := url.JoinPath(server, "/api/v1/namespaces/kube-public/configmaps/cluster-info")
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	if err != nil {
		return nil, err
	}
	var m corev1.ConfigMap
	return &m, json.Unmarshal(text, &m)
}

// publish lets anybody read who the cluster's authority is, which is no secret.
func (s *session) publish(ctx context.Context, c client.Interface) error {
	text, err := client.Kubeconfig{Server: "https://" + s.endpoint(), CA: s.pki.CA.CertPEM()}.Encode()
	if err != nil {
		return err
	}
	_, err = client.Of[corev1.ConfigMap](c, metav1.NamespacePublic).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "cluster-info", Namespace: metav1.NamespacePublic}, Data: map[string]string{"kubeconfig": string(text)}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return allow(ctx, c, metav1.NamespacePublic, "kubeadm:bootstrap-signer-clusterinfo", rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "system:anonymous"},
		rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"cluster-info"}})
}

// final is an error that trying again does not mend.
type final struct{ error }

func (f *final) Unwrap() error { return f.error }

// patiently does fn until it succeeds, for at most limit, or fails in a way that
// one of ends knows.
func patiently(ctx context.Context, limit time.Duration, log interface{ Info(string, ...any) }, fn func(context.Context) error, ends ...func(error) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var said string
	for {
		try, stop := context.WithTimeout(ctx, 15*time.Second)
		err := fn(try)
		stop()
		if err == nil || errors.As(err, new(*final)) || slices.ContainsFunc(ends, func(end func(error) bool) bool { return end(err) }) {
			return err
		}
		if said != err.Error() {
			said = err.Error()
			log.Info("not yet; trying again", "err", err)
		}
		if clock.Sleep(ctx, 250*time.Millisecond) != nil {
			return err
		}
	}
}

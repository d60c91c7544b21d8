package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Member is one member of an etcd cluster.
type Member struct {
	ID         uint64
	Name       string // empty until it has started
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Members changes and lists an etcd cluster's members. Close it.
type Members struct{ c *clientv3.Client }

// OpenMembers connects to the cluster that endpoints belong to.
func OpenMembers(endpoints []string, t TLS) (*Members, error) {
	cfg := clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	if t.CA != "" || t.Cert != "" {
		info := t.info()
		tls, err := info.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("etcd: TLS: %w", err)
		}
		cfg.TLS = tls
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd: %v: %w", endpoints, err)
	}
	return &Members{c}, nil
}

// Close ends the connection.
func (m *Members) Close() error { return m.c.Close() }

// List returns all members.
func (m *Members) List(ctx context.Context) ([]Member, error) {
	r, err := m.c.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: list members: %w", err)
	}
	return members(r.Members), nil
}

// Add makes room for a learner at a peer URL, unless there is one, and returns
// all members. A learner gets the data and has no vote until Promote.
func (m *Members) Add(ctx context.Context, peer string) ([]Member, error) {
	all, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		for _, u := range o.PeerURLs {
			if u == peer {
				return all, nil
			}
		}
	}
	r, err := m.c.MemberAddAsLearner(ctx, []string{peer})
	if err != nil {
		return nil, fmt.Errorf("etcd: add member %s: %w", peer, err)
	}
	return members(r.Members), nil
}

// Promote gives a learner its vote; it fails until the learner has caught up.
func (m *Members) Promote(ctx context.Context, id uint64) error {
	if _, err := m.c.MemberPromote(ctx, id); err != nil {
		return fmt.Errorf("etcd: promote member %x: %w", id, err)
	}
	return nil
}

// Remove takes a member out.
func (m *Members) Remove(ctx context.Context, id uint64) error {
	if _, err := m.c.MemberRemove(ctx, id); err != nil {
		return fmt.Errorf("etcd: remove member %x: %w", id, err)
	}
	return nil
}

// Answers asks every endpoint for a consistent read.
func (m *Members) Answers(ctx context.Context) error {
	for _, e := range m.c.Endpoints() {
		if _, err := m.c.Status(ctx, e); err != nil {
			return fmt.Errorf("etcd: %s: %w", e, err)
		}
	}
	return nil
}

func members(list []*etcdserverpb.Member) []Member {
	var out []Member
	for _, m := range list {
		out = append(out, Member{m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner})
	}
	return out
}

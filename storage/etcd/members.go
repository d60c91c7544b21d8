package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sampan-dev/sampan/kit/clock"
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
type Members struct {
	c    *clientv3.Client
	kept bool // the client is a Server's own
}

// Members are those of the cluster that a running member in this process is of.
// They are of no use any more when it stops.
func (s *Server) Members() (*Members, error) {
	c, err := s.Client()
	if err != nil {
		return nil, err
	}
	return &Members{c, true}, nil
}

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
	return &Members{c, false}, nil
}

// Close ends the connection.
func (m *Members) Close() error {
	if m.kept {
		return nil
	}
	return m.c.Close()
}

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

// PromoteWhenInSync gives a learner its vote as soon as it has caught up. It
// waits as long as ctx for that, and for the learner to start.
func (m *Members) PromoteWhenInSync(ctx context.Context, id uint64) error {
	for {
		all, err := m.List(ctx)
		if err == nil {
			i := slices.IndexFunc(all, func(o Member) bool { return o.ID == id })
			if i < 0 {
				return fmt.Errorf("etcd: promote member %x: it is not of the cluster", id)
			}
			if !all[i].Learner {
				return nil
			}
			err = m.Promote(ctx, id)
		}
		if err == nil {
			return nil
		}
		if clock.Sleep(ctx, promoteAgain) != nil {
			return err
		}
	}
}

// promoteAgain is the pause before a learner is asked about again.
const promoteAgain = 200 * time.Millisecond

// Replace takes a member that is lost out and makes room for a learner in its
// place. It returns all members. In this order a majority is never harder to
// reach than before.
func (m *Members) Replace(ctx context.Context, lost uint64, peer string) ([]Member, error) {
	if err := m.Remove(ctx, lost); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return nil, err
	}
	return m.Add(ctx, peer)
}

// InitialCluster is what a member that was added, with its name and URL, is
// started with, beside Config.Existing.
func InitialCluster(all []Member, name, peer string) string {
	var out []string
	for _, m := range all {
		for _, u := range m.PeerURLs {
			switch {
			case u == peer:
				out = append(out, name+"="+u)
			case m.Name != "":
				out = append(out, m.Name+"="+u)
			}
		}
	}
	return strings.Join(out, ",")
}

// MoveLeader makes another member the leader; it is the leader's to do, so that
// the endpoints must be the leader's.
func (m *Members) MoveLeader(ctx context.Context, to uint64) error {
	if _, err := m.c.MoveLeader(ctx, to); err != nil {
		return fmt.Errorf("etcd: move the leader to %x: %w", to, err)
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

// Leader asks one endpoint who leads, as its member sees it.
func (m *Members) Leader(ctx context.Context, endpoint string) (uint64, error) {
	r, err := m.c.Status(ctx, endpoint)
	if err != nil {
		return 0, fmt.Errorf("etcd: %s: %w", endpoint, err)
	}
	return r.Leader, nil
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

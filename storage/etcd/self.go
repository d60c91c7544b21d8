package etcd

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// Learner says whether the member has the data but no vote yet.
func (s *Server) Learner() bool {
	e := s.running.Load()
	return e != nil && e.IsLearner()
}

// Promote gives this member, a learner, its vote; it fails until the member has
// caught up with its leader.
func (s *Server) Promote(ctx context.Context) error {
	e := s.running.Load()
	if e == nil {
		return errDown
	}
	if _, err := e.PromoteMember(ctx, uint64(e.MemberID())); err != nil {
		return fmt.Errorf("etcd: promote this member: %w", err)
	}
	return nil
}

// Advertise tells the cluster at which URLs peers reach this member, if that has
// changed: a member that was alone had none worth telling.
func (s *Server) Advertise(ctx context.Context, peers []string) error {
	e := s.running.Load()
	if e == nil {
		return errDown
	}
	self := e.Cluster().Member(e.MemberID())
	if self == nil || slices.Equal(self.PeerURLs, peers) {
		return nil
	}
	m := membership.Member{ID: self.ID, RaftAttributes: membership.RaftAttributes{PeerURLs: peers, IsLearner: self.IsLearner}}
	if _, err := e.UpdateMember(ctx, m); err != nil {
		return fmt.Errorf("etcd: change this member's peer URLs: %w", err)
	}
	return nil
}

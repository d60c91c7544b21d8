package etcd

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Status is what a member says of itself.
type Status struct {
	Size, InUse, Quota int64    // of its database, in bytes; Quota 0 if it does not say
	Alarms             []string // NOSPACE, CORRUPT
	Learner            bool
	Leader             bool // it knows a leader
}

// Status asks the member at an endpoint. Alarms are the whole cluster's record
// of that member.
func (m *Members) Status(ctx context.Context, endpoint string) (Status, error) {
	r, err := m.c.Status(ctx, endpoint)
	if err != nil {
		return Status{}, fmt.Errorf("etcd: status of %s: %w", endpoint, err)
	}
	s := Status{Size: r.DbSize, InUse: r.DbSizeInUse, Quota: r.DbSizeQuota, Learner: r.IsLearner, Leader: r.Leader != 0}
	alarms, err := m.c.AlarmList(ctx)
	if err != nil {
		return s, fmt.Errorf("etcd: alarms: %w", err)
	}
	for _, a := range alarms.Alarms {
		if a.MemberID == r.Header.MemberId && a.Alarm != etcdserverpb.AlarmType_NONE {
			s.Alarms = append(s.Alarms, a.Alarm.String())
		}
	}
	return s, nil
}
